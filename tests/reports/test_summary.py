from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.results import Refinement, RefinementRound
from domainfusion.errors import DataError
from domainfusion.records import write_json, write_records, write_text
from domainfusion.reports import RunSummary


def write_run(run: RunSummary, directory: Path) -> None:
    write_json(
        directory / "run.json",
        {
            "title": run.title,
            "student": run.student,
            "teachers": run.teachers,
            "settings": run.settings,
            "inputs": run.inputs,
        },
    )
    (directory / "recipe.yaml").write_text(run.recipe)
    write_json(directory / "stages.json", [asdict(stage) for stage in run.stages])
    write_json(directory / "usage.json", [asdict(model) for model in run.usage])
    write_json(directory / "generation.json", [asdict(count) for count in run.generation])
    write_json(directory / "evaluation.json", run.evaluation)
    write_json(directory / "savings.json", run.savings)
    write_json(directory / "refinement.json", run.refinement)
    write_records(directory / "records.jsonl", run.records)
    (directory / "training").mkdir()
    (directory / "training" / "log.jsonl").write_text(
        "".join(f"{json.dumps(line)}\n" for line in run.training_log)
    )


@pytest.fixture
def directory(run: RunSummary, tmp_path: Path) -> Path:
    write_run(run, tmp_path)
    return tmp_path


def test_what_a_run_wrote_is_read_back(run: RunSummary, directory: Path) -> None:
    assert RunSummary.read(directory) == run


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("run.json", ("title", "student", "teachers", "settings", "inputs")),
        ("recipe.yaml", ("recipe",)),
        ("stages.json", ("stages", "peak_memory_bytes")),
        ("usage.json", ("usage",)),
        ("generation.json", ("generation",)),
        ("records.jsonl", ("records",)),
        ("training/log.jsonl", ("training_log",)),
        ("evaluation.json", ("evaluation",)),
        ("savings.json", ("savings",)),
        ("refinement.json", ("refinement",)),
    ],
)
def test_a_missing_file_leaves_its_own_fields_empty_and_no_other(
    run: RunSummary, directory: Path, file: str, fields: tuple[str, ...]
) -> None:
    (directory / file).unlink()
    empty = RunSummary()
    assert RunSummary.read(directory) == replace(
        run, **{name: getattr(empty, name) for name in fields}
    )


def test_the_training_of_a_round_that_was_kept_follows_the_first_and_is_named_after_it(
    run: RunSummary, directory: Path
) -> None:
    rounds = tuple(
        RefinementRound(number=number, shortfalls=(), before={}, is_kept=kept)
        for number, kept in ((1, True), (2, False))
    )
    write_json(directory / "refinement.json", Refinement(rounds=rounds))
    for number in (1, 2):
        own = directory / "refinement" / str(number) / "training"
        own.mkdir(parents=True)
        (own / "log.jsonl").write_text(
            '{"objective": "sequence"}\n{"phase": "mixture", "step": 1, "loss": 0.5}\n'
        )
    found = RunSummary.read(directory).training_log
    assert found == (*run.training_log, {"phase": "round 1: mixture", "step": 1, "loss": 0.5})


def test_a_directory_without_files_is_an_empty_run(tmp_path: Path) -> None:
    assert RunSummary.read(tmp_path) == RunSummary()


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such run directory"):
        RunSummary.read(tmp_path / "nowhere")


DAMAGE = ("{", "[1, 2]", '"text"', '{"title": ["no text"]}', '[{"stage": 3}]')
OBJECTS = (
    "run.json",
    "stages.json",
    "usage.json",
    "savings.json",
    "generation.json",
    "evaluation.json",
)
FILES = (*OBJECTS, "records.jsonl")


@pytest.mark.parametrize(("file", "damage"), list(itertools.product(FILES, DAMAGE)))
def test_a_damaged_file_is_named(directory: Path, file: str, damage: str) -> None:
    (directory / file).write_text(damage)
    with pytest.raises(DataError, match=Path(file).name):
        RunSummary.read(directory)


@pytest.mark.parametrize("damage", [b'{"phase": "mix', b"\xff\xfe", b"[1]", b"", b"[" * 9999])
def test_a_damaged_line_of_the_log_is_lost_alone(
    directory: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    log = directory / "training" / "log.jsonl"
    whole = RunSummary.read(directory).training_log
    lines = log.read_bytes().splitlines()
    log.write_bytes(b"\n".join([lines[0], damage, *lines[1:], b""]))
    assert RunSummary.read(directory).training_log == whole
    assert "log.jsonl:2 is damaged" in caplog.text


@pytest.mark.parametrize("file", ["run.json", "records.jsonl", "evaluation.json", "usage.json"])
def test_a_changed_byte_is_noticed_where_the_run_listed_it(directory: Path, file: str) -> None:
    path = directory / file
    write_text(path, path.read_text(encoding="utf-8"), listed=True)
    RunSummary.read(directory)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"damaged, or was changed .*{file}.*checksums.json"):
        RunSummary.read(directory)


def test_a_file_that_is_not_text_is_named(directory: Path) -> None:
    (directory / "records.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"records\.jsonl"):
        RunSummary.read(directory)


def test_an_evaluation_of_a_later_version_is_refused(
    directory: Path, evaluation: EvaluationReport
) -> None:
    write_json(directory / "evaluation.json", replace(evaluation, schema=evaluation.schema + 1))
    with pytest.raises(DataError, match="later version"):
        RunSummary.read(directory)


def test_an_evaluation_without_a_student_is_refused(
    directory: Path, evaluation: EvaluationReport
) -> None:
    write_json(directory / "evaluation.json", replace(evaluation, models=evaluation.models[1:]))
    with pytest.raises(DataError, match="has no student"):
        RunSummary.read(directory)


def test_the_peak_of_the_run_is_the_highest_of_its_stages(directory: Path) -> None:
    stages = [
        {"stage": "a", "seconds": 1.0, "peak_memory_bytes": 30},
        {"stage": "b", "seconds": 2.0},
        {"stage": "c", "seconds": 1, "peak_memory_bytes": 20},
    ]
    write_json(directory / "stages.json", stages)
    assert RunSummary.read(directory).peak_memory_bytes == 30


def test_a_field_of_the_student_is_found_under_either_spelling() -> None:
    assert RunSummary(student={"base model": "a/b"}).about_student("base_model") == "a/b"
    assert RunSummary(student={"base_model": "a/b"}).about_student("base_model") == "a/b"
    assert RunSummary().about_student("base_model") is None


def test_reports_load_no_torch() -> None:
    code = "import sys, domainfusion.reports; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
