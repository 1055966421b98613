"""`domainfusion report`: the verdict on a run, its tables, and its reports written anew."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal

_DESCRIPTION = """Print the verdict on a run, finished or not, and write its report.html, report.md and model card anew. While the run
is under way, `domainfusion status` says how far it is."""


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "report",
        parents=[shared],
        help="print the verdict on a run and write its reports",
        description=_DESCRIPTION,
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="the directory of a run")
    parser.add_argument(
        "--details", action="store_true", help="print every table of the run before the verdict"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Prints and writes the reports. Each file is whole at any time, so that a process may be
    writing to the run meanwhile.
    """
    from domainfusion.cli.runs import check_run, publish

    publish(check_run(arguments.directory), terminal, details=arguments.details)
