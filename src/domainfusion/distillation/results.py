"""What an evaluation found, and what a student saves: typed, printable, and the same in memory and in
`evaluation.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from domainfusion.types import FinishReason
from domainfusion.wording import counted


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


def points(share: float) -> str:
    """Writes a share in per cent, without the sign.

    Example:
        >>> points(0.9917), points(-0.03)
        ('99.2', '−3.0')
    """
    return f"{100 * share:.1f}".replace("-", "−")


def percent(share: float) -> str:
    """Writes a share as a sentence has it; a decimal is dropped only where the figure is whole.

    Example:
        >>> percent(0.9917), percent(1.0), percent(0.9999)
        ('99.2 %', '100 %', '100.0 %')
    """
    whole = round(100 * share)
    exact = abs(100 * share - whole) < 1e-9
    return f"{whole if exact else points(share)} %".replace("-", "−")


MOST_NAMED = 3
"""Domains that a headline names; of more it gives the number."""


Role = Literal["student", "base", "expert", "merge", "oracle", "ensemble", "baseline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCost:
    """The cost of answering the test questions.

    Attributes:
        questions: Questions answered.
        calls: Model calls; an ensemble asks every expert of a question's domains, and its
            integrator.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
    """

    questions: int
    calls: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One model's answer to one example, and its grade.

    Attributes:
        example_id: The example.
        text: The answer.
        score: Mean grade of its parts, 0 to 1; None where it could not be graded.
        correct: Whether every part is right; None where it could not be graded.
        finish_reason: `length` where the answer was cut.
        reason: Why there is no grade.
        readable: False where the metric found nothing in it to grade, which is wrong, and counted
            apart.
        is_overlap: Whether the score is how many words it shares with a reference: neither right
            nor wrong.
        repetitive: Whether the answer says one sequence of words over and over.
    """

    example_id: str
    text: str
    score: float | None
    correct: bool | None
    finish_reason: FinishReason = "stop"
    reason: str = ""
    readable: bool = True
    is_overlap: bool = False
    repetitive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceScore:
    """One model on one slice of the test set.

    Attributes:
        items: Examples in the slice; 0 where the score was given without a number.
        strict: Share of the graded answers in which every part is right.
        partial: Mean share of right parts.
        unscored: Answers that could not be graded, such as without a reference; they are in
            neither mean.
        truncated: Answers that were cut at the token limit.
        not_readable: Answers in which the metric found nothing to grade, such as no number; they
            are wrong.
        repetitive: Answers that say one sequence of words over and over.
        chance: Mean score of an answer drawn blindly; None where that is not known of every graded
            example.
        overlap: Mean overlap with references in words, over the answers that are graded by nothing
            else: it is not accuracy, and they are in neither mean. None where there are none.
        overlap_items: How many answers that is.
    """

    items: int
    strict: Estimate
    partial: Estimate
    unscored: int = 0
    truncated: int = 0
    not_readable: int = 0
    repetitive: int = 0
    chance: float | None = None
    overlap: Estimate | None = None
    overlap_items: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResult:
    """One model on the whole test set.

    Attributes:
        name: `student`, `base`, `merge`, `oracle`, `ensemble`, the domain of an expert, or the name
            of a baseline.
        role: What it is to the run.
        slices: Its score by slice: each domain, `cross-domain`, and whatever other slices the
            examples name.
        pairs: Its score by combination of domains, over the slice `cross-domain`; keys are like
            `aviation + chemistry`.
        adversarial: Its score by what an adversarial query looks like and needs; keys are like
            `aviation → chemistry`.
        answers: Its answers, in the order of the examples; empty for the oracle and for a baseline
            of given scores.
        given: Whether its scores were given, and not measured here.
        cost: What its answers took; None where it was not asked, or asks for nothing that an answer
            takes.
    """

    name: str
    role: Role
    slices: Mapping[str, SliceScore]
    pairs: Mapping[str, SliceScore] = field(default_factory=dict)
    adversarial: Mapping[str, SliceScore] = field(default_factory=dict)
    answers: tuple[Answer, ...] = ()
    given: bool = False
    cost: AnswerCost | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeCase:
    """An adversarial query that the student does not get right: one at the border of two domains.

    Attributes:
        example_id: The example.
        apparent: The domain that it looks like.
        needed: The domain that it needs; several are joined, as in `aviation + chemistry`.
        experts_know: Whether the experts of the needed domains get it right between them; None
            where that could not be graded.
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
        verdict: `yes` where the whole interval of DER lies above the margin, `no` where it lies
            below, `not enough data` where the margin lies inside, `undefined` where no interval
            could settle it.
        low: The lower end that was compared with the margin; None where DER is undefined.
        high: The upper end.
        more_items: About how many more test items, like those at hand, would settle it with a
            probability of 80 % if the share is as it was measured; None where it is settled, or no
            number of items would.
        method: How the verdict and the number of items came about.
        reason: Why the verdict is `undefined`.
    """

    margin: float
    verdict: Literal["yes", "no", "not enough data", "undefined"]
    low: float | None = None
    high: float | None = None
    more_items: int | None = None
    method: str = ""
    reason: str = ""

    def __str__(self) -> str:
        if self.verdict == "undefined" and self.reason:
            return f"undefined, because {self.reason}"
        if self.verdict == "not enough data" and self.more_items:
            return f"not enough data, about {counted(self.more_items, 'more item')} needed"
        return self.verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRetention:
    """How much of one expert the student kept, on the test examples of that expert's domain alone.

    Attributes:
        domain: The domain.
        items: Examples that both were graded on, as right or wrong.
        student: Strict accuracy of the student: the share of answers with every part right.
        expert: Strict accuracy of the domain's expert.
        base: Strict accuracy of the student before training; None where it was not measured.
        retention: DER, student / expert, a ratio of means over the same items; undefined where the
            expert knows nothing.
        headroom: Share of what there was to learn, (student − base) / (expert − base); undefined
            where the interval of expert − base includes 0.
        chance: Mean score of an answer drawn blindly; None where that is not known of every item.
        chance_corrected: (student − chance) / (expert − chance); undefined where the interval of
            expert − chance includes 0, None where chance is not known.
        non_inferiority: Whether the student keeps enough of its expert; None in reports of earlier
            versions.
        constant: Accuracy of the one answer that is right most often, given to every question.
        ungraded: Examples of the domain that could not be graded, such as without a reference.
        warnings: What a reader has to know before the verdict, in sentences.
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
    constant: float | None = None
    ungraded: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def conclusion(self) -> str:
        """The verdict in one sentence, the same in every form of a report.

        Example:
            >>> found = Estimate(value=0.48, low=0.381, high=0.582)
            >>> test = NonInferiority(margin=0.95, verdict="no", low=0.381, high=0.582)
            >>> print(DomainRetention(domain="law", items=100, student=0.48, expert=1, base=None, retention=found,
            ...     headroom=Estimate(value=None), non_inferiority=test).conclusion)
            Law: the student does not keep 95 % of its expert (DER 48 %, 95 % interval 38.1 to 58.2
                %, 100 questions).
        """
        name = self.domain[:1].upper() + self.domain[1:]
        return f"{name}: {self._claim()}."

    def _claim(self) -> str:
        test, der = self.non_inferiority, self.retention
        if test is None and der.value is not None:
            return f"the student's DER is {der}, and nothing was tested"
        if test is None or der.value is None or der.low is None or self.undefined_because:
            return (
                "whether the student keeps its expert is undefined, because"
                f" {self.undefined_because}"
            )
        high = "without an upper end" if der.high is None else f"{points(der.high)} %"
        figures = (
            f"(DER {percent(der.value)}, 95 % interval {points(der.low)} to {high}, "
            f"{self.items:,} {'question' if self.items == 1 else 'questions'})"
        )
        goal = percent(test.margin)
        if test.verdict == "yes":
            claim = f"the student keeps at least {goal} of its expert {figures}"
            return f"{claim}; so does the untrained base" if self._base_keeps_as_much else claim
        if test.verdict == "no":
            return f"the student does not keep {goal} of its expert {figures}"
        more = (
            f"; about {test.more_items:,} more questions would settle it" if test.more_items else ""
        )
        return (
            f"there are too few questions to say whether the student keeps {goal} of its expert"
            f" {figures}{more}"
        )

    @property
    def undefined_because(self) -> str:
        """Why there is no verdict; empty where there is one, or none was asked for."""
        if self.retention.value is not None and (test := self.non_inferiority) is not None:
            return (test.reason or "there is no interval") if test.verdict == "undefined" else ""
        if self.retention.value is None:
            return self.retention.reason or "there is no figure"
        return ""

    @property
    def _base_keeps_as_much(self) -> bool:
        """Whether the base, by its mean alone, reaches what was asked of the student."""
        if self.base is None or not self.expert or self.non_inferiority is None:
            return False
        return self.base >= self.non_inferiority.margin * self.expert


WANTED_AUROC = 0.9
"""The AUROC from which a metric is taken to see a corruption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoherenceValidation:
    """How well a coherence metric tells sound texts from corrupted ones, on texts that it was not
    made on.

    Attributes:
        metric: The metric, as reports call it.
        auroc: For each corruption the area under the ROC curve: the chance that a sound text is
            graded above a corrupted one.
        texts: Sound texts measured.
        text_set: Fingerprint of these texts.
        seed: Seed of the corruptions and of the bootstrap behind the intervals.
        unscored: Texts, sound or corrupted, that the metric gave no grade; they are left out, with
            their other versions.
        date: The day of the measurement.
        command: What measured it; empty where a program did.
        meant: The corruptions that the metric is meant to see; empty for all of them.
    """

    metric: str
    auroc: Mapping[str, Estimate]
    texts: int
    text_set: str
    seed: int = 0
    unscored: int = 0
    date: str = ""
    command: str = ""
    meant: tuple[str, ...] = ()

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
        """The corruptions that it is meant to see and does not."""
        return tuple(name for name in self.meant or self.auroc if name not in self.reached)

    @property
    def passed(self) -> bool:
        """Whether it sees every corruption that it is meant to see."""
        return bool(self.auroc) and not self.missed

    def __str__(self) -> str:
        if self.passed:
            return f"validated: AUROC {self._listed(self.reached)}"
        seen = f"AUROC {self._listed(self.reached)}; " if self.reached else ""
        return f"validated in part: {seen}not reached on {self._listed(self.missed)}"

    def _listed(self, names: tuple[str, ...]) -> str:
        return ", ".join(
            f"{name} {_two_digits(self.auroc[name])}" for name in names if name in self.auroc
        )


def _two_digits(estimate: Estimate) -> str:
    return "undefined" if estimate.value is None else f"{estimate.value:.2f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coherence:
    """Integration Coherence: whether the student's cross-domain answers are whole and do not
    contradict themselves.

    Attributes:
        score: Mean over the cross-domain answers of coverage × the coherence metric: an answer that
            leaves a part out loses that share, and one whose sentences contradict each other loses
            theirs.
        coverage: Mean share of the parts of a right answer that the same answers state.
        consistency: Mean of the coherence metric alone over the same answers.
        items: Answers measured.
        unscored: Cross-domain answers without a figure; they are in no mean.
        metric: The coherence metric, as reports call it.
        validation: What was measured of the metric; None where it was not measured.
    """

    score: Estimate
    coverage: Estimate
    consistency: Estimate
    items: int
    unscored: int = 0
    metric: str = ""
    validation: CoherenceValidation | None = None

    @property
    def validated(self) -> bool:
        """Whether the metric reaches an AUROC of 0.90 on every corruption that it is meant to
        see.
        """
        return self.validation is not None and self.validation.passed

    @property
    def standing(self) -> str:
        """The validation of the metric, in words."""
        return "not validated" if self.validation is None else str(self.validation)

    @property
    def conclusion(self) -> str:
        """The figure in one sentence, with its coverage and what is known of its metric.

        Example:
            >>> whole = Estimate(value=0.9)
            >>> found = Coherence(score=Estimate(value=0.72), coverage=Estimate(value=0.8), consistency=whole, items=12)
            >>> print(found.conclusion)  # doctest: +NORMALIZE_WHITESPACE
            Integration Coherence 0.720 over 12 answers: they state 80 % of what a right answer
                states, and 0.900 by the
            metric alone (not validated).
        """
        if self.score.value is None:
            return f"Integration Coherence is undefined, because {self.score.reason}."
        coverage = (
            "an undefined share" if self.coverage.value is None else percent(self.coverage.value)
        )
        answers = "answer" if self.items == 1 else "answers"
        return (
            f"Integration Coherence {self.score} over {self.items:,} {answers}: they state"
            f" {coverage} of what a right answer states, and {self.consistency} by the metric alone"
            f" ({self.standing})."
        )


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
class AgreementScore:
    """Agreement with the domain's expert on examples that have no reference. It says nothing about
    who is right.

    Attributes:
        slice: The slice of the test set; over `cross-domain` examples, the mean over their experts.
        measure: What was measured: the name of the similarity, `claim coverage` or `judge`.
        items: Examples measured.
        student: Mean agreement of the student's answers with the expert's.
        expert: Mean agreement of a second answer of the expert's, drawn at a temperature, with its
            first: the most that can be asked.
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
        verdict: `loss` where the whole interval lies below 0, else `no measurable loss` where it
            stays above −tolerance, else `not enough data`.
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
    """The comparison of the test set with the training data.

    Attributes:
        trained: How many training queries the test set was compared with.
        same: Ids of test examples whose query was trained on, case, accents, articles and white
            space aside.
        near: Ids of test examples whose query is nearly one that was trained on.
        method: What nearly means.
        facts: Ids of the test examples that ask, in other words, for what was trained on.
    """

    trained: int
    same: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    method: str = ""
    facts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The cost of answering a set of questions.

    Attributes:
        parameters: Weights; those that several models share count once.
        weight_bytes: The memory that they take.
        calls: Questions that models were asked: an ensemble asks every expert of a question's
            domains.
        completion_tokens: Tokens written.
        seconds: Wall-clock time, with the weights loaded and one question answered before.
    """

    parameters: int
    weight_bytes: int
    calls: int
    completion_tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens written in a second; 0 where no time was measured."""
        return self.completion_tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """The student beside the ensemble of its experts, on the same machine and questions.

    Attributes:
        questions: Questions answered, taken evenly from the test set.
        student: What the student takes: it is asked each question once.
        experts: What its experts take together, one after the other: each is asked its own part of
            the questions of its domain. Where the integrator was given, it is in it: that is the
            ensemble which the student replaces.
        integrated: Whether the integrator is in it.
        adapters: What the experts take without the integrator, where it is in `experts`; None
            where it is not, or this was not measured.
    """

    questions: int
    student: Footprint
    experts: Footprint
    integrated: bool = False
    adapters: Footprint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """What is missing of a domain's retention, or of the accuracy across a combination of domains,
    on validation.

    Attributes:
        domains: The domain, or the domains that the examples need together.
        items: Validation examples that were graded.
        student: Accuracy of the student.
        expert: Accuracy of the domain's expert on the same examples; None for several domains, as
            no expert knows them all.
        missing: What is missing: of one domain 1 − student / expert, not below 0; of several 1 −
            student.
    """

    domains: tuple[str, ...]
    items: int
    student: float
    expert: float | None
    missing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinementRound:
    """One round: where the student was weak, what was made there, and whether training on it
    helped.

    Attributes:
        number: Which round, from 1.
        shortfalls: What was missing, of every domain and combination that validation tells about.
        before: The student's accuracy on validation by slice, before the round.
        examples: New examples that the round trains on, after what the hygiene removes.
        records: How many of these have a target to learn.
        replayed: Earlier records that were seen again.
        after: The accuracy by slice after it; None where nothing was trained, or the round is not
            over.
        is_kept: Whether the run continues with the student of this round; None while the round is
            not over.
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
        """The mean over slices before and after it, of slices that could be graded both times; None
        where there is none.
        """
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
        rounds: The rounds, in order; each starts from the student of those before it that were
            kept.
        stopped: Why there is no further round; empty while the refinement continues.
    """

    rounds: tuple[RefinementRound, ...] = field(default=())
    stopped: str = ""

    @property
    def kept(self) -> tuple[RefinementRound, ...]:
        """The rounds whose student was kept."""
        return tuple(entry for entry in self.rounds if entry.is_kept)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A question that was made and left out.

    Attributes:
        query: The question.
        reason: Why it was left out.
        contained: The other question that stands in it, or that it repeats; empty for none.
    """

    query: str
    reason: str
    contained: str = ""


@dataclass(frozen=True, slots=True)
class GenerationCount:
    """The outcome of the examples that one generator was asked for.

    Attributes:
        generator: Its name.
        kind: The source of its examples: `synthetic`, `adversarial`, `curated` or `custom`.
        asked: Examples asked for, or candidates looked at.
        accepted: Examples that entered the run.
        rejected: Candidates left out, by reason.
        wanted: Examples that were wanted; None where no number was.
        acceptance_rate: Share of the judged questions that agree with the domains that they were
            written for; None where none was judged.
        cross_domain: How many of the examples need several domains: `wanted` (None where no number
            was) and `accepted`.
        removed: The questions left out whose words were kept.
    """

    generator: str
    kind: str
    asked: int
    accepted: int
    rejected: Mapping[str, int] = field(default_factory=dict)
    wanted: int | None = None
    acceptance_rate: float | None = None
    cross_domain: Mapping[str, int | None] = field(default_factory=dict)
    removed: tuple[LeftOut, ...] = ()
