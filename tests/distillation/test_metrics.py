"""Graders accept their gold and nothing that merely looks like it; reading a text loses nothing of
it.
"""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distillation.builders import example
from domainfusion.distillation.metrics import normalize, sentences, stated_parts, states, token_f1
from domainfusion.types import Example, Part

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZéüñçøæßåœÉÖ"
words = st.text(LETTERS + "0123456789", min_size=1, max_size=8)
phrases = st.lists(words, min_size=1, max_size=4).map(" ".join)
ARTICLES = {"a", "an", "the"}


@given(gold=phrases, before=phrases, after=phrases)
def test_a_text_states_the_answer_that_stands_in_it(gold: str, before: str, after: str) -> None:
    assert states(f"{before} {gold} {after}", gold)
    assert states(f"{before}: “{gold}”.", gold)


@given(gold=phrases)
def test_case_accents_and_a_leading_article_do_not_matter(gold: str) -> None:
    assume(gold.casefold() not in ARTICLES)
    assert states(gold.lower(), gold) or len(gold) <= 3
    assert states(gold, f"the {gold}")
    assert states(f"the {gold}", gold)
    assert states(gold.replace("é", "e"), gold) or len(gold) <= 3


@given(gold=st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=3))
def test_a_symbol_is_not_a_word_of_the_same_letters(gold: str) -> None:
    assert not states(f"so {gold.lower()} it goes", gold)
    assert states(f"It is {gold}.", gold)


@given(gold=words, more=st.text(LETTERS, min_size=1, max_size=3))
def test_a_longer_word_does_not_state_a_shorter_one(gold: str, more: str) -> None:
    assert not states(gold + more, gold)
    assert not states(more + gold, gold)


@pytest.mark.parametrize(
    ("text", "answer", "stated"),
    [
        ("It lies in Nigeria.", "Niger", False),
        ("Dial +4420.", "+44", False),
        ("Dial +44 20.", "+44", True),
        ("Its number is 260.", "26", False),
        ("The Republic of Congo.", "Republic of the Congo", True),
        ("Vitamin A.", "vitamin A", True),
        ("Vitamin A is found in carrots.", "vitamin A", True),
        ("Vitamin B12.", "vitamin A", False),
        ("Type B is a blood type.", "type A", False),
        ("A", "A", True),
        ("The answer is (A).", "A", True),
        ("B", "A", False),
        ("It is a B.", "A", False),
        ("", "A", False),
        ("Anything", "", False),
        ("Anything", " ", False),
        ("C++ and C#", "C++", True),
    ],
)
def test_an_answer_is_found_by_its_bounds(text: str, answer: str, stated: bool) -> None:
    assert states(text, answer) is stated


@given(text=st.text())
def test_normalizing_twice_changes_nothing(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


@given(golds=st.lists(phrases, min_size=1, max_size=4))
def test_the_grader_gives_its_gold_full_marks(golds: list[str]) -> None:
    asked = Example(
        query="?",
        domains=("d",),
        parts=tuple(Part(domain="d", answers=("no such word", gold)) for gold in golds),
    )
    score = stated_parts(asked, ", ".join(golds))
    assert score.value == 1
    assert score.parts == (1.0,) * len(golds)


def test_the_grade_is_the_share_of_parts() -> None:
    asked = example("Where is NRT, and what is gold?", {"aviation": "Japan", "chemistry": "Au"})
    assert stated_parts(asked, "In Japan.").parts == (1.0, 0.0)
    assert stated_parts(asked, "In Japan.").value == 0.5
    assert stated_parts(asked, "").value == 0


@given(reference=phrases)
def test_a_reference_in_words_is_right_word_for_word_and_partly_right_in_part(
    reference: str,
) -> None:
    asked = example("?", domains=["d"], reference=reference)
    exact = stated_parts(asked, reference)
    assert exact.value == pytest.approx(1)
    assert exact.parts == (1.0,)
    assert stated_parts(asked, f"{reference} unless otherwise").parts == (0.0,)


def test_an_answer_to_a_question_without_reference_is_unscored_and_not_zero() -> None:
    score = stated_parts(example("?", domains=["d"]), "anything")
    assert score.value is None
    assert score.reason


@given(first=phrases, second=phrases)
def test_f1_is_symmetric_and_a_share(first: str, second: str) -> None:
    assert token_f1(first, second) == pytest.approx(token_f1(second, first))
    assert 0 <= token_f1(first, second) <= 1


@given(text=phrases)
def test_f1_is_one_for_the_same_words_and_zero_for_none(text: str) -> None:
    assert token_f1(text, " ".join(reversed(text.split()))) == pytest.approx(1)
    assert token_f1("", text) == 0


@given(text=st.text(LETTERS + " .!?\n\"'()1", max_size=60))
def test_splitting_into_sentences_loses_no_word(text: str) -> None:
    assert " ".join(sentences(text)).split() == text.split()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Li came. She left.", 2),
        ("It is 3.5 km long.", 1),
        ("First\nSecond", 2),
        ("Really?! Yes.", 2),
        ("e.g. Rome is old.", 1),
    ],
)
def test_abbreviations_and_numbers_end_no_sentence(text: str, count: int) -> None:
    assert len(sentences(text)) == count
