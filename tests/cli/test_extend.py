"""One more expert for a finished run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from domainfusion.cli.main import main
from domainfusion.models import HuggingFaceModel
from domainfusion.recipe import read_recipe
from domainfusion.records import read_json, read_records
from domainfusion.types import Conversation, Example, Generation, TrainingRecord


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Files of questions on tools, to train and to test on."""
    lines: dict[str, list[dict[str, Any]]] = {
        "train": [{"query": f"What is a {tool} for?"} for tool in ("saw", "file", "plane")],
        "test": [{"query": "What cuts wood?", "answers": ["saw"]}],
    }
    for name, examples in lines.items():
        text = "".join(json.dumps(example) + "\n" for example in examples)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return {name: str(tmp_path / f"{name}.jsonl") for name in lines}


def test_an_expert_is_added_to_a_finished_run(
    finished_run: Path,
    make_adapter: Callable[..., Path],
    files: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    generate = HuggingFaceModel.generate
    asked: list[tuple[str, str]] = []

    def counted(
        model: HuggingFaceModel, conversations: Sequence[Conversation], *rest: Any, **more: Any
    ) -> list[Generation]:
        asked.extend((model.name, each[-1].content) for each in conversations)
        return generate(model, conversations, *rest, **more)

    monkeypatch.setattr(HuggingFaceModel, "generate", counted)
    monkeypatch.setattr("domainfusion.distillation.distiller.measure_savings", lambda *_: None)
    tools, folder = make_adapter("tools", 3), tmp_path / "more"
    words = ["extend", str(finished_run), "--expert", f"tools={tools}", "--about", "Hand tools"]
    words += ["--examples", files["train"], "--test", files["test"], "--quiet"]
    words += ["--set", "trainer.epochs=1", "--output-dir", str(folder)]
    assert main(words) == 0

    recipe = read_recipe(folder / "recipe.yaml")
    assert recipe.student.path == str(finished_run / "model")
    assert list(recipe.domains) == ["animals", "colours", "tools"]
    frozen = read_records(finished_run / "test_examples.jsonl", Example)
    measured = read_records(folder / "test_examples.jsonl", Example)
    assert measured[: len(frozen)] == frozen and len(measured) == len(frozen) + 1
    old = {
        record.example.id for record in read_records(finished_run / "records.jsonl", TrainingRecord)
    }
    new = {record.example.id for record in read_records(folder / "records.jsonl", TrainingRecord)}
    assert old < new and len(new) == len(old) + 3
    # What the old experts answer to questions of the run was there.
    known = {turns["content"] for turns in questions_of(finished_run)}
    assert not [question for name, question in asked if name == "animals" and question in known]
    assert {name for name, _ in asked} >= {"tools", "student of finished"}

    report = read_json(folder / "evaluation.json")
    by_role = {model["role"]: model for model in report["models"]}
    assert set(by_role["base"]["slices"]) == {"animals", "colours", "tools", "cross-domain"}
    shown = capsys.readouterr().out.rpartition("The student's accuracy")[2]
    assert "before" in shown and "after" in shown
    for name in ("animals", "colours", "tools", "cross-domain"):
        assert name in shown


def questions_of(directory: Path) -> list[dict[str, str]]:
    records = read_records(directory / "records.jsonl", TrainingRecord)
    return [{"content": response.question} for record in records for response in record.responses]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--expert", "tools=nowhere"], "has no examples to train on"),
        (["--expert", "animals=./nowhere"], "extend --expert animals=./nowhere"),
        (["--expert", "animals=x,y"], "--expert takes one value here"),
        (["--expert", "animals=x", "--test", "nowhere.jsonl"], "a file that is not there"),
    ],
)
def test_what_can_t_be_extended_says_so(
    finished_run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extend", str(finished_run), *words]) == 1
    assert message in capsys.readouterr().err
