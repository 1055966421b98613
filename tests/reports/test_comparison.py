from __future__ import annotations

from dataclasses import replace

import pytest

from domainfusion.distillation.results import EvaluationReport
from domainfusion.reports import RunSummary
from domainfusion.reports.comparison import compare_runs, paired_difference


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
        difference, _ = paired_difference(evaluation, evaluation, name)
        assert difference.value in (0, None)
        assert difference.low is None or difference.low <= 0 <= (difference.high or 0)


def test_a_student_that_gets_all_wrong_is_worse_by_its_accuracy(
    evaluation: EvaluationReport,
) -> None:
    name = evaluation.retention[0].domain
    score = evaluation.student.slices[name].strict.value
    difference, items = paired_difference(evaluation, with_all_wrong(evaluation, name), name)
    assert difference.value == pytest.approx(-(score or 0), abs=0.02)
    assert difference.high is not None
    assert difference.high < 0
    assert 0 < items <= evaluation.student.slices[name].items


def test_the_order_of_two_runs_turns_the_sign(evaluation: EvaluationReport) -> None:
    name = evaluation.retention[0].domain
    other = with_all_wrong(evaluation, name)
    there, _ = paired_difference(evaluation, other, name)
    back, _ = paired_difference(other, evaluation, name)
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
