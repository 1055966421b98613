"""Results print as tables that say what is not known, and are the same in memory and on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from distillation.builders import example
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.results import (
    AgreementScore,
    Answer,
    Benchmark,
    Coherence,
    CoherenceValidation,
    Component,
    DomainRetention,
    EdgeCase,
    Estimate,
    ModelResult,
    NonInferiority,
    OverallScore,
    Overlap,
    Regression,
    SliceScore,
)
from domainfusion.records import read_json, write_json

NOTHING = Estimate(value=None, reason="nothing was graded")


def score(value: float | None, items: int = 2) -> SliceScore:
    estimate = NOTHING if value is None else Estimate(value=value, low=value, high=value)
    return SliceScore(items=items, strict=estimate, partial=estimate)


UNSETTLED = NonInferiority(
    margin=0.95, verdict="not enough data", low=0.9, high=1.0, more_items=1200, method="bootstrap"
)
FULL = {
    "overall": OverallScore(
        score=NOTHING, components=(Component(name="DER", score=Estimate(value=0.5), weight=0.75),)
    ),
    "edge_cases": (
        EdgeCase(example_id="1", apparent="chemistry", needed="aviation", experts_know=True),
    ),
    "agreement": (
        AgreementScore(
            slice="aviation",
            measure="token F1",
            items=4,
            student=Estimate(value=0.5),
            expert=Estimate(value=0.625),
            base=None,
            relative=Estimate(value=0.8),
        ),
    ),
    "benchmarks": (
        Benchmark(
            slice="aviation", domain="aviation", source="airports.jsonl", items=4, metric="exact"
        ),
    ),
    "regressions": (
        Regression(
            slice="general",
            items=4,
            student=0.5,
            base=0.75,
            difference=Estimate(value=-0.25, low=-0.5, high=-0.125),
            tolerance=0.05,
            verdict="loss",
        ),
    ),
    "overlap": Overlap(trained=10, same=("1",), near=("2", "3"), method="containment"),
}
"""What a report may hold beside the rest."""


def report(**changes: Any) -> EvaluationReport:
    answers = (Answer(example_id="1", text="Japan.", score=1.0, correct=True),)
    student = ModelResult(
        name="student",
        role="student",
        slices={"aviation": score(0.5), "cross-domain": score(0.25, items=4)},
        answers=answers,
    )
    expert = ModelResult(
        name="aviation",
        role="expert",
        slices={"aviation": score(1.0), "cross-domain": score(None, items=4)},
    )
    retention = DomainRetention(
        domain="aviation",
        items=2,
        student=0.5,
        expert=1.0,
        base=None,
        retention=Estimate(value=0.5, low=0.25, high=0.75),
        headroom=NOTHING,
    )
    coherence = Coherence(
        score=Estimate(value=0.9),
        coverage=Estimate(value=0.25),
        consistency=Estimate(value=1.0),
        items=4,
    )
    values: dict[str, Any] = {
        "models": (student, expert),
        "retention": (retention,),
        "coherence": coherence,
        "examples": (example("Where is NRT?", {"aviation": "Japan"}, id="1"),),
        "notes": ("a note",),
    }
    return EvaluationReport(**{**values, **changes})


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (NOTHING, "undefined"),
        (Estimate(value=0.5), "0.500"),
        (Estimate(value=0.5, low=0.25, high=1.0), "0.500 [0.250, 1.000]"),
    ],
)
def test_an_estimate_prints_with_its_interval_or_says_that_it_is_undefined(
    estimate: Estimate, text: str
) -> None:
    assert str(estimate) == text


def test_a_report_prints_every_model_and_slice() -> None:
    lines = str(report()).splitlines()
    heading = next(line for line in lines if line.startswith("Accuracy"))
    assert "aviation (2)" in heading and "cross-domain (4)" in heading
    assert next(line for line in lines if line.startswith("student")).split() == [
        "student",
        "0.500",
        "0.250",
    ]
    assert next(line for line in lines if line.startswith("expert: aviation")).split()[2:] == [
        "1.000",
        "–",
    ]


def test_a_table_is_straight() -> None:
    blocks = str(report()).split("\n\n")
    for block in blocks[1:3]:
        assert (
            len(
                {
                    len(line)
                    for line in block.splitlines()
                    if not line.startswith("Domain Expertise")
                }
            )
            == 1
        )


def test_retention_prints_what_is_undefined_and_what_was_not_measured() -> None:
    row = next(line for line in str(report()).splitlines() if line.startswith("aviation"))
    assert row.split() == [
        "aviation",
        "2",
        "–",
        "1.000",
        "0.500",
        "0.500",
        "[0.250,",
        "0.750]",
        "undefined",
    ]


def test_coherence_is_printed_as_not_validated_until_it_is() -> None:
    said = (
        "Integration Coherence 0.900 over 4 answers: they state 25 % of what a right answer states,"
        " and 1.000 by the metric alone"
    )
    assert f"{said} (not validated)." in str(report())
    coherence = report().coherence
    assert coherence is not None
    seen = CoherenceValidation(
        metric="m", auroc={"looped": Estimate(value=0.95)}, texts=9, text_set="t"
    )
    assert f"{said} (validated: AUROC looped 0.95)." in str(
        report(coherence=replace(coherence, validation=seen))
    )


def test_a_report_without_cross_domain_examples_has_no_cross_domain_accuracy() -> None:
    student = ModelResult(name="student", role="student", slices={"aviation": score(0.5)})
    bare = report(models=(student,), coherence=None, retention=(), notes=())
    assert bare.cross_domain_accuracy.value is None
    assert bare.cross_domain_accuracy.reason
    assert "Cross-Domain" not in str(bare)
    assert "Coherence" not in str(bare)
    assert report().cross_domain_accuracy.value == 0.25


def test_notes_are_printed() -> None:
    assert "Note: a note" in str(report())


def test_the_verdict_says_how_much_is_missing() -> None:
    row = replace(report().retention[0], non_inferiority=UNSETTLED)
    said = (
        "Aviation: there are too few questions to say whether the student keeps 95 % of its expert"
    )
    figures = (
        "(DER 50 %, 95 % interval 25.0 to 75.0 %, 2 questions); about 1,200 more questions would"
        " settle it."
    )
    assert f"{said} {figures}" in str(report(retention=(row,)))
    assert str(replace(UNSETTLED, more_items=None)) == "not enough data"
    assert str(replace(UNSETTLED, verdict="yes", more_items=None)) == "yes"


def test_all_that_was_found_is_printed() -> None:
    printed = str(report(**FULL))
    assert "Overall (0.75 DER): undefined (nothing was graded)" in printed
    assert "General ability, general: loss (student − base: -0.250 [-0.500, -0.125])" in printed
    assert "Trained on: 1 of the test queries as they are, 2 nearly" in printed
    row = next(line for line in printed.splitlines() if "token F1" in line)
    assert row.split() == ["aviation", "token", "F1", "4", "0.625", "0.500", "0.800"]


def test_what_is_not_a_wrong_answer_is_counted_apart() -> None:
    kinds: list[dict[str, Any]] = [
        {"finish_reason": "length"},
        {"readable": False},
        {"repetitive": True},
        {"repetitive": True},
        {},
    ]
    answers = tuple(
        Answer(example_id=str(i), text="", score=0.0, correct=False, **kind)
        for i, kind in enumerate(kinds)
    )
    student = replace(report().student, answers=answers)
    said = (
        "Of the student's 5 answers: 1 cut at the token limit, 1 not readable, which is wrong, 2"
        " repetitive"
    )
    assert said in str(report(models=(student,)))
    assert "Of the student's" not in str(report())


def test_a_report_comes_back_from_the_disk_as_it_was(tmp_path: Path) -> None:
    whole = report(**FULL)
    write_json(tmp_path / "evaluation.json", whole)
    assert (
        TypeAdapter(EvaluationReport).validate_python(read_json(tmp_path / "evaluation.json"))
        == whole
    )


def test_a_report_that_an_earlier_version_wrote_can_be_read() -> None:
    estimate = {"value": 0.5, "low": None, "high": None, "reason": ""}
    slices = {
        "aviation": {
            "items": 2,
            "strict": estimate,
            "partial": estimate,
            "unscored": 0,
            "truncated": 1,
        }
    }
    row = {
        "domain": "aviation",
        "items": 2,
        "student": 0.5,
        "expert": 1.0,
        "base": None,
        "retention": estimate,
        "headroom": estimate,
    }
    student = {"name": "student", "role": "student", "slices": slices, "pairs": {}, "answers": []}
    read = TypeAdapter(EvaluationReport).validate_python(
        {"models": [student], "retention": [row], "schema": 1}
    )
    assert read.student.slices["aviation"].truncated == 1
    assert (read.retention[0].non_inferiority, read.overall, read.edge_cases) == (None, None, ())


def test_the_dict_is_plain_and_carries_the_schema() -> None:
    plain = report().to_dict()
    assert plain["schema"] == 1
    assert (
        json.loads(json.dumps(plain))["models"][0]["slices"]["aviation"]["strict"]["value"] == 0.5
    )
