"""Contamination: an evaluation question inside of a training question is found, one about another
thing is not.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.builders import example
from domainfusion.distillation.duplicates import EvaluationSets, Leak
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
