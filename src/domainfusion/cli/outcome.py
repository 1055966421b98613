"""What stands at the end of a run: the student's folder, the reports, and what to do with them."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from domainfusion.distillation.run import RunFiles
from domainfusion.errors import RunError
from domainfusion.files import flush_names, flush_to_disk, unfinished
from domainfusion.records import read_json, write_json
from domainfusion.reports import RunSummary, render_terminal, write_reports

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal
    from domainfusion.distillation import Distiller

logger = logging.getLogger("domainfusion")


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
        files = _files_in(fresh)
        if folder.exists():
            write_json(ledger, {"written": _listed(ledger, "written"), "next": files})
            folder.rename(_old_student(run))
        else:
            write_json(ledger, {"written": files})
        fresh.rename(folder)
        flush_names(folder.parent)
    finally:
        _finish_replacing(run)
        shutil.rmtree(fresh, ignore_errors=True)


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
    for name in _listed(ledger, "written"):
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
    write_json(ledger, {"written": _listed(ledger, "next") or _listed(ledger, "written")})
    # What is left are folders without files.
    shutil.rmtree(old, ignore_errors=True)


def _listed(ledger: Path, key: str) -> list[str]:
    """Returns names of files from the ledger; one that leads out of the folder was written by
    nobody here.
    """
    found = read_json(ledger) if ledger.is_file() else {}
    names = found.get(key, []) if isinstance(found, dict) else []
    return [
        name
        for name in names
        if isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts
    ]


def _files_in(folder: Path) -> list[str]:
    """Returns the paths of all files, links among them, below a folder."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )


def publish(run_directory: Path, terminal: Terminal) -> None:
    """Writes the reports of a run and its student's model card, and prints the tables."""
    summary, files = write_reports(run_directory), RunFiles(run_directory)
    terminal.print(render_terminal(summary))
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
