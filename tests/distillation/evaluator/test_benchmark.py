"""Benchmarks: every model is measured on each, and none of it was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distillation.evaluator.facts import AIRPORTS, EXPERTS, IGNORANT, PERFECT, SYMBOLS
from domainfusion.distillation.evaluator import BenchmarkEvaluator
from domainfusion.distillation.results import EvaluationReport
from domainfusion.errors import DataError
from domainfusion.models import LanguageModel

BENCHMARKS = {
    "aviation": [{"query": f"Airport {code}?", "answers": {"aviation": country}} for code, country in AIRPORTS.items()],
    "chemistry": [{"query": f"Element {name}?", "reference": symbol} for name, symbol in SYMBOLS.items()],
}


def run_benchmarks(benchmarks: Any = BENCHMARKS, examples: Any = (), student: LanguageModel = PERFECT) -> EvaluationReport:
    return BenchmarkEvaluator(benchmarks, resamples=200).evaluate(student, EXPERTS, examples, baselines={"base": IGNORANT})


def test_benchmarks_are_slices_in_which_every_model_is_measured() -> None:
    report = run_benchmarks()
    assert report.slices == ("aviation", "chemistry")
    assert [(model.name, model.slices["aviation"].strict.value) for model in report.models] == [
        ("student", 1), ("base", 0), ("aviation", 1), ("chemistry", 0)
    ]  # fmt: skip


def test_examples_are_kept_apart_from_the_benchmarks() -> None:
    same_query = {"query": "Airport NRT?", "domain": "aviation", "answers": "China"}
    report = run_benchmarks(examples=[same_query])
    assert report.slices == ("aviation", "chemistry", "examples: aviation")
    assert report.student.slices["aviation"].items == len(AIRPORTS)
    assert report.student.slices["examples: aviation"].strict.value == 0


def test_one_query_may_stand_in_two_benchmarks() -> None:
    item = {"query": "Where is NRT?", "answers": "Japan"}
    report = run_benchmarks({"aviation": [item], "chemistry": [item]})
    assert len({answer.example_id for answer in report.student.answers}) == 2


def test_a_benchmark_may_be_a_file_whose_items_name_no_domain(tmp_path: Path) -> None:
    file = tmp_path / "airports.jsonl"
    file.write_text("".join(json.dumps({"query": f"Airport {code}?", "answers": AIRPORTS[code]}) + "\n" for code in AIRPORTS))
    assert run_benchmarks({"aviation": str(file)}).student.slices["aviation"].strict.value == 1


@pytest.mark.parametrize(
    ("benchmarks", "what"),
    [
        ({}, "no benchmarks"),
        ({"aviation": []}, "benchmark of 'aviation' is empty"),
        ({"aviation": ["Where is NRT?"]}, "example 0 is no object"),
        ({"aviation": [{"answers": "Japan"}]}, "example 0 has no query"),
        ({"aviation": [{"query": "Airport NRT?"}] * 2}, "the same id"),
    ],
)
def test_a_bad_benchmark_is_an_error(benchmarks: Any, what: str) -> None:
    with pytest.raises(DataError, match=what):
        run_benchmarks(benchmarks)
