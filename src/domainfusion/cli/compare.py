"""`domainfusion compare`: what differs between runs, in their inputs and in what came out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal

_DESCRIPTION = """Set runs beside the first of them: the inputs that differ, and the student's accuracy with the paired difference and its
95 % interval, over the questions that both runs asked."""


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "compare",
        parents=[shared],
        help="set runs beside each other",
        description=_DESCRIPTION,
    )
    parser.add_argument("first", type=Path, metavar="RUN", help="the run to compare with")
    parser.add_argument("others", type=Path, metavar="RUN", nargs="+", help="the other runs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Prints the tables."""
    from domainfusion.cli.runs import check_run
    from domainfusion.reports.summary import RunSummary
    from domainfusion.reports.terminal import compare_runs, render_tables

    directories = [arguments.first, *arguments.others]
    summaries = [RunSummary.read(check_run(path)) for path in directories]
    runs = dict(zip(_names(directories), summaries, strict=True))
    terminal.print(render_tables(compare_runs(runs)))


def _names(directories: list[Path]) -> list[str]:
    """Returns a short name for each run: its last folder, numbered where two have the same."""
    names = [path.resolve().name for path in directories]
    return [
        f"{name} ({place + 1})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]
