"""What the student kept of each expert, whether domains combine, and whether the answers hold
together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from domainfusion.distillation.duplicates import with_groups
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.evaluator.agreement import (
    Sides,
    Similarity,
    by_coverage,
    by_judge,
    by_similarity,
    consistency,
    integration_coherence,
    measure_agreement,
)
from domainfusion.distillation.evaluator.benchmark import BenchmarkEvaluator, joined
from domainfusion.distillation.evaluator.evaluator import (
    NOT_GRADED,
    Ensemble,
    MeasuringEvaluator,
    Metered,
    OnOverlap,
    Remembering,
    by_slice,
    chance_of,
    check_examples,
    edge_cases,
    grade_together,
    hold_apart,
    name_of,
    role_of,
    routed,
)
from domainfusion.distillation.examples import CROSS_DOMAIN, ExampleLike
from domainfusion.distillation.integration import Experts, Task
from domainfusion.distillation.metrics import (
    BatchCoherence,
    CoherenceMetric,
    Graded,
    MetricChoice,
    check_metric,
    grade_coherence,
    known_validation,
    normalize,
    stated_parts,
    token_f1,
)
from domainfusion.distillation.results import (
    AgreementScore,
    AnswerCost,
    Coherence,
    CoherenceValidation,
    Component,
    DomainRetention,
    Estimate,
    ModelResult,
    NonInferiority,
    OverallScore,
    percent,
)
from domainfusion.distillation.statistics import (
    METHOD,
    Bootstrap,
    PairedComparison,
    non_inferiority,
    share,
)
from domainfusion.errors import ConfigurationError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example, Generation, Sampling, fingerprint

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
            contradict each other, by the rules.
        coherence_validation: What was measured of that metric, by `validate_coherence`; by default
            what is known of it. The report says it.
        baselines: Further models to measure beside.
        sampling: How the models answer; by default greedily, up to 256 tokens.
        resamples: Bootstrap resamples behind the 95 % intervals.
        seed: Seed of the bootstrap, and of the experts' second answers.
        notes: What a reader of the report has to know about the test set.
        margin: The share of each expert that the student has to keep to replace it.
        weights: What DER, CDA and IC weigh in the overall score; a weight of 0 leaves one out.
        on_overlap: What to do with test queries that were trained on: `refuse` to evaluate, or
            leave them out and `report` them.
        similarity: How like an answer is to the expert's, 0 to 1, where there is no reference; by
            default the F1 of their words.
        agreement_judge: A model that says whether an answer agrees with the expert's; None asks
            none.
        second_temperature: Temperature of the experts' second answers.
        benchmarks: Measures benchmarks beside the test set; what it finds is in the same report, in
            slices of their own.

    Raises:
        ConfigurationError: A number is out of range, or a weight is of no figure.
    """

    def __init__(
        self,
        *,
        metric: MetricChoice = stated_parts,
        coherence_metric: CoherenceMetric | BatchCoherence = consistency,
        coherence_validation: CoherenceValidation | None = None,
        baselines: Mapping[str, LanguageModel] | None = None,
        sampling: Sampling = Sampling(),
        resamples: int = 10_000,
        seed: int = 0,
        notes: Sequence[str] = (),
        margin: float = 0.95,
        weights: Mapping[str, float] = WEIGHTS,
        on_overlap: OnOverlap = "refuse",
        similarity: Similarity = token_f1,
        agreement_judge: LanguageModel | None = None,
        second_temperature: float = 0.7,
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
        if not 0 < margin <= 1:
            raise ConfigurationError(
                "The margin is out of range", received=margin, allowed="a number above 0, up to 1"
            )
        if not second_temperature > 0:
            raise ConfigurationError(
                "second_temperature must be above 0",
                received=second_temperature,
                allowed="a number above 0",
            )
        self.coherence_metric = coherence_metric
        self.coherence_validation = coherence_validation
        self.notes = tuple(notes)
        self.margin = margin
        self.weights = check_weights(weights)
        self.similarity = similarity
        self.agreement_judge = agreement_judge
        self.second_temperature = second_temperature
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
        given, overlap = hold_apart(
            check_examples(examples, teacher_models), trained_on, self.on_overlap
        )
        items = with_groups(given)
        ask = Remembering(ask)
        student = self._grade(student_model, items, ask, "the student")
        models = [self._costed(self._result("student", "student", items, student), student)]
        others: dict[str, Sequence[Graded]] = {}
        for name, model in {**(baselines or {}), **self.baselines}.items():
            others[name] = self._grade(model, items, ask, name)
            models.append(self._result(name, role_of(name), items, others[name]))
        experts: dict[str, Sequence[Graded]] = {}
        for domain, teacher in teacher_models.items():
            experts[domain] = self._grade(teacher, items, ask, f"the expert of {domain}")
            models.append(self._result(domain, "expert", items, experts[domain]))
        together = self._together(ensemble or Ensemble(), items, teacher_models, experts, ask)
        models.append(replace(self._result("oracle", "oracle", items, together.oracle), answers=()))
        row = self._result("ensemble", "ensemble", items, together.ensemble)
        models.append(replace(row, cost=together.cost))
        places = by_slice(items)
        found = EvaluationReport(
            models=tuple(models),
            retention=tuple(
                self._retention(
                    domain, items, places.get(domain, []), student, experts, others.get("base")
                )
                for domain in teacher_models
            ),
            coherence=self._coherence(items, student, together.tasks, ask),
            edge_cases=edge_cases(
                items,
                [answer.correct for answer in models[0].answers],
                [item.correct for item in together.oracle],
            ),
            agreement=self._agreement(
                items, student, experts, others.get("base"), teacher_models, ask
            ),
            overlap=overlap,
            examples=tuple(given),
            test_set=fingerprint(given),
            notes=self.notes,
            seed=self.seed,
            resamples=self.resamples,
            metric=name_of(self.metric),
            coherence_metric=name_of(self.coherence_metric),
        )
        found = replace(
            found,
            overall=overall(
                self.weights, found.retention, found.cross_domain_accuracy, found.coherence
            ),
        )
        if self.benchmarks is None:
            return found
        more = self.benchmarks.evaluate(
            student_model,
            teacher_models,
            baselines={**(baselines or {}), **self.baselines},
            trained_on=trained_on,
            ask=ask,
        )
        return joined(found, more)

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

    def _retention(
        self,
        domain: str,
        examples: Sequence[Example],
        own: Sequence[int],
        student: Sequence[Graded],
        experts: Mapping[str, Sequence[Graded]],
        base: Sequence[Graded] | None,
    ) -> DomainRetention:
        """Measures DER of strict accuracy over the domain's items that student and expert were
        graded on.
        """
        expert = experts[domain]
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
        doubt = _better_expert(domain, places, theirs, groups, experts)
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
                f"{name}: {asked - graded:,} of {asked:,} questions could not be graded as right or"
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

    def _agreement(
        self,
        examples: Sequence[Example],
        student: Sequence[Graded],
        experts: Mapping[str, Sequence[Graded]],
        base: Sequence[Graded] | None,
        teachers: Mapping[str, LanguageModel],
        ask: Ask,
    ) -> tuple[AgreementScore, ...]:
        """Measures agreement on the examples without a reference."""
        places = [place for place, example in enumerate(examples) if not example.has_reference]
        if not places:
            return ()
        chosen = [examples[place] for place in places]
        again = replace(self.sampling, temperature=self.second_temperature, seed=self.seed + 1)
        needed = {
            domain: teacher
            for domain, teacher in teachers.items()
            if any(domain in example.domains for example in chosen)
        }
        second = {}
        for domain, teacher in needed.items():
            own = [place for place, example in enumerate(chosen) if domain in example.domains]
            label = f"asking the expert of {domain} again"
            answers = ask(
                teacher, [chosen[place].conversation for place in own], again, label=label
            )
            second[domain] = dict(zip(own, answers, strict=True))
        measures = {
            f"similarity ({name_of(self.similarity)})": by_similarity(self.similarity),
            "claim coverage": by_coverage,
        }
        if self.agreement_judge is not None:
            measures[f"judge ({self.agreement_judge.name})"] = by_judge(self.agreement_judge, ask)

        def answers_of(side: Sequence[Graded]) -> list[Generation]:
            return [side[place].generation for place in places]

        sides = Sides(
            student=answers_of(student),
            base=None if base is None else answers_of(base),
            experts={domain: answers_of(experts[domain]) for domain in needed},
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


class _Together(NamedTuple):
    """What the experts said to their own questions, and how that was graded."""

    tasks: Sequence[Task]
    oracle: Sequence[Graded]
    ensemble: Sequence[Graded]
    cost: AnswerCost


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
    """Says which other expert knows the domain more than twice as well as its own; empty where none
    does.
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
