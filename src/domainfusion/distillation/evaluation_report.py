"""The report of an evaluation: its headline and conclusions, as text, plain data or a table; and its
overall score.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from domainfusion.distillation.export import frame
from domainfusion.distillation.results import (
    MOST_NAMED,
    AgreementScore,
    Benchmark,
    Coherence,
    Component,
    DomainRetention,
    EdgeCase,
    Estimate,
    ModelResult,
    OverallScore,
    Overlap,
    Regression,
    percent,
)
from domainfusion.errors import ConfigurationError
from domainfusion.types import SCHEMA_VERSION, Example
from domainfusion.wording import counted, listed


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """All that an evaluation found. `print` shows it as a table, `to_dict` gives plain data.

    Attributes:
        models: Every model that was measured, the student first.
        retention: DER and headroom, a row a domain.
        coherence: Integration Coherence; None where there are no cross-domain examples.
        overall: The weighted overall score; None where it was not asked for.
        edge_cases: The adversarial queries that the student does not get right.
        agreement: Agreement with the experts on the examples that have no reference, a row for each
            slice and measure.
        benchmarks: The benchmarks that were run.
        regressions: Whether the student lost general ability, a row for each benchmark of it.
        overlap: What the test set shares with what was trained on; None where nobody said what was
            trained on.
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
    agreement: tuple[AgreementScore, ...] = ()
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
        """CDA, strict: the share of cross-domain queries in which every part of the student's
        answer is right.
        """
        found = self.student.slices.get("cross-domain")
        return (
            found.strict
            if found
            else Estimate(value=None, reason="there are no cross-domain examples with a reference")
        )

    @property
    def headline(self) -> str:
        """The result in a few words, the same in every form of a report."""
        claims = self._domain_claims()
        if claims:
            return f"The student {'; '.join(claims)}."
        if self.cross_domain_accuracy.value is not None:
            return (
                f"The student answers {percent(self.cross_domain_accuracy.value)} of the"
                " cross-domain questions in full."
            )
        if self.agreement:
            return self._agreement_headline()
        if self.overlap_slices:
            return (
                "Whether the student keeps its experts is undefined: the references are in words,"
                " and shared words are not accuracy. Give `answers`, or let a judge grade."
            )
        measured = [
            f"{counted(score.items, f'{name} question')}"
            for name, score in self.student.slices.items()
        ]
        return f"The student was measured on {listed(measured or ['no questions'])}."

    @property
    def conclusions(self) -> tuple[str, ...]:
        """The verdict on each expert, in a sentence, with the warnings that belong to it."""
        found: list[str] = []
        undefined: dict[str, list[str]] = {}
        for row in self.retention:
            if row.undefined_because:
                undefined.setdefault(row.undefined_because, []).append(row.domain)
            else:
                found.append(row.conclusion)
        for reason, domains in undefined.items():
            names = listed(domains)
            experts = "its expert" if len(domains) == 1 else "their experts"
            claim = f"whether the student keeps {experts} is undefined, because {reason}"
            found.append(f"{names[:1].upper()}{names[1:]}: {claim}.")
        warnings = [warning for row in self.retention for warning in row.warnings]
        return (*found, *warnings, *self._recall())

    def _recall(self) -> list[str]:
        """Reports accuracy on facts that were trained on in other words, and on the rest."""
        if self.overlap is None or not self.overlap.facts:
            return []
        known = set(self.overlap.facts)
        graded = [answer for answer in self.student.answers if answer.correct is not None]
        asked = [bool(answer.correct) for answer in graded if answer.example_id in known]
        others = [bool(answer.correct) for answer in graded if answer.example_id not in known]
        total = len(self.student.answers)
        told = f"{len(known):,} of {counted(total, 'test question')} ask for what was trained on in other words"
        if not asked:
            return [f"{told}."]
        right = percent(sum(asked) / len(asked))
        if not others:
            return [
                f"{told}: the student gets {right} of them right, which is recall, and nothing else"
                " was asked."
            ]
        rest = percent(sum(others) / len(others))
        return [
            f"{told}: the student gets {right} of these right, and {rest} of the other"
            f" {len(others):,}."
        ]

    @property
    def overlap_slices(self) -> tuple[str, ...]:
        """The slices in which references in words are compared by the words that answers share with
        them.
        """
        return tuple(name for name, score in self.student.slices.items() if score.overlap_items)

    def _domain_claims(self) -> list[str]:
        by_verdict: dict[str, list[DomainRetention]] = {}
        goal = ""
        for row in self.retention:
            if row.non_inferiority is not None:
                goal = percent(row.non_inferiority.margin)
                by_verdict.setdefault(row.non_inferiority.verdict, []).append(row)
        total = len(self.retention)
        claims = []
        if kept := by_verdict.get("yes"):
            claims.append(f"keeps at least {goal} of {_experts(kept, total)}")
        if lost := by_verdict.get("no"):
            figures = [
                f"{percent(row.retention.value or 0)} of the {row.domain} expert" for row in lost
            ]
            named = f": it keeps {listed(figures)}" if total <= MOST_NAMED else ""
            found = named or f" of {_experts(lost, total)}"
            claims.append(f"falls short of {goal}{found}")
        if unsettled := by_verdict.get("not enough data"):
            experts = _experts(unsettled, total)
            claims.append(
                f"it was asked too few questions to tell for {experts}"
                if claims
                else f"was asked too few questions to say whether it keeps {goal} of {experts}"
            )
        if undefined := by_verdict.get("undefined"):
            names = (
                listed(row.domain for row in undefined)
                if len(undefined) <= MOST_NAMED
                else f"{len(undefined)} of {counted(total, 'domain')}"
            )
            claims.append(f"can't be judged in {names}")
        return claims

    def _agreement_headline(self) -> str:
        measure = self.agreement[0].measure
        rows = [row for row in self.agreement if row.measure == measure]
        found = [row.relative for row in rows if row.relative.value is not None]
        if not found:
            return "No reference says what is right, and agreement with the experts is undefined."
        lows = [estimate.low for estimate in found if estimate.low is not None]
        # Only the lower ends of all intervals support "at least".
        least = min(lows) if len(lows) == len(found) else None
        if least is None:
            figures = [estimate.value or 0.0 for estimate in found]
            ends = dict.fromkeys((percent(min(figures)), percent(max(figures))))
            spread = " to ".join(ends)
            much = f"{spread} as much as"
        else:
            much = "as much as" if least >= 1 else f"at least {percent(least)} as much as"
        return (
            f"No reference says what is right; by {measure}, the student agrees with its experts"
            f" {much} they do with themselves."
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain dicts, lists, strings and numbers, ready for JSON; headline and conclusions
        come first.
        """
        told = any(model.role == "student" for model in self.models)
        verdict = {"headline": self.headline, "conclusions": list(self.conclusions)} if told else {}
        return {**verdict, **asdict(self)}

    def to_pandas(self) -> Any:
        """Returns the scores as a `pandas.DataFrame`, a row for each model and slice.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return frame(
            [
                {
                    "model": model.name,
                    "role": model.role,
                    "slice": name,
                    "items": score.items,
                    "accuracy": score.strict.value,
                    "low": score.strict.low,
                    "high": score.strict.high,
                    "partial": score.partial.value,
                    "unscored": score.unscored,
                    "truncated": score.truncated,
                    "not_readable": score.not_readable,
                }
                for model in self.models
                for name, score in model.slices.items()
            ]
        )

    def __repr__(self) -> str:
        told = any(model.role == "student" for model in self.models)
        headline = f"; {self.headline}" if told else ""
        return f"EvaluationReport({counted(len(self.models), 'model')}, {counted(len(self.examples), 'example')}{headline})"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def __str__(self) -> str:
        return "\n\n".join(
            [
                *self._verdict(),
                *self._retention_table(),
                self._accuracy_table(),
                *self._overlap_table(),
                *self._agreement_table(),
                *self._closing_lines(),
            ]
        )

    def _verdict(self) -> list[str]:
        if not (self.retention or self.agreement):
            return []  # of benchmarks alone nothing was claimed
        return ["\n".join([self.headline, *(f"- {sentence}" for sentence in self.conclusions)])]

    def _retention_table(self) -> list[str]:
        if not self.retention:
            return []
        rows = [
            ["Domain", "items", "base", "expert", "student", "DER [95 %]", "headroom recovered"]
        ]
        for row in self.retention:
            means = [_number(mean) for mean in (row.base, row.expert, row.student)]
            rows.append([row.domain, str(row.items), *means, str(row.retention), str(row.headroom)])
        return ["Domain Expertise Retention\n" + _table(rows)]

    def _accuracy_table(self) -> str:
        if all(score.strict.value is None for score in self.student.slices.values()):
            return "Accuracy is undefined: no answer could be graded as right or wrong."
        rows = [
            [
                "Accuracy (all parts right)",
                *(f"{name} ({score.items})" for name, score in self.student.slices.items()),
            ]
        ]
        for model in self.models:
            label = f"expert: {model.name}" if model.role == "expert" else model.name
            rows.append([label, *(str(_value(model, name)) for name in self.slices)])
        return _table(rows)

    def _overlap_table(self) -> list[str]:
        if not self.overlap_slices:
            return []
        rows = [
            [
                "Model",
                *(
                    f"{name} ({self.student.slices[name].overlap_items})"
                    for name in self.overlap_slices
                ),
            ]
        ]
        for model in self.models:
            scores = [model.slices.get(name) for name in self.overlap_slices]
            found = [
                None if score is None or score.overlap is None else score.overlap.value
                for score in scores
            ]
            rows.append([model.name, *map(_number, found)])
        return ["Overlap with references in words (this is not accuracy)\n" + _table(rows)]

    def _agreement_table(self) -> list[str]:
        if not self.agreement:
            return []
        rows = [["Slice", "measure", "items", "expert with itself", "student", "student / expert"]]
        for row in self.agreement:
            rows.append(
                [
                    row.slice,
                    row.measure,
                    str(row.items),
                    *map(str, (row.expert, row.student, row.relative)),
                ]
            )
        return [
            "Agreement with the experts, where there is no reference (this is not accuracy)\n"
            + _table(rows)
        ]

    def _closing_lines(self) -> list[str]:
        lines = []
        if self.cross_domain_accuracy.value is not None:
            lines.append(f"Cross-Domain Accuracy (strict): {self.cross_domain_accuracy}")
        if self.coherence is not None:
            lines.append(self.coherence.conclusion)
        if self.overall is not None:
            weights = " + ".join(f"{part.weight:g} {part.name}" for part in self.overall.components)
            reason = f" ({self.overall.score.reason})" if self.overall.score.value is None else ""
            lines.append(f"Overall ({weights}): {self.overall.score}{reason}")
        lines += [
            f"General ability, {row.slice}: {row.verdict} (student − base: {row.difference})"
            for row in self.regressions
        ]
        lines += self._counted_apart()
        lines += [f"Note: {note}" for note in self.notes]
        return ["\n".join(lines)] if lines else []

    def _counted_apart(self) -> list[str]:
        answers = self.student.answers
        counts = {
            "not graded": sum(answer.score is None for answer in answers),
            "cut at the token limit": sum(answer.finish_reason == "length" for answer in answers),
            "not readable, which is wrong": sum(not answer.readable for answer in answers),
            "repetitive": sum(answer.repetitive for answer in answers),
        }
        found = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
        lines = [f"Of the student's {counted(len(answers), 'answer')}: {found}"] if found else []
        if self.overlap is not None and (self.overlap.same or self.overlap.near):
            lines.append(
                f"Trained on: {len(self.overlap.same)} of the test queries as they are,"
                f" {len(self.overlap.near)} nearly"
            )
        return lines


def _experts(rows: Sequence[DomainRetention], total: int) -> str:
    if len(rows) > 1 and len(rows) == total:
        return f"each of its {total} experts"
    if total > MOST_NAMED and len(rows) > 1:
        return f"{len(rows)} of its {counted(total, 'expert')}"
    names = listed(row.domain for row in rows)
    return f"the {names} expert{'s' if len(rows) > 1 else ''}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _value(model: ModelResult, slice_name: str) -> str:
    score = model.slices.get(slice_name)
    return "–" if score is None else _number(score.strict.value)


def _table(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])


# The overall score

WEIGHTS: Mapping[str, float] = {"DER": 0.5, "CDA": 0.3, "IC": 0.2}
"""The default weight of each figure: a convention, which every report states."""


def check_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Returns the weights that are not 0, scaled to a sum of 1.

    Raises:
        ConfigurationError: One is not of a known figure, is negative, or all are 0.
    """
    strange = [
        name
        for name, weight in weights.items()
        if name not in WEIGHTS or not (isfinite(weight) and weight >= 0)
    ]
    if strange or not sum(weights.values()) > 0:
        raise ConfigurationError(
            "These are not weights of an overall score",
            received=dict(weights),
            allowed=f"numbers from 0, not all 0, for {', '.join(WEIGHTS)}",
        )
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items() if weight}


def overall(
    weights: Mapping[str, float],
    retention: Sequence[DomainRetention],
    cross_domain: Estimate,
    coherence: Coherence | None,
) -> OverallScore:
    """Returns the weighted mean of what was found; undefined where a figure that has a weight is.

    A coherence metric that is not known to reach an AUROC of 0.90 on what it is meant to see has no
    weight; the others are scaled to a sum of 1.
    """
    counts = {
        name: weight for name, weight in weights.items() if name != "IC" or _counts(coherence)
    }
    total = sum(counts.values())
    figures = {
        "DER": (_mean_retention(retention), "mean over the domains, each counted up to 1"),
        "CDA": (cross_domain, "every part right"),
        "IC": _coherence(coherence),
    }
    components = tuple(
        Component(
            name=name,
            score=figures[name][0],
            weight=counts[name] / total if name in counts else 0.0,
            about=figures[name][1],
        )
        for name in weights
    )
    missing = [part.name for part in components if part.weight and part.score.value is None]
    if not counts or missing:
        reason = (
            f"{' and '.join(missing)} undefined"
            if missing
            else "no figure that has a weight is validated"
        )
        return OverallScore(score=Estimate(value=None, reason=reason), components=components)
    score = sum(part.weight * (part.score.value or 0.0) for part in components)
    return OverallScore(score=Estimate(value=score), components=components)


def _counts(coherence: Coherence | None) -> bool:
    # Without cross-domain answers a weight of IC is kept, so that the score is undefined and says
    # why.
    return coherence is None or coherence.validated


def _mean_retention(rows: Sequence[DomainRetention]) -> Estimate:
    values = [row.retention.value for row in rows if row.retention.value is not None]
    if not rows or len(values) < len(rows):
        undefined = [row.domain for row in rows if row.retention.value is None]
        return Estimate(
            value=None,
            reason=(
                f"DER is undefined in {', '.join(undefined)}"
                if undefined
                else "no domain was measured"
            ),
        )
    return Estimate(value=sum(min(1.0, value) for value in values) / len(values))


def _coherence(found: Coherence | None) -> tuple[Estimate, str]:
    if found is None:
        return Estimate(value=None, reason="there are no cross-domain answers to measure"), ""
    about = "coverage × the coherence metric"
    if found.validated:
        return found.score, about
    return found.score, f"{about}; no weight, as that is {found.standing}"
