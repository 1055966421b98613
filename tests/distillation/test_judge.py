"""A judge is asked in both orders, is never believed on nonsense, and is held against people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.builders import example
from domainfusion.distillation.metrics import (
    AnswerPair,
    Judge,
    JudgedCoherence,
    JudgedConsistency,
    grade,
    judge_agreement,
)
from domainfusion.distillation.metrics.grading import grade_coherence, grade_texts
from domainfusion.distillation.metrics.judge import read_verdict
from domainfusion.errors import DataError, TemplateError
from domainfusion.models import ResponseStore, ScriptedModel

PROMPT = "{query}|{first}|{second}"


def by_length(question: str) -> str:
    """A judge with an opinion of its own: it prefers the longer answer."""
    _, first, second = question.split("|")
    return "same" if len(first) == len(second) else "A" if len(first) > len(second) else "B"


def judge(script: object, name: str = "judge") -> Judge:
    return Judge(ScriptedModel(script, name=name), PROMPT)  # type: ignore[arg-type]


ASKED = example("Why?", domains=["d"], reference="four")


@given(gold=st.text(min_size=1, max_size=20).filter(str.strip))
def test_a_judge_of_any_opinion_accepts_the_gold_itself(gold: str) -> None:
    asked = example("?", domains=["d"], reference=gold)
    for opinion in ("A", "B", "same", "Fine weather today."):
        assert grade_texts(judge(opinion), [asked], [gold])[0].value == 1


@pytest.mark.parametrize(("text", "value"), [("longer", 1), ("five", 1), ("no", 0)])
def test_an_answer_is_compared_with_the_accepted_one(text: str, value: float) -> None:
    assert grade_texts(judge(by_length), [ASKED], [text])[0].value == value


@pytest.mark.parametrize("opinion", ["A", "B"])
def test_a_judge_that_prefers_a_place_gives_ties(opinion: str) -> None:
    [found] = judge(opinion).compare([AnswerPair("Why?", "one", "two")])
    assert (found.preferred, found.consistent) == ("tie", False)
    assert grade_texts(judge(opinion), [ASKED], ["other"])[0].value == 0.5


@given(first=st.text("ab", max_size=4), second=st.text("ab", max_size=4))
def test_swapping_a_pair_swaps_the_preference(first: str, second: str) -> None:
    swapped = {"first": "second", "second": "first", "tie": "tie"}
    one, other = judge(by_length).compare(
        [AnswerPair("?", first, second), AnswerPair("?", second, first)]
    )
    assert other.preferred is not None
    assert one.preferred == swapped[other.preferred]
    assert one.consistent and other.consistent


def test_nonsense_leaves_an_answer_unscored_and_is_not_a_failure_of_the_answer() -> None:
    for reply in ("", "Both are lovely.", "A or B", "I'd say 7.", "A\nB\nC"):
        [score] = grade_texts(judge(reply), [ASKED], ["other"])
        assert score.value is None and "verdict" in score.reason
        assert score.readable


@given(reply=st.text(max_size=60))
def test_any_reply_is_a_verdict_or_none(reply: str) -> None:
    assert read_verdict(reply) in ("first", "second", "tie", None)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("A.", "first"),
        ("**B**", "second"),
        ("Answer B", "second"),
        ("Same", "tie"),
        ("The better answer is A, since it is right.", "first"),
        ("Let me compare them.\n\nB", "second"),
        ("A good question! Verdict: B", "second"),
        ("A bit of both", None),
    ],
)
def test_verdicts_are_read_as_they_are_written(reply: str, verdict: str | None) -> None:
    assert read_verdict(reply) == verdict


def test_parts_are_judged_together_and_none_without_a_reference() -> None:
    model = ScriptedModel("same")
    asked = example("Where and what?", {"geography": "Rome", "chemistry": "Au"})
    scores = grade_texts(
        Judge(model, PROMPT), [asked, example("?", domains=["d"])], ["Rome and Au, I think", "x"]
    )
    assert [score.value for score in scores] == [1, None]
    assert model.calls[0][-1].content == "Where and what?|Rome and Au, I think|Rome; Au"


def test_a_run_keeps_the_judges_replies(tmp_path: Path) -> None:
    asking = judge(by_length)
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        first = grade(asking, ScriptedModel("longer"), [ASKED], ask=store.ask)
        asked = store.asked
        assert grade(asking, ScriptedModel("longer"), [ASKED], ask=store.ask) == first
        assert asked == store.asked == 3  # the model once, the judge in two orders


def test_a_prompt_without_a_place_is_refused() -> None:
    with pytest.raises(TemplateError, match=r"\{second\}"):
        Judge(ScriptedModel("A"), "{query} {first}")
    with pytest.raises(TemplateError, match=r"\{text\}"):
        JudgedCoherence(ScriptedModel("3"), "How good?")


# Agreement with people


def labeled(path: Path, *preferred: str) -> Path:
    """A file on which `by_length` prefers the first of every pair."""
    lines = [
        {"query": f"{n}?", "first": "long answer", "second": "short", "preferred": label}
        for n, label in enumerate(preferred)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_agreement_is_raw_and_beyond_chance(tmp_path: Path) -> None:
    all_right = judge_agreement(
        judge(by_length), labeled(tmp_path / "a.jsonl", *["first"] * 8), resamples=200
    )
    assert all_right.raw.value == 1
    assert (
        all_right.kappa.value is None
    )  # where both always say the same, chance would agree as well
    half = judge_agreement(
        judge(by_length), labeled(tmp_path / "b.jsonl", *["first", "second"] * 4), resamples=200
    )
    assert half.raw.value == 0.5
    assert half.kappa.value == pytest.approx(0)
    assert half.raw.low is not None and half.raw.low < 0.5


def test_perfect_agreement_on_both_sides_is_a_kappa_of_one(tmp_path: Path) -> None:
    cases = ((3, 1, "first"), (1, 3, "second"), (2, 2, "tie"))
    lines = [
        {"query": "?", "first": "x" * one, "second": "x" * other, "preferred": label}
        for one, other, label in cases
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines * 5))
    found = judge_agreement(judge(by_length), tmp_path / "a.jsonl", resamples=200)
    assert found.kappa.value == pytest.approx(1)
    assert (found.items, found.contradicted_itself, found.without_verdict) == (15, 0, 0)
    assert "Cohen's kappa 1.000" in str(found)


def test_nonsense_and_self_contradiction_are_counted(tmp_path: Path) -> None:
    file = labeled(tmp_path / "a.jsonl", "first", "tie", "tie")
    stubborn = judge_agreement(judge("A"), file, resamples=200)
    assert (stubborn.contradicted_itself, stubborn.without_verdict) == (3, 0)
    assert stubborn.raw.value == pytest.approx(2 / 3)
    raving = judge_agreement(judge("What a day!"), file, resamples=200)
    assert (raving.without_verdict, raving.raw.value) == (3, None)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no",
        '{"query": "?", "first": "a", "second": "b"}',
        '{"query": "?", "first": "a", "preferred": "tie"}',
    ],
)
def test_a_file_of_labels_that_can_not_be_read_is_one_error(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(DataError):
        judge_agreement(judge("A"), tmp_path / "a.jsonl")


# Coherence


@pytest.mark.parametrize(
    ("reply", "value"),
    [("5", 1), ("1", 0), ("Grade: 3.", 0.5), ("4/5", 0.75), ("4 out of 5", 0.75)],
)
def test_a_judges_grade_becomes_a_share(reply: str, value: float) -> None:
    assert grade_coherence(JudgedCoherence(ScriptedModel(reply)), ["A text."])[0].value == value


@pytest.mark.parametrize("reply", ["", "fine", "0", "6", "3 or 4", "4.5"])
def test_a_reply_that_is_not_a_grade_leaves_the_text_unscored(reply: str) -> None:
    assert grade_coherence(JudgedCoherence(ScriptedModel(reply)), ["A text."])[0].value is None


def test_an_empty_text_is_not_shown_to_the_judge() -> None:
    model = ScriptedModel("5")
    assert [
        score.value for score in grade_coherence(JudgedCoherence(model), ["", "Some text.", " "])
    ] == [None, 1, None]
    assert len(model.calls) == 1


THREE = "Gold is soft. It melts at 1064 °C. Nobody can scratch gold."


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("[[1, 3]]", 1 / 3),
        ("[]", 1),
        ("None.", 1),
        ("[[1,3],[2,3]]", 0),
        ("Pairs: [(3, 1)]", 1 / 3),
        ("[[1, 3], [7, 9]]", 1 / 3),
    ],
)
def test_the_share_of_sentences_that_nothing_contradicts_is_as_the_judge_says(
    reply: str, value: float
) -> None:
    assert JudgedConsistency(ScriptedModel(reply)).grade_all([THREE])[0].value == pytest.approx(
        value
    )


@pytest.mark.parametrize("reply", ["", "yes", "[[7, 9]]", "[[2, 2]]", "[" * 500, "3"])
def test_a_reply_without_a_verdict_on_contradictions_leaves_the_text_unscored(reply: str) -> None:
    assert JudgedConsistency(ScriptedModel(reply)).grade_all([THREE])[0].value is None


def test_one_sentence_can_not_contradict_itself_and_is_not_asked_about() -> None:
    model = ScriptedModel("[]")
    scores = JudgedConsistency(model).grade_all(["", "I do not know.", THREE, "Same. Same."])
    assert [score.value for score in scores] == [None, 1, 1, 1]
    assert len(model.calls) == 1


@given(st.text(max_size=200))
def test_no_reply_of_a_judge_of_consistency_raises(reply: str) -> None:
    (score,) = JudgedConsistency(ScriptedModel(reply)).grade_all([THREE])
    assert score.value is None or 0 <= score.value <= 1
