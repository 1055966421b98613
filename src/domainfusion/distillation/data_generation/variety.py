"""What makes prompts differ, so that the questions do: topics, who asks, how hard, in which
form.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from domainfusion.distillation.data_generation.replies import find_items
from domainfusion.errors import ConfigurationError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask
from domainfusion.prompts import TOPICS_PROMPT, fill
from domainfusion.types import Generation, Sampling, user

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
        if self.topics_per_domain < 0:
            raise ConfigurationError(
                "topics_per_domain is negative",
                received=self.topics_per_domain,
                allowed="a whole number from 0",
            )
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


NO_VARIETY = Variety(topics_per_domain=0, personas=(), difficulties=(), forms=())
"""Prompts that differ in their domains alone, for a model so small that every further word confuses
it.
"""


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
