"""Agreement: it is highest with oneself, is never mixed with accuracy, and is missing where there
is nothing to compare.
"""

from __future__ import annotations

from typing import Any

import pytest

from distillation.builders import example
from distillation.evaluator.facts import EXPERTS, IGNORANT, PERFECT, TEST
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.evaluator import AgreementSettings, DomainRetentionEvaluator
from domainfusion.distillation.evaluator.agreement import claim_coverage
from domainfusion.distillation.results import AgreementScore
from domainfusion.models import LanguageModel, ScriptedModel
from domainfusion.types import Example

OPEN: list[Example] = [
    example("What do people say about NRT?", domains=["aviation"]),
    example("What do people say about CDG?", domains=["aviation"]),
    example("Is gold flown to NRT?", domains=["aviation", "chemistry"]),
]


def measured(student: LanguageModel, examples: Any = OPEN, **options: Any) -> EvaluationReport:
    evaluator = DomainRetentionEvaluator(resamples=200, **options)
    return evaluator.evaluate(student, EXPERTS, examples, baselines={"base": IGNORANT})


def row(report: EvaluationReport, measure: str, name: str = "aviation") -> AgreementScore:
    return next(
        row for row in report.agreement if row.measure.startswith(measure) and row.slice == name
    )


@pytest.mark.parametrize("measure", ["similarity", "claim coverage"])
def test_an_expert_agrees_with_itself_and_so_does_who_says_the_same(measure: str) -> None:
    found = row(measured(EXPERTS["aviation"]), measure)
    assert (found.items, found.expert.value, found.student.value, found.relative.value) == (
        2,
        1,
        1,
        1,
    )
    assert found.base is not None
    assert found.base.value is not None and found.base.value < 1


def test_agreement_across_domains_is_the_mean_over_the_experts() -> None:
    """The chemist says "It is Au.", the airport expert "It is Japan.": half of the student's claims
    are each one's.
    """
    found = row(measured(EXPERTS["aviation"]), "claim coverage", "cross-domain")
    assert found.student.value == 0.5
    assert row(measured(PERFECT), "claim coverage", "cross-domain").student.value == 1


def test_agreement_is_not_accuracy() -> None:
    report = measured(EXPERTS["aviation"])
    assert report.student.slices["aviation"].strict.value is None
    assert report.retention[0].retention.value is None
    assert all(answer.correct is None for answer in report.student.answers)


def test_where_every_example_has_a_reference_there_is_no_agreement_and_no_second_sample() -> None:
    expert = ScriptedModel("Japan.", name="aviation")
    report = DomainRetentionEvaluator(resamples=200).evaluate(
        PERFECT, {**EXPERTS, "aviation": expert}, TEST
    )
    assert report.agreement == ()
    assert len(expert.calls) == len(TEST)


def test_only_the_examples_without_a_reference_are_asked_again() -> None:
    expert = ScriptedModel("Japan.", name="aviation")
    examples = [*TEST, OPEN[0]]
    report = DomainRetentionEvaluator(resamples=200).evaluate(
        PERFECT, {**EXPERTS, "aviation": expert}, examples
    )
    assert row(report, "similarity").items == 1
    assert len(expert.calls) == len(examples) + 1


def test_an_expert_that_says_nothing_leaves_nothing_to_compare() -> None:
    experts = {**EXPERTS, "aviation": ScriptedModel("", name="mute")}
    report = DomainRetentionEvaluator(resamples=200).evaluate(PERFECT, experts, OPEN[:2])
    found = row(report, "similarity")
    assert (found.items, found.unscored, found.student.value) == (0, 2, None)
    assert found.student.reason


def test_a_similarity_of_one_s_own_is_named_and_may_not_leave_its_range() -> None:
    def half(text: str, expert: str) -> float:
        return 0.5

    assert (
        row(
            measured(PERFECT, agreement=AgreementSettings(similarity=half)), "similarity (half)"
        ).student.value
        == 0.5
    )
    beyond = AgreementSettings(similarity=lambda text, expert: 1.5)
    assert row(measured(PERFECT, agreement=beyond), "similarity").items == 0


@pytest.mark.parametrize(
    ("replies", "value"),
    [(("yes", "yes"), 1.0), (("Partly, I think", "no"), 0.25), (("No.", "no"), 0.0)],
)
def test_the_two_orders_are_averaged(replies: tuple[str, str], value: float) -> None:
    def reply(prompt: str) -> str:
        return (
            replies[0]
            if "Answer A: I can't" in prompt
            else replies[1]
            if "Answer B: I can't" in prompt
            else "yes"
        )

    judged = AgreementSettings(judge=ScriptedModel(reply, name="j"))
    found = row(measured(IGNORANT, OPEN[:1], agreement=judged), "judge (j)")
    assert (found.expert.value, found.student.value) == (1, value)


def test_a_judge_that_answers_nonsense_gives_no_grade() -> None:
    judged = AgreementSettings(judge=ScriptedModel("As a judge, I like both.", name="j"))
    found = row(measured(PERFECT, agreement=judged), "judge (j)")
    assert (found.items, found.unscored) == (0, 2)
    assert found.student.value is None


@pytest.mark.parametrize(
    ("answer", "expert", "share"),
    [
        ("NRT lies in Japan.", "NRT is in Japan. It opened in 1978.", 0.5),
        ("It opened in 1978, in Japan: NRT.", "NRT is in Japan. It opened in 1978.", 1.0),
        ("It opened in 1987.", "It opened in 1978.", 0.0),
        ("", "It opened in 1978.", 0.0),
        ("Anything.", "It is.", None),
    ],
)
def test_claims_are_covered_sentence_by_sentence(
    answer: str, expert: str, share: float | None
) -> None:
    assert claim_coverage(answer, expert) == share
