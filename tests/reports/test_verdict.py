from __future__ import annotations

import re
from dataclasses import replace

from domainfusion.distillation.results import (
    Agreement,
    Answer,
    DomainRetention,
    Estimate,
    EvaluationReport,
    ModelResult,
    NonInferiority,
    Overlap,
    Regression,
    Role,
    SliceScore,
)
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


def settled(row: DomainRetention, verdict: str, more_items: int | None = None, margin: float = 0.95) -> DomainRetention:
    return replace(row, non_inferiority=NonInferiority(margin=margin, verdict=verdict, more_items=more_items))


def test_what_is_not_settled_is_told_with_what_would_settle_it() -> None:
    rows = (settled(retained("a", 0.96, 0.9, 1.0), "not enough data", 120), settled(retained("b", 0.99, 0.97, 1.0), "yes"))
    sentence = "The test set is too small to settle whether 95 % is kept in a (about 120 more questions would)."
    assert sentence in verdict(report(*rows)).misses
    assert not any("too small" in found for found in verdict(report(rows[1])).misses)


def test_the_share_to_keep_is_that_of_the_test() -> None:
    row = settled(retained("a", 0.92, 0.91, 0.94), "yes", margin=0.9)
    found = verdict(report(row))
    assert found.headline == "The student keeps 92 % of the a expert."
    assert not any("only" in sentence for sentence in found.misses)


def test_a_loss_of_general_ability_is_a_miss_and_none_is_a_merit() -> None:
    def measured(name: str, word: str) -> Regression:
        return Regression(
            slice=name, items=9, student=0.5, base=0.6, difference=Estimate(value=-0.1), tolerance=0.02, verdict=word  # type: ignore[arg-type]
        )

    found = verdict(replace(report(), regressions=(measured("x", "loss"), measured("y", "no measurable loss"))))
    assert "It lost general ability on x (50 %, the base 60 %)." in found.misses
    assert "It shows no measurable loss of general ability on y (50 %, the base 60 %)." in found.keeps


def test_trained_test_questions_are_told() -> None:
    found = verdict(replace(report(), overlap=Overlap(trained=9, same=("1",), near=("2", "3"))))
    assert "The figures flatter it: 1 test question was trained on, and 2 nearly." in found.misses
    assert not any("flatter" in sentence for sentence in verdict(replace(report(), overlap=Overlap(trained=9))).misses)


def test_where_nobody_says_what_is_right_agreement_is_the_headline() -> None:
    row = Agreement(
        slice="law", measure="similarity", items=9, student=Estimate(value=0.7), expert=Estimate(value=0.8), base=None,
        relative=Estimate(value=0.875),
    )
    headline = verdict(replace(report(), agreement=(row,))).headline
    agrees = "the student agrees with its experts at least 87.5 % as much as they do with themselves"
    assert headline == f"Nobody says what is right; by similarity, {agrees}."


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
    shares |= {share for row in report.regressions for share in (row.student, row.base) if share is not None}
    counts = {str(number) for score in scores for number in range(score.items + 1)}
    counts |= {str(row.non_inferiority.more_items) for row in report.retention if row.non_inferiority}
    return (
        counts
        | {f"{100 * share:.1f}" for share in shares}
        | {f"{100 * share:.0f}" for share in shares if 100 * share == round(100 * share)}
    )


def test_every_number_of_the_verdict_is_in_the_evaluation(evaluation: EvaluationReport) -> None:
    numbers = re.findall(r"\d+(?:\.\d+)?", everything(verdict(evaluation)))
    assert set(numbers) <= figures_of(evaluation)
