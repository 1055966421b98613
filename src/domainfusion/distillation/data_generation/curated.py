"""Examples that people wrote."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from domainfusion.distillation.data_generation.generator import DataGenerator, Focus, Generated
from domainfusion.distillation.examples import ExampleSource, read_examples
from domainfusion.distillation.review import read_review, write_review
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example, domains_of


class CuratedDataGenerator(DataGenerator):
    """Gives examples that people wrote.

    Args:
        examples: A file (JSON Lines, JSON, CSV, Parquet), a Hugging Face dataset, or a list of
            `Example`s and dicts with their fields (`query` and `domains`, or `messages`, at least);
            see `read_examples`.
        domain: The domain of entries that name none.
        fields: Where the source calls a field otherwise: its name there by the name here, such as
            `{"query": "question"}`.
        num_examples: Take a random sample of this size; by default all. Where a `Focus` is given,
            others are taken, as many at most.
        seed: Seed of the sample.

    Raises:
        DataError: An entry can't be read; the message names its file and line, or its position.
        ConfigurationError: `num_examples` is out of range, or `fields` contains an unknown field
            name.
        MissingDependencyError: A Parquet file, and the package pyarrow is not installed.
    """

    def __init__(
        self,
        examples: ExampleSource,
        *,
        domain: str = "",
        fields: Mapping[str, str] | None = None,
        num_examples: int | None = None,
        seed: int = 0,
    ) -> None:
        self.examples = tuple(read_examples(examples, domain=domain, fields=fields))
        self.left_out: Mapping[str, int] = {}
        if not self.examples:
            raise DataError(
                "There are no curated examples", received=str(examples), fix="give at least one"
            )
        if num_examples is not None and (
            not isinstance(num_examples, int) or not 1 <= num_examples <= len(self.examples)
        ):
            raise ConfigurationError(
                "num_examples is out of range",
                received=num_examples,
                allowed=f"1 to {len(self.examples)}",
            )
        self.num_examples = num_examples
        self.seed = seed
        self.domains = domains_of(self.examples)
        self.has_more = num_examples is not None and num_examples < len(self.examples)

    @classmethod
    def from_review(
        cls, path: str | Path, *, num_examples: int | None = None, seed: int = 0
    ) -> Self:
        """Gives the examples that an expert accepted or edited in a review file; see
        `write_review`.

        Raises:
            DataError: A row can't be read, or none was accepted.
        """
        reviewed = read_review(path)
        if not reviewed.examples:
            raise DataError(
                "The review accepts nothing",
                received=dict(reviewed.left_out),
                fix=f"write accept into {path} where it fits",
            )
        generator = cls(reviewed.examples, num_examples=num_examples, seed=seed)
        generator.left_out = reviewed.left_out
        return generator

    def write_review(self, path: str | Path) -> None:
        """Writes the examples to a review file; see `write_review`."""
        write_review(self.examples, path)

    def generate(self, ask: Ask = ask_directly, *, focus: Focus | None = None) -> Generated:
        """Returns the curated examples; no model is asked.

        Args:
            ask: See `DataGenerator.generate`.
            focus: Take others than those of the first sample, by its weights and none of its
                earlier ones; as many as there are.
        """
        if focus is not None:
            return self._others(focus)
        chosen = self._first
        return Generated(chosen, len(chosen) + sum(self.left_out.values()), self.left_out)

    @property
    def _first(self) -> tuple[Example, ...]:
        return (
            self.examples
            if self.num_examples is None
            else tuple(random.Random(self.seed).sample(self.examples, self.num_examples))
        )

    def _others(self, focus: Focus) -> Generated:
        known = {example.id for example in (*self._first, *focus.earlier)}
        drawn = random.Random(f"{self.seed}/{focus.round}").sample(
            self.examples, len(self.examples)
        )
        counts = focus.apportion(self.num_examples or 0, domains_of(self.examples))
        chosen: list[Example] = []
        for needed, count in counts.items():
            fitting = [
                example
                for example in drawn
                if set(example.domains) == set(needed) and example.id not in known
            ]
            chosen += fitting[:count]
        return Generated(tuple(chosen), wanted=sum(counts.values()))
