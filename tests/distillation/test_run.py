"""The directory of a run: one writer at a time, one set of inputs, and nothing half-written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from domainfusion.distillation.run import RunDirectory, writer_of
from domainfusion.errors import DataError, RunError
from domainfusion.files import unfinished
from domainfusion.records import read_json

INPUTS: dict[str, Any] = {
    "student": {"model": "base", "fingerprint": "1"},
    "teachers": {"aviation": {"model": "expert", "fingerprint": "2"}},
    "seed": 0,
    "holdout": 0.1,
}

HOLD = """
import sys, time
from pathlib import Path
from domainfusion.distillation.run import RunDirectory, writer_of

with RunDirectory(Path(sys.argv[1]), {"seed": 0}, "test").open():
    print("held", flush=True)
    time.sleep(60)
"""


def run_in(path: Path, **changes: Any) -> RunDirectory:
    return RunDirectory(path, {**INPUTS, **changes}, "A test")


@contextmanager
def other_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the directory."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


# Inputs


def test_a_new_directory_says_what_the_run_is(tmp_path: Path) -> None:
    run = run_in(tmp_path / "new" / "run")
    with run.open():
        description = read_json(run.description)
    assert description["title"] == "A test"
    assert description["inputs"] == INPUTS
    assert description["teachers"] == {"aviation": "expert"}
    assert description["settings"]["seed"] == 0
    assert {"python", "torch", "transformers", "date"} <= description["settings"].keys()


@pytest.mark.parametrize(
    ("argv", "kept"),
    [
        (
            ["/usr/bin/domainfusion", "demo", "--output-dir", "my run"],
            ["domainfusion", "demo", "--output-dir", "my run"],
        ),
        (["distil.py", "--api-key", "sk-secret"], ["distil.py"]),
    ],
)
def test_the_command_is_kept_but_not_what_another_program_was_told(
    argv: list[str], kept: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    run = run_in(tmp_path)
    with run.open():
        assert read_json(run.description)["settings"]["command"] == kept


def test_a_run_whose_description_is_lost_is_not_taken_for_one_of_other_inputs(
    tmp_path: Path,
) -> None:
    with run_in(tmp_path).open():
        pass
    (tmp_path / "run.json").unlink()
    with run_in(tmp_path).open():  # nothing was made with it yet
        pass
    for name in ("examples.jsonl", "test_examples.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "run.json").unlink()
    with (
        pytest.raises(DataError, match=r"description.*run\.json.*all but responses\.sqlite"),
        run_in(tmp_path).open(),
    ):
        pass


@pytest.mark.parametrize("name", ["recipe.yaml", "examples.jsonl", "report.html", "training"])
def test_a_new_run_replaces_no_file_of_somebody_else(name: str, tmp_path: Path) -> None:
    if name == "training":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("mine")
    for theirs in ("run.log", "responses.sqlite", "notes.md", "questions.jsonl"):
        (tmp_path / theirs).write_text("")
    before = {path.name for path in tmp_path.iterdir()}
    with (
        pytest.raises(RunError, match=f"not of a run.*replace: {name}; .*use another output_dir"),
        run_in(tmp_path).open(),
    ):
        pass
    assert {path.name for path in tmp_path.iterdir()} - {"lock", "writer"} == before
    (tmp_path / "mine" / "mine").mkdir(parents=True)  # a folder of the directory's own name
    with run_in(tmp_path / "mine").open():
        pass


def test_a_store_that_is_lost_is_named_before_anything_is_paid_again(tmp_path: Path) -> None:
    with run_in(tmp_path).open():
        pass
    (tmp_path / "usage.json").write_text("[]")
    with (
        pytest.raises(DataError, match=r"responses\.sqlite.*delete usage\.json too"),
        run_in(tmp_path).open(),
    ):
        pass
    (tmp_path / "usage.json").unlink()
    with run_in(tmp_path).open():
        pass


def test_the_same_inputs_go_on(tmp_path: Path) -> None:
    with run_in(tmp_path).open():
        before = (tmp_path / "run.json").read_bytes()
    with run_in(tmp_path).open():
        assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"seed": 1}, r"\(seed: was 0, is 1\)"),
        ({"holdout": 0.2, "seed": 3}, r"\(seed: was 0, is 3; holdout: was 0.1, is 0.2\)"),
        (
            {"student": {"model": "base", "fingerprint": "9"}},
            r"\(student: fingerprint was '1', is '9'\)",
        ),
        ({"teachers": {}}, r"\(teachers: aviation was .* is None\)"),
        ({"verifier": "mine"}, r"\(verifier: was None, is 'mine'\)"),
    ],
)
def test_other_inputs_are_refused_with_the_difference_and_change_nothing(
    tmp_path: Path, changes: dict[str, Any], difference: str
) -> None:
    with run_in(tmp_path).open():
        before = (tmp_path / "run.json").read_bytes()
    with (
        pytest.raises(RunError, match=f"other inputs {difference}"),
        run_in(tmp_path, **changes).open(),
    ):
        pass
    assert (tmp_path / "run.json").read_bytes() == before
    with run_in(tmp_path).open():
        pass


def test_what_is_learned_later_is_added_to_the_description(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    with run.open():
        run.add_to_description("student", {"name": "student"})
    description = read_json(run.description)
    assert description["student"]["name"] == "student"
    assert description["inputs"] == INPUTS


# One writer


def test_a_stage_within_a_stage_holds_the_directory_once(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    with run.open():
        with run.open():
            pass
        with pytest.raises(RunError, match="is writing to this run"), run_in(tmp_path).open():
            pass
    with run_in(tmp_path).open():
        pass


def test_a_second_writer_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with other_process(tmp_path) as process:
        told = f"Another process \\({process.pid}\\) is writing"
        with (
            pytest.raises(RunError, match=told),
            RunDirectory(tmp_path, {"seed": 0}, "test").open(),
        ):
            pass


def test_looking_at_a_run_never_keeps_a_process_from_writing_to_it(tmp_path: Path) -> None:
    with run_in(tmp_path).open():
        pass
    over, seen = threading.Event(), set[str | None]()

    def look() -> None:
        while not over.is_set():
            seen.add(writer_of(tmp_path))

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(200):
            with run_in(tmp_path).open():
                time.sleep(0.0005)
    finally:
        over.set()
        for looker in lookers:
            looker.join()
    assert seen == {None, str(os.getpid())}


@pytest.mark.parametrize(
    "content", ["", "x", "0", "-1", "99999999999999999999", "1 2 3", "\xff\xfe", "None"]
)
def test_what_is_not_a_process_writes_to_no_run(content: str, tmp_path: Path) -> None:
    (tmp_path / "writer").write_text(content, encoding="latin-1")
    assert writer_of(tmp_path) is None
    assert writer_of(tmp_path / "nowhere") is None


def test_a_process_with_the_id_of_one_that_was_killed_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "writer").write_text(f"{os.getpid()} 1000000000\n")
    assert writer_of(tmp_path) is None


def test_the_lock_of_a_dead_process_is_none(tmp_path: Path) -> None:
    with other_process(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert (tmp_path / "writer").read_text().split()[0] == str(process.pid)
        assert writer_of(tmp_path) is None
        with RunDirectory(tmp_path, {"seed": 0}, "test").open():
            assert writer_of(tmp_path) == str(os.getpid())
        assert writer_of(tmp_path) is None


@pytest.mark.parametrize("inputs", [{}, {"seed": 1}], ids=["failing inside", "refused"])
def test_the_lock_is_let_go_whatever_happens(tmp_path: Path, inputs: dict[str, Any]) -> None:
    with run_in(tmp_path).open():
        pass
    with pytest.raises((ZeroDivisionError, RunError)), run_in(tmp_path, **inputs).open():
        raise ZeroDivisionError
    with run_in(tmp_path).open():
        pass


def test_a_path_that_can_t_be_a_directory_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunError, match=r"can't be written to: .*file.*name a folder"),
        run_in(tmp_path / "file").open(),
    ):
        pass


def test_a_full_disk_leaves_no_half_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match="No space left on device"), run_in(tmp_path).open():
            pass
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lock", "writer"]
    with run_in(tmp_path).open():
        pass


# Stages


def stages(run: RunDirectory) -> dict[str, dict[str, Any]]:
    return {entry["stage"]: entry for entry in read_json(run.stages)}


def test_a_stage_is_timed_with_its_memory(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    for name in ("generate", "collect"):
        with run.stage(name):
            pass
    assert list(stages(run)) == ["generate", "collect"]
    assert stages(run)["generate"]["finished"] is True
    assert stages(run)["generate"]["seconds"] >= 0
    assert stages(run)["generate"]["peak_memory_bytes"] > 1_000_000


def test_the_seconds_of_an_interrupted_stage_add_up_and_a_finished_one_is_not_timed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 100.0, 103.0, 200.0, 209.0])
    run = run_in(tmp_path)
    monkeypatch.setattr("domainfusion.distillation.run.time.perf_counter", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt), run.stage("collect"):
        raise KeyboardInterrupt
    assert (stages(run)["collect"]["seconds"], stages(run)["collect"]["finished"]) == (10, False)
    with run.stage("collect"):
        pass
    assert (stages(run)["collect"]["seconds"], stages(run)["collect"]["finished"]) == (13, True)
    with run.stage("collect"):
        pass
    assert stages(run)["collect"]["seconds"] == 13


def test_a_stage_whose_end_was_not_listed_is_listed_when_it_is_found_made(tmp_path: Path) -> None:
    """As where the process is killed, or the disk full, between the two."""
    run = run_in(tmp_path)
    run.tell_made_before("generate", "4 examples")
    assert stages(run)["generate"]["finished"] is True
    before = run.stages.read_bytes()
    run.tell_made_before("generate", "4 examples")
    assert run.stages.read_bytes() == before
    with run.stage("refine"):
        run.tell_made_before("integrate", "of a round")
    assert list(stages(run)) == ["generate", "refine"]


# What a killed process leaves


def test_what_a_killed_process_had_begun_to_write_is_removed_and_what_another_writes_is_not(
    tmp_path: Path,
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    gone = [
        unfinished_by(ended.pid, "model"),
        unfinished_by(ended.pid, "report.html"),
        unfinished_by(os.getpid(), "model"),
    ]
    kept = [unfinished_by(os.getppid(), "report.md"), unfinished_by(ended.pid, "notes.txt")]
    kept += [
        ".notes.txt",
        ".hidden",
        ".run.json.17",
        ".model.20240101",
        ".report.html.unfinished-",
        ".report.html.unfinished-1a",
    ]
    folders = [".venv-3.11", ".backup.20240101", ".model.17", "model.1", ".cache.5"]
    for name in (gone[0], gone[2], *folders):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("half")
    for name in (gone[1], *kept):
        (tmp_path / name).touch()
    with run_in(tmp_path).open():
        assert not [name for name in gone if (tmp_path / name).exists()]
        assert all((tmp_path / name).exists() for name in kept)
        assert all((tmp_path / name / "model.safetensors").exists() for name in folders)


def unfinished_by(process: int, name: str) -> str:
    own = unfinished(Path(name)).name
    assert own.endswith(str(os.getpid()))
    return own.removesuffix(str(os.getpid())) + str(process)


def test_what_waits_for_the_end_is_called_once_when_the_directory_is_let_go_of(
    tmp_path: Path,
) -> None:
    run, calls = run_in(tmp_path), []
    for _ in range(2):
        with run.open():
            with run.open():
                run.when_let_go(lambda: calls.append("called"))
            assert len(calls) in (0, 1)
    assert len(calls) == 2
