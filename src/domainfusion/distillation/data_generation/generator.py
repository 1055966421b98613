"""The data generator: where training examples come from, and how an extension is called."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domainfusion.errors import ConfigurationError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.training.mixtures import apportion
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
        replies: The first replies of a model that wrote no question at all, shortened.
    """

    examples: tuple[Example, ...]
    asked: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    wanted: int | None = None
    judged: int = 0
    passed: int = 0
    wanted_cross_domain: int | None = None
    replies: tuple[str, ...] = ()

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

    One that can make more examples where they are wanted most sets `has_more` and also takes the
    keyword `focus`, a `Focus`: None at first, and then one for each round of a refinement.

    A run keeps a generator's attributes in its `run.json`, to know its inputs again, but for those
    whose names begin with an underscore: that is where a secret belongs.

    Attributes:
        source: The kind of its examples, for `generation.json`.
        domains: The domains that it makes examples of, as names or with descriptions; None where
            that is not known beforehand.
        generation_model: The model that writes its examples; None where none does.
        judge: The model that judges them; None where none does.
        has_more: Whether it can make more examples for a refinement: its `generate` takes `focus`.
    """

    source: str = "custom"
    domains: Mapping[str, str] | Sequence[str] | None = None
    generation_model: LanguageModel | None = None
    judge: LanguageModel | None = None
    has_more: bool = False

    @abstractmethod
    def generate(self, ask: Ask = ask_directly) -> Iterable[Example]:
        """Returns the examples.

        Args:
            ask: How a model is called. Within a run, answers asked for through it are kept, and a
                run that was interrupted does not ask for them again.

        Returns:
            The examples, in any iterable; `Generated` also says what was rejected.
        """


def check_domains(domains: Mapping[str, str]) -> dict[str, str]:
    """Returns the domains as a dict.

    Raises:
        ConfigurationError: There are none, one has no name or no description, or two have the same
            name.
    """
    check_names(domains)
    for name, description in domains.items():
        if not isinstance(description, str) or not description.strip():
            raise ConfigurationError(
                f"The domain {name!r} has no description",
                received=description,
                fix="describe it in one line",
            )
    return dict(domains)


def check_names(domains: Mapping[str, Any]) -> None:
    """Raises a `ConfigurationError` where there are no domains, one has no name, or two differ in
    case and white space alone.
    """
    if not isinstance(domains, Mapping):
        raise ConfigurationError(
            "The domains are not a mapping", received=domains, fix='give {"name": ...}'
        )
    if not domains:
        raise ConfigurationError("There are no domains", received=domains, fix='give {"name": ...}')
    seen: dict[str, str] = {}
    for name in domains:
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError("A domain has no name", received=name, allowed="a text")
        other = seen.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            raise ConfigurationError(
                "Two domains have the same name",
                received=[other, name],
                fix="name each domain once",
            )


Domains = tuple[str, ...]
"""One domain, or several that an example needs together."""


@dataclass(frozen=True, kw_only=True)
class Focus:
    """Where more examples are wanted.

    Attributes:
        weights: How much is wanted of each domain, and of each combination of domains, in any unit.
        round: Which time it is that more are wanted, from 1: another one has other examples.
        earlier: The examples that are there already.

    Raises:
        ConfigurationError: A weight is not a number from 0, or none is above 0.
    """

    weights: Mapping[Domains, float]
    round: int = 1
    earlier: tuple[Example, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        weights = self.weights.values()
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise ConfigurationError(
                "A focus has no weight above 0",
                received=dict(self.weights),
                allowed="numbers from 0, one above 0",
            )

    def apportion(
        self, count: int, domains: Collection[str], *, most: int | None = None
    ) -> dict[Domains, int]:
        """Splits a number of examples by the weights, the largest remainders first.

        Args:
            count: How many examples are wanted.
            domains: What there can be examples of: weights of other domains count for nothing.
            most: How many domains an example can need at most; None for any number.

        Returns:
            The number of each domain and combination, without those of which none is wanted; their
            sum is `count`, or 0 where there can be no example of what is wanted.

        Example:
            >>> Focus(weights={("law",): 0.6, ("law", "tax"): 0.2, ("art",): 0.9}).apportion(4, ["law", "tax"])
            {('law',): 3, ('law', 'tax'): 1}
        """
        possible = {
            needed: weight
            for needed, weight in self.weights.items()
            if weight > 0 and set(needed) <= set(domains) and (most is None or len(needed) <= most)
        }
        return (
            {needed: number for needed, number in apportion(count, possible).items() if number}
            if possible
            else {}
        )


def options_for(method: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Returns those of the options that `method` has a parameter for; all of them where it takes
    any.

    Example:
        >>> options_for(lambda student, ask: None, ask="how", baselines="what")
        {'ask': 'how'}
    """
    parameters = inspect.signature(method).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return options
    taken = {
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return {name: value for name, value in options.items() if name in taken}
