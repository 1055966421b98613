"""What is said before a run begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from domainfusion.cli.main import main
from domainfusion.cli.preflight import notes_on
from domainfusion.recipe import read_recipe
from domainfusion.recipe.document import read_changes
from models.faulty_server import FaultyServer


def notes(recipe_file: Path, *changes: str) -> list[str]:
    return notes_on(read_recipe(recipe_file, [read_changes(text)[0] for text in changes]))


def file_of(folder: Path, *examples: dict[str, Any]) -> str:
    file = folder / "tests.jsonl"
    file.write_text("".join(json.dumps(example) + "\n" for example in examples))
    return f"evaluation.test_examples={file}"


def test_what_a_report_will_not_be_able_to_say_is_said_first(
    recipe_file: Path, tmp_path: Path
) -> None:
    change = file_of(tmp_path, {"query": "What does a  COW eat?", "domain": "animals"})
    assert notes(recipe_file, change) == [
        "animals: Its only test example has no reference, so its accuracy and retention will stay"
        " unknown.",
        "colours has no test example of its own: the report will not say how much of its expertise"
        " is retained.",
        "No test example needs several domains: the report will not say how well the student joins"
        " them.",
        "1 of 1 test examples are training examples too, first 'What does a  COW eat?': they are"
        " left out of training.",
    ]
    [note] = notes(recipe_file, "evaluation=off")
    assert note.startswith("The evaluation is off")


@pytest.mark.parametrize(("count", "lower"), [(1, "2%"), (10, "69%"), (71, "95%"), (72, None)])
def test_few_questions_are_said_to_be_few(
    recipe_file: Path, tmp_path: Path, count: int, lower: str | None
) -> None:
    """2.5 % is the chance that all of n answers are right where each is with probability
    0.025^(1/n).
    """
    questions = [
        {"query": f"What is {number}?", "domain": "animals", "answers": "a cow"}
        for number in range(count)
    ]
    found = [note for note in notes(recipe_file, file_of(tmp_path, *questions)) if "begins" in note]
    assert [note.rpartition(" ")[2] for note in found] == ([] if lower is None else [f"{lower}."])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["responses.top_p=0.5"], "responses.top_p has no effect"),
        (["trainer.adaptation=full", "trainer.lora_rank=3"], "trainer.lora_rank has no effect"),
        (["evaluation.judge=animals"], "evaluation.judge has no effect"),
        (["evaluation.reference_model=animals"], "evaluation.reference_model has no effect"),
    ],
)
def test_a_setting_without_effect_is_named(
    recipe_file: Path, changes: list[str], words: str
) -> None:
    assert not [note for note in notes(recipe_file) if "has no effect" in note]
    [note] = [note for note in notes(recipe_file, *changes) if "has no effect" in note]
    assert note.startswith(words)


def remote(url: str) -> list[str]:
    teacher = f"{{model: m, base_url: '{url}', api_key_env: OUR_KEY, max_retries: 0}}"
    return ["--set", f"teachers.animals={teacher}"]


def test_a_dry_run_names_a_key_that_is_missing_and_sends_nothing(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OUR_KEY", raising=False)
    with FaultyServer() as server:
        words = ["distill", str(recipe_file), *remote(server.url)]
        assert main([*words, "--dry-run"]) == 0
        assert not server.asked
    assert "variable OUR_KEY, with the key of m, is not set" in capsys.readouterr().out


def test_every_teacher_behind_an_api_is_asked_one_question_first(
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OUR_KEY", "secret")
    with FaultyServer() as server:
        words = ["distill", str(recipe_file), *remote(server.url), "--until", "generate"]
        assert main([*words, "--output-dir", str(tmp_path / "checked")]) == 0
        assert server.asked.total() == 1
        folder = str(tmp_path / "unchecked" / "run")
        assert main([*words, "--output-dir", folder, "--no-check"]) == 0
        assert server.asked.total() == 1
    folder = str(tmp_path / "down" / "run")  # the server is gone
    assert main([*words, "--output-dir", folder]) == 1
    assert not (tmp_path / "down" / "run" / "examples.jsonl").exists()
