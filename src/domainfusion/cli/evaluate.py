"""`domainfusion evaluate`: the student of a run, measured again."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal
    from domainfusion.distillation import Distiller
    from domainfusion.distillation.evaluation_report import EvaluationReport
    from domainfusion.distillation.requirements import Requirement
    from domainfusion.models import HuggingFaceModel
    from domainfusion.types import Example

UNMET = 3
"""The exit code where a requirement is not met."""

_DESCRIPTION = """Evaluate the student of a run again, as it was saved, beside its base and its experts: on the run's own test set, or
on another file of examples. None of these may have been trained on. With --check-metrics, measure the coherence metric instead: can it
tell sound texts from shuffled, contradicted, looped, truncated and merely concatenated ones?

With --require, the evaluation has to show something, such as --require "DER>=0.95" --require "CDA.low>=80%" --require "general: no loss";
if one requirement is not met, the exit code is 3. Figures are DER, accuracy, CDA, IC and overall; [slice] names one domain or slice, and
.low or .high a bound of the 95 % interval. A figure that is undefined meets nothing."""


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "evaluate",
        parents=[shared],
        help="evaluate the student of a run again",
        description=_DESCRIPTION,
    )
    parser.add_argument(
        "directory",
        type=Path,
        metavar="RUN",
        nargs="?",
        help="the directory of a run; --check-metrics needs none",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="a file of examples, in place of the run's test set",
    )
    parser.add_argument(
        "--check-metrics",
        action="store_true",
        help="measure the coherence metric of the run; without RUN, those that need no run",
    )
    parser.add_argument(
        "--reference-model",
        type=Path,
        metavar="MODEL",
        help="with --check-metrics and no RUN: also measure this model's view of coherence",
    )
    parser.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="REQUIREMENT",
        help='what the evaluation has to show, such as "DER>=0.95"; may be repeated',
    )
    parser.add_argument(
        "--junit",
        type=Path,
        metavar="FILE",
        help="with --require: also write the outcome of each requirement as JUnit XML",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="with --require: also write the outcome of each requirement as JSON",
    )
    parser.set_defaults(run=run, misused=parser.error)


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Evaluates and prints the tables.

    Returns:
        The exit code: 3 where a requirement is not met, else 0.
    """
    _check_words(arguments)
    if arguments.check_metrics:
        from domainfusion.cli.check_metrics import check_metrics_of, check_own_metrics

        if arguments.directory is None:
            check_own_metrics(arguments.reference_model, terminal)
        else:
            check_metrics_of(arguments.directory, terminal)
        return 0
    from domainfusion.cli.runs import check_run, publish, rebuild
    from domainfusion.distillation.examples import read_examples
    from domainfusion.distillation.requirements import Requirement

    requirements = [Requirement.parse(text) for text in arguments.require]
    directory = check_run(arguments.directory)
    examples = list(read_examples(arguments.against)) if arguments.against else None
    student = _student_of(directory)
    terminal.log_to(directory)
    distiller = rebuild(directory, progress=terminal.progress)
    if distiller.evaluator is None:
        from domainfusion.errors import RunError

        raise RunError(
            "The recipe of this run has no evaluation",
            received=str(directory),
            fix="remove `evaluation: off` from it",
        )
    with distiller.hold():
        if examples is None:
            report = distiller.evaluate(student)
            publish(directory, terminal)
        else:
            report = _evaluate_against(distiller, student, examples, arguments.against, terminal)
    return _check(report, requirements, arguments, terminal)


def _check_words(arguments: argparse.Namespace) -> None:
    """Refuses words that do not go together, as argparse does."""
    if arguments.directory is None and not arguments.check_metrics:
        arguments.misused("the following arguments are required: RUN")
    if arguments.check_metrics and arguments.against:
        arguments.misused("argument --against: not allowed with argument --check-metrics")
    if arguments.reference_model and (arguments.directory or not arguments.check_metrics):
        arguments.misused("argument --reference-model: goes with --check-metrics and no RUN")
    if arguments.check_metrics and arguments.require:
        arguments.misused("argument --require: not allowed with argument --check-metrics")
    if (arguments.junit or arguments.json) and not arguments.require:
        arguments.misused("arguments --junit and --json: go with --require")


def _check(
    report: EvaluationReport,
    requirements: list[Requirement],
    arguments: argparse.Namespace,
    terminal: Terminal,
) -> int:
    """Prints and writes what is met of the requirements; returns the exit code."""
    from domainfusion.distillation.requirements import check_requirements, write_junit
    from domainfusion.records import write_json

    outcomes = check_requirements(report, requirements)
    for outcome in outcomes:
        mark = "met    " if outcome.met else "NOT MET"
        terminal.print(f"{mark}  {outcome.name}: {outcome.found}")
    if arguments.junit:
        write_junit(arguments.junit, outcomes, suite=str(arguments.directory))
    if arguments.json:
        write_json(arguments.json, [asdict(outcome) for outcome in outcomes])
    return 0 if all(outcome.met for outcome in outcomes) else UNMET


def _student_of(directory: Path) -> HuggingFaceModel:
    """Returns the student as it was saved, with the settings that the recipe gives it."""
    from domainfusion.cli.runs import check_student, recipe_of
    from domainfusion.distillation.run import RunFiles
    from domainfusion.errors import RunError
    from domainfusion.models import HuggingFaceModel

    folder = RunFiles(directory).student
    if not (folder / "config.json").is_file():
        raise RunError(
            "This run has no student yet",
            received=str(directory),
            fix=f"see `domainfusion status {directory}`",
        )
    check_student(directory)
    recipe = recipe_of(directory)
    wanted = {"system_prompt", "dtype", "device", "batch_size"}
    settings = recipe.student.model_dump(include=wanted) if recipe else {}
    return HuggingFaceModel(folder, name="student", **settings)


def _evaluate_against(
    distiller: Distiller,
    student: HuggingFaceModel,
    examples: list[Example],
    file: Path,
    terminal: Terminal,
) -> EvaluationReport:
    """Evaluates on examples that are not the run's own; what was found is kept beside the run's own
    evaluation.
    """
    from domainfusion.records import write_json
    from domainfusion.reports import RunSummary, render_terminal

    report = distiller.evaluate(student, examples=examples)
    kept = distiller.output_dir / f"evaluation-{file.stem}.json"
    write_json(kept, report)
    title = f"{RunSummary.read(distiller.output_dir).heading}, on {file}"
    summary = RunSummary(title=title, evaluation=report)
    terminal.print(render_terminal(summary, details=True))
    terminal.print(f"\nKept in {kept}")
    return report
