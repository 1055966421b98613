from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from filelock import FileLock, Timeout

from domainfusion.cli.main import main
from domainfusion.cli.status import status_of

from .test_distill import copy_of


def test_a_finished_run_is_done_in_every_stage(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = status_of(finished_run)
    assert [stage.name for stage in status.stages] == [
        "generate",
        "collect",
        "integrate",
        "train",
        "evaluate",
    ]
    assert {stage.state for stage in status.stages} == {"done"}
    assert all(stage.seconds is not None for stage in status.stages)
    assert status.writer is None
    assert main(["status", str(finished_run)]) == 0
    shown = capsys.readouterr().out
    for part in (
        "Animals and colours",
        "4 examples to train on, 3 to test on",
        "5 of 5 answers",
        "4 records: 4 unverified",
        "50 steps",
    ):
        assert part in shown


def test_answers_that_are_missing_are_counted(finished_run: Path, tmp_path: Path) -> None:
    directory = copy_of(finished_run, tmp_path)
    for name in ("records.jsonl", "evaluation.json"):
        (directory / name).unlink()
    (directory / "stages.json").write_text(
        json.dumps([{"stage": "collect", "seconds": 1.5, "finished": False}])
    )
    (directory / "checksums.json").unlink()  # changed on purpose
    with sqlite3.connect(directory / "responses.sqlite") as connection:
        connection.execute("DELETE FROM answers WHERE model = 'animals' AND request LIKE '%fox%'")
    connection.close()
    states = {stage.name: (stage.state, stage.made) for stage in status_of(directory).stages}
    assert states["collect"] == ("begun", "4 of 5 answers of the experts")
    assert states["integrate"][0] == "to do"
    assert states["generate"][0] == "done"


def test_a_run_that_has_only_begun_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"title": "New", "inputs": {}}))
    status = status_of(tmp_path)
    assert {stage.state for stage in status.stages} == {"to do"}
    assert status.writer is None


def _times(folder: Path) -> dict[Path, int]:
    """Returns when each file was written; a reader of SQLite maps the index in shared memory, whose
    time the system may set later.
    """
    files = (file for file in folder.rglob("*") if not file.name.endswith("-shm"))
    return {file: file.stat().st_mtime_ns for file in files}


def test_status_loads_no_torch_and_changes_nothing(finished_run: Path) -> None:
    before = _times(finished_run)
    code = (
        "import sys\nfrom domainfusion.cli.main import main\nmain(['status',"
        f" {str(finished_run)!r}])\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert _times(finished_run) == before


@pytest.mark.parametrize("verb", ["status", "report", "evaluate"])
def test_a_folder_that_is_not_a_run_is_one_error(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for directory in (tmp_path, tmp_path / "gone"):
        assert main([verb, str(directory)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("Error: This is not the directory of a run")
        assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_watched_until_its_process_ends(
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = copy_of(finished_run, tmp_path)
    (directory / "evaluation.json").unlink()
    stages = json.loads((directory / "stages.json").read_text())
    stages = [{**stage, "finished": stage["stage"] != "evaluate"} for stage in stages]
    (directory / "stages.json").write_text(json.dumps(stages))
    (directory / "checksums.json").unlink()  # changed on purpose
    writer = directory / "writer"
    writer.write_text(f"{os.getpid()} {psutil.Process().create_time():.0f}\n")
    looks = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            writer.write_text("")

    monkeypatch.setattr("domainfusion.cli.status.time.sleep", look)
    assert main(["status", str(directory), "--watch"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("is writing to it, at stage 5 of 5, evaluate.") == 1, "it did not change"
    assert shown.endswith("No process is writing to it.\n")
    assert looks == [2.0, 2.0]


def test_a_report_is_made_while_a_process_writes_to_the_run(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    for name in ("evaluation.json", "savings.json", "checksums.json", "report.html"):
        (directory / name).unlink(missing_ok=True)
    with FileLock(directory / "lock"):
        assert main(["report", str(directory)]) == 0
    assert (directory / "report.html").is_file()


def test_a_writer_is_never_kept_out_by_those_who_look(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    opened, over = [0], threading.Event()

    def open_again_and_again() -> list[Timeout]:
        refused = []
        while not over.is_set():
            try:
                with FileLock(directory / "lock", timeout=0):
                    opened[0] += 1
            except Timeout as error:
                refused.append(error)
        return refused

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(open_again_and_again)
        try:
            for _ in range(20):
                assert main(["status", str(directory)]) == 0
            for _ in range(3):
                assert main(["report", str(directory)]) == 0
        finally:
            over.set()
        assert writer.result() == [] and opened[0] >= 100
