"""Benchmarks: every model is measured on each, and none of it was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distillation.evaluator.facts import AIRPORTS, EXPERTS, IGNORANT, PERFECT, SYMBOLS, TEST
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.evaluator import BenchmarkEvaluator, DomainRetentionEvaluator
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.models import LanguageModel, ScriptedModel

BENCHMARKS: dict[str, Any] = {
    "aviation": [
        {"query": f"Airport {code}?", "answers": {"aviation": country}}
        for code, country in AIRPORTS.items()
    ],
    "chemistry": [
        {"query": f"Element {name}?", "reference": symbol} for name, symbol in SYMBOLS.items()
    ],
}


def run_benchmarks(
    benchmarks: Any = BENCHMARKS, examples: Any = (), student: LanguageModel = PERFECT
) -> EvaluationReport:
    return BenchmarkEvaluator(benchmarks, resamples=200).evaluate(
        student, EXPERTS, examples, baselines={"base": IGNORANT}
    )


def test_benchmarks_are_slices_in_which_every_model_is_measured() -> None:
    report = run_benchmarks()
    assert report.slices == ("aviation", "chemistry")
    assert [(model.name, model.slices["aviation"].strict.value) for model in report.models] == [
        ("student", 1), ("base", 0), ("aviation", 1), ("chemistry", 0), ("oracle", 1)
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
    file.write_text(
        "".join(
            json.dumps({"query": f"Airport {code}?", "answers": AIRPORTS[code]}) + "\n"
            for code in AIRPORTS
        )
    )
    assert run_benchmarks({"aviation": str(file)}).student.slices["aviation"].strict.value == 1


@pytest.mark.parametrize(
    ("benchmarks", "what"),
    [
        ({}, "no benchmarks"),
        ({"aviation": []}, "benchmark of 'aviation' is empty"),
        ({"aviation": ["Where is NRT?"]}, "neither a file nor the name of a task"),
        ({"aviation": "airports.jsonl"}, "neither a file nor the name of a task"),
        (
            {"aviation": [{"query": "Airport NRT?", "answers": "Japan"}, "airports"]},
            "mixes examples and benchmarks",
        ),
        (
            {
                "aviation": [
                    [{"query": "a?", "answers": "b"}],
                    [{"query": "c?", "answers": "d"}],
                    [],
                ]
            },
            "is empty",
        ),
        (
            {"geography": [{"query": "Where is Rome?", "answers": "Italy"}]},
            "'geography', which has no expert",
        ),
        ({"aviation": [{"answers": "Japan"}]}, "example 0 has no query"),
        ({"aviation": [{"query": "Airport NRT?"}] * 2}, "the same id"),
    ],
)
def test_a_bad_benchmark_is_an_error(benchmarks: Any, what: str) -> None:
    with pytest.raises(DataError, match=what):
        run_benchmarks(benchmarks)


def test_a_domain_may_have_several_benchmarks(tmp_path: Path) -> None:
    file = tmp_path / "codes.jsonl"
    file.write_text(json.dumps({"query": "Airport NRT, by code?", "answers": "Japan"}) + "\n")
    report = run_benchmarks({"aviation": [file, BENCHMARKS["aviation"]]})
    assert report.slices == ("aviation: codes", "aviation: examples 2")
    assert [
        (found.slice, found.domain, found.source, found.items) for found in report.benchmarks
    ] == [
        ("aviation: codes", "aviation", str(file), 1),
        ("aviation: examples 2", "aviation", "examples", len(AIRPORTS)),
    ]


def test_the_oracle_answers_each_benchmark_with_its_expert() -> None:
    report = run_benchmarks()
    oracle = next(model for model in report.models if model.role == "oracle")
    experts = {
        model.name: model.slices[model.name] for model in report.models if model.role == "expert"
    }
    assert oracle.slices == experts
    assert oracle.answers == ()


def test_a_benchmark_that_was_trained_on_is_refused_or_left_out() -> None:
    trained = [BENCHMARKS["aviation"][0]]
    with pytest.raises(DataError, match="1 of 8 test queries were trained on"):
        BenchmarkEvaluator(BENCHMARKS).evaluate(
            PERFECT, EXPERTS, trained_on=[{**trained[0], "domain": "aviation"}]
        )
    evaluator = BenchmarkEvaluator(BENCHMARKS, on_overlap="report", resamples=200)
    report = evaluator.evaluate(PERFECT, EXPERTS, trained_on=[{**trained[0], "domain": "aviation"}])
    assert (
        report.student.slices["aviation"].items == report.benchmarks[0].items == len(AIRPORTS) - 1
    )


# Given scores


def test_given_scores_stand_beside_the_measured_ones() -> None:
    evaluator = BenchmarkEvaluator(
        BENCHMARKS, baseline_scores={"gpt-x": {"aviation": 0.71}}, resamples=200
    )
    given = evaluator.evaluate(PERFECT, EXPERTS).models[-1]
    assert (given.name, given.role, given.given) == ("gpt-x", "baseline", True)
    assert given.slices["aviation"].strict.value == 0.71
    assert "chemistry" not in given.slices, "missing is not zero"


@pytest.mark.parametrize(
    ("scores", "what"), [({"law": 0.5}, "unknown benchmark"), ({"aviation": 71}, "not shares")]
)
def test_given_scores_that_can_t_be_are_refused(scores: dict[str, float], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        BenchmarkEvaluator(BENCHMARKS, baseline_scores={"gpt-x": scores}).evaluate(PERFECT, EXPERTS)


# General ability

GENERAL = [
    {"query": f"What is {number} and {number}?", "answers": str(2 * number)}
    for number in range(100, 200)
]


def adding(name: str, *, up_to: int) -> ScriptedModel:
    return ScriptedModel(
        lambda question: (
            str(2 * int(question.split()[2])) if int(question.split()[2]) < up_to else "?"
        ),
        name=name,
    )


@pytest.mark.parametrize(
    ("student", "base", "items", "verdict"),
    [
        (200, 200, 100, "no measurable loss"),
        (200, 200, 10, "not enough data"),
        (120, 200, 100, "loss"),
        (200, 120, 100, "no measurable loss"),
        (197, 200, 100, "not enough data"),
    ],
)
def test_general_ability_is_compared_with_the_base(
    student: int, base: int, items: int, verdict: str
) -> None:
    evaluator = BenchmarkEvaluator({}, general=GENERAL[:items], resamples=500)
    report = evaluator.evaluate(
        adding("student", up_to=student), EXPERTS, baselines={"base": adding("base", up_to=base)}
    )
    [found] = report.regressions
    assert (found.slice, found.items, found.verdict) == ("general: examples", items, verdict)
    assert found.difference.value == pytest.approx((student - base) / 100 if items == 100 else 0)
    assert report.benchmarks[0].domain == ""


def test_without_a_base_nothing_is_said_of_a_loss() -> None:
    report = BenchmarkEvaluator({}, general=GENERAL, resamples=200).evaluate(PERFECT, EXPERTS)
    assert report.regressions[0].verdict == "not enough data"
    assert "base was not measured" in report.regressions[0].difference.reason
    oracle = next(model for model in report.models if model.role == "oracle")
    assert oracle.slices["general: examples"].strict.value is None, (
        "no expert has general ability for its domain"
    )


@pytest.mark.parametrize("tolerance", [-0.1, 1])
def test_a_tolerance_out_of_range_is_refused(tolerance: float) -> None:
    with pytest.raises(ConfigurationError, match="tolerance"):
        BenchmarkEvaluator(BENCHMARKS, tolerance=tolerance)


# Beside a test set


def test_benchmarks_stand_beside_the_test_set_in_one_report() -> None:
    benchmarks = BenchmarkEvaluator(
        BENCHMARKS,
        general=GENERAL[:10],
        baseline_scores={"gpt-x": {"aviation": 0.71}},
        resamples=200,
    )
    evaluator = DomainRetentionEvaluator(benchmarks=benchmarks, resamples=200)
    report = evaluator.evaluate(PERFECT, EXPERTS, TEST, baselines={"base": IGNORANT})
    alone = DomainRetentionEvaluator(resamples=200).evaluate(
        PERFECT, EXPERTS, TEST, baselines={"base": IGNORANT}
    )
    assert report.slices == (
        *alone.slices,
        "benchmark: aviation",
        "benchmark: chemistry",
        "general: examples",
    )
    assert (report.retention, report.overall, report.cross_domain_accuracy) == (
        alone.retention, alone.overall, alone.cross_domain_accuracy
    )  # fmt: skip
    assert [(model.role, model.name) for model in report.models][:-1] == [
        (model.role, model.name) for model in alone.models
    ]
    assert report.models[-1].slices["benchmark: aviation"].strict.value == 0.71
    assert [found.slice for found in report.benchmarks] == [
        "benchmark: aviation",
        "benchmark: chemistry",
        "general: examples",
    ]
    assert [found.slice for found in report.regressions] == ["general: examples"]
    assert {answer.example_id for answer in report.student.answers} == {
        example.id for example in report.examples
    }
    assert report.test_set != alone.test_set


def test_the_items_of_benchmarks_beside_a_test_set_are_kept_out_of_training() -> None:
    evaluator = DomainRetentionEvaluator(benchmarks=BenchmarkEvaluator(BENCHMARKS))
    assert sum(map(len, evaluator.own_examples.values())) == len(AIRPORTS) + len(SYMBOLS)
    assert DomainRetentionEvaluator().own_examples == {}
