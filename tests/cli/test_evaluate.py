from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from domainfusion.cli.main import main
from domainfusion.records import read_json

from .test_distill import copy_of


def test_the_saved_student_is_evaluated_as_the_trained_one_was(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    before = read_json(directory / "evaluation.json")
    (directory / "evaluation.json").unlink()
    assert main(["evaluate", str(directory), "--quiet"]) == 0
    assert "The student " in capsys.readouterr().out
    after = read_json(directory / "evaluation.json")
    assert after["test_set"] == before["test_set"]
    assert [model["name"] for model in after["models"]] == [
        model["name"] for model in before["models"]
    ]
    # Saved and loaded again, the student gives the answers that it gave when it was trained.
    assert after["models"] == before["models"]


def test_the_student_is_evaluated_against_other_examples(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    before = (directory / "evaluation.json").read_text()
    others = tmp_path / "others.jsonl"
    others.write_text(
        json.dumps(
            {
                "query": "What does a goose eat?",
                "domain": "animals",
                "answers": {"animals": "grass"},
            }
        )
        + "\n"
    )
    assert main(["evaluate", str(directory), "--against", str(others), "--quiet"]) == 0
    assert str(others) in capsys.readouterr().out
    found = read_json(directory / "evaluation-others.json")
    assert [example["query"] for example in found["examples"]] == ["What does a goose eat?"]
    assert {model["name"] for model in found["models"]} >= {"student", "base", "animals", "colours"}
    assert (directory / "evaluation.json").read_text() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"query": "What does a cow eat?", "domain": "animals"},
            "1 of 1 test queries were trained on",
        ),
        ({"query": "What is a quark?", "domain": "physics"}, "'physics', which has no teacher"),
        ({"query": ""}, "has no query"),
        (None, "can't be read"),
    ],
)
def test_examples_that_can_not_be_used_are_one_error(
    line: dict[str, str] | None,
    message: str,
    finished_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = copy_of(finished_run, tmp_path)
    others = tmp_path / "others.jsonl"
    if line is not None:
        others.write_text(json.dumps(line) + "\n")
    assert main(["evaluate", str(directory), "--against", str(others), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (directory / "evaluation-others.json").exists()


def test_a_run_of_a_program_says_where_to_evaluate_it(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    (directory / "recipe.yaml").unlink()
    assert main(["evaluate", str(directory), "--quiet"]) == 1
    assert "call distiller.evaluate(...) in the program that made it" in capsys.readouterr().err


# What the metrics are worth


def test_the_metrics_are_measured_without_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--check-metrics", "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "consistency, on 81 texts" in shown
    for name in ("shuffled", "contradicted", "looped", "truncated", "concatenated"):
        assert re.search(rf"^  {name} +[01]\.\d{{3}} \[", shown, re.MULTILINE)
    assert "below 0.90" in shown


def test_the_metric_of_a_run_is_measured_and_its_report_says_so(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    before = read_json(directory / "evaluation.json")
    assert main(["evaluate", str(directory), "--check-metrics", "--quiet"]) == 0
    assert "consistency, on 81 texts" in capsys.readouterr().out
    after = read_json(directory / "evaluation.json")
    found = after["coherence"].pop("validation")
    assert set(found["auroc"]) >= {
        "shuffled",
        "contradicted",
        "looped",
        "truncated",
        "concatenated",
    }
    assert str(directory) in found["command"]
    before["coherence"].pop("validation")
    assert after == before
    assert main(["report", str(directory), "--quiet"]) == 0
    assert "not reached on contradicted 0.50" in " ".join(
        (directory / "report.md").read_text().split()
    )


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--check-metrics", "--against", "x.jsonl"],
        ["--reference-model", "m"],
        ["run", "--check-metrics", "--reference-model", "m"],
    ],
)
def test_words_that_do_not_go_together_are_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *words])
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_an_unmet_requirement_has_an_exit_code_of_its_own(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    junit, outcomes = tmp_path / "junit.xml", tmp_path / "requirements.json"
    words = ["evaluate", str(directory), "--quiet", "--require", "accuracy[animals]>=0"]
    assert main([*words, "--junit", str(junit), "--json", str(outcomes)]) == 0
    assert 'failures="0"' in junit.read_text()
    [outcome] = read_json(outcomes)
    assert outcome["met"] is True
    assert 0 <= outcome["low"] <= outcome["value"] <= outcome["high"] <= 1
    assert main([*words, "--require", "accuracy > 1"]) == 3
    assert "NOT MET  accuracy > 1 (animals): " in capsys.readouterr().out


def test_a_requirement_is_read_before_anything_is_asked(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(finished_run), "--require", "DER is good"]) == 1
    assert "A requirement can't be read; received 'DER is good'" in capsys.readouterr().err
