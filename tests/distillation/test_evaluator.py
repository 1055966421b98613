"""Evaluators: the same student as expert keeps everything, nothing ungraded counts as wrong, and bad test sets are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from distillation.builders import Cut, example
from domainfusion.distillation.evaluator import BenchmarkEvaluator, DomainRetentionEvaluator
from domainfusion.distillation.results import EvaluationReport, ModelResult
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.models import LanguageModel, ScriptedModel
from domainfusion.types import Example, Score

AIRPORTS = {"NRT": "Japan", "CDG": "France", "LHR": "Britain", "FCO": "Italy"}
SYMBOLS = {"gold": "Au", "iron": "Fe", "silver": "Ag", "tin": "Sn"}
AVIATION = [example(f"Where is {code}?", {"aviation": country}) for code, country in AIRPORTS.items()]
CHEMISTRY = [example(f"What is the symbol of {name}?", {"chemistry": symbol}) for name, symbol in SYMBOLS.items()]
CROSS = [
    example(f"Where is {code}, and what is the symbol of {name}?", {"aviation": AIRPORTS[code], "chemistry": SYMBOLS[name]})
    for code, name in zip(AIRPORTS, SYMBOLS, strict=True)
]
TEST = [*AVIATION, *CHEMISTRY, *CROSS]


def knowing(*facts: Mapping[str, str], name: str = "scripted") -> ScriptedModel:
    """A model that states every fact whose key is in the question."""
    known = {key: value for table in facts for key, value in table.items()}
    return ScriptedModel(lambda question: " ".join(f"It is {known[key]}." for key in known if key in question) or "I can't say.", name=name)


EXPERTS: dict[str, LanguageModel] = {"aviation": knowing(AIRPORTS, name="aviation"), "chemistry": knowing(SYMBOLS, name="chemistry")}
IGNORANT = ScriptedModel("I can't say.", name="ignorant")
PERFECT = knowing(AIRPORTS, SYMBOLS, name="perfect")


def evaluate(student: LanguageModel, *, examples: Any = TEST, experts: Any = None, **options: Any) -> EvaluationReport:
    baselines = {"base": options.pop("base")} if "base" in options else None
    evaluator = DomainRetentionEvaluator(resamples=options.pop("resamples", 500), **options)
    return evaluator.evaluate(student, experts or EXPERTS, examples, baselines=baselines)


def result(report: EvaluationReport, role: str, name: str = "") -> ModelResult:
    return next(model for model in report.models if model.role == role and name in ("", model.name))


# Retention


def test_a_student_that_answers_as_its_expert_keeps_exactly_everything() -> None:
    half = knowing(dict(list(AIRPORTS.items())[:2]), name="half")
    row = evaluate(half, experts={"aviation": half, "chemistry": PERFECT}).retention[0]
    assert row.student == row.expert == 0.5
    assert (row.retention.value, row.retention.low, row.retention.high) == (1, 1, 1)


def test_retention_is_the_ratio_of_means_over_the_domain_s_own_examples() -> None:
    student = knowing(dict(list(AIRPORTS.items())[:3]), SYMBOLS)
    aviation, chemistry = evaluate(student).retention
    assert (aviation.domain, aviation.items, aviation.student, aviation.retention.value) == ("aviation", 4, 0.75, 0.75)
    assert (chemistry.domain, chemistry.items, chemistry.retention.value) == ("chemistry", 4, 1)


@pytest.mark.parametrize("name", ["student", "baseline base"])
def test_a_domain_may_have_the_name_of_a_row(name: str) -> None:
    examples = [{"query": "NRT?", "domain": name, "answers": ["Japan"]}]
    expert, silent = ScriptedModel("Japan."), ScriptedModel("I can't say.")
    (row,) = evaluate(silent, examples=examples, experts={name: expert}, base=silent).retention
    assert (row.student, row.expert, row.base) == (0, 1, 0)


def test_retention_of_an_expert_that_knows_nothing_is_undefined() -> None:
    row = evaluate(PERFECT, experts={**EXPERTS, "aviation": IGNORANT}).retention[0]
    assert row.retention.value is None
    assert "got nothing right" in row.retention.reason


def test_headroom_is_the_share_of_what_there_was_to_learn() -> None:
    base = knowing(dict(list(AIRPORTS.items())[:2]))
    many = [example(f"Where is {code}{number}?", {"aviation": country}) for code, country in AIRPORTS.items() for number in range(10)]
    row = evaluate(knowing(dict(list(AIRPORTS.items())[:3])), examples=many, base=base).retention[0]
    assert row.base == 0.5
    assert row.headroom.value == pytest.approx((0.75 - 0.5) / (1 - 0.5))


@pytest.mark.parametrize("base", [EXPERTS["aviation"], PERFECT], ids=["as the expert", "better"])
def test_headroom_is_undefined_where_there_was_nothing_to_learn(base: LanguageModel) -> None:
    row = evaluate(PERFECT, base=base).retention[0]
    assert row.headroom.value is None
    assert "not measurably better" in row.headroom.reason


def test_headroom_is_undefined_where_the_base_was_not_measured() -> None:
    assert "was not measured" in evaluate(PERFECT).retention[0].headroom.reason


# The oracle and the matrix


def test_the_oracle_is_right_where_each_expert_knows_its_part() -> None:
    oracle = result(evaluate(IGNORANT), "oracle")
    assert {name: score.strict.value for name, score in oracle.slices.items()} == {"aviation": 1, "chemistry": 1, "cross-domain": 1}


def test_the_oracle_counts_a_part_only_where_its_own_expert_states_it() -> None:
    swapped = {"aviation": EXPERTS["chemistry"], "chemistry": EXPERTS["aviation"]}
    oracle = result(evaluate(IGNORANT, experts=swapped), "oracle")
    assert oracle.slices["cross-domain"].partial.value == 0


def test_every_model_answers_every_query() -> None:
    report = evaluate(PERFECT, base=IGNORANT)
    assert [(model.role, len(model.answers)) for model in report.models] == [
        ("student", len(TEST)),
        ("base", len(TEST)),
        ("expert", len(TEST)),
        ("expert", len(TEST)),
        ("oracle", 0),
    ]
    assert result(report, "expert", "aviation").slices["chemistry"].strict.value == 0
    assert result(report, "expert", "aviation").slices["cross-domain"].partial.value == 0.5


def test_baselines_of_the_evaluator_and_of_the_call_stand_side_by_side() -> None:
    report = evaluate(PERFECT, base=IGNORANT, baselines={"merge": PERFECT, "most frequent": IGNORANT})
    assert {model.name: model.role for model in report.models if model.role != "expert"} == {
        "student": "student", "base": "base", "merge": "merge", "most frequent": "baseline", "oracle": "oracle"
    }  # fmt: skip


def test_cross_domain_accuracy_is_strict_and_reported_by_pair() -> None:
    one_half = evaluate(EXPERTS["chemistry"])
    assert one_half.cross_domain_accuracy.value == 0
    assert one_half.student.slices["cross-domain"].partial.value == 0.5
    assert evaluate(PERFECT).cross_domain_accuracy.value == 1
    assert list(one_half.student.pairs) == ["aviation + chemistry"]


# Slices


def test_slices_are_domains_first_then_cross_domain_then_the_rest() -> None:
    others = [
        example("Where is gold's airport?", {"aviation": "Japan"}, source="adversarial"),
        example("Which currency has NRT?", {"aviation": "Japan"}, metadata={"slice": "two hops"}),
    ]
    report = evaluate(PERFECT, examples=[*others, *CROSS, *AVIATION, *CHEMISTRY])
    assert report.slices == ("aviation", "chemistry", "cross-domain", "adversarial", "two hops")
    assert {name: score.items for name, score in report.student.slices.items()}["aviation"] == len(AVIATION)
    assert next(row for row in report.retention if row.domain == "aviation").items == len(AVIATION)


def test_a_truncated_answer_is_counted() -> None:
    report = evaluate(Cut("It is Japan and"), examples=AVIATION)
    assert report.student.slices["aviation"].truncated == len(AVIATION)
    assert {answer.finish_reason for answer in report.student.answers} == {"length"}


# Ungraded is not wrong


def shy(given: Example, text: str) -> Score:
    """Grades nothing about gold."""
    return Score.unscored("gold is not graded") if "gold" in given.query else Score(1.0)


def test_an_answer_that_can_t_be_graded_is_in_no_mean() -> None:
    slices = evaluate(IGNORANT, metric=shy).student.slices
    assert (slices["chemistry"].unscored, slices["chemistry"].items) == (1, 4)
    assert slices["chemistry"].strict.value == slices["chemistry"].partial.value == 1


def test_a_slice_in_which_nothing_could_be_graded_is_undefined_and_not_zero() -> None:
    unknown = [example(f"What of {word}?", domains=["aviation"]) for word in ("it", "them")]
    report = evaluate(PERFECT, examples=unknown)
    assert report.student.slices["aviation"].strict.value is None
    assert report.student.slices["aviation"].unscored == 2
    assert report.retention[0].retention.value is None
    assert [answer.correct for answer in report.student.answers] == [None, None]
    assert all(answer.reason for answer in report.student.answers)
    assert "undefined" in str(report)


@pytest.mark.parametrize("grade", [1.5, -0.1, float("nan")])
def test_a_grade_out_of_range_is_no_grade(grade: float) -> None:
    slices = evaluate(PERFECT, metric=lambda given, text: Score(grade)).student.slices
    assert slices["aviation"].unscored == 4


def test_a_metric_may_return_a_bare_number() -> None:
    assert evaluate(PERFECT, metric=lambda given, text: 0.5).student.slices["aviation"].partial.value == 0.5  # type: ignore[arg-type,return-value]


# Coherence


def test_coherence_comes_with_its_coverage_and_its_validation() -> None:
    coherence = evaluate(EXPERTS["chemistry"], coherence_metric=lambda text: Score(0.8)).coherence
    assert coherence is not None
    assert (coherence.score.value, coherence.coverage.value, coherence.validated) == (pytest.approx(0.8), 0.5, False)
    assert coherence.items == len(CROSS)


def test_without_cross_domain_examples_there_is_no_coherence() -> None:
    assert evaluate(PERFECT, examples=AVIATION).coherence is None


def test_texts_without_a_coherence_leave_it_out() -> None:
    assert evaluate(PERFECT, coherence_metric=lambda text: Score.unscored("too short")).coherence is None


# The report


def test_the_same_evaluation_twice_is_the_same_report() -> None:
    assert evaluate(PERFECT, base=IGNORANT) == evaluate(PERFECT, base=IGNORANT)


def test_the_test_set_is_named_by_its_content() -> None:
    assert evaluate(PERFECT).test_set == evaluate(IGNORANT).test_set
    assert evaluate(PERFECT, examples=AVIATION).test_set != evaluate(PERFECT).test_set


def test_the_report_names_its_metrics_and_resamples() -> None:
    report = evaluate(PERFECT, metric=shy, resamples=300, seed=4)
    assert (report.metric, report.coherence_metric, report.resamples, report.seed) == ("shy", "surface_coherence", 300, 4)


# Bad test sets


@pytest.mark.parametrize(
    ("examples", "what"),
    [
        ([], "no examples"),
        ([example("Where is it?", {"geography": "here"})], "'geography', which has no expert"),
        ([example("One?", {"aviation": "x"}, id="1"), example("Two?", {"aviation": "x"}, id="1")], "the same id"),
        ([AVIATION[0], AVIATION[0].query], "no object"),
    ],
)
def test_a_bad_test_set_is_an_error_before_anything_is_asked(examples: list[Any], what: str) -> None:
    student = knowing(AIRPORTS)
    with pytest.raises(DataError, match=what):
        evaluate(student, examples=examples)
    assert student.calls == []


def test_examples_may_be_dicts() -> None:
    assert evaluate(PERFECT, examples=[{"query": "Where is NRT?", "domain": "aviation", "answers": "Japan"}]).student.answers[0].correct


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="resamples"):
        DomainRetentionEvaluator(resamples=99)


# Benchmarks

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
