from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from domainfusion.cli.main import main
from domainfusion.models import HuggingFaceModel
from domainfusion.recipe import read_recipe
from domainfusion.types import Conversation, Generation
from run_folders import differences, state_of

from .conftest import start

SECONDS = 60
"""How long a test waits for another process before it gives up."""


def steps_of(directory: Path) -> list[tuple[str, int]]:
    lines = (directory / "training" / "log.jsonl").read_text().splitlines()
    return [(line["phase"], line["step"]) for line in map(json.loads, lines) if "loss" in line]


def wait_for(directory: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    for _ in range(SECONDS * 50):
        if process.poll() is not None:
            assert process.stderr is not None
            raise AssertionError(f"the run ended too early: {process.stderr.read()}")
        if list(directory.glob(pattern)):
            return
        time.sleep(0.02)
    raise AssertionError(f"there is no {pattern} after {SECONDS} s")


def test_a_run_leaves_student_reports_log_and_recipe(finished_run: Path, recipe_file: Path) -> None:
    for name in (
        "report.html",
        "report.md",
        "run.log",
        "evaluation.json",
        "model/config.json",
        "model/README.md",
        "model/tokenizer.json",
    ):
        assert (finished_run / name).stat().st_size > 0, name
    assert not list(finished_run.glob(".model*"))
    assert read_recipe(finished_run / "recipe.yaml") == read_recipe(recipe_file)
    assert "train" in (finished_run / "run.log").read_text()


def test_a_run_that_is_stopped_continues_and_ends_as_one_that_was_not(
    recipe_file: Path, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "run"
    process = start(["distill", recipe_file, "--output-dir", directory])
    try:
        wait_for(directory, "training/*/checkpoint-*/checksums.json", process)
        process.send_signal(signal.SIGSTOP)  # so that training does not end while it is looked at
        # A second writer gets one clear error, and a reader sees who writes.
        assert main(["distill", str(recipe_file), "--output-dir", str(directory), "--quiet"]) == 1
        second = capsys.readouterr().err
        assert second.startswith(f"Error: Another process ({process.pid}) is writing to this run")
        assert second.count("\n") == 1
        assert main(["status", str(directory)]) == 0
        assert (
            f"Process {process.pid} is writing to it, at stage 4 of 5, train."
            in capsys.readouterr().out
        )
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        _, error = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 143, error
    assert error.endswith("Stopped. What was finished is kept; run the same command to resume.\n")
    assert "Traceback" not in error
    assert not (directory / "evaluation.json").exists()
    before = steps_of(directory)

    assert main(["status", str(directory)]) == 0
    shown = capsys.readouterr().out
    assert "train      begun" in shown
    assert "No process is writing to it." in shown

    assert main(["distill", str(recipe_file), "--output-dir", str(directory)]) == 0
    after = steps_of(directory)[len(before) :]
    assert after[0] != ("domains", 1), "training began anew"
    assert sorted(set(before + after)) == sorted(set(steps_of(finished_run)))
    stopped, whole = (
        load_file(run / "model" / "model.safetensors") for run in (directory, finished_run)
    )
    assert stopped.keys() == whole.keys()
    assert all(torch.equal(stopped[name], whole[name]) for name in whole)
    assert differences(state_of(directory), state_of(finished_run)) == []
    # The answers that were stored before the stop were not asked for again.
    assert "asking animals" not in capsys.readouterr().err


def test_a_finished_run_is_not_done_again(
    finished_run: Path,
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(model: HuggingFaceModel) -> None:
        raise AssertionError(f"{model.name} is loaded")

    directory = copy_of(finished_run, tmp_path)
    before = state_of(directory)
    monkeypatch.setattr(HuggingFaceModel, "weights", refuse)
    monkeypatch.setattr(HuggingFaceModel, "generate", refuse)
    assert main(["distill", str(recipe_file), "--output-dir", str(directory)]) == 0
    captured = capsys.readouterr()
    assert "The run is finished: nothing is asked, trained or measured again." in captured.err
    assert f"Student:  {directory / 'model'}" in captured.out
    assert "Ask it:   domainfusion ask" in captured.out
    assert differences(before, state_of(directory)) == []


@pytest.mark.parametrize(
    "lost",
    [
        *("evaluation.json", "model", "training", "records.jsonl", "stages.json", "usage.json"),
        *("model/tokenizer.json", "model/README.md"),
    ],
)
def test_what_is_lost_of_a_finished_run_is_made_again(
    lost: str,
    finished_run: Path,
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = copy_of(finished_run, tmp_path)
    if (directory / lost).is_dir():
        shutil.rmtree(directory / lost)
    else:
        (directory / lost).unlink()
    assert main(["distill", str(recipe_file), "--output-dir", str(directory)]) == 0
    assert "The run is finished" not in capsys.readouterr().err
    assert differences(state_of(directory), state_of(finished_run)) == []
    assert main(["distill", str(recipe_file), "--output-dir", str(directory)]) == 0
    assert "The run is finished" in capsys.readouterr().err


def test_what_a_power_cut_brought_back_into_a_finished_run_is_deleted_again(
    finished_run: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    [phase, *_] = sorted((directory / "training").glob("phase-*"))
    (phase / "checkpoint-1").mkdir()
    (phase / "checkpoint-1" / "student.safetensors").write_bytes(b"old")
    (phase / ".finished.safetensors.unfinished-99999999").write_bytes(b"half")
    assert main(["distill", str(recipe_file), "--output-dir", str(directory)]) == 0
    assert "The run is finished" not in capsys.readouterr().err
    assert differences(state_of(directory), state_of(finished_run)) == []
    assert main(["distill", str(recipe_file), "--output-dir", str(directory)]) == 0
    assert "The run is finished" in capsys.readouterr().err


def test_a_finished_run_with_a_damaged_list_of_its_training_is_not_taken_for_whole(
    finished_run: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    (directory / "training" / "checksums.json").write_text("")
    assert main(["distill", str(recipe_file), "--output-dir", str(directory)]) == 1
    assert "The list of checksums is damaged" in capsys.readouterr().err
    (directory / "training" / "checksums.json").unlink()
    assert main(["distill", str(recipe_file), "--output-dir", str(directory)]) == 0


def test_a_finished_run_is_measured_again_by_another_evaluator(
    finished_run: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    steps = steps_of(directory)
    words = ["distill", str(recipe_file), "--output-dir", str(directory)]
    another = [*words, "--set", "evaluation.metric=exact"]
    for _ in range(2):  # there and back
        for command in (another, words):
            assert main(command) == 0
            assert "The run is finished" not in capsys.readouterr().err
            assert main(command) == 0
            assert "The run is finished" in capsys.readouterr().err
    assert steps_of(directory) == steps


def test_a_lock_whose_process_was_killed_holds_nobody_up(
    finished_run: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom filelock import FileLock\nrun ="
        " Path(sys.argv[1])\nlock = FileLock(run / 'lock')\nlock.acquire()\n(run /"
        " 'writer').write_text(f'{os.getpid()}\\n')\nprint('held', flush=True)\ntime.sleep(600)"
    )
    words = ["distill", str(recipe_file), "--output-dir", str(directory), "--quiet"]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert main(words) == 1
        assert f"Another process ({holder.pid})" in capsys.readouterr().err
        holder.kill()
    assert main(words) == 0


def test_a_run_of_another_recipe_is_left_alone(
    finished_run: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    kept = (directory / "recipe.yaml").read_text()
    other = recipe_file.with_name("other.yaml")
    other.write_text(recipe_file.read_text().replace("epochs: 20", "epochs: 21"))
    assert main(["distill", str(other), "--output-dir", str(directory), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert "epochs" in error and "other inputs" in error
    assert (directory / "recipe.yaml").read_text() == kept


def test_until_ends_after_a_stage_and_the_rest_comes_later(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "run"
    for until, there, missing in (
        ("generate", "examples.jsonl", "records.jsonl"),
        ("collect", "examples.jsonl", "records.jsonl"),
        ("integrate", "records.jsonl", "training"),
    ):
        assert (
            main(["distill", str(recipe_file), "--output-dir", str(directory), "--until", until])
            == 0
        )
        assert (directory / there).exists()
        assert not (directory / missing).exists()
        shown = capsys.readouterr().out
        done = [line.split()[0] for line in shown.splitlines() if " done " in line]
        assert done[-1] == until
    assert "train      to do" in shown
    assert (
        main(["distill", str(recipe_file), "--output-dir", str(directory), "--until", "train"]) == 0
    )
    assert "has not been evaluated" in capsys.readouterr().out
    assert (directory / "model" / "config.json").is_file()
    assert not (directory / "evaluation.json").exists()
    assert main(["evaluate", str(directory)]) == 0
    assert "can't be judged" in capsys.readouterr().out


def test_a_model_that_can_not_be_fetched_is_one_error(
    recipe_file: Path, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = recipe_file.with_name("far.yaml")
    far.write_text(
        recipe_file.read_text().replace(f"student: {tiny_llama}", "student: someone/something")
    )
    assert main(["distill", str(far), "--output-dir", str(tmp_path / "run"), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and "'someone/something'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [[], ["--dry-run"], ["--until", "generate"]])
def test_an_engine_that_is_not_there_is_one_error_before_anything_is_done(
    words: list[str], recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_file.with_name("engine.yaml")
    animals = re.search(r"animals: (/.+)", recipe_file.read_text())
    assert animals is not None
    served = f"{{path: {animals[1]}, engine: {{kind: vllm, command: [no-such-vllm, serve]}}}}"
    recipe.write_text(recipe_file.read_text().replace(animals[1], served))
    command = ["distill", str(recipe), "--output-dir", str(tmp_path / "run"), "--quiet", *words]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "Error: The command of the engine vllm is not there; received 'no-such-vllm'"
    )
    assert "install vLLM" in error and error.count("\n") == 1
    assert not list(tmp_path.rglob("*.json*"))


def test_a_dry_run_writes_nothing(
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["distill", str(recipe_file), "--dry-run", "--output-dir", "run"]) == 0
    assert list(tmp_path.iterdir()) == []
    assert "Cost:" in capsys.readouterr().out


def copy_of(run: Path, folder: Path) -> Path:
    copy = folder / "copy"
    shutil.copytree(run, copy)
    with FileLock(copy / "lock", blocking=False):
        pass  # nobody holds the copy
    return copy


# Another try


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions that experts of the recipe are asked, by any run of this process."""
    generate = HuggingFaceModel.generate
    questions: list[str] = []

    def counted(
        model: HuggingFaceModel, conversations: Sequence[Conversation], *rest: Any, **more: Any
    ) -> list[Generation]:
        if model.name in ("animals", "colours"):
            questions.extend(conversation[-1].content for conversation in conversations)
        return generate(model, conversations, *rest, **more)

    monkeypatch.setattr(HuggingFaceModel, "generate", counted)
    return questions


QUICK = ("--set", "trainer.epochs=1", "--quiet")


def test_a_second_try_asks_no_expert(
    recipe_file: Path, tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distill", str(recipe_file), *QUICK]
    assert main([*words, "--output-dir", str(tmp_path / "first")]) == 0
    assert len(asked) >= 9  # each expert its two questions to train on, and the test set
    asked.clear()
    changes = ["--set", "trainer.type=multi_task", "--seed", "3"]
    assert main([*words, *changes, "--output-dir", str(tmp_path / "second")]) == 0
    assert not asked
    assert responses_in(tmp_path / "first") == responses_in(tmp_path / "second")
    usage = json.loads((tmp_path / "second" / "usage.json").read_text())
    assert {role for model in usage for role in model["roles"]} == {"student"}


def responses_in(directory: Path) -> set[tuple[str, str]]:
    lines = (directory / "records.jsonl").read_text().splitlines()
    found = set()
    for record in map(json.loads, lines):
        found |= {(response["question"], response["text"]) for response in record["responses"]}
    return found


def test_several_values_make_a_run_each_and_a_table(
    recipe_file: Path, tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distill", str(recipe_file), *QUICK, "--output-dir", str(tmp_path / "sweep")]
    assert main([*words, "--set", "trainer.learning_rate=1e-4, 3e-3"]) == 0
    folders = sorted(path.name for path in (tmp_path / "sweep").iterdir())
    assert folders == ["learning_rate=0.0001", "learning_rate=0.003"]
    shown = capsys.readouterr().out
    assert "What differs in the inputs" in shown and "learning_rate=0.003" in shown
    once = len(asked)
    assert main([*words, "--set", "trainer.learning_rate=[2e-4, 5e-4]"]) == 0
    assert len(asked) == once > 0, "the experts were asked by the first run alone"
    rates = [
        read_recipe(path / "recipe.yaml").trainer.learning_rate
        for path in (tmp_path / "sweep").iterdir()
    ]
    assert sorted(rates) == [1e-4, 2e-4, 5e-4, 3e-3]


def test_a_run_that_fails_does_not_end_a_sweep(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distill", str(recipe_file), *QUICK, "--output-dir", str(tmp_path / "sweep")]
    (tmp_path / "sweep" / "seed=1").mkdir(parents=True)
    (tmp_path / "sweep" / "seed=1" / "model").write_text("a file of somebody's")
    assert main([*words, "--seed", "1,2", "--until", "collect"]) == 1
    assert "1 of 2 runs of the sweep failed, first seed=1" in capsys.readouterr().err
    assert (tmp_path / "sweep" / "seed=2" / "responses.sqlite").is_file()


def test_training_starts_from_the_student_of_another_run(
    recipe_file: Path, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distill", str(recipe_file), *QUICK, "--output-dir", str(tmp_path / "on")]
    assert main([*words, "--from", str(finished_run)]) == 0
    recipe = read_recipe(tmp_path / "on" / "recipe.yaml")
    assert recipe.student.path == str(finished_run / "model")
    assert recipe.student.name == "student of finished"
    assert main([*words, "--from", str(tmp_path)]) == 1
    assert "not the directory of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("trainer.epochs=0", "--set trainer.epochs=0: trainer.epochs is out of range"),
        ("trainer.epochs=many", "--set trainer.epochs=many: trainer.epochs is of the wrong kind"),
        ("trainer.epoks=3", "--set trainer.epoks=3: trainer.epoks is not a key of a recipe"),
        ("generators[4].seed=1", "generators has no 4; received"),
        ("title.length=1", "title has no 'length'"),
        ("trainer.epochs", "there is no key with a value"),
        ("seed=[1,1]", "Two runs of the sweep are the same"),
        ("title=[", "the value is not YAML"),
    ],
)
def test_a_value_that_is_set_is_checked_as_one_in_the_recipe(
    recipe_file: Path, change: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distill", str(recipe_file), "--set", change]) == 1
    assert message in capsys.readouterr().err
