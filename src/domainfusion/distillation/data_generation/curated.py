"""Examples that people wrote."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from domainfusion.distillation.data_generation.generator import DataGenerator, Generated
from domainfusion.distillation.examples import ExampleLike, read_examples
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import domains_of


class CuratedDataGenerator(DataGenerator):
    """Gives examples that people wrote.

    Args:
        examples: Examples, dicts with the fields of `Example` (`query` and `domains` at least), or the path of a JSON Lines or JSON
            file of such dicts; see `read_examples`.
        num_examples: Take a random sample of this size; by default all.
        seed: Seed of the sample.

    Raises:
        DataError: An entry can't be read; the message names its file and line, or its position.
    """

    def __init__(self, examples: str | Path | Sequence[ExampleLike], *, num_examples: int | None = None, seed: int = 0) -> None:
        self.examples = tuple(read_examples(examples))
        if not self.examples:
            raise DataError("There are no curated examples", received=str(examples), fix="give at least one")
        if num_examples is not None and not 1 <= num_examples <= len(self.examples):
            raise ConfigurationError("num_examples is out of range", received=num_examples, allowed=f"1 to {len(self.examples)}")
        self.num_examples = num_examples
        self.seed = seed

    @property
    def domains(self) -> tuple[str, ...]:
        """Every domain that the examples name."""
        return domains_of(self.examples)

    def generate(self, ask: Ask = ask_directly) -> Generated:
        """Returns the curated examples; no model is asked."""
        if self.num_examples is None:
            return Generated(self.examples)
        return Generated(tuple(random.Random(self.seed).sample(self.examples, self.num_examples)))
