from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.results import Estimate
from domainfusion.distillation.statistics import PairedComparison
from domainfusion.reports import RunSummary, render_terminal
from domainfusion.reports.evaluation_tables import paired_difference, retention_before
from domainfusion.reports.terminal import MOST_LINES, compare_runs


def printed(summary: RunSummary, width: int = 200, *, details: bool = True) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(render_terminal(summary, details=details))
    return capture.get()


def test_the_figures_of_every_model_are_printed(
    run: RunSummary, evaluation: EvaluationReport
) -> None:
    lines = printed(run).splitlines()
    for name in ("student", "base", "expert: aviation", "routed oracle"):
        model = next(model for model in evaluation.models if name.endswith(model.name))
        row = next(line for line in lines if line.startswith(name) and "questions" not in line)
        assert row.removeprefix(name).split() == [
            f"{100 * score.strict.value:.1f}"
            for score in model.slices.values()
            if score.strict.value is not None
        ]


def test_coherence_is_printed_as_not_validated(run: RunSummary) -> None:
    words = " ".join(printed(run).split())
    assert "Integration Coherence 0.814" in words and "by the metric alone (not validated)" in words


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_verdict_has_sixteen_lines_at_most_and_its_headline(
    run: RunSummary, evaluation: EvaluationReport, width: int
) -> None:
    rows = [
        replace(row, domain=f"{row.domain} {number}")
        for number in range(4)
        for row in evaluation.retention
    ]
    for retention in (evaluation.retention, tuple(rows)):
        report = replace(evaluation, retention=retention)
        shown = printed(replace(run, evaluation=report), width, details=False)
        assert len(shown.splitlines()) <= MOST_LINES
        assert " ".join(report.headline.split()) in " ".join(shown.split())
    assert "and 7 more domains" in shown


def test_the_tables_come_before_the_verdict(run: RunSummary, evaluation: EvaluationReport) -> None:
    shown = printed(run)
    assert shown.index("Time by stage") < shown.index(evaluation.headline)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(run: RunSummary, width: int) -> None:
    assert max(map(len, printed(run, width).splitlines())) <= width


def test_markup_in_text_is_printed_and_control_characters_are_not_obeyed(run: RunSummary) -> None:
    hostile = "[red]bold[/red] [/] \x1b[2J\x07"
    shown = printed(replace(run, title=hostile))
    assert "[red]bold[/red] [/] �[2J�" in shown
    assert "\x1b" not in shown


def test_an_empty_run_prints_that_it_has_not_been_evaluated() -> None:
    assert printed(RunSummary()).split("\n\n") == [
        "Distillation run",
        "The student of this run has not been evaluated.\n",
    ]


def test_what_is_not_there_has_no_table(run: RunSummary) -> None:
    shown = printed(replace(run, stages=(), usage=(), generation=(), records=()))
    assert "What the models were asked" not in shown
    assert (
        "Time by stage" not in shown
        and "Examples by generator" not in shown
        and "Training records" not in shown
    )


def with_all_wrong(report: EvaluationReport, slice_name: str) -> EvaluationReport:
    from domainfusion.distillation.examples import slice_of

    own = {item.id for item in report.examples if slice_of(item) == slice_name}
    student = report.student
    answers = tuple(
        replace(answer, correct=False) if answer.example_id in own else answer
        for answer in student.answers
    )
    others = tuple(model for model in report.models if model.role != "student")
    return replace(report, models=(replace(student, answers=answers), *others))


def test_a_run_does_not_differ_from_itself(evaluation: EvaluationReport) -> None:
    for name in evaluation.slices:
        difference, _ = paired_difference(
            evaluation.examples, evaluation.student, evaluation.student, name
        )
        assert difference.value in (0, None)
        assert difference.low is None or difference.low <= 0 <= (difference.high or 0)


def test_a_student_that_gets_all_wrong_is_worse_by_its_accuracy(
    evaluation: EvaluationReport,
) -> None:
    name = evaluation.retention[0].domain
    score = evaluation.student.slices[name].strict.value
    difference, items = paired_difference(
        evaluation.examples, evaluation.student, with_all_wrong(evaluation, name).student, name
    )
    assert difference.value == pytest.approx(-(score or 0), abs=0.02)
    assert difference.high is not None
    assert difference.high < 0
    assert 0 < items <= evaluation.student.slices[name].items


def test_the_order_of_two_runs_turns_the_sign(evaluation: EvaluationReport) -> None:
    name = evaluation.retention[0].domain
    other = with_all_wrong(evaluation, name)
    there, _ = paired_difference(evaluation.examples, evaluation.student, other.student, name)
    back, _ = paired_difference(evaluation.examples, other.student, evaluation.student, name)
    assert there.value is not None
    assert back.value == pytest.approx(-there.value)


def test_only_inputs_that_differ_are_shown(evaluation: EvaluationReport) -> None:
    runs = {
        "a": RunSummary(evaluation=evaluation, inputs={"seed": 0, "trainer": {"epochs": 2}}),
        "b": RunSummary(evaluation=evaluation, inputs={"seed": 0, "trainer": {"epochs": 3}}),
    }
    inputs = compare_runs(runs)[0]
    assert [[cell.text for cell in row] for row in inputs.rows] == [["trainer · epochs", "2", "3"]]


def test_a_run_that_was_not_evaluated_has_dashes(evaluation: EvaluationReport) -> None:
    tables = compare_runs({"a": RunSummary(evaluation=evaluation), "b": RunSummary()})
    accuracies = next(table for table in tables if table.header[0] == "Slice")
    assert {row[2].text for row in accuracies.rows} == {"–"}


def test_der_before_training_is_that_of_the_start_on_the_same_questions(
    evaluation: EvaluationReport,
) -> None:
    by_name = {model.name: model for model in evaluation.models}
    before = retention_before(evaluation, by_name["base"])
    assert [row.domain for row in before] == [row.domain for row in evaluation.retention]
    for row, after in zip(before, evaluation.retention, strict=True):
        ids = {one.id for one in evaluation.examples if slice_of(one) == row.domain}
        start, expert = (
            [bool(answer.correct) for answer in by_name[name].answers if answer.example_id in ids]
            for name in ("base", row.domain)
        )
        assert row.student == after.base
        expected = PairedComparison(
            start, expert, [one.group for one in evaluation.examples if one.id in ids]
        ).ratio()
        assert row.retention == expected
        assert row.retention.value == pytest.approx(sum(start) / sum(expert))
    nothing = replace(evaluation.retention[0], retention=Estimate(value=None, reason="unknown"))
    (row,) = retention_before(replace(evaluation, retention=(nothing,)), by_name["base"])
    assert row.retention == nothing.retention
