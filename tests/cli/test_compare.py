from __future__ import annotations

from pathlib import Path

import pytest

from domainfusion.cli.main import main


def test_a_run_beside_itself_has_no_difference(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(finished_run), str(finished_run)]) == 0
    shown = capsys.readouterr().out
    assert "The student's accuracy" in shown
    assert "What differs in the inputs" not in shown


def test_what_is_not_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err
