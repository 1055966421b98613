from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.results import (
    AgreementScore,
    Answer,
    CoherenceValidation,
    DomainRetention,
    Estimate,
    ModelResult,
    Overlap,
    Regression,
    Role,
    SliceScore,
)
from domainfusion.distillation.statistics import non_inferiority
from domainfusion.records import read_json, write_json
from domainfusion.reports import RunSummary, render_html, render_markdown, render_terminal
from domainfusion.reports.evaluation_tables import gains
from domainfusion.reports.verdict import Verdict, verdict
from domainfusion.types import Example


def retained(
    domain: str,
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    reason: str = "",
) -> DomainRetention:
    """A row with the verdict that its interval gives."""
    estimate = Estimate(value=value, low=low, high=high, reason=reason)
    return DomainRetention(
        domain=domain, items=40, student=0.9, expert=1.0, base=0.1, retention=estimate, headroom=Estimate(value=None),
        non_inferiority=non_inferiority(estimate, 40, 0.95),
    )  # fmt: skip


def model(name: str, role: Role, **strict: float | None) -> ModelResult:
    return ModelResult(
        name=name,
        role=role,
        slices={
            key.replace("_", "-"): SliceScore(
                items=40, strict=Estimate(value=value), partial=Estimate(value=value)
            )
            for key, value in strict.items()
        },
    )


def report(
    *rows: DomainRetention, models: tuple[ModelResult, ...] = (model("student", "student", a=0.9),)
) -> EvaluationReport:
    return EvaluationReport(models=models, retention=rows)


def everything(found: Verdict) -> str:
    return " ".join([found.headline, *found.conclusions, *found.keeps, *found.misses])


def test_the_headline_claims_what_the_intervals_settle() -> None:
    found = verdict(report(retained("a", 0.99, 0.97, 1.0), retained("b", 0.962, 0.955, 0.98)))
    assert found.headline == "The student keeps at least 95 % of each of its 2 experts."
    said = (
        "B: the student keeps at least 95 % of its expert (DER 96.2 %, 95 % interval 95.5 to 98.0"
        " %, 40 questions)."
    )
    assert found.conclusions[1] == said


def test_with_one_expert_the_headline_names_it() -> None:
    assert (
        verdict(report(retained("law", 0.99, 0.96, 1.01))).headline
        == "The student keeps at least 95 % of the law expert."
    )


def test_what_falls_short_is_in_the_headline() -> None:
    found = verdict(report(retained("a", 0.99, 0.97, 1.0), retained("b", 0.41, 0.3, 0.52)))
    assert (
        found.headline
        == "The student keeps at least 95 % of the a expert; falls short of 95 %: it keeps 41 % of"
        " the b expert."
    )
    assert not any("b expert" in sentence for sentence in found.keeps)


def test_of_many_domains_the_headline_gives_numbers() -> None:
    kept = [retained(f"domain {number}", 0.99, 0.97, 1.0) for number in range(9)]
    lost = [retained(f"other {number}", 0.41, 0.3, 0.52) for number in range(3)]
    assert verdict(report(*kept, *lost)).headline == (
        "The student keeps at least 95 % of 9 of its 12 experts; falls short of 95 % of 3 of its 12"
        " experts."
    )


def merged(**right: int) -> EvaluationReport:
    """A student that is right everywhere, beside a merge that is right `right` times of 40."""
    examples = [
        Example(query=f"{name} {number}?", domains=(name,))
        for name in right
        for number in range(40)
    ]
    places = dict.fromkeys(right, 0)
    answers: dict[str, list[Answer]] = {"student": [], "merge": []}
    for example in examples:
        name = example.primary_domain
        places[name] += 1
        for role in answers:
            correct = role == "student" or places[name] <= right[name]
            answers[role].append(
                Answer(example_id=example.id, text="", score=float(correct), correct=correct)
            )
    models = tuple(
        replace(model(role, role, **dict.fromkeys(right, 1.0)), answers=tuple(answers[role]))  # type: ignore[arg-type]
        for role in answers
    )
    return replace(report(models=models), examples=tuple(examples))


def test_whether_the_untrained_merge_was_enough_is_what_the_paired_interval_settles() -> None:
    assert verdict(merged(a=20, b=39)).merge == (
        "The untrained merge was not enough: training gained on a (100 % → 100 %). No difference is"
        " settled on b."
    )
    enough = verdict(merged(a=40, b=39)).merge
    assert enough.startswith("The untrained merge may have been enough")
    assert verdict(report()).merge == ""
    assert [gain.outcome for gain in gains(merged(a=0, b=40))] == ["gained", "not settled"]


@pytest.mark.parametrize("value", [1.0, 1.02, 2.054])
def test_no_headline_is_over_100_per_cent(value: float) -> None:
    headline = verdict(report(retained("a", value, value - 0.01, value + 0.1))).headline
    assert all(float(number) <= 100 for number in re.findall(r"\d+(?:\.\d+)?", headline))


def test_an_undefined_retention_gives_its_reason() -> None:
    found = verdict(report(retained("a", None, reason="the expert got nothing right")))
    assert (
        "A: whether the student keeps its expert is undefined, because the expert got nothing"
        " right." in found.conclusions
    )
    assert found.headline == "The student can't be judged in a."


def test_a_base_that_keeps_as_much_is_told() -> None:
    row = replace(retained("a", 1.0, 0.97, 1.01), base=0.99)
    assert "; so does the untrained base." in row.conclusion
    assert "untrained" not in replace(row, base=0.5).conclusion


def test_what_is_not_settled_is_told_with_what_would_settle_it() -> None:
    rows = (retained("a", 0.96, 0.9, 1.0), retained("b", 0.99, 0.97, 1.0))
    found = verdict(report(*rows))
    assert found.headline == (
        "The student keeps at least 95 % of the b expert; it was asked too few questions to tell for"
        " the a expert."
    )
    alone = verdict(report(rows[0])).headline
    assert alone == (
        "The student was asked too few questions to say whether it keeps 95 % of the a expert."
    )
    assert re.search(r"about [\d,]+ more questions would settle it\.", found.conclusions[0])
    assert "more questions" not in found.conclusions[1]


def test_the_share_to_keep_is_that_of_the_test() -> None:
    row = retained("a", 0.92, 0.91, 0.94)
    row = replace(row, non_inferiority=non_inferiority(row.retention, 40, 0.9))
    assert verdict(report(row)).headline == "The student keeps at least 90 % of the a expert."


def test_every_form_of_a_report_has_the_same_verdict(
    evaluation: EvaluationReport, tmp_path: Path
) -> None:
    """What the terminal, a mail and a script read is one sentence from one place."""
    summary = RunSummary(evaluation=evaluation)
    console = Console(width=10_000, file=StringIO(), color_system=None)
    console.print(render_terminal(summary, details=True))
    assert isinstance(console.file, StringIO)
    html = unescape(re.sub(r"<[^>]+>", "", render_html(summary))).replace("\u202f", " ")
    forms = [
        str(evaluation),
        console.file.getvalue(),
        unescape(render_markdown(summary)).replace("\\", ""),
        html,
    ]
    write_json(tmp_path / "evaluation.json", evaluation)
    kept = read_json(tmp_path / "evaluation.json")
    assert (kept["headline"], tuple(kept["conclusions"])) == (
        evaluation.headline,
        evaluation.conclusions,
    )
    for sentence in (evaluation.headline, *evaluation.conclusions):
        assert all(sentence in form for form in forms), sentence


def test_a_loss_of_general_ability_is_a_miss_and_none_is_a_merit() -> None:
    def measured(name: str, word: str) -> Regression:
        return Regression(
            slice=name,
            items=9,
            student=0.5,
            base=0.6,
            difference=Estimate(value=-0.1),
            tolerance=0.02,
            verdict=word,  # type: ignore[arg-type]
        )

    found = verdict(
        replace(report(), regressions=(measured("x", "loss"), measured("y", "no measurable loss")))
    )
    assert "It lost general ability on x (50 %, the base 60 %)." in found.misses
    assert (
        "It shows no measurable loss of general ability on y (50 %, the base 60 %)." in found.keeps
    )


def test_trained_test_questions_are_told() -> None:
    found = verdict(replace(report(), overlap=Overlap(trained=9, same=("1",), near=("2", "3"))))
    assert "The figures flatter it: 1 test question was trained on, and 2 nearly." in found.misses
    assert not any(
        "flatter" in sentence
        for sentence in verdict(replace(report(), overlap=Overlap(trained=9))).misses
    )


def test_where_no_reference_says_what_is_right_agreement_is_the_headline() -> None:
    row = AgreementScore(
        slice="law",
        measure="similarity",
        items=9,
        student=Estimate(value=0.7),
        expert=Estimate(value=0.8),
        base=None,
        relative=Estimate(value=0.875),
    )
    headline = verdict(replace(report(), agreement=(row,))).headline
    agrees = "the student agrees with its experts {} as much as they do with themselves"
    said = f"No reference says what is right; by similarity, {agrees}."
    assert headline == said.format("87.5 %")
    bounded = replace(row, relative=Estimate(value=0.875, low=0.81, high=0.92))
    assert verdict(replace(report(), agreement=(bounded,))).headline == said.format("at least 81 %")


def test_a_rule_that_beats_the_student_is_named() -> None:
    models = (
        model("student", "student", a=0.9, two_hop=0.6),
        model("most frequent answer", "baseline", two_hop=0.7),
        model("oracle", "oracle", a=1.0, two_hop=1.0),
        model("a", "expert", a=1.0),
    )
    found = verdict(report(retained("a", 0.96, 0.95, 1.0), models=models))
    assert (
        "On two-hop questions “most frequent answer” (70 %) does better than the student (60 %)."
        in found.misses
    )
    assert not any("two-hop" in sentence for sentence in found.keeps)
    assert not any("oracle" in sentence and "better" in sentence for sentence in found.misses)


def test_a_slice_that_is_mostly_wrong_is_not_merit() -> None:
    found = verdict(
        report(
            retained("a", 0.96, 0.95, 1.0),
            models=(model("student", "student", a=0.9, cross_domain=0.49),),
        )
    )
    assert not any("cross-domain" in sentence for sentence in found.keeps)
    assert any("49 % of 40 cross-domain questions" in sentence for sentence in found.misses)


def test_wrong_answers_are_counted_over_the_graded_ones() -> None:
    slices = {
        "a": SliceScore(
            items=12, strict=Estimate(value=0.7), partial=Estimate(value=0.7), unscored=2
        )
    }
    student = ModelResult(name="student", role="student", slices=slices)
    assert (
        "It gets 3 of 10 a questions wrong, at least in part."
        in verdict(report(models=(student,))).misses
    )


def test_a_perfect_student_misses_nothing_but_says_so() -> None:
    assert verdict(report(models=(model("student", "student", a=1.0),))).misses == (
        "It misses none of the graded questions.",
    )


def test_what_the_expert_knew_and_the_student_lost_is_counted_within_the_domain() -> None:
    examples = (
        Example(query="1", domains=("a",)),
        Example(query="2", domains=("a",)),
        Example(query="3", domains=("a", "b")),
    )
    wrong = tuple(
        Answer(example_id=example.id, text="", score=0.0, correct=False) for example in examples
    )
    right = tuple(replace(answer, correct=True) for answer in wrong)
    models = (
        replace(model("student", "student", a=0.0), answers=wrong),
        replace(model("a", "expert", a=0.5), answers=(right[0], wrong[1], right[2])),
    )
    found = verdict(replace(report(retained("a", 0.0), models=models), examples=examples))
    assert (
        "Questions that the domain's expert answers right and the student wrong: 1 in a."
        in found.misses
    )


def test_answers_without_a_grade_and_cut_ones_are_told(evaluation: EvaluationReport) -> None:
    assert (
        "1 answer could not be graded and 1 answer ended at the token limit."
        in verdict(evaluation).misses
    )


def test_coherence_is_marked_until_it_is_validated(evaluation: EvaluationReport) -> None:
    assert evaluation.coherence is not None
    seen = CoherenceValidation(
        metric="m", auroc={"looped": Estimate(value=0.95)}, texts=9, text_set="t"
    )
    validated = replace(evaluation.coherence, validation=seen)
    assert "not validated" in evaluation.coherence.conclusion
    assert "not validated" not in validated.conclusion
    assert "not validated" in everything(verdict(evaluation))
    assert "not validated" not in everything(verdict(replace(evaluation, coherence=validated)))


def test_an_undefined_coverage_gives_its_reason(evaluation: EvaluationReport) -> None:
    assert evaluation.coherence is not None
    found = replace(
        evaluation.coherence, coverage=Estimate(value=None, reason="no answer could be graded")
    )
    assert "they state an undefined share" in found.conclusion


def figures_of(report: EvaluationReport) -> set[str]:
    """Every figure of the evaluation as a sentence may write it, and every number of questions."""
    scores = [score for model in report.models for score in model.slices.values()]
    estimates = [estimate for row in report.retention for estimate in (row.retention, row.headroom)]
    estimates += [estimate for score in scores for estimate in (score.strict, score.partial)]
    shares = {
        share
        for estimate in estimates
        for share in (estimate.value, estimate.low, estimate.high)
        if share is not None
    } | {0.95}
    shares |= {
        share
        for row in report.regressions
        for share in (row.student, row.base)
        if share is not None
    }
    counts = {str(number) for score in scores for number in range(score.items + 1)}
    counts |= {str(row.items) for row in report.retention}
    counts |= {
        str(row.non_inferiority.more_items) for row in report.retention if row.non_inferiority
    }
    return (
        counts
        | {f"{100 * share:.1f}" for share in shares}
        | {f"{100 * share:.0f}" for share in shares if 100 * share == round(100 * share)}
    )


def test_every_number_of_the_verdict_is_in_the_evaluation(evaluation: EvaluationReport) -> None:
    numbers = re.findall(r"\d+(?:\.\d+)?", everything(verdict(evaluation)))
    assert set(numbers) <= figures_of(evaluation)
