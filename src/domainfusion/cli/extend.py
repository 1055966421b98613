"""`domainfusion extend`: one more expert, or a better one, for the student of a finished run."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainfusion.errors import ConfigurationError, RunError

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal
    from domainfusion.distillation.evaluation_report import EvaluationReport
    from domainfusion.distillation.run import RunFiles
    from domainfusion.recipe import Recipe
    from domainfusion.recipe.document import Change
    from domainfusion.types import Example

_DESCRIPTION = """Train the student of a finished run further with one more expert, or with a better
one for a domain it has. The examples of the run are shown again, its answers are used again, its
test set stays as it is, and every domain is measured before and after."""


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "extend",
        parents=[shared],
        help="add an expert to a finished run",
        description=_DESCRIPTION,
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="the directory of a run")
    parser.add_argument(
        "--expert",
        required=True,
        type=_expert,
        metavar="DOMAIN=MODEL",
        help="a domain and its expert: a path, a hub id, or {model: ..., base_url: ...}",
    )
    parser.add_argument("--about", metavar="TEXT", help="what the domain is about")
    parser.add_argument(
        "--examples", type=Path, help="examples to train on; required for a new domain"
    )
    parser.add_argument(
        "--test", type=Path, help="examples to measure on; required for a new domain"
    )
    parser.add_argument(
        "--replay",
        type=_share,
        default=1.0,
        metavar="SHARE",
        help="share of the run's examples that is shown again (default: all)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a value in place of what the run's recipe says, such as trainer.epochs=1",
    )
    parser.add_argument(
        "--output-dir", type=Path, help="where it is kept; by default beside the run, as RUN+DOMAIN"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what it would take, and keep nothing"
    )
    parser.set_defaults(run=run, until="evaluate", no_check=False)


def _expert(text: str) -> str:
    domain, separator, model = text.partition("=")
    if not (separator and domain.strip() and model.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is not DOMAIN=MODEL, as in law=experts/law")
    return text


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share, a number from 0 to 1")
    return share


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Extends the run, and prints every domain before and after."""
    from domainfusion.cli.distill import run_recipe
    from domainfusion.cli.runs import check_run
    from domainfusion.distillation.run import RunFiles
    from domainfusion.reports.summary import RunSummary
    from domainfusion.reports.terminal import compare_runs, render_tables

    files = RunFiles(check_run(arguments.directory))
    domain = arguments.expert.partition("=")[0].strip()
    # What a folder can't be called on some system becomes a line.
    plain = re.sub(r"[^\w.-]+", "_", domain)
    name = f"{files.path.resolve().name}+{plain}"
    folder = arguments.output_dir or files.path.resolve().with_name(name)
    recipe = _extended(files, domain, folder, arguments)
    run_recipe(recipe, folder, arguments, terminal, answers_of=files.responses)
    report = None if arguments.dry_run else RunSummary.read(folder).evaluation
    if report is not None:
        runs = {
            "before": RunSummary(evaluation=_before(report)),
            "after": RunSummary(evaluation=report),
        }
        terminal.print("")
        terminal.print(render_tables(compare_runs(runs)))


def _before(report: EvaluationReport) -> EvaluationReport:
    """Returns what the report says of the student that the training started from."""
    from domainfusion.reports.evaluation_tables import retention_before

    base = next(model for model in report.models if model.role == "base")
    return replace(
        report,
        models=(replace(base, role="student"),),
        retention=retention_before(report, base),
        overall=None,
    )


def _extended(files: RunFiles, domain: str, folder: Path, arguments: argparse.Namespace) -> Recipe:
    """Returns the run's recipe with the expert, its examples and those of the run.

    Raises:
        ConfigurationError: A new domain has no examples.
        RunError: The run has no recipe, no student or no evaluation.
    """
    from domainfusion.cli.distill import student_of
    from domainfusion.cli.runs import recipe_of
    from domainfusion.recipe.document import Change
    from domainfusion.recipe.reading import read_recipe

    recipe = recipe_of(files.path)
    if recipe is None or recipe.evaluation is None:
        raise RunError(
            "Only a run of a recipe with an evaluation can be extended",
            received=str(files.path),
            fix="distill a recipe in which the new expert stands, with --from this run",
        )
    _check_files(recipe, domain, arguments)
    is_new = domain not in recipe.domains
    student = student_of(files.path, recipe)
    expert = _one(f"expert.{arguments.expert.strip()}", "--expert")
    values: dict[tuple[str | int, ...], Any] = {
        ("student",): {
            name: value for name, value in student.arguments().items() if value is not None
        },
        ("teachers", domain): _absolute(expert.value),
        ("generators",): list(_generators(files, domain, arguments)),
        ("evaluation", "test_examples"): str(_test_file(files, domain, folder, arguments)),
        ("evaluation", "holdout"): None,
        ("refinement_rounds",): 0,
    }
    if is_new:
        values["title",] = f"{recipe.title}, and {domain}"
    if is_new or arguments.about:
        values["domains", domain] = arguments.about or domain
    if recipe.trainer.initialization == "merge":
        values["trainer", "initialization"] = "auto"  # the student itself is the start
    if files.validation_examples.is_file() and files.validation_examples.stat().st_size:
        values["evaluation", "validation_examples"] = os.path.abspath(files.validation_examples)
        values["evaluation", "validation_holdout"] = None
    if is_new and recipe.trainer.type == "sequential" and recipe.trainer.order is not None:
        values["trainer", "order"] = [*recipe.trainer.order, domain]
    words = f"extend --expert {arguments.expert}"
    changes = [Change(at, value, words, option="") for at, value in values.items()]
    for text in arguments.set:
        changes.append(_one(text, "--set"))
    return read_recipe(files.recipe, changes).model_copy(
        update={"output_dir": str(folder.resolve())}
    )


def _check_files(recipe: Recipe, domain: str, arguments: argparse.Namespace) -> None:
    """Refuses a new domain without examples, and files that are not there."""
    for option, use in (("examples", "train"), ("test", "measure")):
        given = getattr(arguments, option)
        if given is None and domain not in recipe.domains:
            raise ConfigurationError(
                f"The new domain {domain!r} has no examples to {use} on",
                allowed=f"a file of examples, or one of: {', '.join(recipe.domains)}",
                fix=f"give --{option} FILE",
            )
        if given is not None and not given.is_file():
            raise ConfigurationError(
                f"--{option} names a file that is not there", received=str(given)
            )


def _one(text: str, option: str) -> Change:
    """Reads one value that is set.

    Raises:
        ConfigurationError: There are several.
    """
    from domainfusion.recipe.document import read_changes

    found = read_changes(text)
    if len(found) > 1:
        raise ConfigurationError(
            f"{option} takes one value here", received=text, fix="call the command for each"
        )
    return found[0]


def _absolute(expert: Any) -> Any:
    """Returns the expert with a path that holds in any folder."""
    if isinstance(expert, str) and os.path.exists(Path(expert).expanduser()):
        return os.path.abspath(Path(expert).expanduser())
    return expert


def _generators(
    files: RunFiles, domain: str, arguments: argparse.Namespace
) -> Iterator[Mapping[str, Any]]:
    """Yields sections: the run's examples again, and those of the new expert."""
    from domainfusion.records import read_lines

    count = round(arguments.replay * sum(1 for _ in read_lines(files.examples)))
    if count:
        replayed = {"type": "curated", "file": os.path.abspath(files.examples)}
        yield replayed if arguments.replay == 1 else {**replayed, "num_examples": count}
    if arguments.examples is not None:
        yield {"type": "curated", "file": os.path.abspath(arguments.examples), "domain": domain}


def _test_file(files: RunFiles, domain: str, folder: Path, arguments: argparse.Namespace) -> Path:
    """Returns a file of the run's frozen test set with the new test examples after it."""
    from domainfusion.distillation.examples import read_examples
    from domainfusion.records import write_records

    if arguments.test is None:
        return files.test_examples.resolve()
    added: Sequence[Example] = list(read_examples(arguments.test, domain=domain))
    frozen = list(read_examples(files.test_examples))
    known = {example.id for example in frozen}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.resolve() / "extended_test_examples.jsonl"
    write_records(file, [*frozen, *(example for example in added if example.id not in known)])
    return file
