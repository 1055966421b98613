"""The questions of the quality benchmark: the demo's facts, with at least 300 test items a domain
and 300 pairs.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from domainfusion.demo.questions import Sizes, build_questions
from domainfusion.demo.world import load_world, world_folder
from domainfusion.distillation.examples import slice_of
from domainfusion.types import Example, Part

WORLD = load_world(world_folder())

TRAIN = Sizes(singles=180, pairs=60, two_hop=20)
TRAINED_ON = {
    "aviation": 120,
    "chemistry": 120,
    "geography": 120,
    "cross-domain": 120,
    "two-hop": 60,
}
"""A third of what the demo trains on, and one phrasing a fact: where all students are near 1,
nothing tells the ways apart.
"""

VALIDATION = Sizes(singles=60, pairs=20, two_hop=5)
TEST = Sizes(singles=200, pairs=100, two_hop=15, phrasings=2)
SINGLES = 300
"""Single-domain test items a domain."""

MORE_AVIATION = {
    "airport_country": "Which country do I reach on a flight to {key}?",
    "airport_city": "Which city do I reach on a flight to {key}?",
}
"""A third test phrasing for aviation, whose two kinds of facts give 240 items in the two phrasings
of the demo.
"""


@dataclass(frozen=True)
class Questions:
    """Examples to train on, to choose by and to test on; phrasings, pairings and the two-hop
    questions' bridges are in one alone.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]


def build(seed: int = 0) -> Questions:
    """Builds the questions, the same for the same seed."""
    found = build_questions(
        WORLD, train=TRAIN, validation=VALIDATION, test=TEST, unasked=0.0, seed=seed
    )
    rng = random.Random(seed)
    test = []
    for name, examples in _by_slice((*found.test, *_more_aviation())).items():
        crossing = name in ("cross-domain", "two-hop")
        test += examples if crossing else rng.sample(examples, SINGLES)
    kept = _by_slice(found.train)
    train = [
        example for name, count in TRAINED_ON.items() for example in rng.sample(kept[name], count)
    ]
    return Questions(tuple(train), found.validation, tuple(test))


def gold_target(example: Example) -> str:
    """Returns the sentences that state the facts behind an example, in the order of its domains."""
    facts = WORLD.by_id
    if example.group.startswith("two-hop/"):
        bridge = facts[example.group.removeprefix("two-hop/")]
        chain = [bridge, facts[f"{example.metadata['relations'][1]}/{bridge.answers[0]}"]]
    else:
        chain = sorted(
            (facts[name] for name in example.group.split("+")),
            key=lambda fact: example.domains.index(fact.domain),
        )
    return " ".join(fact.sentence() for fact in chain)


def _by_slice(examples: Iterable[Example]) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for example in examples:
        found.setdefault(slice_of(example), []).append(example)
    return found


def _more_aviation() -> list[Example]:
    return [
        Example(
            query=MORE_AVIATION[fact.name].format(key=fact.key),
            domains=("aviation",),
            parts=(Part(domain="aviation", answers=fact.answers),),
            group=fact.id,
            source="curated",
            metadata={"relations": [fact.name]},
        )
        for fact in WORLD.facts
        if fact.name in MORE_AVIATION
    ]
