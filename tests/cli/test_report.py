from __future__ import annotations

from pathlib import Path

import pytest

from domainfusion.cli.main import main

from .test_distill import copy_of


def test_report_prints_the_tables_and_writes_the_files(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = copy_of(finished_run, tmp_path)
    for name in ("report.html", "report.md", "model/README.md"):
        (directory / name).unlink()
    assert main(["report", str(directory)]) == 0
    shown = capsys.readouterr().out
    for part in ("Animals and colours", "in part", "routed oracle", "Peak memory", "animals + colours", f"{directory}/report.html"):
        assert part in shown
    assert "<html" in (directory / "report.html").read_text()
    assert "Animals and colours" in (directory / "report.md").read_text()
    assert (directory / "model" / "README.md").read_text().startswith("---\n")


def test_a_run_without_a_student_has_a_report_too(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
