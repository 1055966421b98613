"""Results are tables of pandas, too."""

from __future__ import annotations

import sys

import pytest

from distillation.builders import example
from domainfusion.distillation import to_pandas
from domainfusion.distillation.results import Estimate, EvaluationReport, ModelResult, SliceScore
from domainfusion.errors import MissingDependencyError
from domainfusion.types import Integration, Response, TrainingRecord

LAW = example("What is 1?", {"law": "one"})
SCORE = SliceScore(
    items=4, strict=Estimate(value=0.75, low=0.3, high=0.9), partial=Estimate(value=0.8)
)
REPORT = EvaluationReport(
    models=tuple(
        ModelResult(name=name, role=name, slices={"law": SCORE, "<b>art": SCORE})
        for name in ("student", "base")
    ),
    examples=(LAW,),
)


def test_a_report_is_a_row_for_each_model_and_slice() -> None:
    table = REPORT.to_pandas()
    assert list(table["model"]) == ["student", "student", "base", "base"]
    assert list(table["slice"]) == ["law", "<b>art"] * 2
    assert set(table["accuracy"]) == {0.75} and set(table["low"]) == {0.3}


def test_examples_and_records_are_a_row_each() -> None:
    record = TrainingRecord(
        example=LAW,
        responses=(Response(domain="law", text="It is one."),),
        integration=Integration(text="It is one.", method="single"),
        verification="verified",
    )
    [row] = to_pandas([record]).to_dict("records")
    assert (row["query"], row["target"], row["verification"]) == (
        "What is 1?",
        "It is one.",
        "verified",
    )
    assert row["responses"] == {"law": "It is one."}
    [plain] = to_pandas([LAW]).to_dict("records")
    assert plain["parts"] == {"law": ["one"]} and "target" not in plain


def test_without_pandas_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'domainfusion\[data\]'"):
        to_pandas([LAW])


def test_a_report_shows_itself_shortly_and_in_a_notebook_as_its_tables() -> None:
    assert repr(REPORT) == f"EvaluationReport(2 models, 1 examples; {REPORT.headline})"
    shown = REPORT._repr_html_()
    assert "&lt;b&gt;art" in shown and "<b>" not in shown and "0.750" in shown
