"""Results print as tables that say what is not known, and are the same in memory and on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from distillation.builders import example
from domainfusion.distillation.results import (
    Answer,
    Coherence,
    DomainRetention,
    Estimate,
    EvaluationReport,
    ModelResult,
    SliceScore,
)
from domainfusion.records import read_json, write_json

NOTHING = Estimate(value=None, reason="nothing was graded")


def score(value: float | None, items: int = 2) -> SliceScore:
    estimate = NOTHING if value is None else Estimate(value=value, low=value, high=value)
    return SliceScore(items=items, strict=estimate, partial=estimate)


def report(**changes: Any) -> EvaluationReport:
    answers = (Answer(example_id="1", text="Japan.", score=1.0, correct=True),)
    student = ModelResult(
        name="student", role="student", slices={"aviation": score(0.5), "cross-domain": score(0.25, items=4)}, answers=answers
    )
    expert = ModelResult(name="aviation", role="expert", slices={"aviation": score(1.0), "cross-domain": score(None, items=4)})
    retention = DomainRetention(
        domain="aviation", items=2, student=0.5, expert=1.0, base=None, retention=Estimate(value=0.5, low=0.25, high=0.75), headroom=NOTHING
    )
    coherence = Coherence(score=Estimate(value=0.9), coverage=Estimate(value=0.25), validated=False, items=4)
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
    [(NOTHING, "undefined"), (Estimate(value=0.5), "0.500"), (Estimate(value=0.5, low=0.25, high=1.0), "0.500 [0.250, 1.000]")],
)
def test_an_estimate_prints_with_its_interval_or_says_that_it_is_undefined(estimate: Estimate, text: str) -> None:
    assert str(estimate) == text


def test_a_report_prints_every_model_and_slice() -> None:
    lines = str(report()).splitlines()
    heading = next(line for line in lines if line.startswith("Accuracy"))
    assert "aviation (2)" in heading and "cross-domain (4)" in heading
    assert next(line for line in lines if line.startswith("student")).split() == ["student", "0.500", "0.250"]
    assert next(line for line in lines if line.startswith("expert: aviation")).split()[2:] == ["1.000", "–"]


def test_a_table_is_straight() -> None:
    blocks = str(report()).split("\n\n")
    for block in blocks[:2]:
        assert len({len(line) for line in block.splitlines() if not line.startswith("Domain Expertise")}) == 1


def test_retention_prints_what_is_undefined_and_what_was_not_measured() -> None:
    row = next(line for line in str(report()).splitlines() if line.startswith("aviation"))
    assert row.split() == ["aviation", "2", "–", "1.000", "0.500", "0.500", "[0.250,", "0.750]", "undefined"]


def test_coherence_is_printed_as_not_validated_until_it_is() -> None:
    assert "Integration Coherence (not validated): 0.900, with coverage 0.250" in str(report())
    coherence = report().coherence
    assert coherence is not None
    assert "not validated" not in str(report(coherence=replace(coherence, validated=True)))


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


def test_a_report_comes_back_from_the_disk_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "evaluation.json", report())
    assert TypeAdapter(EvaluationReport).validate_python(read_json(tmp_path / "evaluation.json")) == report()


def test_the_dict_is_plain_and_carries_the_schema() -> None:
    plain = report().to_dict()
    assert plain["schema"] == 1
    assert json.loads(json.dumps(plain))["models"][0]["slices"]["aviation"]["strict"]["value"] == 0.5
