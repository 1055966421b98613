"""`domainfusion evaluate`: the student of a run, measured again; with `--check-metrics`, what the
coherence metrics are worth.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainfusion.wording import counted

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal
    from domainfusion.distillation import Distiller
    from domainfusion.distillation.evaluation_report import EvaluationReport
    from domainfusion.distillation.requirements import Requirement
    from domainfusion.distillation.results import CoherenceValidation
    from domainfusion.models import HuggingFaceModel
    from domainfusion.types import Example

_CHECK_METRICS = "domainfusion evaluate --check-metrics"

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
        if arguments.directory is None:
            _check_own_metrics(arguments.reference_model, terminal)
        else:
            _check_metrics_of(arguments.directory, terminal)
        return 0
    from domainfusion.cli.runs import check_run, publish, rebuild
    from domainfusion.distillation.examples import read_examples
    from domainfusion.distillation.requirements import Requirement

    requirements = [Requirement.parse(text) for text in arguments.require]
    directory = check_run(arguments.directory)
    if arguments.against is None:
        _check_slices(directory, requirements)
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
            distiller.student = student
            report = distiller.evaluate()
            publish(directory, terminal)
        else:
            report = _evaluate_against(distiller, student, examples, arguments.against, terminal)
    return _check(report, requirements, arguments, terminal)


def _check_slices(directory: Path, requirements: list[Requirement]) -> None:
    """Refuses a requirement on a slice that an earlier evaluation of the run did not have, before
    anything is measured again.
    """
    from domainfusion.distillation.requirements import check_requirements
    from domainfusion.reports import RunSummary

    earlier = RunSummary.read(directory).evaluation if requirements else None
    if earlier is not None:
        check_requirements(earlier, requirements)


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
    from domainfusion.cli.runs import recipe_of, saved_student
    from domainfusion.models import HuggingFaceModel

    folder = saved_student(directory)
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


# --- --check-metrics


def _check_own_metrics(reference_model: Path | None, terminal: Terminal) -> None:
    """Measures the metrics that need no run: the rules' and, with a model, its view."""
    from domainfusion.distillation.evaluator import consistency
    from domainfusion.distillation.metrics import ModelCoherence, validate_coherence
    from domainfusion.models import HuggingFaceModel

    found = [validate_coherence(consistency, command=_CHECK_METRICS)]
    if reference_model is not None:
        metric = ModelCoherence(HuggingFaceModel(reference_model))
        found.append(
            validate_coherence(
                metric, command=f"{_CHECK_METRICS} --reference-model {reference_model}"
            )
        )
    terminal.print(_validations(found))


def _check_metrics_of(run_directory: Path, terminal: Terminal) -> None:
    """Measures the coherence metric of a run, and puts what was found into its evaluation.

    Raises:
        RunError: The run has no evaluation with a coherence metric.
    """
    from domainfusion.cli.runs import check_run, rebuild
    from domainfusion.distillation import DomainRetentionEvaluator
    from domainfusion.distillation.metrics import validate_coherence
    from domainfusion.distillation.run import RunFiles
    from domainfusion.errors import RunError
    from domainfusion.models import ResponseStore
    from domainfusion.records import write_json
    from domainfusion.reports import RunSummary

    directory = check_run(run_directory)
    distiller = rebuild(directory, progress=terminal.progress)
    evaluator = distiller.evaluator
    if not isinstance(evaluator, DomainRetentionEvaluator) or evaluator.coherence_metric is None:
        raise RunError(
            "This run has no coherence metric",
            received=str(directory),
            fix="remove `evaluation: off` from its recipe",
        )
    files = RunFiles(directory)
    with distiller.hold():
        with ResponseStore(files.responses, progress=terminal.progress) as store:
            found = validate_coherence(
                evaluator.coherence_metric,
                ask=store.ask,
                command=f"{_CHECK_METRICS} {run_directory}",
            )
        terminal.print(_validations([found]))
        report = RunSummary.read(directory).evaluation
        if report is not None and report.coherence is not None:
            coherence = replace(report.coherence, validation=found)
            kept = files.evaluation
            write_json(kept, replace(report, coherence=coherence), listed=True)
            terminal.print(f"\nKept in {kept}; `domainfusion report {run_directory}` shows it.")


def _validations(validations: Sequence[CoherenceValidation]) -> str:
    lines = []
    for found in validations:
        lines.append(
            f"{found.metric}, on {counted(found.texts, 'text')}: AUROC [95 %], each kind of corruption against"
            " the sound texts"
        )
        lines += [
            f"  {name:<32}{estimate!s:<24}{'' if name in found.reached else 'below 0.90'}"
            for name, estimate in found.auroc.items()
        ]
        if found.unscored:
            lines.append(f"  {counted(found.unscored, 'text')} had no grade")
        lines.append("")
    return "\n".join(line.rstrip() for line in lines).rstrip()
