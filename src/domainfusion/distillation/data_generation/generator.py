"""The data generator: the interface of an extension, and the settings that vary its prompts."""

from __future__ import annotations

import inspect
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domainfusion.checks import check_count
from domainfusion.distillation.data_generation.replies import find_items
from domainfusion.errors import ConfigurationError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.prompts import TOPICS_PROMPT, fill
from domainfusion.training.mixtures import apportion
from domainfusion.types import Example, Generation, Sampling, user


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


TOKENS_A_TOPIC = 16
_LONGEST_TOPIC = 100


@dataclass(frozen=True, kw_only=True)
class Variety:
    """What prompts differ in; each prompt gets one of each, all of them equally often.

    Attributes:
        topics_per_domain: How many topics of each domain the generation model is asked to list; 0
            for none.
        topics: Topics of your own, by domain; of these domains the model lists none.
        personas: Who asks.
        difficulties: How hard the questions are.
        forms: Which form they have.

    Raises:
        ConfigurationError: The number of topics is negative, or one text stands where there should
            be several.
    """

    topics_per_domain: int = 20
    topics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    personas: tuple[str, ...] = (
        "a beginner",
        "a student before an exam",
        "a practitioner with a case at hand",
        "a teacher",
        "a journalist",
        "a researcher from another field",
        "an engineer",
        "a curious layperson",
    )
    difficulties: tuple[str, ...] = (
        "easy: a single fact",
        "medium: an explanation",
        "hard: several steps of reasoning",
    )
    forms: tuple[str, ...] = (
        "a direct question",
        "a question that begins with a short situation",
        "a comparison of two things",
        "a question for a cause",
        "a question for a number or a quantity",
        "a question for what to do",
        "a question for what happens if something changes",
    )

    def __post_init__(self) -> None:
        check_count("topics_per_domain", self.topics_per_domain, 0)
        if not isinstance(self.topics, Mapping):
            raise ConfigurationError(
                "topics is not a mapping",
                received=self.topics,
                fix='write topics={"domain": ("...", "...")}',
            )
        lists = {"personas": self.personas, "difficulties": self.difficulties, "forms": self.forms}
        lists |= {f"topics of {domain}": topics for domain, topics in self.topics.items()}
        for name, given in lists.items():
            if isinstance(given, str):
                raise ConfigurationError(
                    f"{name} is one text instead of several",
                    received=given,
                    fix=f"write ({given!r},)",
                )

    def check_topics(self, domains: Collection[str]) -> None:
        """Raises a `ConfigurationError` where topics are of a domain that is not there."""
        strange = [domain for domain in self.topics if domain not in domains]
        if strange:
            raise ConfigurationError(
                "variety has topics of an unknown domain",
                received=strange[0],
                allowed=", ".join(domains),
            )


class Seeds:
    """Deals what prompts differ in, for each combination of domains from its own deck.

    Args:
        variety: What they differ in.
        topics: The topics of each domain.
        seed: Seed of the decks' order.
    """

    def __init__(self, variety: Variety, topics: Mapping[str, Sequence[str]], seed: int) -> None:
        self._variety = variety
        self._topics = topics
        self._seed = seed
        self._decks: dict[tuple[str, ...], Iterator[str]] = {}

    def draw(self, domains: tuple[str, ...]) -> str:
        """Returns the lines that the next prompt for these domains has beside its task."""
        kinds: dict[str, Sequence[str]] = {
            f"Topic in {domain}": self._topics.get(domain, ()) for domain in domains
        }
        kinds |= {
            "Asked by": self._variety.personas,
            "Difficulty": self._variety.difficulties,
            "Form": self._variety.forms,
        }
        lines = [
            f"{kind}: {self._next((*domains, kind), items)}"
            for kind, items in kinds.items()
            if items
        ]
        return "\n".join(lines)

    def _next(self, deck: tuple[str, ...], items: Sequence[str]) -> str:
        if deck not in self._decks:
            self._decks[deck] = _dealt(items, random.Random(f"{self._seed}/{'/'.join(deck)}"))
        return next(self._decks[deck])


def list_topics(
    model: LanguageModel, domains: Mapping[str, str], variety: Variety, sampling: Sampling, ask: Ask
) -> dict[str, list[str]]:
    """Returns topics of each domain: the given ones, else what the model lists, which may be fewer
    than asked for.
    """
    count = variety.topics_per_domain
    given = {domain: list(topics) for domain, topics in variety.topics.items()}
    listed = {name: text for name, text in domains.items() if name not in given}
    if not count or not listed:
        return given
    values = [
        {"count": str(count), "domain": name, "description": text} for name, text in listed.items()
    ]
    prompts = [user(fill(TOPICS_PROMPT, value)) for value in values]
    replies = ask(
        model,
        prompts,
        Sampling(max_new_tokens=TOKENS_A_TOPIC * count, seed=sampling.seed),
        label="topics",
    )
    return given | {
        name: _topics_in(reply)[:count] for name, reply in zip(listed, replies, strict=True)
    }


def _topics_in(reply: Generation) -> list[str]:
    if reply.finish_reason in ("refused", "filtered"):
        return []
    return [topic for topic in find_items(reply.text) if len(topic) <= _LONGEST_TOPIC]


def _dealt(items: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Deals all items in random order, then all of them again in another."""
    while True:
        yield from rng.sample(items, len(items))
