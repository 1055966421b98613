"""`domainfusion export`: what a run trains on, for other trainers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal

_FORMATS = ("messages", "prompt-completion", "sharegpt")
_DESCRIPTION = """Write what a run trains on as JSON Lines: `messages` for TRL, LLaMA-Factory and Axolotl, `prompt-completion` for TRL,
which then trains on the answers alone, or `sharegpt` for LLaMA-Factory. Rejected records and answers that were cut are left out."""


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "export",
        parents=[shared],
        help="write a run's training data for other trainers",
        description=_DESCRIPTION,
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="the directory of a run")
    parser.add_argument(
        "--format", choices=_FORMATS, default="messages", help="which format (default: %(default)s)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the file to write (default: RUN/export-FORMAT.jsonl)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Writes the file."""
    from domainfusion.cli.runs import check_run, recipe_of
    from domainfusion.distillation.export import export_messages
    from domainfusion.distillation.refinement import trained_records
    from domainfusion.distillation.run import RunFiles
    from domainfusion.errors import RunError

    directory = check_run(arguments.directory)
    if not RunFiles(directory).records.is_file():
        raise RunError(
            "This run has no records yet",
            received=str(directory),
            fix="run it until `integrate` at least",
        )
    recipe = recipe_of(directory)
    output = arguments.output or directory / f"export-{arguments.format}.jsonl"
    exported = export_messages(
        trained_records(directory),
        output,
        format=arguments.format,
        system_prompt=recipe.student.system_prompt if recipe else None,
    )
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in exported.left_out.items())
    terminal.print(
        f"{exported.written:,} rows in {output}" + (f"; left out: {left_out}" if left_out else "")
    )
