"""The report of an evaluation, which prints as tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from domainfusion.distillation.results.agreement import Agreement
from domainfusion.distillation.results.benchmarks import Benchmark, Regression
from domainfusion.distillation.results.coherence import Coherence
from domainfusion.distillation.results.estimate import Estimate
from domainfusion.distillation.results.model_result import EdgeCase, ModelResult, SliceScore
from domainfusion.distillation.results.overall import OverallScore
from domainfusion.distillation.results.overlap import Overlap
from domainfusion.distillation.results.retention import DomainRetention
from domainfusion.types import SCHEMA_VERSION, Example


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """All that an evaluation found. `print` shows it as a table, `to_dict` gives plain data.

    Attributes:
        models: Every model that was measured, the student first.
        retention: DER and headroom, a row a domain.
        coherence: Integration Coherence; None where there are no cross-domain examples.
        overall: The weighted overall score; None where it was not asked for.
        edge_cases: The adversarial queries that the student does not get right.
        agreement: Agreement with the experts on the examples that have no reference, a row for each slice and measure.
        benchmarks: The benchmarks that were run.
        regressions: Whether the student lost general ability, a row for each benchmark of it.
        overlap: What the test set shares with what was trained on; None where nobody said what was trained on.
        examples: The test examples.
        test_set: Fingerprint of the test examples, taken before any model answered them.
        notes: What a reader has to know: how the test set was made, what was left out and why.
        seed: Seed of the bootstrap.
        resamples: Bootstrap resamples behind each interval.
        metric: Name of the accuracy metric.
        coherence_metric: Name of the coherence metric.
    """

    models: tuple[ModelResult, ...]
    retention: tuple[DomainRetention, ...] = ()
    coherence: Coherence | None = None
    overall: OverallScore | None = None
    edge_cases: tuple[EdgeCase, ...] = ()
    agreement: tuple[Agreement, ...] = ()
    benchmarks: tuple[Benchmark, ...] = ()
    regressions: tuple[Regression, ...] = ()
    overlap: Overlap | None = None
    examples: tuple[Example, ...] = ()
    test_set: str = ""
    notes: tuple[str, ...] = ()
    seed: int = 0
    resamples: int = 0
    metric: str = ""
    coherence_metric: str = ""
    schema: int = SCHEMA_VERSION

    @property
    def student(self) -> ModelResult:
        """The student's row."""
        return next(model for model in self.models if model.role == "student")

    @property
    def slices(self) -> tuple[str, ...]:
        """The names of the slices, domains first, in the order of the test set."""
        return tuple(self.student.slices)

    @property
    def cross_domain_accuracy(self) -> Estimate:
        """CDA, strict: the share of cross-domain queries in which every part of the student's answer is right."""
        found = self.student.slices.get("cross-domain")
        return found.strict if found else Estimate(value=None, reason="there are no cross-domain examples with a reference")

    @property
    def best_expert(self) -> ModelResult | None:
        """The single expert that gets the most answers right over all slices; None where no expert was graded."""
        experts = [model for model in self.models if model.role == "expert" and any(_right(score) for score in model.slices.values())]
        return max(experts, key=lambda model: sum(_right(score) for score in model.slices.values()), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain dicts, lists, strings and numbers, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n\n".join([*self._retention_table(), self._accuracy_table(), *self._agreement_table(), *self._closing_lines()])

    def _retention_table(self) -> list[str]:
        if not self.retention:
            return []
        rows = [["Domain", "items", "base", "expert", "student", "DER [95 %]", "headroom recovered"]]
        for row in self.retention:
            means = [_number(mean) for mean in (row.base, row.expert, row.student)]
            rows.append([row.domain, str(row.items), *means, str(row.retention), str(row.headroom)])
        return ["Domain Expertise Retention\n" + _table(rows)]

    def _accuracy_table(self) -> str:
        rows = [["Accuracy (all parts right)", *(f"{name} ({score.items})" for name, score in self.student.slices.items())]]
        for model in self.models:
            label = f"expert: {model.name}" if model.role == "expert" else model.name
            rows.append([label, *(str(_value(model, name)) for name in self.slices)])
        return _table(rows)

    def _agreement_table(self) -> list[str]:
        if not self.agreement:
            return []
        rows = [["Slice", "measure", "items", "expert with itself", "student", "student / expert"]]
        for row in self.agreement:
            rows.append([row.slice, row.measure, str(row.items), *map(str, (row.expert, row.student, row.relative))])
        return ["Agreement with the experts, where there is no reference (this is not accuracy)\n" + _table(rows)]

    def _closing_lines(self) -> list[str]:
        lines = [
            f"Keeps {row.non_inferiority.margin:.0%} of the {row.domain} expert: {row.non_inferiority}"
            for row in self.retention
            if row.non_inferiority is not None
        ]
        if self.cross_domain_accuracy.value is not None:
            lines.append(f"Cross-Domain Accuracy (strict): {self.cross_domain_accuracy}")
        if self.coherence is not None:
            found = self.coherence
            lines.append(f"Integration Coherence ({found.standing}): {found.score}, with coverage {found.coverage}")
        if self.overall is not None:
            weights = " + ".join(f"{part.weight:g} {part.name}" for part in self.overall.components)
            reason = f" ({self.overall.score.reason})" if self.overall.score.value is None else ""
            lines.append(f"Overall ({weights}): {self.overall.score}{reason}")
        lines += [f"General ability, {row.slice}: {row.verdict} (student − base: {row.difference})" for row in self.regressions]
        lines += self._counted_apart()
        lines += [f"Note: {note}" for note in self.notes]
        return ["\n".join(lines)] if lines else []

    def _counted_apart(self) -> list[str]:
        answers = self.student.answers
        counts = {
            "not graded": sum(answer.correct is None for answer in answers),
            "cut at the token limit": sum(answer.finish_reason == "length" for answer in answers),
            "with nothing to grade in them": sum(not answer.extracted for answer in answers),
            "repetitive": sum(answer.repetitive for answer in answers),
        }
        found = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
        lines = [f"Of the student's {len(answers)} answers: {found}"] if found else []
        if self.overlap is not None and (self.overlap.same or self.overlap.near):
            lines.append(f"Trained on: {len(self.overlap.same)} of the test queries as they are, {len(self.overlap.near)} nearly")
        return lines


def _right(score: SliceScore) -> float:
    return (score.strict.value or 0.0) * (score.items - score.unscored)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _value(model: ModelResult, slice_name: str) -> str:
    score = model.slices.get(slice_name)
    return "–" if score is None else _number(score.strict.value)


def _table(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])
