"""`domainfusion demo`: three real experts become one student, on defaults that come with the
package.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal

MINUTES = 7
"""How long the run took whose report is published (benchmarks/demo/report.md), on two cores; the
README names the same number.
"""

_DESCRIPTION = f"""Distill three experts (airports, chemical elements, countries) on SmolLM2-135M into one student, and measure it.
No GPU and no network is needed; the published run took {MINUTES} minutes on two cores.
A demo that was stopped resumes where it was."""


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "demo",
        parents=[shared],
        help="run the main job on three real experts",
        description=_DESCRIPTION,
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        help="where the run is kept (default: runs/demo, or runs/demo-small)",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="a slice of the work, to see that everything runs; its figures mean nothing",
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="a folder with a world of your own, whose experts are trained (default: the demo's)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Runs the demo, saves its student and writes its reports."""
    from domainfusion.errors import ConfigurationError
    from domainfusion.progress import doing

    if arguments.data is not None and not arguments.data.is_dir():
        raise ConfigurationError(
            "The folder of the world is not there",
            received=str(arguments.data),
            fix="check the path; without --data the demo takes the world that comes with it",
        )
    with doing("starting"):
        from domainfusion.cli.runs import check_student_folder, publish, remember_demo, run_stages
        from domainfusion.demo.run import build_demo

    name = "demo" if arguments.data is None else f"demo-{arguments.data.resolve().name}"
    directory = arguments.output_dir or Path("runs") / (
        f"{name}-small" if arguments.small else name
    )
    check_student_folder(directory)
    terminal.log_to(directory)
    with doing("reading the experts and the questions"):
        distiller = build_demo(
            directory, data=arguments.data, progress=terminal.progress, small=arguments.small
        )
    with distiller.hold():
        run_stages(
            distiller,
            "evaluate",
            on_start=lambda: remember_demo(directory, data=arguments.data, small=arguments.small),
        )
        publish(directory, terminal)
