"""What an evaluation found: typed, printable, and the same in memory and in `evaluation.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from domainfusion.types import SCHEMA_VERSION, Example, FinishReason

Role = Literal["student", "base", "expert", "merge", "oracle", "baseline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval.

    Attributes:
        value: The figure; None where it is undefined.
        low: Lower end of the interval; None where there is none.
        high: Upper end of the interval.
        reason: Why the figure is undefined.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return "undefined"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one model said to one example, and its grade.

    Attributes:
        example_id: The example.
        text: The answer.
        score: Mean grade of its parts, 0 to 1; None where it could not be graded.
        correct: Whether every part is right; None where it could not be graded.
        finish_reason: `length` where the answer was cut.
        reason: Why there is no grade.
    """

    example_id: str
    text: str
    score: float | None
    correct: bool | None
    finish_reason: FinishReason = "stop"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceScore:
    """One model on one slice of the test set.

    Attributes:
        items: Examples in the slice.
        strict: Share of the graded answers in which every part is right.
        partial: Mean share of right parts.
        unscored: Answers that could not be graded; they are in neither mean.
        truncated: Answers that were cut at the token limit.
    """

    items: int
    strict: Estimate
    partial: Estimate
    unscored: int = 0
    truncated: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResult:
    """One model on the whole test set.

    Attributes:
        name: `student`, `base`, `merge`, `oracle`, the domain of an expert, or the name of a baseline.
        role: What it is to the run.
        slices: Its score by slice: each domain, `cross-domain`, and whatever other slices the examples name.
        pairs: Its score by combination of domains, over the slice `cross-domain`; keys are like `aviation + chemistry`.
        answers: Its answers, in the order of the examples; empty for a baseline of given scores.
    """

    name: str
    role: Role
    slices: Mapping[str, SliceScore]
    pairs: Mapping[str, SliceScore] = field(default_factory=dict)
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRetention:
    """How much of one expert the student kept, on the test examples of that expert's domain alone.

    Attributes:
        domain: The domain.
        items: Examples that both were graded on.
        student: Accuracy of the student.
        expert: Accuracy of the domain's expert.
        base: Accuracy of the student before training; None where it was not measured.
        retention: DER, student / expert, a ratio of means over the same items; undefined where the expert knows nothing.
        headroom: Share of what there was to learn, (student − base) / (expert − base); undefined where the interval of
            expert − base includes 0.
    """

    domain: str
    items: int
    student: float | None
    expert: float | None
    base: float | None
    retention: Estimate
    headroom: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Coherence:
    """Integration Coherence: whether the student's cross-domain answers hold together.

    Attributes:
        score: Mean of the coherence metric over the cross-domain answers.
        coverage: Mean share of right parts in the same answers; coherence without coverage means little.
        validated: Whether the metric has been shown to tell sound texts from corrupted ones.
        items: Answers measured.
    """

    score: Estimate
    coverage: Estimate
    validated: bool
    items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """All that an evaluation found. `print` shows it as a table, `to_dict` gives plain data.

    Attributes:
        models: Every model that was measured, the student first.
        retention: DER and headroom, a row a domain.
        coherence: Integration Coherence; None where there are no cross-domain examples.
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

    def to_dict(self) -> dict[str, Any]:
        """Returns plain dicts, lists, strings and numbers, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n\n".join([*self._retention_table(), self._accuracy_table(), *self._closing_lines()])

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

    def _closing_lines(self) -> list[str]:
        lines = []
        if self.cross_domain_accuracy.value is not None:
            lines.append(f"Cross-Domain Accuracy (strict): {self.cross_domain_accuracy}")
        if self.coherence is not None:
            mark = "" if self.coherence.validated else " (not validated)"
            lines.append(f"Integration Coherence{mark}: {self.coherence.score}, with coverage {self.coherence.coverage}")
        lines += [f"Note: {note}" for note in self.notes]
        return ["\n".join(lines)] if lines else []


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _value(model: ModelResult, slice_name: str) -> str:
    score = model.slices.get(slice_name)
    return "–" if score is None else _number(score.strict.value)


def _table(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])
