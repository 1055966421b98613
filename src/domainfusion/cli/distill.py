"""`domainfusion distill`: what a recipe says, done."""

from __future__ import annotations

import argparse
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from domainfusion.errors import ConfigurationError, DomainFusionError, RunError

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal
    from domainfusion.recipe import Recipe
    from domainfusion.recipe.document import Change

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
        help=(
            "print calls, tokens, cost, memory and time, and keep nothing; time is estimated from a"
            " few answers and steps of local models that are small"
        ),
    )
    parser.add_argument(
        "--no-check",
        action="store_true",
        help="do not ask every teacher behind an API one question before the run begins",
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
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=(
            "a value in place of what the recipe says, such as trainer.epochs=3; several with"
            " commas between them, or in brackets, make a run each, in a folder each, and a table at the end"
        ),
    )
    parser.add_argument("--seed", metavar="N", help="the same as --set seed=N")
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="RUN",
        help="start from the student of a finished run, in place of the recipe's student",
    )
    failure = (
        "what to do where an expert leaves questions unanswered, in place of what the recipe says"
    )
    parser.add_argument("--on-teacher-failure", choices=("stop", "continue"), help=failure)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Runs the recipe, or prints what it would take; with several values, once for each."""
    variants = _variants(arguments)
    if len(variants) > 1:
        _sweep(variants, arguments, terminal)
    else:
        run_recipe(variants[0].recipe, arguments.output_dir, arguments, terminal)


class Variant(NamedTuple):
    """One of the runs of a sweep.

    Attributes:
        name: What sets it apart, and its folder: `epochs=3,seed=1`; empty where it is the only one.
        recipe: Its recipe.
    """

    name: str
    recipe: Recipe


def _variants(arguments: argparse.Namespace) -> list[Variant]:
    """Reads the recipe with every combination of the values that were set."""
    from domainfusion.recipe.reading import read_recipe

    words = list(arguments.set)
    choices = [_values_of(arguments.recipe, text) for text in words]
    if arguments.seed is not None:
        words.append(f"--seed {arguments.seed}")
        found = _values_of(arguments.recipe, f"seed={arguments.seed}")
        choices.append(
            [replace(one, text=one.text.removeprefix("seed="), option="--seed") for one in found]
        )
    keys = [values[0].at for values in choices]
    repeated = next((key for key in keys if keys.count(key) > 1), None)
    if repeated is not None:
        given = [text for text, key in zip(words, keys, strict=True) if key == repeated]
        raise ConfigurationError(
            f"{'.'.join(map(str, repeated))} is set twice",
            received=given,
            fix="give it once; several values with commas between them make a run each",
        )
    variants = []
    for combination in itertools.product(*choices):
        recipe = read_recipe(arguments.recipe, combination)
        updates: dict[str, Any] = {}
        if arguments.on_teacher_failure:
            updates["on_teacher_failure"] = arguments.on_teacher_failure
        if arguments.start is not None:
            updates["student"] = student_of(arguments.start, recipe)
        varied = zip(combination, choices, strict=True)
        parts = [f"{change.at[-1]}={change.value}" for change, all_ in varied if len(all_) > 1]
        # What a folder can't be called on some system becomes a line.
        name = re.sub(r"[^\w.=,+-]+", "_", ",".join(parts))[:100]
        variants.append(Variant(name, recipe.model_copy(update=updates)))
    names = [variant.name for variant in variants]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(
            "Two runs of the sweep are the same", received=twice, fix="name each value once"
        )
    return variants


def _values_of(recipe: Path, text: str) -> list[Change]:
    """Returns a change of the recipe for each value; a list in brackets is several where the key
    takes no list.
    """
    from domainfusion.recipe.document import read_changes
    from domainfusion.recipe.reading import read_recipe

    found = read_changes(text)
    if len(found) > 1 or not isinstance(found[0].value, list) or not found[0].value:
        return found
    try:
        read_recipe(recipe, found)
    except ConfigurationError:
        key, _, listed = text.partition("=")
        return read_changes(f"{key}={listed.strip().removeprefix('[').removesuffix(']')}")
    return found


def student_of(run_directory: Path, recipe: Recipe) -> Any:
    """Returns the student's section, with the trained student of a run in it.

    Raises:
        RunError: The run has no student.
    """
    from domainfusion.cli.runs import check_run, saved_student

    folder = saved_student(check_run(run_directory))
    place = {"path": os.path.abspath(folder), "base_model": None}
    name = recipe.student.name or f"student of {run_directory.resolve().name}"
    return recipe.student.model_copy(update={**place, "name": name})


def _sweep(variants: Sequence[Variant], arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Runs each variant in its folder, and prints what they have and do not have in common.

    Raises:
        RunError: Some of them failed; the others were run anyway.
    """
    from domainfusion.distillation.run import RunFiles
    from domainfusion.distillation.settings import BESIDE
    from domainfusion.reports.summary import RunSummary
    from domainfusion.reports.terminal import compare_runs, render_tables

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigurationError(
            "Several processes train one run", received="a sweep", fix="start one process"
        )
    chosen = arguments.output_dir or variants[0].recipe.output_dir
    folder = Path(chosen or Path("runs") / arguments.recipe.stem)
    if RunFiles(folder).description.is_file():
        raise ConfigurationError(
            "The folder of a sweep holds a run",
            received=str(folder),
            fix="give another --output-dir: each value gets a folder in it",
        )
    failed: dict[str, DomainFusionError] = {}
    for place, (name, recipe) in enumerate(variants, start=1):
        terminal.say(f"Run {place} of {len(variants)}: {name}")
        if recipe.answers == BESIDE:
            # Beside the sweep, so that single runs there share its answers too.
            answers = os.path.abspath(folder.parent / "answers.sqlite")
            recipe = recipe.model_copy(update={"answers": answers})
        try:
            run_recipe(recipe, folder / name, arguments, terminal)
        except DomainFusionError as error:
            failed[name] = error
            terminal.say(f"{name} failed, and the sweep continues: {error}")
    there = [name for name, _ in variants if RunFiles(folder / name).description.is_file()]
    if len(there) > 1:
        runs = {name: RunSummary.read(folder / name) for name in there}
        terminal.print(render_tables(compare_runs(runs)))
    if failed:
        name, first = next(iter(failed.items()))
        raise RunError(
            f"{len(failed)} of {len(variants)} runs of the sweep failed, first {name}: {first}",
            fix="run the same command again: what is done is kept",
        )


def _show_plan(recipe: Recipe, terminal: Terminal) -> None:
    """Shows what a recipe would take, and what to know before it is run."""
    from domainfusion.cli.dry_run import render_plan, render_times, time_plan
    from domainfusion.cli.plan import plan_of
    from domainfusion.cli.preflight import check_commands, notes_on
    from domainfusion.progress import doing

    check_commands(recipe)
    with doing("counting the work"):
        plan = plan_of(recipe)
    terminal.print(render_plan(plan))
    terminal.print(render_times(plan, time_plan(recipe, plan)))
    for note in notes_on(recipe):
        terminal.print(f"Note: {note}")


def run_recipe(
    recipe: Recipe,
    output_dir: Path | None,
    arguments: argparse.Namespace,
    terminal: Terminal,
    *,
    answers_of: Path | None = None,
) -> None:
    """Runs a recipe, or shows what it would take.

    Args:
        recipe: The recipe.
        output_dir: Where the run is kept, in place of what the recipe says.
        arguments: `dry_run`, and `until`, the last stage.
        terminal: Where results go.
        answers_of: The store of an earlier run, whose answers are used again.
    """
    from domainfusion.progress import doing

    with doing("starting"):
        from domainfusion.cli.preflight import notes_on
        from domainfusion.models.store import ResponseStore
        from domainfusion.recipe import build_distiller

    if arguments.dry_run:
        _show_plan(recipe, terminal)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and arguments.until != STAGES[-1]:
        raise ConfigurationError(
            "Several processes run every stage",
            received=f"--until {arguments.until}",
            fix="start one process",
        )
    if os.environ.get("RANK", "0") != "0":
        build_distiller(
            recipe, output_dir=output_dir
        ).distill()  # which trains beside the main process, and writes nothing
        return
    from domainfusion.cli.runs import check_student_folder, publish, remember_recipe, run_stages
    from domainfusion.cli.status import render_status, status_of
    from domainfusion.distillation.run import RunFiles

    with doing("reading the models"):
        distiller = build_distiller(recipe, output_dir=output_dir, progress=terminal.progress)
    directory = distiller.output_dir
    terminal.log_to(directory)
    check_student_folder(directory)
    for note in notes_on(recipe):
        terminal.say(f"Note: {note}")
    with distiller.hold():
        if not arguments.no_check:
            distiller.ask_first()
        if answers_of is not None:
            with ResponseStore(RunFiles(directory).responses) as store:
                store.copy_from(answers_of)
        has_student = run_stages(
            distiller, arguments.until, on_start=lambda: remember_recipe(directory, recipe)
        )
        if has_student:
            publish(directory, terminal)
    if not has_student:
        terminal.print(render_status(status_of(directory)))
