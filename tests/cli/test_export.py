"""The verb `export`: a run's training data, for other trainers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domainfusion.cli.main import main

from .test_distill import copy_of


@pytest.mark.parametrize("words", [[], ["--format", "prompt-completion"], ["--format", "sharegpt"]])
def test_what_a_run_trains_on_is_written(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    file = tmp_path / "out.jsonl"
    assert main(["export", str(directory), *words, "--output", str(file)]) == 0
    written = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    records = [
        json.loads(line)
        for line in (directory / "records.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    cut = sum(record["integration"]["finish_reason"] == "length" for record in records)
    assert len(written) == len(records) - cut
    assert capsys.readouterr().out.startswith(
        f"{len(written)} rows in {file}" + (f"; left out: {cut} was cut" if cut else "")
    )


def test_a_run_without_records_says_what_to_do(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = copy_of(finished_run, tmp_path)
    (directory / "records.jsonl").unlink()
    assert main(["export", str(directory)]) == 1
    assert "no records yet" in capsys.readouterr().err
