"""Requirements on an evaluation, such as `DER>=0.95`, so that a registry or a pipeline can refuse
a student.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from xml.etree import ElementTree

from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.results import Estimate
from domainfusion.errors import ConfigurationError, printable
from domainfusion.files import replacing

FIGURES = ("DER", "accuracy", "CDA", "IC", "overall")
"""The figures that a requirement can name; `DER` and `accuracy` exist for each domain or slice."""

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}

# Figure, the slice in brackets, a bound of the interval, the comparison: DER[law].low >= 0.95
_COMPARISON = re.compile(
    r"""
    \s* (?P<figure> [A-Za-z]+ )
    (?: \[ (?P<slice> [^\]]+ ) \] )?
    (?: \. (?P<bound> low | high ) )?
    \s* (?P<operator> >= | <= | > | < )
    \s* (?P<limit> [+-]? \d+ (?: \.\d+ )? ) \s* (?P<percent> % )? \s*
    """,
    re.VERBOSE,
)
# A slice and the words "no loss": general: no loss
_NO_LOSS = re.compile(r"\s*(?P<slice>.+?)\s*:\s*no loss\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A condition that an evaluation has to meet.

    Attributes:
        text: The requirement as it was written.
        figure: One of `FIGURES`, or `no loss`.
        slice: The domain or slice that it is about; None: each that has the figure.
        bound: Which number of the 95 % interval is compared; None: the figure itself.
        operator: `>=`, `>`, `<=` or `<`; empty for `no loss`.
        limit: What the figure is compared with, as a share (0.95, not 95).

    Example:
        >>> Requirement.parse("DER[law].low >= 95 %").limit
        0.95
    """

    text: str
    figure: str
    slice: str | None = None
    bound: str | None = None
    operator: str = ""
    limit: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `FIGURE>=NUMBER`, `FIGURE[SLICE].low>=NUMBER` or `SLICE: no loss`.

        Raises:
            ConfigurationError: It is neither.
        """
        if found := _NO_LOSS.fullmatch(text):
            return cls(text=text.strip(), figure="no loss", slice=found["slice"])
        names = {name.lower(): name for name in FIGURES}
        compared = _COMPARISON.fullmatch(text)
        if not compared or compared["figure"].lower() not in names:
            raise ConfigurationError(
                "A requirement can't be read",
                received=text,
                allowed=(
                    f"{', '.join(FIGURES)} with >=, >, <= or < and a number; a slice in brackets"
                    " and .low or .high for a bound of the 95 % interval; or SLICE: no loss"
                ),
                fix="for example DER>=0.95, DER[law].low>=0.9, CDA>=80% or 'general: no loss'",
            )
        limit = float(compared["limit"]) / (100 if compared["percent"] else 1)
        if not 0 <= limit <= (10 if compared["figure"].lower() == "der" else 1):
            raise ConfigurationError(
                "The limit of a requirement is not a share",
                received=text,
                allowed="a number from 0 to 1, or a percentage",
                fix="write 0.95 or 95%",
            )
        return cls(
            text=text.strip(),
            figure=names[compared["figure"].lower()],
            slice=compared["slice"],
            bound=compared["bound"],
            operator=compared["operator"],
            limit=limit,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementOutcome:
    """The outcome of one requirement in an evaluation.

    Attributes:
        requirement: As it was written.
        slice: The domain or slice that was looked at; empty for figures of the whole.
        met: Whether it holds. What is undefined or unknown does not hold.
        found: The figure with its 95 % interval, or the verdict, in words.
        value: The figure as a share; None where it is undefined, or the requirement has none.
        low: The lower bound of its interval, if there is one.
        high: The upper bound.
    """

    requirement: str
    slice: str
    met: bool
    found: str
    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def name(self) -> str:
        """The requirement and what it was checked on."""
        if not self.slice or self.slice in self.requirement:
            return self.requirement
        return f"{self.requirement} ({self.slice})"


def check_requirements(
    report: EvaluationReport, requirements: Iterable[Requirement]
) -> tuple[RequirementOutcome, ...]:
    """Compares an evaluation with what is required of it.

    Args:
        report: What the evaluation found.
        requirements: What it has to show.

    Returns:
        An outcome for each requirement and each slice that it is about.

    Raises:
        ConfigurationError: A requirement names a slice that was not measured.
    """
    outcomes: list[RequirementOutcome] = []
    for requirement in requirements:
        if requirement.figure == "no loss":
            outcomes.append(_no_loss(report, requirement))
        else:
            outcomes.extend(_compared(report, requirement))
    return tuple(outcomes)


def _compared(report: EvaluationReport, requirement: Requirement) -> Iterator[RequirementOutcome]:
    figures = dict(_figures(report, requirement.figure))
    if requirement.slice is not None:
        _check_slice(requirement, figures)
        figures = {requirement.slice: figures[requirement.slice]}
    if not figures:
        yield RequirementOutcome(
            requirement=requirement.text, slice="", met=False, found="was not measured"
        )
    for name, estimate in figures.items():
        value = getattr(estimate, requirement.bound or "value")
        met = value is not None and _OPERATORS[requirement.operator](value, requirement.limit)
        yield RequirementOutcome(
            requirement=requirement.text,
            slice=name,
            met=met,
            found=_in_words(estimate),
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
        )


def _figures(report: EvaluationReport, figure: str) -> Iterator[tuple[str, Estimate]]:
    """Yields the slices that have a figure, each with it; the slice of the whole is empty."""
    if figure == "DER":
        for row in report.retention:
            yield row.domain, row.retention
    elif figure == "accuracy":
        for name, score in report.student.slices.items():
            yield name, score.strict
    elif figure == "CDA":
        yield "", report.cross_domain_accuracy
    elif figure == "IC":
        if report.coherence is not None:
            yield "", report.coherence.score
    elif report.overall is not None:
        yield "", report.overall.score


def _no_loss(report: EvaluationReport, requirement: Requirement) -> RequirementOutcome:
    verdicts: dict[str, str] = {row.slice: row.verdict for row in report.regressions}
    for row in report.retention:
        kept = row.non_inferiority
        verdict = kept.verdict if kept else "undefined"
        verdicts.setdefault(
            row.domain, "no measurable loss" if verdict == "yes" else _loss_of(verdict)
        )
    name = requirement.slice or ""
    _check_slice(requirement, verdicts)
    return RequirementOutcome(
        requirement=requirement.text,
        slice=name,
        met=verdicts[name] == "no measurable loss",
        found=verdicts[name],
    )


def _loss_of(verdict: str) -> str:
    return "loss" if verdict == "no" else verdict


def _check_slice(requirement: Requirement, measured: Mapping[str, object]) -> None:
    if requirement.slice not in measured:
        fix = "name one of them, or add test examples for it"
        if requirement.slice == "general":
            fix = "give benchmarks of general ability: `general` of the evaluator"
        raise ConfigurationError(
            "A requirement names a slice that was not measured",
            received=requirement.text,
            allowed=", ".join(filter(None, measured)) or "none: the evaluation has no such figure",
            fix=fix,
        )


def _in_words(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"undefined: {estimate.reason}" if estimate.reason else "undefined"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} (95 % interval {estimate.low:.3f} to {estimate.high:.3f})"


def write_junit(path: Path, outcomes: Sequence[RequirementOutcome], *, suite: str) -> None:
    """Writes outcomes as JUnit XML, which build servers show as tests.

    Args:
        path: The file; an older one is replaced.
        outcomes: One test case each.
        suite: The name of the test suite, such as that of the run.
    """
    failures = sum(not outcome.met for outcome in outcomes)
    root = ElementTree.Element(
        "testsuite",
        name=printable(suite),
        tests=str(len(outcomes)),
        failures=str(failures),
        errors="0",
        skipped="0",
    )
    for outcome in outcomes:
        case = ElementTree.SubElement(
            root, "testcase", classname="domainfusion.requirements", name=printable(outcome.name)
        )
        if not outcome.met:
            ElementTree.SubElement(case, "failure", message=printable(outcome.found))
        else:
            ElementTree.SubElement(case, "system-out").text = printable(outcome.found)
    text = ElementTree.tostring(root, encoding="unicode")
    with replacing(path) as file:
        file.write_text(f"<?xml version='1.0' encoding='utf-8'?>\n{text}\n", encoding="utf-8")
