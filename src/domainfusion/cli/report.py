"""What came of runs: `domainfusion report` prints the verdict on one and writes its reports anew,
`domainfusion compare` sets runs beside each other.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal

_REPORT = """Print the verdict on a run, finished or not, and write its report.html, report.md and model card anew. While the run
is under way, `domainfusion status` says how far it is."""

_COMPARE = """Set runs beside the first of them: the inputs that differ, and the student's accuracy with the paired difference and its
95 % interval, over the questions that both runs asked."""


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verbs `report` and `compare` to the parser."""
    parser = verbs.add_parser(
        "report",
        parents=[shared],
        help="print the verdict on a run and write its reports",
        description=_REPORT,
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="the directory of a run")
    parser.add_argument(
        "--details", action="store_true", help="print every table of the run before the verdict"
    )
    parser.set_defaults(run=report)

    parser = verbs.add_parser(
        "compare",
        parents=[shared],
        help="set runs beside each other",
        description=_COMPARE,
    )
    parser.add_argument("first", type=Path, metavar="RUN", help="the run to compare with")
    parser.add_argument("others", type=Path, metavar="RUN", nargs="+", help="the other runs")
    parser.set_defaults(run=compare)


def report(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Prints and writes the reports. Each file is whole at any time, so that a process may be
    writing to the run meanwhile.
    """
    from domainfusion.cli.runs import check_run, publish

    publish(check_run(arguments.directory), terminal, details=arguments.details)


def compare(arguments: argparse.Namespace, terminal: Terminal) -> None:
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
