"""A run of the command line: where it came from, its stages, and what stands at its end."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from domainfusion.cli.distill import STAGES
from domainfusion.distillation.run import RunFiles, read_refinement
from domainfusion.errors import DataError, DomainFusionError, RunError
from domainfusion.files import flush_names, flush_to_disk, unfinished
from domainfusion.recipe import Recipe, build_distiller, read_recipe, write_recipe
from domainfusion.records import read_json, refuse_changed, write_json
from domainfusion.reports import RunSummary, render_terminal, write_reports

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal
    from domainfusion.distillation import Distiller
    from domainfusion.progress import Progress

logger = logging.getLogger("domainfusion")

# Where a run came from: what is written there builds its experts again.


def remember_recipe(run_directory: Path, recipe: Recipe) -> None:
    """Keeps the recipe of a run in its directory, with full paths."""
    write_recipe(recipe, RunFiles(run_directory).recipe, listed=True)


def remember_demo(run_directory: Path, *, data: Path | None, small: bool) -> None:
    """Notes that a run is the demo's, and of which world."""
    write_json(
        RunFiles(run_directory).demo,
        {"small": small, "data": None if data is None else str(data.resolve())},
    )


class _Demo(BaseModel):
    """What `demo.json` says: the data of the world, by default the demo's own, and its size."""

    data: str | None
    small: bool


def recipe_of(run_directory: Path) -> Recipe | None:
    """Returns the recipe that a run was made with; None where it was made without one.

    Raises:
        DataError: It is damaged, or was changed since.
    """
    file = RunFiles(run_directory).recipe
    if not file.is_file():
        return None
    refuse_changed(run_directory, file.name)
    return read_recipe(file)


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

    demo = read_json(file, _Demo)
    return build_demo(run_directory, data=demo.data, progress=progress, small=demo.small)


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


def run_stages(distiller: Distiller, until: str, *, on_start: Callable[[], None]) -> bool:
    """Runs the stages of a distiller up to `until`; those that are done are not done again. The
    student is saved before it is measured. Of a run that is finished no model is loaded.

    Args:
        distiller: The distiller.
        until: The last stage to run, one of `STAGES`.
        on_start: Called as soon as the run's directory is known to be this distiller's.

    Returns:
        Whether the run has a student now.
    """
    wanted = STAGES[: STAGES.index(until) + 1]
    if _is_whole(distiller):
        on_start()
        logger.info("The run is finished: nothing is asked, trained or measured again.")
        return True
    examples = distiller.generate()
    on_start()
    if wanted == STAGES:
        # This holds the directory from the first stage to the last.
        distiller.distill(on_trained=lambda: save_student(distiller))
        return True
    if "collect" in wanted:
        collected = distiller.collect(examples)
    if "integrate" in wanted:
        records = distiller.integrate(collected)
    if "train" in wanted:
        distiller.train(records)
    if distiller.settings.refinement_rounds and (
        "refine" in wanted or ("train" in wanted and _is_refined(distiller))
    ):
        # where it is over, this loads the student of the run: no other may take its place
        distiller.refine()
    if distiller.student is None:
        return False
    save_student(distiller)
    return True


def _is_whole(distiller: Distiller) -> bool:
    """Whether a run is finished, and its student saved as it was."""
    if not distiller.is_finished():
        return False
    try:
        saved_student(distiller.output_dir)
    except DomainFusionError as error:
        logger.info("The student is saved anew: %s", error)
        return False
    run = RunFiles(distiller.output_dir)
    return all((run.student / name).is_file() for name in _read_ledger(run.student_files).written)


def _is_refined(distiller: Distiller) -> bool:
    return bool(read_refinement(RunFiles(distiller.output_dir)).stopped)


def check_student_folder(run_directory: Path) -> None:
    """Makes sure, before anything is trained, that the student can be written to `model/`.

    Raises:
        RunError: It is a link, a mount or a file.
    """
    folder = RunFiles(run_directory).student
    if folder.is_symlink() or os.path.ismount(folder) or (folder.exists() and not folder.is_dir()):
        kind = "a link" if folder.is_symlink() else "mounted" if folder.is_dir() else "a file"
        raise RunError(
            f"The folder of the student is {kind}, and can't be replaced by another one",
            received=str(folder),
            fix="move it away; to have the student elsewhere, give another output directory",
        )
    _read_ledger(RunFiles(run_directory).student_files)


def save_student(distiller: Distiller) -> None:
    """Writes the student to `model/` in its run: the whole of it or, where that fails, what was
    there before.

    The new student is written beside the old one and takes its place. Of the old folder, what a run
    wrote is removed by exact name, and whatever else lies there is kept.
    """
    run = RunFiles(distiller.output_dir)
    folder, ledger = run.student, run.student_files
    check_student_folder(run.path)
    _finish_replacing(run)
    fresh = unfinished(folder)
    try:
        distiller.save(fresh)
        flush_to_disk(fresh)
        files, sums = _files_in(fresh), _checksums_in(fresh, ledger)
        if folder.exists():
            before = _inside(_read_ledger(ledger).written)
            write_json(ledger, {"written": before, "next": files, "checksums": sums})
            folder.rename(_old_student(run))
        else:
            write_json(ledger, {"written": files, "checksums": sums})
        fresh.rename(folder)
        flush_names(folder.parent)
    finally:
        _finish_replacing(run)
        shutil.rmtree(fresh, ignore_errors=True)


def saved_student(run_directory: Path) -> Path:
    """Returns the folder of a run's student, whole and as the run wrote it.

    Raises:
        RunError: The run has no student yet.
        DataError: A file that decides what the student answers is damaged, or was changed.
    """
    folder = RunFiles(run_directory).student
    if not (folder / "config.json").is_file():
        raise RunError(
            "This run has no student yet",
            received=str(run_directory),
            fix=f"see `domainfusion status {run_directory}`, and run its command again",
        )
    check_student(run_directory)
    return folder


def check_student(run_directory: Path) -> None:
    """Compares the saved student with what the run wrote.

    Raises:
        DataError: A file that decides what the student answers is damaged, or was changed.
    """
    from domainfusion.models.locate import hash_file

    run = RunFiles(run_directory)
    for name, sums in _known_checksums(run.student_files).items():
        file = run.student / name
        is_whole = file.is_file() and hash_file(file) in sums
        if os.path.lexists(file) and not is_whole:
            raise DataError(
                "A file of the student is damaged, or was changed after the run wrote it",
                received=str(file),
                fix=(
                    "run the run's command again, which saves the student anew; to use the file as"
                    f" it is, delete {name} from the checksums in {run.student_files}"
                ),
            )


def _checksums_in(folder: Path, ledger: Path) -> dict[str, list[str]]:
    """Returns the SHA-256 of each file of a new student that decides what it answers, and after it
    that of the old one, as a process that is killed leaves either.
    """
    from domainfusion.models.locate import DECISIVE, hash_file

    before, found = _known_checksums(ledger), {}
    for name in _files_in(folder):
        if Path(name).suffix in DECISIVE:
            new = hash_file(folder / name)
            found[name] = [new, *(old for old in before.get(name, [])[:1] if old != new)]
    return found


def _known_checksums(ledger: Path) -> dict[str, list[str]]:
    return _read_ledger(ledger).checksums


class _Ledger(BaseModel):
    """What `student_files.json` says.

    Attributes:
        written: The files in `model/` that a run wrote.
        next: Those of a student that is to take its place.
        checksums: The SHA-256 that each file may have.
    """

    written: list[str] = []
    next: list[str] = []
    checksums: dict[str, list[str]] = {}


def _read_ledger(ledger: Path) -> _Ledger:
    """Returns what the list of the student's files says; one that is not there says nothing.

    Raises:
        DataError: It is damaged.
    """
    if not ledger.is_file():
        return _Ledger()
    fix = (
        "restore it from a copy, or delete it: then all that lies in model/ counts as yours, and"
        " is kept beside the files of the next student"
    )
    try:
        return read_json(ledger, _Ledger)
    except DataError as error:
        reason = str(error).partition(". To fix it")[0]
        raise DataError(f"The list of the student's files is damaged: {reason}", fix=fix) from error


def _old_student(run: RunFiles) -> Path:
    """Returns where the student before is kept while another one takes its place."""
    return run.student.with_name(f".{run.student.name}.replaced")


def _finish_replacing(run: RunFiles) -> None:
    """Ends what `save_student` had begun: puts the old student back, or clears away what is left of
    it.

    It may be interrupted at any point and called again. While the old folder is there, `written` in
    the ledger is about it, and `next` about the new one.
    """
    folder, old, ledger = run.student, _old_student(run), run.student_files
    if not old.is_dir():
        return
    if not folder.exists():
        old.rename(folder)
        return
    known = _read_ledger(ledger)
    for name in _inside(known.written):
        if (old / name).is_symlink() or not (old / name).is_dir():  # which no run wrote
            with suppress(FileNotFoundError, NotADirectoryError):
                (old / name).unlink()
    for name in _files_in(old):
        place = folder / name
        if (
            place.exists()
        ):  # the new student has a file of this name, and somebody else's had it before
            place = place.with_name(f"{place.name}.kept")
            logger.warning(
                "%s is kept as %s, as the new student has a file of this name",
                folder / name,
                place.name,
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        (old / name).replace(place)
    written = _inside(known.next) or _inside(known.written)
    sums = {name: found[:1] for name, found in known.checksums.items()}  # the old ones are gone
    write_json(ledger, {"written": written, "checksums": sums})
    # What is left are folders without files.
    shutil.rmtree(old, ignore_errors=True)


def _inside(names: Sequence[str]) -> list[str]:
    """Returns the names from a ledger that stay in the folder; nobody here wrote another one."""
    return [name for name in names if not Path(name).is_absolute() and ".." not in Path(name).parts]


def _files_in(folder: Path) -> list[str]:
    """Returns the paths of all files, links among them, below a folder."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )


def publish(run_directory: Path, terminal: Terminal, *, details: bool = False) -> None:
    """Writes the reports of a run and its student's model card, and prints the verdict.

    Args:
        run_directory: The run.
        terminal: Where it is printed.
        details: Print the tables before it.
    """
    summary, files = write_reports(run_directory), RunFiles(run_directory)
    terminal.print(render_terminal(summary, details=details))
    terminal.print(f"\nReport:   {files.html_report} and {files.markdown_report.name}")
    if files.student.is_dir():
        question = _question(summary)
        terminal.print(f"Student:  {files.student}")
        terminal.print(
            f"Ask it:   domainfusion ask {shlex.quote(str(run_directory))} {shlex.quote(question)}"
        )


def _question(summary: RunSummary) -> str:
    """Returns a question worth asking: one of the test set, across domains if there is one."""
    examples = summary.evaluation.examples if summary.evaluation else ()
    crossing = [example.query for example in examples if example.is_cross_domain]
    return next(
        iter([*crossing, *(example.query for example in examples)]), "a question of your own"
    )
