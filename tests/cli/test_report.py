from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from domainfusion.cli.main import main

from .test_distill import copy_of


def test_report_prints_the_verdict_and_on_demand_the_tables_and_writes_the_files(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    for name in ("report.html", "report.md", "model/README.md"):
        (directory / name).unlink()
    assert main(["report", str(directory)]) == 0
    brief = capsys.readouterr().out
    assert len(brief.splitlines()) <= 20
    assert "Animals and colours" in brief and f"{directory}/report.html" in brief
    assert "Peak memory" not in brief
    assert main(["report", str(directory), "--details"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "Animals and colours",
        "in part",
        "routed oracle",
        "Peak memory",
        "animals + colours",
        f"{directory}/report.html",
    ):
        assert part in shown
    assert "<html" in (directory / "report.html").read_text()
    assert "Animals and colours" in (directory / "report.md").read_text()
    assert (directory / "model" / "README.md").read_text().startswith("---\n")


def test_a_run_without_a_student_has_a_report_too(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    (directory / "evaluation.json").unlink()
    for file in (directory / "model").iterdir():
        file.unlink()
    (directory / "model").rmdir()
    assert main(["report", str(directory)]) == 0
    shown = capsys.readouterr().out
    assert "has not been evaluated" in shown
    assert "Student:" not in shown
    assert not (directory / "model").exists()


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Holds a run as another writer does; a lock of the same process, taken by another descriptor,
    excludes it all the same.
    """
    with FileLock(directory / "lock", blocking=False):
        (directory / "writer").write_text(f"{os.getppid()}\n")
        yield


def test_a_report_is_written_while_another_process_writes_to_the_run(
    finished_run: Path, tmp_path: Path
) -> None:
    directory = copy_of(finished_run, tmp_path)
    (directory / "report.html").unlink()
    with held(directory):
        assert main(["report", str(directory), "--quiet"]) == 0
    assert (directory / "report.html").is_file()


def test_what_another_process_writes_to_is_left_alone(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    files = [
        file
        for file in directory.rglob("*")
        if file.is_file() and file.name not in ("lock", "writer")
    ]
    before = {file: (os.stat(file).st_mtime_ns, file.read_bytes()) for file in files}
    with held(directory):
        assert main(["evaluate", "--check-metrics", str(directory), "--quiet"]) == 1
    assert capsys.readouterr().err.startswith(
        f"Error: Another process ({os.getppid()}) is writing to this run; received '{directory}'"
    )
    assert {file: (os.stat(file).st_mtime_ns, file.read_bytes()) for file in files} == before


def test_a_report_needs_nothing_of_what_the_run_was_made_from(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    (directory / "recipe.yaml").unlink()
    before = (directory / "run.json").read_bytes()
    assert main(["report", str(directory), "--quiet"]) == 0
    assert (directory / "run.json").read_bytes() == before
    assert main(["report", str(directory), "--quiet"]) == 0
