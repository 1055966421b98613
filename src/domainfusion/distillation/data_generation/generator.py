"""The data generator: where training examples come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example


@dataclass(frozen=True)
class Generated:
    """The examples of one generator, with what it took to get them.

    Attributes:
        examples: The accepted examples.
        asked: Questions that the generation model was asked for.
        rejected: How many were turned down, by reason.
        wanted: How many examples were wanted; None where no number was.
        judged: How many questions a judge or a classifier compared with the domains that they were
            written for.
        passed: How many of these agree with them.
        wanted_cross_domain: How many of the wanted examples need several domains; None where no
            number was.
    """

    examples: tuple[Example, ...]
    asked: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    wanted: int | None = None
    judged: int = 0
    passed: int = 0
    wanted_cross_domain: int | None = None

    @property
    def acceptance_rate(self) -> float | None:
        """The share of the judged questions that passed; None where none was judged."""
        return self.passed / self.judged if self.judged else None

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    def __len__(self) -> int:
        return len(self.examples)


class DataGenerator(ABC):
    """Makes training examples. A generator of your own implements `generate`, without `ask` where
    it calls no model.

    One that can make more examples where they are wanted most also takes the keyword `focus`, a
    `Focus`: None at first, and then one for each round of a refinement.

    A run keeps a generator's attributes in its `run.json`, to know its inputs again, but for those
    whose names begin with an underscore: that is where a secret belongs.
    """

    @abstractmethod
    def generate(self, ask: Ask = ask_directly) -> Iterable[Example]:
        """Returns the examples.

        Args:
            ask: How a model is called. Within a run, answers asked for through it are kept, and a
                run that was interrupted does not ask for them again.

        Returns:
            The examples, in any iterable; `Generated` also says what was rejected.
        """
