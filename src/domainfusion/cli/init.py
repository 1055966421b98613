"""`domainfusion init`: a recipe to start from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal

TEMPLATE = Path(__file__).with_name("recipe_template.yaml")


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    description = "Write a commented recipe to start from."
    parser = verbs.add_parser(
        "init", parents=[shared], help="write a commented recipe", description=description
    )
    parser.add_argument(
        "path",
        nargs="?",
        type=Path,
        default=Path("recipe.yaml"),
        help="the file to write (default: %(default)s)",
    )
    parser.add_argument(
        "--force", action="store_true", help="write it even where there is a file already"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Writes the recipe."""
    from domainfusion.errors import ConfigurationError
    from domainfusion.records import write_text

    if arguments.path.is_dir():
        raise ConfigurationError(
            "The recipe is a file, and this is a folder",
            received=str(arguments.path),
            fix=f"write {arguments.path / 'recipe.yaml'}",
        )
    if arguments.path.exists() and not arguments.force:
        raise ConfigurationError(
            "There is a file already",
            received=str(arguments.path),
            fix="name another file, or add --force",
        )
    write_text(arguments.path, TEMPLATE.read_text(encoding="utf-8"))
    terminal.print(
        f"Wrote {arguments.path}. Edit it, then see what it would do: domainfusion distill"
        f" {arguments.path} --dry-run"
    )
