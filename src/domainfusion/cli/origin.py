"""Where a run came from: its recipe, or the demo. What was written there builds its experts
again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from domainfusion.distillation.run import RunFiles
from domainfusion.errors import RunError
from domainfusion.recipe import Recipe, build_distiller, read_recipe, write_recipe
from domainfusion.records import read_json, write_json

if TYPE_CHECKING:
    from domainfusion.distillation import Distiller
    from domainfusion.progress import Progress


def remember_recipe(run_directory: Path, recipe: Recipe) -> None:
    """Keeps the recipe of a run in its directory, with full paths."""
    write_recipe(recipe, RunFiles(run_directory).recipe)


def remember_demo(run_directory: Path, *, data: Path | None, small: bool) -> None:
    """Notes that a run is the demo's, and of which world."""
    write_json(
        RunFiles(run_directory).demo,
        {"small": small, "data": None if data is None else str(data.resolve())},
    )


def recipe_of(run_directory: Path) -> Recipe | None:
    """Returns the recipe that a run was made with; None where it was made without one."""
    file = RunFiles(run_directory).recipe
    return read_recipe(file) if file.is_file() else None


def rebuild(run_directory: Path, *, progress: Progress) -> Distiller:
    """Builds the distiller of a run again.

    Raises:
        RunError: The run was made neither by a recipe nor by the demo.
    """
    recipe = recipe_of(run_directory)
    if recipe is not None:
        return build_distiller(recipe, output_dir=run_directory, progress=progress)
    file = RunFiles(run_directory).demo
    if not file.is_file():
        raise RunError(
            "This run was not made from a recipe or the demo, so its models can't be built again",
            received=str(run_directory),
            allowed="a run of `domainfusion distill` or `domainfusion demo`",
            fix="call distiller.evaluate(...) in the program that made it",
        )
    from domainfusion.demo.run import build_demo

    demo = read_json(file)
    return build_demo(
        run_directory, data=demo["data"], progress=progress, small=bool(demo["small"])
    )


def check_run(run_directory: Path) -> Path:
    """Returns the directory.

    Raises:
        RunError: It is not that of a run.
    """
    if not RunFiles(run_directory).description.is_file():
        raise RunError(
            "This is not the directory of a run",
            received=str(run_directory),
            fix="name the directory that the run printed",
        )
    return run_directory
