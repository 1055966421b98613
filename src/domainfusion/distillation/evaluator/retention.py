"""What the student kept of each expert, whether domains combine, and whether the answers hold
together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from domainfusion.checks import check_kind, check_number
from domainfusion.distillation.duplicates import OnOverlap, hold_apart, with_groups
from domainfusion.distillation.evaluation_report import (
    WEIGHTS,
    EvaluationReport,
    check_weights,
    overall,
)
from domainfusion.distillation.evaluator.agreement import (
    AgreementSettings,
    Sides,
    ask_again,
    by_coverage,
    by_judge,
    by_similarity,
    consistency,
    integration_coherence,
    measure_agreement,
)
from domainfusion.distillation.evaluator.benchmark import BenchmarkEvaluator, joined
from domainfusion.distillation.evaluator.ensemble import Ensemble, Metered, grade_together, routed
from domainfusion.distillation.evaluator.evaluator import (
    NOT_GRADED,
    MeasuringEvaluator,
    Remembering,
    by_slice,
    chance_of,
    check_examples,
    edge_cases,
    role_of,
)
from domainfusion.distillation.examples import CROSS_DOMAIN, ExampleLike
from domainfusion.distillation.integration import Experts, Task
from domainfusion.distillation.metrics import (
    BatchCoherence,
    CoherenceMetric,
    Graded,
    MetricChoice,
    normalize,
    stated_parts,
)
from domainfusion.distillation.metrics.coherence import ValidatedCoherence, known_validation
from domainfusion.distillation.metrics.grading import check_metric, grade_coherence, name_of
from domainfusion.distillation.results import (
    AgreementScore,
    AnswerCost,
    Coherence,
    CoherenceValidation,
    DomainRetention,
    Estimate,
    ModelResult,
    NonInferiority,
    percent,
)
from domainfusion.distillation.statistics import (
    METHOD,
    Bootstrap,
    PairedComparison,
    non_inferiority,
    share,
)
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example, Generation, Sampling, fingerprint
from domainfusion.wording import counted


class DomainRetentionEvaluator(MeasuringEvaluator):
    """Measures Domain Expertise Retention, Cross-Domain Accuracy and Integration Coherence.

    DER is P(student) / P(expert) on the expert's domain, a ratio of means over the same items;
    headroom is (student − base) / (expert − base). CDA is the share of cross-domain queries with
    every part right. IC is the mean coherence of the cross-domain answers, always beside their
    coverage. Every model answers every query, so that the report has the whole matrix. The routed
    oracle is what the experts could do together: each part of a query is graded on its own expert's
    answer.

    Examples without a reference are in no accuracy. On them the student's agreement with the
    experts is measured instead, beside an expert's agreement with a second answer of its own.

    Args:
        metric: Grades an answer: a metric, the name of one, or one for each domain; by default the
            share of the example's parts that it states. An example may name its own in
            `metadata["metric"]`.
        coherence_metric: Grades how a text holds together; by default whether its sentences
            contradict each other, by the rules. A `ValidatedCoherence` brings what was measured of
            it by `validate_coherence`, which the report says; else it says what is known of it.
        baselines: Further models to measure beside.
        sampling: How the models answer; by default greedily, up to 256 tokens.
        resamples: Bootstrap resamples behind the 95 % intervals.
        seed: Seed of the bootstrap, and of the experts' second answers.
        notes: What a reader of the report has to know about the test set.
        margin: The share of each expert that the student has to keep to replace it.
        weights: What DER, CDA and IC weigh in the overall score; a weight of 0 leaves one out.
        on_overlap: What to do with test queries that were trained on: `refuse` to evaluate, or
            leave them out and `report` them.
        agreement: How agreement with the experts is measured where there is no reference.
        benchmarks: Measures benchmarks beside the test set; what it finds is in the same report, in
            slices of their own.

    Raises:
        ConfigurationError: A number is out of range, or a weight is of no figure.
    """

    def __init__(
        self,
        *,
        metric: MetricChoice = stated_parts,
        coherence_metric: CoherenceMetric | BatchCoherence | ValidatedCoherence = consistency,
        baselines: Mapping[str, LanguageModel] | None = None,
        sampling: Sampling = Sampling(),
        resamples: int = 10_000,
        seed: int = 0,
        notes: Sequence[str] = (),
        margin: float = 0.95,
        weights: Mapping[str, float] = WEIGHTS,
        on_overlap: OnOverlap = "refuse",
        agreement: AgreementSettings = AgreementSettings(),
        benchmarks: BenchmarkEvaluator | None = None,
    ) -> None:
        super().__init__(
            metric=metric,
            sampling=sampling,
            resamples=resamples,
            seed=seed,
            baselines=baselines,
            on_overlap=on_overlap,
        )
        check_number("margin", margin, "(0, 1]")
        check_kind("agreement", agreement, AgreementSettings)
        self.coherence_validation: CoherenceValidation | None = None
        if isinstance(coherence_metric, ValidatedCoherence):
            self.coherence_validation = coherence_metric.validation
            coherence_metric = coherence_metric.metric
        self.coherence_metric = coherence_metric
        self.notes = tuple(notes)
        self.margin = margin
        self.weights = check_weights(weights)
        self.agreement = agreement
        self.benchmarks = benchmarks

    @property
    def own_examples(self) -> Mapping[str, Sequence[Example]]:
        """The items of the benchmarks."""
        return {} if self.benchmarks is None else self.benchmarks.own_examples

    def evaluate(
        self,
        student_model: LanguageModel,
        teacher_models: Mapping[str, LanguageModel],
        examples: Sequence[ExampleLike],
        *,
        baselines: Mapping[str, LanguageModel] | None = None,
        trained_on: str | Path | Sequence[ExampleLike] | None = None,
        ensemble: Ensemble | None = None,
        ask: Ask = ask_directly,
    ) -> EvaluationReport:
        """Evaluates the student; see `Evaluator.evaluate`.

        Args:
            student_model: The student.
            teacher_models: The experts by domain.
            examples: Held-out examples.
            baselines: Further models to measure beside.
            trained_on: What the student was trained on.
            ensemble: How the experts would answer together; by default through the integrator's
                rules, without a model.
            ask: How a model is called.

        Raises:
            DataError: There are no examples, one needs a domain that has no expert, or queries were
                trained on.
        """
        check_metric(self.metric, teacher_models)
        given = check_examples(examples, teacher_models)
        given, overlap = hold_apart(given, trained_on, self.on_overlap)
        items = with_groups(given)
        others = {**(baselines or {}), **self.baselines}
        ask = Remembering(ask)
        grades = self._grade_all(student_model, others, teacher_models, items, ask)
        together = self._together(
            ensemble or Ensemble(), items, teacher_models, grades.experts, ask
        )
        report = EvaluationReport(
            models=self._results(items, grades, together),
            retention=tuple(self._retention(domain, items, grades) for domain in teacher_models),
            coherence=self._coherence(items, grades.student, together.tasks, ask),
            edge_cases=edge_cases(
                items,
                [
                    None if self._is_overlap(example) else graded.correct
                    for example, graded in zip(items, grades.student, strict=True)
                ],
                [graded.correct for graded in together.oracle],
            ),
            agreement=self._agreement(items, grades, teacher_models, ask),
            overlap=overlap,
            examples=tuple(given),
            test_set=fingerprint(given),
            notes=self.notes,
            seed=self.seed,
            resamples=self.resamples,
            metric=name_of(self.metric),
            coherence_metric=name_of(self.coherence_metric),
        )
        score = overall(
            self.weights, report.retention, report.cross_domain_accuracy, report.coherence
        )
        report = replace(report, overall=score)
        if self.benchmarks is None:
            return report
        measured = self.benchmarks.evaluate(
            student_model,
            teacher_models,
            baselines=others,
            trained_on=trained_on,
            ask=ask,
        )
        return joined(report, measured)

    # The answers of all models

    def _grade_all(
        self,
        student: LanguageModel,
        others: Mapping[str, LanguageModel],
        teachers: Mapping[str, LanguageModel],
        items: Sequence[Example],
        ask: Ask,
    ) -> _Grades:
        """Asks every model every query, and grades the answers."""
        return _Grades(
            student=self._grade(student, items, ask, "the student"),
            others={name: self._grade(model, items, ask, name) for name, model in others.items()},
            experts={
                domain: self._grade(teacher, items, ask, f"the expert of {domain}")
                for domain, teacher in teachers.items()
            },
        )

    def _results(
        self, items: Sequence[Example], grades: _Grades, together: _Together
    ) -> tuple[ModelResult, ...]:
        """Returns the rows of the report: the student, what it is compared with, the experts, and
        these together.
        """
        student = self._result("student", "student", items, grades.student)
        others = (
            self._result(name, role_of(name), items, graded)
            for name, graded in grades.others.items()
        )
        experts = (
            self._result(domain, "expert", items, graded)
            for domain, graded in grades.experts.items()
        )
        oracle = self._result("oracle", "oracle", items, together.oracle)
        ensemble = self._result("ensemble", "ensemble", items, together.ensemble)
        return (
            self._costed(student, grades.student),
            *others,
            *experts,
            replace(oracle, answers=()),
            replace(ensemble, cost=together.cost),
        )

    def _together(
        self,
        ensemble: Ensemble,
        items: Sequence[Example],
        teachers: Mapping[str, LanguageModel],
        experts: Mapping[str, Sequence[Graded]],
        ask: Ask,
    ) -> _Together:
        """Asks the experts as the targets were made, each its own question, and lets the integrator
        write.
        """
        metered = Metered(ask)
        tasks = ensemble.respond(teachers, items, self.sampling, metered)
        answers = ensemble.integrate(tasks, Experts(teachers, metered, self.sampling))
        return _Together(
            tasks=tasks,
            oracle=routed(self.metric, items, tasks, experts, ask),
            ensemble=grade_together(self.metric, items, answers, tasks, experts, ask),
            cost=metered.cost(len(items)),
        )

    def _costed(self, result: ModelResult, graded: Sequence[Graded]) -> ModelResult:
        answers = [item.generation for item in graded]
        cost = AnswerCost(
            questions=len(answers),
            calls=len(answers),
            prompt_tokens=sum(answer.prompt_tokens for answer in answers),
            completion_tokens=sum(answer.completion_tokens for answer in answers),
        )
        return replace(result, cost=cost)

    # Retention of one domain

    def _retention(
        self, domain: str, examples: Sequence[Example], grades: _Grades
    ) -> DomainRetention:
        """Measures DER of strict accuracy over the domain's items that student and expert were
        graded on.
        """
        own = by_slice(examples).get(domain, [])
        student, expert, base = grades.student, grades.experts[domain], grades.base
        places = [
            place
            for place in own
            if not self._is_overlap(examples[place])
            and student[place].score.value is not None
            and expert[place].score.value is not None
        ]
        if not places:
            return self._no_retention(domain, [examples[place] for place in own])
        groups = [examples[place].group for place in places]
        mine, theirs = _right(student, places), _right(expert, places)
        retention = PairedComparison(mine, theirs, groups).ratio()
        if retention.value is None:
            retention = Estimate(value=None, reason="the expert got nothing right")
        constant = constant_answer([examples[place] for place in places])
        doubt = _better_expert(domain, places, theirs, groups, grades.experts)
        if non_inferiority(retention, len(places), self.margin).verdict == "yes" and not doubt:
            doubt = _constant_is_as_good(mine, theirs, groups, constant, self.margin)
        if doubt:
            retention = Estimate(value=None, reason=doubt)
        test = non_inferiority(retention, len(places), self.margin)
        by_chance = [chance_of(examples[place], self.metric) for place in places]
        chances = [chance for chance in by_chance if chance is not None]
        started = [place for place in places if base[place].score.value is not None] if base else []
        return DomainRetention(
            domain=domain,
            items=len(places),
            student=_mean(mine),
            expert=_mean(theirs),
            base=_mean(_right(base, started)) if base and started else None,
            retention=retention,
            headroom=self._headroom(examples, started, student, expert, base),
            chance=_mean(chances) if len(chances) == len(places) else None,
            chance_corrected=self._above_chance(examples, places, mine, theirs, chances),
            non_inferiority=test,
            constant=None if constant is None else _mean(constant.right),
            ungraded=len(own) - len(places),
            warnings=self._warnings(domain, len(own), len(places)),
        )

    def _no_retention(self, domain: str, own: Sequence[Example]) -> DomainRetention:
        reason = NOT_GRADED
        if not own:
            reason = f"the test set has no question of {domain} alone"
        elif not any(example.has_reference for example in own):
            reason = "no question has a reference"
        elif all(self._is_overlap(example) for example in own):
            reason = (
                "its references are in words, and shared words say neither right nor wrong: "
                "give `answers`, or let a judge grade"
            )
        nothing = Estimate(value=None, reason=reason)
        return DomainRetention(
            domain=domain,
            items=0,
            student=None,
            expert=None,
            base=None,
            retention=nothing,
            headroom=nothing,
            non_inferiority=NonInferiority(
                margin=self.margin, verdict="undefined", method=METHOD, reason=reason
            ),
            ungraded=len(own),
        )

    def _warnings(self, domain: str, asked: int, graded: int) -> tuple[str, ...]:
        if graded == asked:
            return ()
        name = domain[:1].upper() + domain[1:]
        return (
            (
                f"{name}: {asked - graded:,} of {counted(asked, 'question')} could not be graded as right or"
                " wrong, and are in no figure of it."
            ),
        )

    def _above_chance(
        self,
        examples: Sequence[Example],
        places: Sequence[int],
        student: Sequence[bool],
        expert: Sequence[bool],
        chances: Sequence[float],
    ) -> Estimate | None:
        if len(chances) < len(places):
            return None
        known = share(expert, [examples[place].group for place in places])
        if known.low is None or known.low <= _mean(chances):
            return Estimate(value=None, reason="the expert is not measurably better than chance")
        return _above(self._bootstrap(examples, places), student, expert, chances)

    def _headroom(
        self,
        examples: Sequence[Example],
        places: Sequence[int],
        student: Sequence[Graded],
        expert: Sequence[Graded],
        base: Sequence[Graded] | None,
    ) -> Estimate:
        if base is None:
            return Estimate(value=None, reason="the base was not measured")
        if not places:
            return Estimate(value=None, reason="no answer of the base could be graded")
        mine, theirs, before = (_right(side, places) for side in (student, expert, base))
        gap = PairedComparison(
            theirs, before, [examples[place].group for place in places]
        ).difference()
        if gap.low is None or gap.low <= 0:
            reason = "the expert is not measurably better than the base"
            return Estimate(value=None, reason=reason)
        return _above(self._bootstrap(examples, places), mine, theirs, before)

    # Examples without a reference, and coherence

    def _agreement(
        self,
        examples: Sequence[Example],
        grades: _Grades,
        teachers: Mapping[str, LanguageModel],
        ask: Ask,
    ) -> tuple[AgreementScore, ...]:
        """Measures agreement on the examples without a reference."""
        places = [place for place, example in enumerate(examples) if not example.has_reference]
        if not places:
            return ()
        chosen = [examples[place] for place in places]
        how = self.agreement
        again = replace(self.sampling, temperature=how.second_temperature, seed=self.seed + 1)
        second = ask_again(chosen, teachers, again, ask)
        measures = {
            f"similarity ({name_of(how.similarity)})": by_similarity(how.similarity),
            "claim coverage": by_coverage,
        }
        if how.judge is not None:
            measures[f"judge ({how.judge.name})"] = by_judge(how.judge, ask)

        def answers_of(side: Sequence[Graded]) -> list[Generation]:
            return [side[place].generation for place in places]

        sides = Sides(
            student=answers_of(grades.student),
            base=None if grades.base is None else answers_of(grades.base),
            experts={domain: answers_of(grades.experts[domain]) for domain in second},
            again=second,
        )
        return measure_agreement(
            chosen, sides, measures, lambda kept: self._bootstrap(chosen, kept)
        )

    def _coherence(
        self,
        examples: Sequence[Example],
        graded: Sequence[Graded],
        tasks: Sequence[Task],
        ask: Ask,
    ) -> Coherence | None:
        places = by_slice(examples).get(CROSS_DOMAIN, [])
        if not places:
            return None
        texts = [graded[place].generation.text for place in places]
        return integration_coherence(
            [examples[place] for place in places],
            [graded[place] for place in places],
            [tasks[place] for place in places],
            grade_coherence(self.coherence_metric, texts, ask=ask),
            self.metric,
            self._resampling,
            name=name_of(self.coherence_metric),
            validation=self.coherence_validation or known_validation(self.coherence_metric),
        )


class _Grades(NamedTuple):
    """The graded answers of each model to all examples, in order."""

    student: Sequence[Graded]
    others: Mapping[str, Sequence[Graded]]
    experts: Mapping[str, Sequence[Graded]]

    @property
    def base(self) -> Sequence[Graded] | None:
        """Those of the student before training; None where it was not measured."""
        return self.others.get("base")


class _Together(NamedTuple):
    """The experts' answers to their own questions, and their grades."""

    tasks: Sequence[Task]
    oracle: Sequence[Graded]
    ensemble: Sequence[Graded]
    cost: AnswerCost


# Doubts about a domain's figure


class ConstantAnswer(NamedTuple):
    """The one answer that is right most often, and whether it is right on each item."""

    text: str
    right: Sequence[bool]


def constant_answer(examples: Sequence[Example]) -> ConstantAnswer | None:
    """Returns the accepted answer that the most examples share; None where no example has one part.

    Example:
        >>> from domainfusion.types import Part
        >>> capital = Part(domain="geography", answers=("Rome",))
        >>> asked = [Example(query=f"Question {place}?", domains=("geography",), parts=(capital,)) for place in range(2)]
        >>> constant_answer(asked)
        ConstantAnswer(text='Rome', right=[True, True])
    """
    accepted = [
        (
            {normalize(answer): answer for answer in example.parts[0].answers}
            if len(example.parts) == 1
            else {}
        )
        for example in examples
    ]
    counts = Counter(key for answers in accepted for key in answers)
    if not counts:
        return None
    key, _ = max(counts.items(), key=lambda item: item[1])
    text = next(answers[key] for answers in accepted if key in answers)
    return ConstantAnswer(text, [key in answers for answers in accepted])


def _better_expert(
    domain: str,
    places: Sequence[int],
    own: Sequence[bool],
    groups: Sequence[str],
    experts: Mapping[str, Sequence[Graded]],
) -> str:
    """Names another expert that knows the domain more than twice as well as its own; empty where
    there is none.
    """
    for name, graded in experts.items():
        other = _right(graded, places)
        if name == domain or _mean(other) <= 2 * _mean(own):
            continue
        gap = PairedComparison(other, own, groups).difference()
        if gap.low is not None and gap.low > 0:
            return (
                f"the {name} expert gets {percent(_mean(other))} of these questions right and their"
                f" own expert {percent(_mean(own))}: are the experts' domains mixed up?"
            )
    return ""


def _constant_is_as_good(
    student: Sequence[bool],
    expert: Sequence[bool],
    groups: Sequence[str],
    constant: ConstantAnswer | None,
    margin: float,
) -> str:
    """Says that one answer to every question would have passed too; empty where it would not."""
    if constant is None or _mean(constant.right) < margin * _mean(expert):
        return ""
    above = PairedComparison(student, constant.right, groups).difference()
    if above.low is not None and above.low > 0:
        return ""
    return (
        f"answering every question with {constant.text!r} is right {percent(_mean(constant.right))}"
        " of the time, and the student is not measurably better"
    )


def _right(graded: Sequence[Graded], places: Sequence[int]) -> list[bool]:
    return [bool(graded[place].correct) for place in places]


def _above(
    bootstrap: Bootstrap,
    student: Sequence[float],
    expert: Sequence[float],
    floor: Sequence[float],
) -> Estimate:
    """Returns (student − floor) / (expert − floor); the caller has checked that the expert is above
    the floor.
    """
    above = [mine - least for mine, least in zip(student, floor, strict=True)]
    to_learn = [best - least for best, least in zip(expert, floor, strict=True)]
    return bootstrap.ratio(above, to_learn)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
