from __future__ import annotations

from pathlib import Path

import pytest

from domainfusion.cli import init
from domainfusion.cli.main import main
from domainfusion.recipe import read_recipe


def test_init_writes_a_recipe_that_validates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert "distill recipe.yaml --dry-run" in capsys.readouterr().out
    assert read_recipe("recipe.yaml").title == "Sports science in one model"
    assert (
        sum(line.lstrip().startswith("#") for line in Path("recipe.yaml").read_text().splitlines())
        > 10
    )


def test_init_overwrites_only_with_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    assert main(["init", str(path)]) == 1
    assert path.read_text() == "mine"
    assert "There is a file already" in capsys.readouterr().err
    assert main(["init", str(path), "--force"]) == 0
    assert path.read_text() == init.TEMPLATE.read_text()


def test_the_recipe_of_init_can_be_planned_without_its_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    assert main(["init", str(path)]) == 0
    assert main(["distill", str(path), "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert "known once it is on this machine" in captured.out
    # On a slow machine, a line says what is under way.
    assert all(line.startswith("counting the work") for line in captured.err.splitlines())
