from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import domainfusion.demo.run
from domainfusion.cli.main import main
from domainfusion.errors import MissingDependencyError
from domainfusion.recipe import build_distiller, read_recipe

from .test_distill import copy_of


@pytest.fixture
def calls(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Puts the tiny experts in the place of the real ones, and notes how the demo was built."""
    built: list[dict[str, Any]] = []

    def build(output_dir: Path, *, data: Any, progress: Any, small: bool) -> Any:
        built.append({"output_dir": output_dir, "data": data, "small": small})
        return build_distiller(read_recipe(recipe_file), output_dir=output_dir, progress=progress)

    monkeypatch.setattr(domainfusion.demo.run, "build_demo", build)
    return built


def test_the_demo_saves_its_student_and_tells_how_to_ask_it(
    calls: list[dict[str, Any]],
    finished_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = copy_of(finished_run, tmp_path)
    for name in ("recipe.yaml", "report.html", "report.md"):
        (directory / name).unlink()
    assert main(["demo", "--small", "--output-dir", str(directory), "--quiet"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "can't be judged",
        f"{directory / 'model'}",
        f"domainfusion ask {directory}",
    ):
        assert part in shown
    assert (directory / "report.html").is_file()
    assert (directory / "model" / "README.md").is_file()
    # Its experts are found again for an evaluation.
    assert main(["evaluate", str(directory), "--quiet"]) == 0
    assert calls == [{"output_dir": directory, "data": None, "small": True}] * 2


def test_an_evaluation_finds_the_world_of_a_demo_again(
    calls: list[dict[str, Any]], finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copy_of(finished_run, tmp_path)
    (directory / "recipe.yaml").unlink()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "world").mkdir()
    assert main(["demo", "--data", "world", "--output-dir", str(directory), "--quiet"]) == 0
    assert main(["evaluate", str(directory), "--quiet"]) == 0
    assert [Path(call["data"]).resolve() for call in calls] == [tmp_path / "world"] * 2


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["demo"], "demo"),
        (["demo", "--small"], "demo-small"),
        (["demo", "--data", "my/stars"], "demo-stars"),
        (["demo", "--data", "my/stars", "--small"], "demo-stars-small"),
    ],
)
def test_a_demo_has_a_directory_of_its_own(
    words: list[str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def build(output_dir: Path, **_: Any) -> Any:
        raise MissingDependencyError(f"not installed, for {output_dir}", fix="run: pip install it")

    monkeypatch.setattr(domainfusion.demo.run, "build_demo", build)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "stars").mkdir(parents=True)
    assert main(words) == 1
    assert (
        capsys.readouterr().err
        == f"Error: not installed, for runs/{name}. To fix it: run: pip install it.\n"
    )
    assert not (tmp_path / "runs").exists()


def test_a_world_that_is_not_there_is_one_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--data", "my/stars"]) == 1
    assert "The folder of the world is not there; received 'my/stars'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
