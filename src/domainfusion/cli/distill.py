"""`domainfusion distill`: what a recipe says, done."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainfusion.errors import ConfigurationError

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal

STAGES = ("generate", "collect", "integrate", "train", "refine", "evaluate")

_DESCRIPTION = """Distill the experts of a recipe into its student. The run is kept in a directory, which is printed; where it was
stopped, the same command resumes. `domainfusion init` writes a recipe to start from."""


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "distill",
        parents=[shared],
        help="distill the experts of a recipe",
        description=_DESCRIPTION,
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a YAML file")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print calls, tokens, cost and memory, and load no model",
    )
    parser.add_argument(
        "--until",
        choices=STAGES,
        default=STAGES[-1],
        help="the last stage to run (default: %(default)s)",
    )
    parser.add_argument(
        "--output-dir", type=Path, help="where the run is kept, in place of what the recipe says"
    )
    failure = (
        "what to do where an expert leaves questions unanswered, in place of what the recipe says"
    )
    parser.add_argument("--on-teacher-failure", choices=("stop", "continue"), help=failure)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Runs the recipe, or prints what it would take."""
    from domainfusion.recipe import build_distiller, read_recipe

    recipe = read_recipe(arguments.recipe)
    if arguments.on_teacher_failure:
        recipe = recipe.model_copy(update={"on_teacher_failure": arguments.on_teacher_failure})
    if arguments.dry_run:
        from domainfusion.cli.plan import plan_of, render_plan

        terminal.print(render_plan(plan_of(recipe)))
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and arguments.until != STAGES[-1]:
        raise ConfigurationError(
            "Several processes run every stage",
            received=f"--until {arguments.until}",
            fix="start one process",
        )
    if os.environ.get("RANK", "0") != "0":
        build_distiller(
            recipe, output_dir=arguments.output_dir
        ).distill()  # which trains beside the main process, and writes nothing
        return
    from domainfusion.cli.runs import check_student_folder, publish, remember_recipe, run_stages
    from domainfusion.cli.status import render_status, status_of

    distiller = build_distiller(recipe, output_dir=arguments.output_dir, progress=terminal.progress)
    directory = distiller.output_dir
    terminal.log_to(directory)
    check_student_folder(directory)
    with distiller.hold():
        run_stages(distiller, arguments.until, on_start=lambda: remember_recipe(directory, recipe))
        if distiller.student is not None:
            publish(directory, terminal)
    if distiller.student is None:
        terminal.print(render_status(status_of(directory)))
