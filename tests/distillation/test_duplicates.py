"""Duplicates: what asks the same is known again, what asks about something else is not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.builders import example
from domainfusion.distillation.duplicates import AlikeSets, Duplicates
from domainfusion.errors import ConfigurationError
from domainfusion.types import Message

BASE = "How much protein does a sprinter need after a long race?"


def likeness(one: str, other: str, threshold: float = 0.8, near: bool = True) -> str | None:
    seen = Duplicates(threshold)
    seen.add(example(one, domains=["a"]))
    return seen.find(example(other, domains=["b"]), near=near)


@given(st.text(), st.floats(0.5, 1))
def test_everything_is_its_own_duplicate(text: str, threshold: float) -> None:
    assert likeness(text, text, threshold) == likeness(text, f" {text}  ", threshold) == "duplicate"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is Co?", "What is CO?"),
        ("What is mg?", "What is Mg?"),
        ("What is x²?", "What is x2?"),
        ("What does vitamin A do?", "What does vitamin do?"),
        ("Was heißt schon?", "Was heißt schön?"),
        ("¿Qué es el año?", "¿Qué es el ano?"),
        ("かきは何ですか？", "かぎは何ですか？"),
        ("Чей это дом?", "Чеи это дом?"),
        ("ม้าคืออะไร", "มาคืออะไร"),
        ("Con ma là gì?", "Con má là gì?"),
        ("What is C?", "What is C++?"),
    ],
)
def test_two_questions_that_a_person_means_as_two_are_two(one: str, other: str) -> None:
    assert likeness(one, other, near=False) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where is Tokyo?", "Where is To\u200bkyo?"),
        ("Where is Tokyo?", "where is tokyo?"),
        ("WHAT IS GOLD?", "What is gold?"),
        ("What is Ohm’s law?", "What is  Ohm's law?"),
        ("Wo entspringt die Düna?", "Wo entspringt die Du\u0308na?"),
    ],
)
def test_one_question_in_two_spellings_is_one(one: str, other: str) -> None:
    assert likeness(one, other, near=False) == "duplicate"


@pytest.mark.parametrize(
    "other",
    [
        "How much protein would the sprinter need after a long race?",
        "After a long race, how much protein does a sprinter need?",
    ],
)
def test_other_words_for_the_same_are_a_near_duplicate(other: str) -> None:
    assert likeness(BASE, other) == likeness(other, BASE) == "near-duplicate"
    assert likeness(BASE, other, threshold=1.0) is likeness(BASE, other, near=False) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "What is the capital of the country where airport NRT is?",
            "What is the capital of the country where airport CDG is?",
        ),
        (
            "What is the largest lake in the north of Peru?",
            "What is the largest lake in the north of Kenya?",
        ),
        (
            "How long does a run of 5 km take in the rain?",
            "How long does a run of 10 km take in the rain?",
        ),
        (
            "How long is a flight from Lima to Nairobi?",
            "How long is a flight from Nairobi to Lima?",
        ),
        (BASE, "How much water does a swimmer need after a long race?"),
    ],
)
def test_a_question_about_another_thing_is_new(one: str, other: str) -> None:
    assert likeness(one, other) is likeness(other, one) is None


def test_after_other_turns_the_same_question_is_another_one() -> None:
    seen = Duplicates()
    seen.add(example("Where is it?", domains=["a"]))
    turns = (
        Message("user", "I look for the airport of Tokyo."),
        Message("assistant", "It is called Narita."),
    )
    assert seen.find(example("Where is it?", domains=["a"], history=turns)) is None


@given(
    st.lists(
        st.sampled_from(
            ["protein", "water", "sleep", "sprinter", "race", "long", "rain", "muscle"]
        ),
        min_size=1,
        max_size=9,
    )
)
def test_the_order_of_words_changes_nothing(words: list[str]) -> None:
    assert likeness(" ".join(words), " ".join(reversed(words))) in ("duplicate", "near-duplicate")


@pytest.mark.parametrize("threshold", [0.4, -1, 1.1, float("nan")])
def test_a_threshold_that_is_no_share_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigurationError, match="threshold"):
        Duplicates(threshold)


WORDS = [f"w{number}" for number in range(14)]
SETS = st.tuples(
    st.frozensets(st.sampled_from(WORDS), min_size=1),
    st.sampled_from([(), ("peru",), ("peru", "kenya")]),
)


def first_of_all(
    members: list[tuple[frozenset[str], tuple[str, ...]]],
    words: frozenset[str],
    names: tuple[str, ...],
    threshold: float,
) -> int | None:
    """Returns what `AlikeSets.first` is to return, found by looking at every set."""
    for place, (other, other_names) in enumerate(members):
        if names == other_names and len(words & other) >= threshold * len(words | other):
            return place
    return None


@given(st.lists(SETS, max_size=40), st.sampled_from([0.5, 0.6, 2 / 3, 0.75, 0.8, 0.9, 0.99]))
@settings(max_examples=300)
def test_the_same_sets_are_alike_as_when_each_is_looked_at(
    members: list[tuple[frozenset[str], tuple[str, ...]]], threshold: float
) -> None:
    seen = AlikeSets(threshold)
    before: list[tuple[frozenset[str], tuple[str, ...]]] = []
    for words, names in members:
        assert seen.first(words, names) == first_of_all(before, words, names, threshold)
        seen.add(words, names)
        before.append((words, names))


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_sets_of_any_size_are_found_as_when_each_is_looked_at(threshold: float) -> None:
    """Of up to 80 words, most of them near the border between alike and not alike."""
    rng = random.Random(5)
    seen = AlikeSets(threshold)
    before: list[tuple[frozenset[str], tuple[str, ...]]] = []
    found = 0
    for _ in range(600):
        words = frozenset(f"w{rng.randrange(120)}" for _ in range(rng.choice([3, 12, 31, 60, 80])))
        if before and rng.random() < 0.8:
            base = sorted(rng.choice(before)[0])
            changed = round(len(base) * (1 - threshold) * rng.uniform(0.2, 0.9))
            kept = rng.sample(base, len(base) - changed)
            words = frozenset([*kept, *(f"w{rng.randrange(120)}" for _ in range(changed))])
        expected = first_of_all(before, words, (), threshold)
        assert seen.first(words, ()) == expected
        found += expected is not None
        seen.add(words, ())
        before.append((words, ()))
    assert 100 < found < 600


class Compared(frozenset[str]):
    """A set that counts how often it is compared."""

    count = 0

    def __and__(self, other: object) -> frozenset[str]:
        Compared.count += 1
        return frozenset(self) & other  # type: ignore[operator]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_questions_of_one_template_are_not_compared_with_each_other(slots: int) -> None:
    template = ["heat", "metal", "wire", "glows", "night"]
    values = 2000 if slots == 1 else 40
    seen, rng = AlikeSets(0.8), random.Random(1)
    asked = [
        Compared(
            [
                *template[slots - 1 :],
                *(f"slot{slot} {rng.randrange(values)}" for slot in range(slots)),
            ]
        )
        for _ in range(2000)
    ]
    Compared.count = 0
    for words in dict.fromkeys(asked):
        if seen.first(words, ()) is None:
            seen.add(words, ())
    assert Compared.count < 2 * len(asked)
