from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from domainfusion.cli.main import main
from domainfusion.recipe import read_recipe

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


def test_a_run_that_is_stopped_goes_on_and_ends_as_one_that_was_not(
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
        assert f"Process {process.pid} is writing to it." in capsys.readouterr().out
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
    # The answers that were stored before the stop were not asked for again.
    assert "asking animals" not in capsys.readouterr().err


def test_a_finished_run_is_not_done_again(
    finished_run: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    steps = steps_of(directory)
    assert main(["distill", str(recipe_file), "--output-dir", str(directory)]) == 0
    captured = capsys.readouterr()
    assert steps_of(directory) == steps
    # Progress is written as "3 of 40".
    progress = re.search(r"\d of \d", captured.err)
    assert progress is None, "a model was asked or trained"
    assert f"Student:  {directory / 'model'}" in captured.out
    assert "Ask it:   domainfusion ask" in captured.out


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
    assert "Domain Expertise Retention" in capsys.readouterr().out


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
