"""A refinement on the command line: one key of a recipe, one stage of a run, and the student that
is saved is the last one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domainfusion.cli.main import main
from domainfusion.cli.status import status_of
from domainfusion.distillation.refinement import trained_records
from domainfusion.records import read_json


@pytest.fixture(scope="module")
def refined(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose curated examples have some left for a round, which validation, short as it is,
    may keep or not.
    """
    validation = [
        {
            "query": "What does a fox like to eat?",
            "domain": "animals",
            "answers": {"animals": "no such word"},
        }
    ]
    folder = recipe_file.parent
    (folder / "validation.jsonl").write_text(
        "".join(json.dumps(example) + "\n" for example in validation)
    )
    text = recipe_file.read_text().replace(
        "test_examples:", "validation_examples: validation.jsonl, test_examples:"
    )
    text = text.replace("  - type: curated\n", "  - type: curated\n    num_examples: 3\n").replace(
        "epochs: 20", "epochs: 2"
    )
    (folder / "refined.yaml").write_text(f"{text}refinement_rounds: 1\n")
    directory = tmp_path_factory.mktemp("runs") / "refined"
    assert (
        main(["distill", str(folder / "refined.yaml"), "--output-dir", str(directory), "--quiet"])
        == 0
    )
    return directory


def test_status_tells_of_the_refinement(refined: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [stage.name for stage in status_of(refined).stages] == [
        "generate",
        "collect",
        "integrate",
        "train",
        "refine",
        "evaluate",
    ]
    assert {stage.state for stage in status_of(refined).stages} == {"done"}
    assert main(["status", str(refined)]) == 0
    assert read_json(refined / "refinement.json")["stopped"] in capsys.readouterr().out


def test_the_report_has_its_section(refined: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(refined), "--details"]) == 0
    assert "Refinement: " in capsys.readouterr().out
    assert "## Refinement" in (refined / "report.md").read_text()
    assert 'id="refinement"' in (refined / "report.html").read_text()


def test_what_is_exported_is_what_the_last_student_learned(refined: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    assert main(["export", str(refined), "--output", str(file)]) == 0
    usable = [
        record
        for record in trained_records(refined)
        if record.is_usable and record.integration.finish_reason != "length"
    ]
    assert len(file.read_text().splitlines()) == len(usable)


def test_until_refine_ends_before_the_evaluation(
    recipe_file: Path, refined: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    words = [
        "distill",
        str(recipe_file.with_name("refined.yaml")),
        "--output-dir",
        str(directory),
        "--quiet",
    ]
    assert main([*words, "--until", "train"]) == 0
    assert status_of(directory).stages[4].state == "to do"
    assert main([*words, "--until", "refine"]) == 0
    assert not (directory / "evaluation.json").exists()
    assert (directory / "refinement.json").read_bytes() == (
        refined / "refinement.json"
    ).read_bytes()
    assert (directory / "model" / "model.safetensors").read_bytes() == (
        refined / "model" / "model.safetensors"
    ).read_bytes()
