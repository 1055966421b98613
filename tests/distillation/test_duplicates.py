"""Duplicates: what asks the same is known again, what asks about something else is not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.builders import example
from domainfusion.distillation.duplicates import (
    FEWEST_WORDS,
    AlikeSets,
    Duplicates,
    EvaluationSets,
    Leak,
    Subsets,
)
from domainfusion.distillation.text.words import content_words, words_of
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
def test_a_threshold_that_is_not_a_share_is_refused(threshold: float) -> None:
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


# Contamination


ASKED = (
    "Which metal is used in the wires of an electric heater that glows in the dark of a winter"
    " night?"
)
SHORT = "What is the capital of Peru?"


def leak(asked: str, trained: str, **settings: object) -> Leak | None:
    sets = EvaluationSets({"test": [example(asked, domains=["a"])]}, **settings)  # type: ignore[arg-type]
    return sets.find(example(trained, domains=["a"]))


@given(st.text(min_size=1))
def test_every_question_contains_itself(text: str) -> None:
    assert leak(text, f"  {text} ") == Leak("test", text, exact=True)


@given(
    before=st.lists(st.sampled_from(["please", "tell", "me", "7"])),
    after=st.lists(st.sampled_from(["thanks", "now", "Peru"])),
)
@pytest.mark.parametrize("asked", [ASKED, SHORT])
def test_a_question_among_other_words_is_found(
    asked: str, before: list[str], after: list[str]
) -> None:
    found = leak(asked, f"{' '.join(before)} {asked.upper()} {' '.join(after)}")
    assert found is not None and found.query == asked


def test_most_of_a_long_question_is_enough_and_half_of_it_is_not() -> None:
    words = ASKED.split()
    most = " ".join([*words[:18], "cold", *words[18:]])
    half = " ".join([*words[:9], "before", *words[9:]])
    assert leak(ASKED, most) == Leak("test", ASKED, exact=False)
    assert (
        leak(ASKED, half)
        is leak(ASKED, most, containment=1.0)
        is leak(ASKED, most, ngram_words=0)
        is None
    )


@pytest.mark.parametrize(
    ("asked", "trained"),
    [
        ("In which country is the airport that pilots around the world call by the code NRT?",
         "In which country is the airport that pilots around the world call by the code CDG?"),
        (SHORT, "What is the capital of Kenya?"),
        (SHORT, "Of what is Peru the capital?"),
        ("Where is NRT?", "Where is NRT, and what is gold?"),
    ],
)  # fmt: skip
def test_a_question_about_another_thing_or_in_another_order_is_none(
    asked: str, trained: str
) -> None:
    assert leak(asked, trained) is None


def test_turns_count_as_part_of_the_question() -> None:
    turns = (Message("user", SHORT), Message("assistant", "It is Lima."))
    sets = EvaluationSets({"validation": [example(SHORT, domains=["a"])]})
    assert sets.find(example("Why is that so?", domains=["a"], history=turns)) == Leak(
        "validation", SHORT, exact=False
    )


def test_the_set_is_named_and_an_empty_one_holds_nothing() -> None:
    sets = EvaluationSets({"test": [], "heat benchmark": [example(ASKED, domains=["a"])]})
    assert sets.find(example(ASKED, domains=["b"])) == Leak("heat benchmark", ASKED, exact=True)
    assert EvaluationSets({}).find(example(ASKED, domains=["a"])) is None


@pytest.mark.parametrize(
    "settings", [{"ngram_words": 3}, {"containment": 0.0}, {"containment": 1.1}]
)
def test_a_number_out_of_range_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        EvaluationSets({}, **settings)  # type: ignore[arg-type]


def find_by_all(sets: list[str], trained: str, *, ngram_words: int, containment: float) -> str:
    """Returns the first question that stands in another one, found by looking at every one."""
    found = words_of(trained)
    for asked in sets:
        own = words_of(asked)
        size = min(ngram_words, len(own))
        if len(own) < FEWEST_WORDS or not content_words(asked) <= set(found):
            continue
        wanted = {tuple(own[at : at + size]) for at in range(len(own) - size + 1)}
        there = {tuple(found[at : at + size]) for at in range(len(found) - size + 1)}
        if len(wanted & there) >= containment * len(wanted):
            return asked
    return ""


FEW_WORDS = st.lists(
    st.sampled_from(["the", "of", "is", "w1", "w2", "w3"]), min_size=1, max_size=12
)


@given(st.lists(FEW_WORDS, max_size=12), FEW_WORDS, st.sampled_from([0.3, 0.7, 1.0]))
@settings(max_examples=300)
def test_the_same_questions_are_found_as_when_each_is_looked_at(
    asked: list[list[str]], trained: list[str], containment: float
) -> None:
    sets, text = [" ".join(words) for words in asked], " ".join(trained)
    index = EvaluationSets(
        {"test": [example(each, domains=["a"]) for each in sets]},
        ngram_words=4,
        containment=containment,
    )
    found = index.find(example(text, domains=["a"]))
    expected = find_by_all(sets, text, ngram_words=4, containment=containment)
    if found is None or not found.exact:
        assert (found.query if found else "") == expected


def test_of_one_template_only_what_is_among_the_words_is_looked_at() -> None:
    subsets = Subsets([frozenset({"heat", "metal", f"m{number}"}) for number in range(500)])
    assert subsets.within(frozenset({"heat", "metal", "m7", "m9", "cold"})) == [7, 9]
    assert subsets.within(frozenset({"heat", "m7"})) == []
    assert Subsets([frozenset(), frozenset({"a"})]).within(frozenset()) == [0]
