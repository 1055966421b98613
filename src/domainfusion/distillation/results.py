"""What an evaluation found: typed, printable, and the same in memory and in `evaluation.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from domainfusion.types import SCHEMA_VERSION, Example, FinishReason


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


Role = Literal["student", "base", "expert", "merge", "oracle", "baseline"]


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
        extracted: False where the answer has no grade because the metric found nothing in it to grade.
        repetitive: Whether the answer says one sequence of words over and over.
    """

    example_id: str
    text: str
    score: float | None
    correct: bool | None
    finish_reason: FinishReason = "stop"
    reason: str = ""
    extracted: bool = True
    repetitive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceScore:
    """One model on one slice of the test set.

    Attributes:
        items: Examples in the slice; 0 where the score was given and nobody said how many.
        strict: Share of the graded answers in which every part is right.
        partial: Mean share of right parts.
        unscored: Answers that could not be graded; they are in neither mean.
        truncated: Answers that were cut at the token limit.
        extraction_failures: Those of the unscored answers in which the metric found nothing to grade, such as no number.
        repetitive: Answers that say one sequence of words over and over.
        chance: Mean score of an answer drawn blindly; None where that is not known of every graded example.
    """

    items: int
    strict: Estimate
    partial: Estimate
    unscored: int = 0
    truncated: int = 0
    extraction_failures: int = 0
    repetitive: int = 0
    chance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResult:
    """One model on the whole test set.

    Attributes:
        name: `student`, `base`, `merge`, `oracle`, the domain of an expert, or the name of a baseline.
        role: What it is to the run.
        slices: Its score by slice: each domain, `cross-domain`, and whatever other slices the examples name.
        pairs: Its score by combination of domains, over the slice `cross-domain`; keys are like `aviation + chemistry`.
        adversarial: Its score by what an adversarial query looks like and needs; keys are like `aviation → chemistry`.
        answers: Its answers, in the order of the examples; empty for the oracle and for a baseline of given scores.
        given: Whether its scores were given, and not measured here.
    """

    name: str
    role: Role
    slices: Mapping[str, SliceScore]
    pairs: Mapping[str, SliceScore] = field(default_factory=dict)
    adversarial: Mapping[str, SliceScore] = field(default_factory=dict)
    answers: tuple[Answer, ...] = ()
    given: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeCase:
    """An adversarial query that the student does not get right: one at the border of two domains.

    Attributes:
        example_id: The example.
        apparent: The domain that it looks like.
        needed: The domain that it needs; several are joined, as in `aviation + chemistry`.
        experts_know: Whether the experts of the needed domains get it right between them; None where that could not be graded.
    """

    example_id: str
    apparent: str
    needed: str
    experts_know: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NonInferiority:
    """Whether the student keeps at least a given share of its expert.

    Attributes:
        margin: The share that it has to keep.
        verdict: `yes` where the lower end of the interval of DER reaches the margin, `no` where the upper end stays below it,
            `not enough data` where the margin lies inside, `undefined` where DER is.
        low: The lower end that was held against the margin; None where DER is undefined.
        high: The upper end.
        more_items: About how many more test items, like those at hand, would settle it with a probability of 80 % if the share is as
            it was measured; None where it is settled, or no number of items would.
        method: How the verdict and the number of items came about.
    """

    margin: float
    verdict: Literal["yes", "no", "not enough data", "undefined"]
    low: float | None = None
    high: float | None = None
    more_items: int | None = None
    method: str = ""

    def __str__(self) -> str:
        if self.verdict != "not enough data":
            return self.verdict
        return (
            f"not enough data, about {self.more_items:,} more items needed"
            if self.more_items
            else "not enough data"
        )


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
        chance: Mean score of an answer drawn blindly; None where that is not known of every item.
        chance_corrected: (student − chance) / (expert − chance); undefined where the interval of expert − chance includes 0, None
            where chance is not known.
        non_inferiority: Whether the student keeps enough of its expert; None in reports of earlier versions.
    """

    domain: str
    items: int
    student: float | None
    expert: float | None
    base: float | None
    retention: Estimate
    headroom: Estimate
    chance: float | None = None
    chance_corrected: Estimate | None = None
    non_inferiority: NonInferiority | None = None


WANTED_AUROC = 0.9
"""The AUROC from which a metric is taken to see a corruption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoherenceValidation:
    """How well a coherence metric tells sound texts from corrupted ones, on texts that it was not made on.

    Attributes:
        metric: The metric, as reports call it.
        auroc: For each corruption the area under the ROC curve: the chance that a sound text is graded above a corrupted one.
        texts: Sound texts measured.
        text_set: Fingerprint of these texts.
        seed: Seed of the corruptions and of the bootstrap behind the intervals.
        unscored: Texts, sound or corrupted, that the metric gave no grade; they are left out, with their other versions.
        date: The day of the measurement.
        command: What measured it; empty where a program did.
    """

    metric: str
    auroc: Mapping[str, Estimate]
    texts: int
    text_set: str
    seed: int = 0
    unscored: int = 0
    date: str = ""
    command: str = ""

    @property
    def reached(self) -> tuple[str, ...]:
        """The corruptions that the metric sees: an AUROC of 0.90 or more."""
        return tuple(
            name
            for name, found in self.auroc.items()
            if found.value is not None and found.value >= WANTED_AUROC
        )

    @property
    def missed(self) -> tuple[str, ...]:
        """The corruptions that it does not see."""
        return tuple(name for name in self.auroc if name not in self.reached)

    @property
    def passed(self) -> bool:
        """Whether it sees every corruption."""
        return bool(self.auroc) and not self.missed

    def __str__(self) -> str:
        if self.passed:
            return f"validated: AUROC {self._listed(self.reached)}"
        seen = f"AUROC {self._listed(self.reached)}; " if self.reached else ""
        return f"validated in part: {seen}not reached on {self._listed(self.missed)}"

    def _listed(self, names: tuple[str, ...]) -> str:
        return ", ".join(f"{name} {_two_digits(self.auroc[name])}" for name in names)


def _two_digits(estimate: Estimate) -> str:
    return "undefined" if estimate.value is None else f"{estimate.value:.2f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coherence:
    """Integration Coherence: whether the student's cross-domain answers hold together.

    Attributes:
        score: Mean of the coherence metric over the cross-domain answers.
        coverage: Mean share of right parts in the same answers; coherence without coverage means little.
        validated: Whether the metric has been shown to tell sound texts from every kind of corrupted ones.
        items: Answers measured.
        validation: What was measured of the metric; None where nobody has measured it.
    """

    score: Estimate
    coverage: Estimate
    validated: bool
    items: int
    validation: CoherenceValidation | None = None

    @property
    def standing(self) -> str:
        """What is known of the metric, in words."""
        if self.validation is not None:
            return str(self.validation)
        return "validated" if self.validated else "not validated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One of the figures that an overall score is made of.

    Attributes:
        name: `DER`, `CDA` or `IC`.
        score: The figure.
        weight: Its weight; the weights of all components sum to 1.
        about: What it is, and what a reader has to know about it.
    """

    name: str
    score: Estimate
    weight: float
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverallScore:
    """The weighted mean of retention, cross-domain accuracy and coherence.

    Attributes:
        score: The weighted mean; undefined where a component is that has a weight.
        components: What it is made of.
    """

    score: Estimate
    components: tuple[Component, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement with the domain's expert on examples that have no reference. It says nothing about who is right.

    Attributes:
        slice: The slice of the test set; over `cross-domain` examples, the mean over their experts.
        measure: What was measured: the name of the similarity, `claim coverage` or `judge`.
        items: Examples measured.
        student: Mean agreement of the student's answers with the expert's.
        expert: Mean agreement of a second answer of the expert's, drawn at a temperature, with its first: the most that can be asked.
        base: Mean agreement of the student before training; None where it was not measured.
        relative: student / expert, a ratio of means over the same items.
        unscored: Examples on which the measure found nothing to compare; they are in no mean.
    """

    slice: str
    measure: str
    items: int
    student: Estimate
    expert: Estimate
    base: Estimate | None
    relative: Estimate
    unscored: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A benchmark that was run; its scores are in the slice of every model.

    Attributes:
        slice: The slice of the test set that it is.
        domain: The domain that it measures; empty for one of general ability.
        source: `examples`, the path of a file, or the name of a task of lm-evaluation-harness.
        items: How many items it has.
        metric: What graded the answers.
        notes: What a reader has to know: how a task was run, what was left out.
    """

    slice: str
    domain: str
    source: str
    items: int
    metric: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """Whether the student lost general ability against its base, on one benchmark.

    Attributes:
        slice: The benchmark's slice.
        items: Items that both were graded on.
        student: Mean score of the student; None where nothing could be graded.
        base: Mean score of the base.
        difference: student − base over the same items, with the paired interval.
        tolerance: The loss up to which none is spoken of.
        verdict: `loss` where the whole interval lies below 0, else `no measurable loss` where it stays above −tolerance, else
            `not enough data`.
    """

    slice: str
    items: int
    student: float | None
    base: float | None
    difference: Estimate
    tolerance: float
    verdict: Literal["no measurable loss", "loss", "not enough data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What the test set was held against, and what was found.

    Attributes:
        trained: How many training queries the test set was held against.
        same: Ids of test examples whose query was trained on, case, accents, articles and white space aside.
        near: Ids of test examples whose query is nearly one that was trained on.
        method: What nearly means.
    """

    trained: int
    same: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    method: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """What is missing of a domain's retention, or of the accuracy across a combination of domains, on validation.

    Attributes:
        domains: The domain, or the domains that the examples need together.
        items: Validation examples that were graded.
        student: Accuracy of the student.
        expert: Accuracy of the domain's expert on the same examples; None for several domains, as no expert knows them all.
        missing: What is missing: of one domain 1 − student / expert, not below 0; of several 1 − student.
    """

    domains: tuple[str, ...]
    items: int
    student: float
    expert: float | None
    missing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinementRound:
    """One round: where the student was weak, what was made there, and whether training on it helped.

    Attributes:
        number: Which round, from 1.
        shortfalls: What was missing, of every domain and combination that validation tells about.
        before: The student's accuracy on validation by slice, before the round.
        examples: New examples that the round trains on, after what the hygiene removes.
        records: How many of these have a target to learn.
        replayed: Earlier records that were seen again.
        after: The accuracy by slice after it; None where nothing was trained, or the round is not over.
        is_kept: Whether the student of this round is the one that the run goes on with; None while the round is not over.
    """

    number: int
    shortfalls: tuple[Shortfall, ...]
    before: Mapping[str, float]
    examples: int = 0
    records: int = 0
    replayed: int = 0
    after: Mapping[str, float] | None = None
    is_kept: bool | None = None

    @property
    def means(self) -> tuple[float, float] | None:
        """The mean over slices before and after it, of slices that could be graded both times; None where there is none."""
        shared = (
            [(grade, self.after[name]) for name, grade in self.before.items() if name in self.after]
            if self.after
            else []
        )
        return (
            (
                sum(old for old, _ in shared) / len(shared),
                sum(new for _, new in shared) / len(shared),
            )
            if shared
            else None
        )

    @property
    def improves(self) -> bool:
        """Whether the mean rises."""
        return self.means is not None and self.means[1] > self.means[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """All rounds, and why there are no more.

    Attributes:
        rounds: The rounds, in order; each starts from the student of those before it that were kept.
        stopped: Why there is no further round; empty while the refinement goes on.
    """

    rounds: tuple[RefinementRound, ...] = field(default=())
    stopped: str = ""

    @property
    def kept(self) -> tuple[RefinementRound, ...]:
        """The rounds whose student was kept."""
        return tuple(entry for entry in self.rounds if entry.is_kept)


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
        return (
            found.strict
            if found
            else Estimate(value=None, reason="there are no cross-domain examples with a reference")
        )

    @property
    def best_expert(self) -> ModelResult | None:
        """The single expert that gets the most answers right over all slices; None where no expert was graded."""
        experts = [
            model
            for model in self.models
            if model.role == "expert" and any(_right(score) for score in model.slices.values())
        ]
        return max(
            experts,
            key=lambda model: sum(_right(score) for score in model.slices.values()),
            default=None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain dicts, lists, strings and numbers, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n\n".join(
            [
                *self._retention_table(),
                self._accuracy_table(),
                *self._agreement_table(),
                *self._closing_lines(),
            ]
        )

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
        lines = [
            f"Keeps {row.non_inferiority.margin:.0%} of the {row.domain} expert: {row.non_inferiority}"
            for row in self.retention
            if row.non_inferiority is not None
        ]
        if self.cross_domain_accuracy.value is not None:
            lines.append(f"Cross-Domain Accuracy (strict): {self.cross_domain_accuracy}")
        if self.coherence is not None:
            found = self.coherence
            lines.append(
                f"Integration Coherence ({found.standing}): {found.score}, with coverage {found.coverage}"
            )
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
            "not graded": sum(answer.correct is None for answer in answers),
            "cut at the token limit": sum(answer.finish_reason == "length" for answer in answers),
            "with nothing to grade in them": sum(not answer.extracted for answer in answers),
            "repetitive": sum(answer.repetitive for answer in answers),
        }
        found = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
        lines = [f"Of the student's {len(answers)} answers: {found}"] if found else []
        if self.overlap is not None and (self.overlap.same or self.overlap.near):
            lines.append(
                f"Trained on: {len(self.overlap.same)} of the test queries as they are, {len(self.overlap.near)} nearly"
            )
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
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])
