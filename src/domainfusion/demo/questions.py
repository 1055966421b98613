"""Turns the facts of a world into questions of every split, in phrasings that no split shares.

A question asks a single fact, two facts of two domains (a pair), a fact that takes another one (two
hops), or a fact in the words of another domain (a border). Some rows of every table are kept out of
training and validation altogether: their facts are asked in the test set alone, in the slice
`unasked facts`.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from domainfusion.demo.world import Fact, Split, World
from domainfusion.distillation.metrics import states
from domainfusion.distillation.text.words import content_words
from domainfusion.prompts import fill
from domainfusion.types import Example, Part

TWO_HOP = "two-hop"
UNASKED = "unasked facts"
"""The slices of the test set that are neither domains nor cross-domain nor adversarial."""

UNASKED_SHARE = 0.2
"""Share of each table's rows that no training or validation question is about."""

_ATTEMPTS = 50
"""Draws for each pair that is wanted, after which a world is taken to have no more of them."""


@dataclass(frozen=True)
class Sizes:
    """How many questions of each kind a split holds at most.

    Attributes:
        singles: Single facts of each domain.
        pairs: Pairs of each two domains.
        two_hop: Two-hop questions of each join.
        borders: Questions of each border.
        phrasings: In how many phrasings each question is asked that is not a pair.
    """

    singles: int
    pairs: int
    two_hop: int
    borders: int = 0
    phrasings: int = 1


TRAIN = Sizes(singles=180, pairs=200, two_hop=30, borders=32)
VALIDATION = Sizes(singles=40, pairs=20, two_hop=6, borders=4)
TEST = Sizes(singles=100, pairs=34, two_hop=15, borders=6)


@dataclass(frozen=True)
class QuestionSet:
    """The questions of a world.

    Splits share facts; they share no phrasing, no pairing and no two-hop bridge. The unasked facts
    are in the test set alone.

    Attributes:
        train: Examples to train on.
        validation: Examples to choose settings and checkpoints by.
        test: Examples to evaluate on.
        asked: The facts that training and validation questions may ask.
        unasked: The facts that they don't.
        modes: For each test query the most frequent answer to questions of its kind.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    asked: tuple[Fact, ...]
    unasked: tuple[Fact, ...]
    modes: Mapping[str, str]


def build_questions(
    world: World,
    *,
    train: Sizes = TRAIN,
    validation: Sizes = VALIDATION,
    test: Sizes = TEST,
    unasked: float = UNASKED_SHARE,
    seed: int = 0,
) -> QuestionSet:
    """Builds every split from the facts, the same for the same seed.

    Args:
        world: The facts, and how they are asked for.
        train: How many training questions there are.
        validation: How many validation questions there are.
        test: How many test questions there are; of the unasked facts as many as of single facts.
        unasked: Share of each table's rows that only the test set asks about.
        seed: Seed of every choice.
    """
    rows = _unasked_rows(world, unasked, seed)
    gradable = [fact for fact in world.facts if fact.answers[0] not in world.not_asked]
    asked = [fact for fact in gradable if fact.place not in rows]
    kept_out = [fact for fact in gradable if fact.place in rows]
    used_pairs: set[frozenset[str]] = set()
    splits: dict[Split, Sizes] = {"test": test, "validation": validation, "train": train}
    examples: dict[Split, list[Example]] = {}
    for split, sizes in splits.items():
        rng = random.Random(f"{seed}/{split}")
        examples[split] = [
            *_singles(world, asked, split, sizes, rng),
            *_pairs(world, asked, split, sizes.pairs, used_pairs, rng),
            *_two_hops(world, asked, split, sizes, seed),
            *_borders(world, asked, split, sizes, seed),
        ]
    rng = random.Random(f"{seed}/{UNASKED}")
    examples["test"] += _singles(world, kept_out, "test", Sizes(test.singles, 0, 0), rng, UNASKED)
    return QuestionSet(
        train=tuple(examples["train"]),
        validation=tuple(examples["validation"]),
        test=tuple(examples["test"]),
        asked=tuple(asked),
        unasked=tuple(kept_out),
        modes=_modes(world, gradable, examples["test"]),
    )


def _unasked_rows(world: World, share: float, seed: int) -> set[tuple[str, int]]:
    """Chooses the rows that training is not to ask about, a share of every table.

    Of the rows of a table, in random order, those are taken that the fewest two-hop questions need,
    which leaves as many of these as possible. Tables in which joins end come first: the rows that
    lead to a row chosen there then cost nothing.
    """
    chains: list[tuple[tuple[str, int], tuple[str, int]]] = []
    for join in world.joins:
        for bridge in world.of_relation(join.bridge):
            final = world.end_of(join, bridge)
            if final is not None:
                chains.append((bridge.place, final.place))
    places: dict[str, list[tuple[str, int]]] = {}
    for place in dict.fromkeys(fact.place for fact in world.facts):
        places.setdefault(place[0], []).append(place)
    ends = {final[0] for _, final in chains}
    chosen: set[tuple[str, int]] = set()
    for table in sorted(places, key=lambda name: name not in ends):
        needed = Counter[tuple[str, int]]()
        for chain in chains:
            if not chosen.intersection(chain):
                needed.update(chain)
        drawn = random.Random(f"{seed}/{UNASKED}/{table}").sample(places[table], len(places[table]))
        count = round(share * len(drawn))
        if share > 0 and len(drawn) > 1:
            count = max(1, count)
        chosen.update(sorted(drawn, key=needed.__getitem__)[:count])
    return chosen


def _singles(
    world: World,
    facts: Sequence[Fact],
    split: Split,
    sizes: Sizes,
    rng: random.Random,
    slice_name: str = "",
) -> list[Example]:
    """Asks up to `sizes.singles` facts of each domain, each in some of the split's phrasings."""
    examples = []
    for domain in world.domains:
        own = [fact for fact in facts if fact.domain == domain]
        for fact in rng.sample(own, min(sizes.singles, len(own))):
            questions = fact.questions(split)
            for query in rng.sample(questions, min(sizes.phrasings, len(questions))):
                if not _gives_away(query, fact):
                    examples.append(_example(query, [fact], slice_name=slice_name))
    return examples


def _pairs(
    world: World,
    facts: Sequence[Fact],
    split: Split,
    count: int,
    used: set[frozenset[str]],
    rng: random.Random,
) -> list[Example]:
    """Asks two facts of two domains at once; no two splits share a pairing. Training asks every
    fact about as often as any other.
    """
    draw = _dealt if split == "train" else _chosen
    examples = []
    for domains in itertools.combinations(world.domains, 2):
        sides = [[fact for fact in facts if fact.domain == domain] for domain in domains]
        if not all(sides):
            continue
        made = 0
        draws = [draw(side, rng) for side in sides]
        # A small world leaves pairs to the splits that come later.
        wanted = min(count, len(sides[0]) * len(sides[1]) // 3)
        for _ in range(_ATTEMPTS * wanted):
            if made == wanted:
                break
            pair = [next(side) for side in draws]
            key = frozenset(fact.id for fact in pair)
            if key in used or any(fact.key in other.answers for fact, other in (pair, pair[::-1])):
                continue
            used.add(key)
            rng.shuffle(pair)
            questions = [rng.choice(fact.questions(split)) for fact in pair]
            phrasing = rng.choice(world.pairs.of(split))
            query = fill(phrasing, {"first": questions[0], "second": questions[1]})
            if any(_gives_away(query, fact) for fact in pair):
                continue
            made += 1
            group = "+".join(sorted(key))
            sub_questions = {fact.domain: text for fact, text in zip(pair, questions, strict=True)}
            examples.append(_example(query, pair, group=group, sub_questions=sub_questions))
    return examples


def _chosen(facts: Sequence[Fact], rng: random.Random) -> Iterator[Fact]:
    """Yields one fact after another, each drawn from all."""
    while True:
        yield rng.choice(facts)


def _dealt(facts: Sequence[Fact], rng: random.Random) -> Iterator[Fact]:
    """Yields all facts in random order, and again."""
    while True:
        yield from rng.sample(facts, len(facts))


def _two_hops(
    world: World, facts: Sequence[Fact], split: Split, sizes: Sizes, seed: int
) -> list[Example]:
    """Asks a fact through another one: half of the bridges for training, a tenth to validate."""
    known = {fact.id for fact in facts}
    examples = []
    for place, join in enumerate(world.joins):
        bridges = [fact for fact in facts if fact.name == join.bridge]
        random.Random(f"{seed}/{join.bridge}").shuffle(bridges)
        half, tenth = len(bridges) // 2, len(bridges) // 10
        own = {
            "train": bridges[:half],
            "validation": bridges[half : half + tenth],
            "test": bridges[half + tenth :],
        }[split]
        chains = [(bridge, world.end_of(join, bridge)) for bridge in own]
        usable = [(bridge, final) for bridge, final in chains if final and final.id in known]
        rng = random.Random(f"{seed}/{split}/{place}")
        for bridge, final in rng.sample(usable, min(sizes.two_hop, len(usable))):
            for phrasing in _drawn(join.questions.of(split), sizes.phrasings, rng):
                query = fill(phrasing, {"key": bridge.key})
                if _gives_away(query, final):
                    continue
                asked = {fact.domain: fact.questions("train")[0] for fact in (bridge, final)}
                example = _example(
                    query,
                    [bridge, final],
                    parts=[final],
                    group=f"two-hop/{bridge.id}",
                    sub_questions=asked,
                    slice_name=TWO_HOP,
                )
                examples.append(example)
    return examples


def _borders(
    world: World, facts: Sequence[Fact], split: Split, sizes: Sizes, seed: int
) -> list[Example]:
    """Asks facts in the words of another domain; the expert is asked in plain words."""
    examples = []
    for place, border in enumerate(world.borders):
        own = [fact for fact in facts if fact.name == border.relation]
        rng = random.Random(f"{seed}/{split}/border/{place}")
        for fact in rng.sample(own, min(sizes.borders, len(own))):
            for phrasing in _drawn(border.questions.of(split), sizes.phrasings, rng):
                query = fill(phrasing, {"key": fact.key})
                if not _gives_away(query, fact):
                    sub_questions = {fact.domain: fact.questions("train")[0]}
                    example = _example(query, [fact], sub_questions=sub_questions)
                    examples.append(replace(example, apparent_domain=border.looks_like))
    return examples


def _drawn(phrasings: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Draws up to `count` phrasings, no two alike."""
    first = rng.choice(phrasings)
    others = [phrasing for phrasing in phrasings if phrasing != first]
    return [first, *rng.sample(others, min(count - 1, len(others)))]


def _gives_away(query: str, fact: Fact) -> bool:
    """Whether a question states its answer, as that for the capital of Singapore does."""
    return states(query, fact.answers[0])


def _example(
    query: str,
    facts: Sequence[Fact],
    *,
    parts: Sequence[Fact] | None = None,
    group: str = "",
    sub_questions: Mapping[str, str] | None = None,
    slice_name: str = "",
) -> Example:
    metadata: dict[str, Any] = {
        "relations": [fact.name for fact in facts],
        "facts": [fact.id for fact in facts],
    }
    if slice_name:
        metadata["slice"] = slice_name
    return Example(
        query=query,
        domains=tuple(fact.domain for fact in facts),
        parts=_parts(facts if parts is None else parts),
        group=group or facts[0].id,
        source="curated",
        sub_questions=sub_questions or {},
        metadata=metadata,
    )


def _parts(facts: Sequence[Fact]) -> tuple[Part, ...]:
    return tuple(Part(domain=fact.domain, answers=fact.answers) for fact in facts)


def _modes(world: World, facts: Sequence[Fact], test: Sequence[Example]) -> dict[str, str]:
    """Returns, for each test query, the most frequent answer to questions of its kind.

    The answers are counted over all facts that the experts know.
    """
    known = {fact.id for fact in facts}
    answers: dict[tuple[str, ...], Counter[str]] = {}
    for fact in facts:
        answers.setdefault((fact.name,), Counter())[fact.answers[0]] += 1
    for join in world.joins:
        ends = (world.end_of(join, fact) for fact in facts if fact.name == join.bridge)
        finals = Counter(end.answers[0] for end in ends if end is not None and end.id in known)
        answers[join.bridge, join.final] = finals
    modes = {}
    for example in test:
        relations = example.metadata["relations"]
        one_answer = len(example.parts) == 1
        kinds = [tuple(relations)] if one_answer else [(relation,) for relation in relations]
        modes[example.query] = ". ".join(answers[kind].most_common(1)[0][0] for kind in kinds)
    return modes


class FactCheck:
    """Keeps a generated question that asks facts of a world, and adds them to it as its answer.

    A question asks a fact where it names the fact's key, and where every other content word is one
    of the relation's training questions (or of its `words`). That is strict on purpose: nothing
    enters training of which no fact says whether its target is right.

    Args:
        asked: The facts that may be asked.
        unasked: The facts that are kept out of training: what names one of their keys is rejected.
    """

    def __init__(self, asked: Sequence[Fact], unasked: Collection[Fact] = ()) -> None:
        self._asked = tuple(asked)
        kept_out = {fact.key for fact in unasked} - {fact.key for fact in asked}
        self._kept_out = tuple(sorted(kept_out))

    def __call__(self, example: Example) -> Example | str:
        """Returns the example with its facts, or why it is rejected."""
        if any(states(example.query, key) for key in self._kept_out):
            return "names what is kept out of training"
        named = [fact for fact in self._asked if states(example.query, fact.key)]
        if not named:
            return "names nothing that the experts know"
        chosen: list[Fact] = []
        for domain in example.domains:
            fact = _best(example.query, [fact for fact in named if fact.domain == domain])
            if fact is None:
                return "does not ask one fact of each of its domains"
            chosen.append(fact)
        known = set().union(*(_vocabulary(fact) for fact in chosen))
        if not content_words(example.query) <= known:
            return "asks for more than the facts say"
        if any(_gives_away(example.query, fact) for fact in chosen):
            return "gives its answer away"
        several = len(chosen) > 1
        sub_questions = {fact.domain: fact.questions("train")[0] for fact in chosen}
        return replace(
            example,
            parts=_parts(chosen),
            sub_questions=sub_questions if several else {},
            group="+".join(sorted(fact.id for fact in chosen)),
            metadata={**example.metadata, "facts": [fact.id for fact in chosen]},
        )


def _best(query: str, facts: Sequence[Fact]) -> Fact | None:
    """Returns the one fact whose vocabulary shares most words with a question; None for a tie."""
    words = content_words(query)
    shared = {fact: len(words & (_vocabulary(fact) - content_words(fact.key))) for fact in facts}
    most = max(shared.values(), default=0)
    best = [fact for fact, count in shared.items() if count == most]
    return best[0] if most and len(best) == 1 else None


def _vocabulary(fact: Fact) -> frozenset[str]:
    words = frozenset(word for text in fact.relation.words for word in content_words(text))
    return words.union(*(content_words(question) for question in fact.questions("train")))
