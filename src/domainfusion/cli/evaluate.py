"""`domainfusion evaluate`: the student of a run, measured again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal
    from domainfusion.distillation import Distiller
    from domainfusion.models import HuggingFaceModel
    from domainfusion.types import Example
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from domainfusion.cli.outcome import check_run, rebuild
from domainfusion.distillation.evaluator import consistency
from domainfusion.distillation.metrics import ModelCoherence, validate_coherence
from domainfusion.distillation.results import CoherenceValidation
from domainfusion.errors import RunError
from domainfusion.models import HuggingFaceModel, ResponseStore
from domainfusion.records import write_json
from domainfusion.reports import RunSummary

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal


_COMMAND = "domainfusion evaluate --check-metrics"


def check_own_metrics(reference_model: Path | None, terminal: Terminal) -> None:
    """Measures the metrics that need no run: the rules' and, with a model, its view."""
    found = [validate_coherence(consistency, command=_COMMAND)]
    if reference_model is not None:
        metric = ModelCoherence(HuggingFaceModel(reference_model))
        found.append(
            validate_coherence(metric, command=f"{_COMMAND} --reference-model {reference_model}")
        )
    terminal.print(_table(found))


def check_metrics_of(run_directory: Path, terminal: Terminal) -> None:
    """Measures the coherence metric of a run, and puts what was found into its evaluation.

    Raises:
        RunError: The run has no evaluation with a coherence metric.
    """
    directory = check_run(run_directory)
    distiller = rebuild(directory, progress=terminal.progress)
    metric = getattr(distiller.evaluator, "coherence_metric", None)
    if metric is None:
        raise RunError(
            "This run has no coherence metric",
            received=str(directory),
            fix="remove `evaluation: off` from its recipe",
        )
    with distiller.hold():
        with ResponseStore(directory / "responses.sqlite", progress=terminal.progress) as store:
            found = validate_coherence(metric, ask=store.ask, command=f"{_COMMAND} {run_directory}")
        terminal.print(_table([found]))
        report = RunSummary.read(directory).evaluation
        if report is not None and report.coherence is not None:
            coherence = replace(report.coherence, validation=found)
            kept = directory / "evaluation.json"
            write_json(kept, replace(report, coherence=coherence))
            terminal.print(f"\nKept in {kept}; `domainfusion report {run_directory}` shows it.")


def _table(validations: Sequence[CoherenceValidation]) -> str:
    lines = []
    for found in validations:
        lines.append(
            f"{found.metric}, on {found.texts} texts: AUROC [95 %], each kind of corruption against"
            " the sound texts"
        )
        lines += [
            f"  {name:<32}{estimate!s:<24}{'' if name in found.reached else 'below 0.90'}"
            for name, estimate in found.auroc.items()
        ]
        if found.unscored:
            lines.append(f"  {found.unscored} texts had no grade")
        lines.append("")
    return "\n".join(line.rstrip() for line in lines).rstrip()


_DESCRIPTION = """Evaluate the student of a run again, as it was saved, beside its base and its experts: on the run's own test set, or
on another file of examples. None of these may have been trained on. With --check-metrics, measure the coherence metric instead: can it
tell sound texts from shuffled, contradicted, looped, truncated and merely concatenated ones?"""


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
    parser.set_defaults(run=run, misused=parser.error)


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Evaluates and prints the tables."""
    _check_words(arguments)
    if arguments.check_metrics:
        from domainfusion.cli.evaluate import check_metrics_of, check_own_metrics

        if arguments.directory is None:
            check_own_metrics(arguments.reference_model, terminal)
        else:
            check_metrics_of(arguments.directory, terminal)
        return
    from domainfusion.cli.outcome import check_run, publish, rebuild
    from domainfusion.distillation.examples import read_examples

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
            distiller.evaluate(student)
            publish(directory, terminal)
        else:
            _evaluate_against(distiller, student, examples, arguments.against, terminal)


def _check_words(arguments: argparse.Namespace) -> None:
    """Refuses words that do not go together, as argparse does."""
    if arguments.directory is None and not arguments.check_metrics:
        arguments.misused("the following arguments are required: RUN")
    if arguments.check_metrics and arguments.against:
        arguments.misused("argument --against: not allowed with argument --check-metrics")
    if arguments.reference_model and (arguments.directory or not arguments.check_metrics):
        arguments.misused("argument --reference-model: goes with --check-metrics and no RUN")


def _student_of(directory: Path) -> HuggingFaceModel:
    """Returns the student as it was saved, with the settings that the recipe gives it."""
    from domainfusion.cli.outcome import recipe_of
    from domainfusion.errors import RunError
    from domainfusion.models import HuggingFaceModel
    from domainfusion.reports.html import MODEL

    folder = directory / MODEL
    if not (folder / "config.json").is_file():
        raise RunError(
            "This run has no student yet",
            received=str(directory),
            fix=f"see `domainfusion status {directory}`",
        )
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
) -> None:
    """Evaluates on examples that are not the run's own; what was found is kept beside the run's own
    evaluation.
    """
    from domainfusion.records import write_json
    from domainfusion.reports import RunSummary, render_terminal

    report = distiller.evaluate(student, examples=examples)
    kept = distiller.output_dir / f"evaluation-{file.stem}.json"
    write_json(kept, report)
    title = f"{RunSummary.read(distiller.output_dir).heading}, on {file}"
    terminal.print(render_terminal(RunSummary(title=title, evaluation=report)))
    terminal.print(f"\nKept in {kept}")
