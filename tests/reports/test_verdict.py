from __future__ import annotations

import re
from dataclasses import replace

import pytest

from domainfusion.distillation.results import Answer, DomainRetention, Estimate, EvaluationReport, ModelResult, Role, SliceScore
from domainfusion.reports.evaluation_tables import keeps_goal
from domainfusion.reports.verdict import Verdict, coherence_sentence, verdict
from domainfusion.types import Example


def retained(domain: str, value: float | None, low: float | None = None, high: float | None = None, reason: str = "") -> DomainRetention:
    estimate = Estimate(value=value, low=low, high=high, reason=reason)
    return DomainRetention(domain=domain, items=40, student=0.9, expert=1.0, base=0.1, retention=estimate, headroom=Estimate(value=None))


def model(name: str, role: Role, **strict: float | None) -> ModelResult:
    return ModelResult(
        name=name,
        role=role,
        slices={
            key.replace("_", "-"): SliceScore(items=40, strict=Estimate(value=value), partial=Estimate(value=value))
            for key, value in strict.items()
        },
    )


def report(*rows: DomainRetention, models: tuple[ModelResult, ...] = (model("student", "student", a=0.9),)) -> EvaluationReport:
    return EvaluationReport(models=models, retention=rows)


def everything(found: Verdict) -> str:
    return " ".join([found.headline, *found.keeps, *found.misses])


def test_the_headline_names_the_least_that_is_kept() -> None:
    found = verdict(report(retained("a", 0.99, 0.97, 1.0), retained("b", 0.962, 0.955, 0.98)))
    assert found.headline == "The student keeps at least 96.2 % of each of its 2 experts."


def test_with_one_expert_the_headline_names_it() -> None:
    assert verdict(report(retained("law", 0.99))).headline == "The student keeps 99 % of the law expert."


def test_what_falls_short_is_the_headline_and_no_merit() -> None:
    found = verdict(report(retained("a", 0.99, 0.97, 1.0), retained("b", 0.41, 0.3, 0.52)))
    assert found.headline == "The student falls short: it keeps 41 % of the b expert."
    assert not any("b expert" in sentence for sentence in found.keeps)
    assert any("only 41 % of the b expert (95 % interval 30.0 to 52.0 %)" in sentence for sentence in found.misses)


def test_an_undefined_retention_gives_its_reason() -> None:
    found = verdict(report(retained("a", None, reason="the expert got nothing right")))
    assert "Retention is undefined in a (the expert got nothing right)." in found.misses
    assert "keeps" not in found.headline


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.99, 0.96, 1.0, "yes"),
        (0.8, 0.7, 0.9, "no"),
        (0.96, 0.9, 1.0, "not settled"),
        (0.94, 0.9, 0.96, "not settled"),
        (None, None, None, "undefined"),
    ],
)
def test_only_an_interval_settles_whether_the_goal_is_reached(
    value: float | None, low: float | None, high: float | None, expected: str
) -> None:
    row = retained("a", value, low, high)
    assert keeps_goal(row) == expected
    unsettled = any("too small" in sentence for sentence in verdict(report(row)).misses)
    assert unsettled is (expected == "not settled" and value is not None and value >= 0.95)


@pytest.mark.parametrize(("items", "expected"), [(3, "not settled"), (40, "not settled"), (60, "yes"), (100, "yes")])
def test_answers_that_are_all_right_settle_it_only_where_they_are_many(items: int, expected: str) -> None:
    assert keeps_goal(replace(retained("a", 1.0, 1.0, 1.0), items=items)) == expected


def test_without_an_interval_nothing_is_settled() -> None:
    assert keeps_goal(retained("a", 0.99)) == "not settled"


def test_a_rule_that_beats_the_student_is_named() -> None:
    models = (
        model("student", "student", a=0.9, two_hop=0.6),
        model("most frequent answer", "baseline", two_hop=0.7),
        model("oracle", "oracle", a=1.0, two_hop=1.0),
        model("a", "expert", a=1.0),
    )
    found = verdict(report(retained("a", 0.96, 0.95, 1.0), models=models))
    assert "On two-hop questions “most frequent answer” (70 %) does better than the student (60 %)." in found.misses
    assert not any("two-hop" in sentence for sentence in found.keeps)
    assert not any("oracle" in sentence and "better" in sentence for sentence in found.misses)


def test_a_slice_that_is_mostly_wrong_is_no_merit() -> None:
    found = verdict(report(retained("a", 0.96, 0.95, 1.0), models=(model("student", "student", a=0.9, cross_domain=0.49),)))
    assert not any("cross-domain" in sentence for sentence in found.keeps)
    assert any("49 % of 40 cross-domain questions" in sentence for sentence in found.misses)


def test_wrong_answers_are_counted_over_the_graded_ones() -> None:
    slices = {"a": SliceScore(items=12, strict=Estimate(value=0.7), partial=Estimate(value=0.7), unscored=2)}
    student = ModelResult(name="student", role="student", slices=slices)
    assert "It gets 3 of 10 a questions wrong, at least in part." in verdict(report(models=(student,))).misses


def test_a_perfect_student_misses_nothing_but_says_so() -> None:
    assert verdict(report(models=(model("student", "student", a=1.0),))).misses == ("It misses none of the graded questions.",)


def test_what_the_expert_knew_and_the_student_lost_is_counted_within_the_domain() -> None:
    examples = (Example(query="1", domains=("a",)), Example(query="2", domains=("a",)), Example(query="3", domains=("a", "b")))
    wrong = tuple(Answer(example_id=example.id, text="", score=0.0, correct=False) for example in examples)
    right = tuple(replace(answer, correct=True) for answer in wrong)
    models = (
        replace(model("student", "student", a=0.0), answers=wrong),
        replace(model("a", "expert", a=0.5), answers=(right[0], wrong[1], right[2])),
    )
    found = verdict(replace(report(retained("a", 0.0), models=models), examples=examples))
    assert "Questions that the domain's expert answers right and the student wrong: 1 in a." in found.misses


def test_answers_without_a_grade_and_cut_ones_are_told(evaluation: EvaluationReport) -> None:
    assert "1 answer could not be graded and 1 answer ended at the token limit." in verdict(evaluation).misses


def test_coherence_is_marked_until_it_is_validated(evaluation: EvaluationReport) -> None:
    assert evaluation.coherence is not None
    validated = replace(evaluation.coherence, validated=True)
    assert "not validated" in coherence_sentence(evaluation.coherence)
    assert "not validated" not in coherence_sentence(validated)
    assert "not validated" in everything(verdict(evaluation))
    assert "not validated" not in everything(verdict(replace(evaluation, coherence=validated)))


def test_an_undefined_coverage_gives_its_reason(evaluation: EvaluationReport) -> None:
    assert evaluation.coherence is not None
    found = replace(evaluation.coherence, coverage=Estimate(value=None, reason="no answer could be graded"))
    assert "an undefined share (no answer could be graded)" in coherence_sentence(found)


def figures_of(report: EvaluationReport) -> set[str]:
    """Every figure of the evaluation as a sentence may write it, and every number of questions."""
    scores = [score for model in report.models for score in model.slices.values()]
    estimates = [estimate for row in report.retention for estimate in (row.retention, row.headroom)]
    estimates += [estimate for score in scores for estimate in (score.strict, score.partial)]
    shares = {share for estimate in estimates for share in (estimate.value, estimate.low, estimate.high) if share is not None} | {0.95}
    counts = {str(number) for score in scores for number in range(score.items + 1)}
    return (
        counts
        | {f"{100 * share:.1f}" for share in shares}
        | {f"{100 * share:.0f}" for share in shares if 100 * share == round(100 * share)}
    )


def test_every_number_of_the_verdict_is_in_the_evaluation(evaluation: EvaluationReport) -> None:
    numbers = re.findall(r"\d+(?:\.\d+)?", everything(verdict(evaluation)))
    assert set(numbers) <= figures_of(evaluation)
