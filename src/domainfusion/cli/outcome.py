"""What stands at the end of a run: the student's folder, the reports, and what to do with them."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from domainfusion.reports import RunSummary, render_terminal, write_reports
from domainfusion.reports.files import MODEL

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal
    from domainfusion.distillation import Distiller


def save_student(distiller: Distiller) -> None:
    """Writes the student to `model/` in its run: the whole of it or, where that fails, what was there before."""
    folder = distiller.output_dir / MODEL
    unfinished = folder.with_name(f".{MODEL}.{os.getpid()}")
    try:
        distiller.save(unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def publish(run_directory: Path, terminal: Terminal) -> None:
    """Writes the reports of a run and its student's model card, and prints the tables."""
    summary = write_reports(run_directory)
    has_student = (run_directory / MODEL).is_dir()
    terminal.print(render_terminal(summary))
    terminal.print(f"\nReport:   {run_directory / 'report.html'} and report.md")
    if has_student:
        question = _question(summary)
        terminal.print(f"Student:  {run_directory / MODEL}")
        terminal.print(f"Ask it:   domainfusion ask {shlex.quote(str(run_directory))} {shlex.quote(question)}")


def _question(summary: RunSummary) -> str:
    """Returns a question worth asking: one of the test set, across domains if there is one."""
    examples = summary.evaluation.examples if summary.evaluation else ()
    crossing = [example.query for example in examples if example.is_cross_domain]
    return next(iter([*crossing, *(example.query for example in examples)]), "a question of your own")
