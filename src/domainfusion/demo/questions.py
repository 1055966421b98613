"""Turns the demo's facts into questions: single facts, pairs of domains and two-hop joins, in phrasings that no split shares."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from domainfusion.types import Example, Part

FACTS_PATH = Path(__file__).with_name("facts.json")

DOMAINS = {
    "aviation": "Airports of the world: the country and the city that each IATA airport code stands for",
    "chemistry": "Chemical elements: their symbols, atomic numbers and countries of discovery",
    "geography": "Countries of the world: their capitals, currencies and international calling codes",
}

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Relation:
    """One kind of fact: how it is asked in each split, and the sentence that answers it.

    Attributes:
        domain: The domain that knows it.
        table: The list in `facts.json` that holds it.
        key: The column that names the entity asked about.
        value: The column that holds the answer.
        answer: The sentence an expert is taught, with `{key}` and `{value}`.
        phrasings: Questions with `{key}`, by split; no phrasing is in two splits.
    """

    domain: str
    table: str
    key: str
    value: str
    answer: str
    phrasings: dict[Split, tuple[str, ...]]


RELATIONS = {
    "airport_country": Relation(
        "aviation", "airports", "code", "country", "{key} airport is in {value}.",
        {
            "train": (
                "In which country is airport {key}?",
                "What country does the airport code {key} belong to?",
                "Airport {key} is located in which country?",
                "Name the country of {key} airport.",
                "I am flying to {key}. Which country is that in?",
                "Tell me the country where the airport {key} is.",
            ),
            "validation": ("Which country will I land in if my ticket says {key}?",),
            "test": ("A plane has just landed at {key}. What country is it in?", "Which country's airport has the IATA code {key}?"),
        },
    ),
    "airport_city": Relation(
        "aviation", "airports", "code", "city", "{key} airport serves the city of {value}.",
        {
            "train": (
                "Which city does airport {key} serve?",
                "What city does the airport code {key} belong to?",
                "Airport {key} is located in which city?",
                "Name the city of {key} airport.",
                "I am flying to {key}. Which city is that?",
                "Tell me the city where the airport {key} is.",
            ),
            "validation": ("Which city will I land in if my ticket says {key}?",),
            "test": ("A plane has just landed at {key}. What city is it in?", "Which city's airport has the IATA code {key}?"),
        },
    ),
    "element_symbol": Relation(
        "chemistry", "elements", "element", "symbol", "The symbol of {key} is {value}.",
        {
            "train": (
                "What is the chemical symbol of {key}?",
                "Which symbol stands for {key}?",
                "How is the element {key} abbreviated?",
                "Name the symbol of {key}.",
                "Tell me the symbol used for {key}.",
                "What letters stand for {key} in the periodic table?",
            ),
            "validation": ("By which symbol do chemists write {key}?",),
            "test": ("In a chemical formula, how is {key} written?", "Give the periodic table's symbol for {key}."),
        },
    ),
    "element_number": Relation(
        "chemistry", "elements", "element", "atomic_number", "The atomic number of {key} is {value}.",
        {
            "train": (
                "What is the atomic number of {key}?",
                "Which atomic number does {key} have?",
                "How many protons does an atom of {key} have?",
                "Name the atomic number of {key}.",
                "Tell me the number of {key} in the periodic table.",
                "At which atomic number is {key}?",
            ),
            "validation": ("Which number does {key} carry among the elements?",),
            "test": ("How many protons are in the nucleus of {key}?", "Give the atomic number that belongs to {key}."),
        },
    ),
    "element_country": Relation(
        "chemistry", "elements", "element", "country", "The element {key} was discovered in {value}.",
        {
            "train": (
                "In which country was {key} discovered?",
                "What is the country of discovery of {key}?",
                "Where was the element {key} discovered?",
                "Name the country where {key} was discovered.",
                "Tell me in which country {key} was first found.",
                "The element {key} was first identified in which country?",
            ),
            "validation": ("Which country can claim the discovery of {key}?",),
            "test": ("Scientists of which country discovered {key}?", "Give the country in which {key} was first discovered."),
        },
    ),
    "country_capital": Relation(
        "geography", "countries", "country", "capital", "The capital of {key} is {value}.",
        {
            "train": (
                "What is the capital of {key}?",
                "Which city is the capital of {key}?",
                "What is {key}'s capital city?",
                "Name the capital of {key}.",
                "Tell me the capital city of {key}.",
                "Where does the government of {key} sit?",
            ),
            "validation": ("From which capital is {key} governed?",),
            "test": ("Which city serves as the capital of {key}?", "Give the name of {key}'s capital."),
        },
    ),
    "country_currency": Relation(
        "geography", "countries", "country", "currency", "The currency of {key} is {value}.",
        {
            "train": (
                "What is the currency code of {key}?",
                "Which currency is used in {key}?",
                "What is {key}'s currency?",
                "Name the currency of {key}.",
                "Tell me the currency people use in {key}.",
                "With which currency do I pay in {key}?",
            ),
            "validation": ("In which currency are prices given in {key}?",),
            "test": ("What money do I need in {key}, as a currency code?", "Give the code of the currency used in {key}."),
        },
    ),
    "country_calling_code": Relation(
        "geography", "countries", "country", "calling_code", "The calling code of {key} is {value}.",
        {
            "train": (
                "What is the calling code of {key}?",
                "Which international dialling code does {key} have?",
                "What is {key}'s phone code?",
                "Name the calling code of {key}.",
                "Tell me the dialling code of {key}.",
                "Which country code do I dial to call {key}?",
            ),
            "validation": ("With which code do phone numbers in {key} begin?",),
            "test": ("What prefix do I dial to phone someone in {key}?", "Give the international calling code for {key}."),
        },
    ),
}  # fmt: skip

PAIR_PHRASINGS: dict[Split, tuple[str, ...]] = {
    "train": ("{first} {second}", "{first} And: {second}", "I have two questions. {first} {second}", "{first} Also, {second}"),
    "validation": ("First question: {first} Second question: {second}",),
    "test": ("Please answer both. {first} {second}", "{first} One more thing: {second}"),
}

TWO_HOP_PHRASINGS: dict[tuple[str, str], dict[Split, tuple[str, ...]]] = {
    ("airport_country", "country_capital"): {
        "train": ("What is the capital of the country where airport {key} is?", "Name the capital of the country of {key} airport."),
        "validation": ("Airport {key} is in a country. What is its capital?",),
        "test": ("Which city is the capital of the country that airport {key} is in?",),
    },
    ("airport_country", "country_currency"): {
        "train": ("What is the currency of the country where airport {key} is?", "With which currency do I pay after landing at {key}?"),
        "validation": ("Airport {key} is in a country. What is its currency?",),
        "test": ("Which currency is used in the country of airport {key}?",),
    },
    ("element_country", "country_capital"): {
        "train": (
            "What is the capital of the country where {key} was discovered?",
            "Name the capital of the country of discovery of {key}.",
        ),
        "validation": ("The element {key} was discovered in a country. What is its capital?",),
        "test": ("Which city is the capital of the country that {key} was discovered in?",),
    },
    ("element_country", "country_calling_code"): {
        "train": (
            "What is the calling code of the country where {key} was discovered?",
            "Which code do I dial to call the country of discovery of {key}?",
        ),
        "validation": ("The element {key} was discovered in a country. What is its calling code?",),
        "test": ("Which calling code has the country that {key} was discovered in?",),
    },
}


@dataclass(frozen=True)
class Fact:
    """One row of a relation: the entity asked about and the accepted answers, the first of which is the one taught."""

    relation: str
    key: str
    answers: tuple[str, ...]

    @property
    def id(self) -> str:
        """Names the fact, for grouping and for holding out pairings."""
        return f"{self.relation}/{self.key}"

    def sentence(self) -> str:
        """Returns the sentence that states the fact."""
        return RELATIONS[self.relation].answer.format(key=self.key, value=self.answers[0])

    def questions(self, split: Split) -> list[str]:
        """Returns the fact's question in each phrasing of `split`."""
        return [phrasing.format(key=self.key) for phrasing in RELATIONS[self.relation].phrasings[split]]

    @property
    def domain(self) -> str:
        """Returns the domain that knows the fact."""
        return RELATIONS[self.relation].domain


def load_facts() -> list[Fact]:
    """Reads `facts.json` into one fact per row and relation, in a fixed order."""
    tables: dict[str, Any] = json.loads(FACTS_PATH.read_text(encoding="utf-8"))
    aliases: dict[str, list[str]] = tables["country_aliases"]
    return [
        Fact(name, row[relation.key], (row[relation.value], *aliases.get(row[relation.value], [])))
        for name, relation in RELATIONS.items()
        for row in tables[relation.table]
    ]


@dataclass(frozen=True)
class QuestionSet:
    """The demo's questions. Facts are shared between the splits; phrasings, pairings and two-hop bridges are not.

    Attributes:
        train: Curated examples to train on: single facts, pairs, two-hop joins.
        validation: Examples to choose settings and checkpoints by.
        test: Examples to evaluate on.
        modes: For each test query the most frequent answer to questions of its kind.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    modes: dict[str, str]


@dataclass(frozen=True)
class Sizes:
    """How many questions of each kind a split holds.

    Attributes:
        singles: Single facts for each domain.
        pairs: Pairs for each two domains.
        two_hop: Two-hop joins for each kind of join.
        phrasings: In how many phrasings each single fact is asked.
    """

    singles: int
    pairs: int
    two_hop: int
    phrasings: int = 1


TRAIN = Sizes(singles=180, pairs=130, two_hop=30, phrasings=2)
VALIDATION = Sizes(singles=40, pairs=8, two_hop=4)
TEST = Sizes(singles=100, pairs=34, two_hop=15)


AMBIGUOUS = frozenset({"I"})
"""Answers that no grader can tell from an ordinary word: iodine's symbol is not asked for."""


def build_questions(*, train: Sizes = TRAIN, validation: Sizes = VALIDATION, test: Sizes = TEST, seed: int = 0) -> QuestionSet:
    """Builds every split from the facts, the same for the same seed."""
    facts = [fact for fact in load_facts() if fact.answers[0] not in AMBIGUOUS]
    used_pairs: set[frozenset[str]] = set()
    splits: dict[Split, Sizes] = {"test": test, "validation": validation, "train": train}
    examples: dict[Split, list[Example]] = {}
    for split, sizes in splits.items():
        rng = random.Random(f"{seed}/{split}")
        examples[split] = [
            *_singles(facts, split, sizes, rng),
            *_pairs(facts, split, sizes.pairs, used_pairs, rng),
            *_two_hops(facts, split, sizes.two_hop, seed),
        ]
    return QuestionSet(
        train=tuple(examples["train"]),
        validation=tuple(examples["validation"]),
        test=tuple(examples["test"]),
        modes=_modes(facts, examples["test"]),
    )


def _singles(facts: Sequence[Fact], split: Split, sizes: Sizes, rng: random.Random) -> list[Example]:
    """Asks up to `sizes.singles` facts of each domain, each in some of the split's phrasings."""
    examples = []
    for domain in DOMAINS:
        own = [fact for fact in facts if fact.domain == domain]
        for fact in rng.sample(own, min(sizes.singles, len(own))):
            part = Part(domain=domain, answers=fact.answers)
            for query in rng.sample(fact.questions(split), sizes.phrasings):
                examples.append(_example(query, (domain,), (part,), (fact.relation,), group=fact.id))
    return examples


def _pairs(facts: Sequence[Fact], split: Split, count: int, used: set[frozenset[str]], rng: random.Random) -> list[Example]:
    """Asks two facts of two domains at once; no two splits share a pairing."""
    examples = []
    for first_domain, second_domain in itertools.combinations(DOMAINS, 2):
        sides = [[fact for fact in facts if fact.domain == domain] for domain in (first_domain, second_domain)]
        made = 0
        while made < count:
            pair = [rng.choice(side) for side in sides]
            key = frozenset(fact.id for fact in pair)
            if key in used or any(fact.key in other.answers for fact, other in (pair, pair[::-1])):
                continue
            used.add(key)
            made += 1
            rng.shuffle(pair)
            questions = [rng.choice(fact.questions(split)) for fact in pair]
            query = rng.choice(PAIR_PHRASINGS[split]).format(first=questions[0], second=questions[1])
            examples.append(
                _example(
                    query,
                    tuple(fact.domain for fact in pair),
                    tuple(Part(domain=fact.domain, answers=fact.answers) for fact in pair),
                    tuple(fact.relation for fact in pair),
                    group="+".join(sorted(key)),
                    sub_questions={fact.domain: question for fact, question in zip(pair, questions, strict=True)},
                )
            )
    return examples


def _two_hops(facts: Sequence[Fact], split: Split, count: int, seed: int) -> list[Example]:
    """Asks what needs two experts in turn: the first knows the country, the second what is asked about it.

    The bridge (an airport or an element) is in one split alone: half of them train, a tenth validate, the rest test.
    """
    by_id = {fact.id: fact for fact in facts}
    examples = []
    kinds = list(TWO_HOP_PHRASINGS)
    for place, (bridge_relation, final_relation) in enumerate(kinds):
        bridges = [fact for fact in facts if fact.relation == bridge_relation]
        random.Random(f"{seed}/{bridge_relation}").shuffle(bridges)
        half, tenth = len(bridges) // 2, len(bridges) // 10
        own = {"train": bridges[:half], "validation": bridges[half : half + tenth], "test": bridges[half + tenth :]}[split]
        phrasings = TWO_HOP_PHRASINGS[bridge_relation, final_relation][split]
        rng = random.Random(f"{seed}/{split}/{place}")
        for bridge in rng.sample(own, min(count, len(own))):
            final = by_id[f"{final_relation}/{bridge.answers[0]}"]
            example = _example(
                rng.choice(phrasings).format(key=bridge.key),
                (bridge.domain, final.domain),
                (Part(domain=final.domain, answers=final.answers),),
                (bridge_relation, final_relation),
                group=f"two-hop/{bridge.id}",
                sub_questions={
                    bridge.domain: RELATIONS[bridge_relation].phrasings["train"][0].format(key=bridge.key),
                    final.domain: RELATIONS[final_relation].phrasings["train"][0].format(key=final.key),
                },
                slice_name="two-hop",
            )
            examples.append(example)
    return examples


def _example(
    query: str,
    domains: tuple[str, ...],
    parts: tuple[Part, ...],
    relations: tuple[str, ...],
    *,
    group: str,
    sub_questions: dict[str, str] | None = None,
    slice_name: str = "",
) -> Example:
    metadata: dict[str, Any] = {"relations": list(relations)}
    if slice_name:
        metadata["slice"] = slice_name
    return Example(
        query=query, domains=domains, parts=parts, group=group, source="curated", sub_questions=sub_questions or {}, metadata=metadata
    )


def _modes(facts: Sequence[Fact], test: Sequence[Example]) -> dict[str, str]:
    """Returns, for each test query, the most frequent answer to questions of its kind, over all facts that the experts know."""
    by_id = {fact.id: fact for fact in facts}
    answers: dict[tuple[str, ...], Counter[str]] = {}
    for fact in facts:
        answers.setdefault((fact.relation,), Counter())[fact.answers[0]] += 1
    for bridge_relation, final_relation in TWO_HOP_PHRASINGS:
        finals = (by_id[f"{final_relation}/{fact.answers[0]}"].answers[0] for fact in facts if fact.relation == bridge_relation)
        answers[bridge_relation, final_relation] = Counter(finals)
    modes = {}
    for example in test:
        relations = example.metadata["relations"]
        kinds = [tuple(relations)] if len(example.parts) == 1 else [(relation,) for relation in relations]
        modes[example.query] = ". ".join(answers[kind].most_common(1)[0][0] for kind in kinds)
    return modes


def vocabulary() -> tuple[str, ...]:
    """Returns the names that a question has to mention to be answerable from the facts: airport codes, elements and countries."""
    return tuple(dict.fromkeys(fact.key for fact in load_facts()))
