"""Contamination: an evaluation question inside of a training question is found, one about another
thing is not.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.builders import example
from domainfusion.distillation.duplicates import FEWEST_WORDS, EvaluationSets, Leak, Subsets
from domainfusion.distillation.text.words import content_words, words_of
from domainfusion.errors import ConfigurationError
from domainfusion.types import Message

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
