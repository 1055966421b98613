"""Tasks of lm-evaluation-harness: run without a network, graded as the task does, and held against
what was trained on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from distillation.evaluator.facts import AIRPORTS, EXPERTS, IGNORANT, PERFECT
from domainfusion.distillation.evaluator import BenchmarkEvaluator, HarnessTask
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.types import Message

WRITING: dict[str, Any] = {
    "task": "local_airports",
    "output_type": "generate_until",
    "doc_to_text": "Where is {{code}}?",
    "doc_to_target": "{{country}}",
    "generation_kwargs": {"until": ["."], "max_gen_toks": 16},
    "filter_list": [
        {
            "name": "last word",
            "filter": [
                {"function": "regex", "regex_pattern": r"(\w+)$"},
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
CHOOSING: dict[str, Any] = {
    "task": "local_choice",
    "output_type": "multiple_choice",
    "doc_to_text": "Where is {{code}}?",
    "doc_to_choice": ["Japan", "France"],
    "doc_to_target": "{{['Japan', 'France'].index(country)}}",
    "metric_list": [
        {"metric": name, "aggregation": "mean", "higher_is_better": True}
        for name in ("acc", "acc_norm")
    ],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def write(folder: Path, cache: str, **task: Any) -> str:
    """Writes a task over a file of airports, and returns the task's name."""
    data = folder / "airports.jsonl"
    data.write_text(
        "".join(
            json.dumps({"code": code, "country": AIRPORTS[code]}) + "\n" for code in ("NRT", "CDG")
        )
    )
    source = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": cache},
        "test_split": "test",
        "metadata": {"version": 1},
    }
    (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump({**source, **task}))
    return str(task["task"])


def evaluated(folder: Path, name: str, student: Any, **options: Any) -> Any:
    task = HarnessTask(
        name=name,
        folder=str(folder),
        **{key: options.pop(key) for key in ("metric", "limit") if key in options},
    )
    evaluator = BenchmarkEvaluator(
        {"aviation": task}, resamples=200, on_overlap=options.pop("on_overlap", "refuse")
    )
    return evaluator.evaluate(
        student, options.pop("experts", {"aviation": EXPERTS["aviation"]}), **options
    )


def test_a_task_asks_and_grades_in_its_own_way(
    tmp_path: Path, cache: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write(tmp_path, cache, **WRITING)
    report = evaluated(tmp_path, name, PERFECT, baselines={"base": IGNORANT})
    scores = {model.name: model.slices["aviation"].strict.value for model in report.models}
    assert scores == {"student": 1, "base": 0, "aviation": 1, "oracle": 1}
    assert [answer.text for answer in report.student.answers] == ["It is Japan", "It is France"]
    assert [example.query for example in report.examples] == ["Where is NRT?", "Where is CDG?"]
    assert (report.benchmarks[0].source, report.benchmarks[0].items) == ("local_airports", 2)
    assert capsys.readouterr() == ("", "")


def test_what_was_trained_on_is_left_out_of_a_task(tmp_path: Path, cache: str) -> None:
    name = write(tmp_path, cache, **WRITING)
    trained = [{"query": "Where is NRT?", "domain": "aviation"}]
    with pytest.raises(DataError, match="1 of 2 test queries were trained on"):
        evaluated(tmp_path, name, PERFECT, trained_on=trained)
    report = evaluated(tmp_path, name, PERFECT, trained_on=trained, on_overlap="report")
    assert [answer.text for answer in report.student.answers] == ["It is France"]
    assert report.student.slices["aviation"].strict.value == 1


def test_a_limit_takes_the_first_items(tmp_path: Path, cache: str) -> None:
    report = evaluated(tmp_path, write(tmp_path, cache, **WRITING), PERFECT, limit=1)
    assert [answer.text for answer in report.student.answers] == ["It is Japan"]


def test_multiple_choice_compares_probabilities(
    tmp_path: Path, cache: str, tiny_llama: Path
) -> None:
    base = LlamaModel(tiny_llama)
    name = write(tmp_path, cache, **CHOOSING)
    report = evaluated(tmp_path, name, base, experts={"aviation": base}, metric="acc_norm")
    [first, _] = report.student.answers
    likelihoods = base.score(
        [
            (*report.examples[0].conversation, Message("assistant", choice))
            for choice in ("Japan", "France")
        ]
    )
    totals = [sum(scores.log_probabilities[:-1]) for scores in likelihoods]
    assert first.text == ("Japan" if totals[0] > totals[1] else "France")
    assert first.score is not None
    assert report.student.slices["aviation"].chance == 0.5


def test_a_model_that_gives_text_alone_is_unscored_there_and_not_wrong(
    tmp_path: Path, cache: str
) -> None:
    report = evaluated(
        tmp_path, write(tmp_path, cache, **CHOOSING), ScriptedModel("Japan", name="remote")
    )
    score = report.student.slices["aviation"]
    assert (score.strict.value, score.unscored) == (None, 2)
    assert "probabilities of remote can't be had" in report.student.answers[0].reason


@pytest.mark.parametrize(
    ("changes", "options", "error", "what"),
    [
        ({}, {"name": "local_airport"}, DataError, "no task of this name"),
        ({"doc_to_text": "{{code"}, {}, DataError, "can't be read"),
        ({}, {"metric": "f1"}, ConfigurationError, "no metric of this name"),
        (
            {"output_type": "loglikelihood_rolling", "doc_to_target": ""},
            {},
            ConfigurationError,
            "probability of given texts",
        ),
    ],
)
def test_a_bad_task_is_one_clear_error(
    tmp_path: Path,
    cache: str,
    changes: dict[str, Any],
    options: dict[str, Any],
    error: type[Exception],
    what: str,
) -> None:
    name = write(tmp_path, cache, **{**WRITING, **changes})
    with pytest.raises(error, match=what):
        evaluated(tmp_path, options.pop("name", name), PERFECT, **options)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder of tasks"):
        evaluated(tmp_path / "nowhere", "task", PERFECT)


@pytest.mark.parametrize("options", [{"limit": 0}, {"num_fewshot": -1}])
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"limit|num_fewshot"):
        HarnessTask(name="arc_easy", **options)
