"""`domainfusion evaluate --check-metrics`: what the coherence metrics are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from domainfusion.cli.runs import check_run, rebuild
from domainfusion.distillation.evaluator import consistency
from domainfusion.distillation.metrics import ModelCoherence, validate_coherence
from domainfusion.distillation.results import CoherenceValidation
from domainfusion.distillation.run import RunFiles
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
    files = RunFiles(directory)
    with distiller.hold():
        with ResponseStore(files.responses, progress=terminal.progress) as store:
            found = validate_coherence(metric, ask=store.ask, command=f"{_COMMAND} {run_directory}")
        terminal.print(_table([found]))
        report = RunSummary.read(directory).evaluation
        if report is not None and report.coherence is not None:
            coherence = replace(report.coherence, validation=found)
            kept = files.evaluation
            write_json(kept, replace(report, coherence=coherence), listed=True)
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
