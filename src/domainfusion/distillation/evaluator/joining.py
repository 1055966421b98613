"""The benchmarks of an evaluation in one report with the rest of it."""

from __future__ import annotations

from dataclasses import replace

from domainfusion.distillation.results import EvaluationReport, ModelResult, Overlap
from domainfusion.types import fingerprint


def joined(report: EvaluationReport, benchmarks: EvaluationReport) -> EvaluationReport:
    """Returns a report with what was found on benchmarks as slices beside its own.

    A benchmark's slice whose name the report has already, such as that of a domain, becomes `benchmark: ...`.

    Args:
        report: What was found on the test set.
        benchmarks: What was found on the benchmarks, by the same models.
    """
    names = {name: f"benchmark: {name}" if name in report.slices else name for name in benchmarks.slices}
    measured = {(model.role, model.name): model for model in benchmarks.models}
    models = [_with(model, measured.pop((model.role, model.name), None), names) for model in report.models]
    models += [_with(replace(model, slices={}, answers=()), model, names) for model in measured.values()]
    examples = (
        *report.examples,
        *(replace(item, metadata={**item.metadata, "slice": names[item.metadata["slice"]]}) for item in benchmarks.examples),
    )
    return replace(
        report,
        models=tuple(models),
        benchmarks=tuple(replace(found, slice=names.get(found.slice, found.slice)) for found in benchmarks.benchmarks),
        regressions=tuple(replace(found, slice=names.get(found.slice, found.slice)) for found in benchmarks.regressions),
        overlap=_both(report.overlap, benchmarks.overlap),
        examples=examples,
        test_set=fingerprint(examples),
    )


def _with(model: ModelResult, other: ModelResult | None, names: dict[str, str]) -> ModelResult:
    if other is None:
        return model
    more = {names.get(name, name): score for name, score in other.slices.items()}
    return replace(model, slices={**model.slices, **more}, answers=(*model.answers, *other.answers))


def _both(first: Overlap | None, second: Overlap | None) -> Overlap | None:
    if first is None or second is None:
        return first or second
    return replace(first, same=(*first.same, *second.same), near=(*first.near, *second.near))
