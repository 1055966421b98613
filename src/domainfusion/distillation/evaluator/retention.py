"""What the student kept of each expert, whether domains combine, and whether the answers hold together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path

from domainfusion.distillation.evaluator.agreement import (
    Sides,
    Similarity,
    by_coverage,
    by_judge,
    by_similarity,
    measure_agreement,
)
from domainfusion.distillation.evaluator.benchmark import BenchmarkEvaluator, joined
from domainfusion.distillation.evaluator.evaluator import (
    MeasuringEvaluator,
    OnOverlap,
    by_slice,
    chance_of,
    check_examples,
    edge_cases,
    hold_apart,
    name_of,
    role_of,
    routed,
)
from domainfusion.distillation.examples import CROSS_DOMAIN, ExampleLike
from domainfusion.distillation.metrics import (
    BatchCoherence,
    CoherenceMetric,
    Graded,
    MetricChoice,
    check_metric,
    grade_coherence,
    known_validation,
    stated_parts,
    surface_coherence,
    token_f1,
)
from domainfusion.distillation.results import (
    Agreement,
    Coherence,
    CoherenceValidation,
    Component,
    DomainRetention,
    Estimate,
    EvaluationReport,
    NonInferiority,
    OverallScore,
)
from domainfusion.distillation.statistics import Bootstrap, non_inferiority
from domainfusion.errors import ConfigurationError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example, Generation, Sampling, fingerprint

WEIGHTS: Mapping[str, float] = {"DER": 0.5, "CDA": 0.3, "IC": 0.2}
"""What each figure weighs where nobody says: a convention, which every report states."""


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
            "These are no weights of an overall score",
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
    """Returns the weighted mean of what was found; undefined where a figure that has a weight is."""
    figures = {
        "DER": (_mean_retention(retention), "mean over the domains, each counted up to 1"),
        "CDA": (cross_domain, "every part right"),
        "IC": _coherence(coherence),
    }
    components = tuple(
        Component(name=name, score=figures[name][0], weight=weight, about=figures[name][1])
        for name, weight in weights.items()
    )
    missing = [part.name for part in components if part.score.value is None]
    if missing:
        return OverallScore(
            score=Estimate(value=None, reason=f"{' and '.join(missing)} undefined"),
            components=components,
        )
    return OverallScore(
        score=Estimate(value=sum(part.weight * (part.score.value or 0.0) for part in components)),
        components=components,
    )


def _mean_retention(rows: Sequence[DomainRetention]) -> Estimate:
    values = [row.retention.value for row in rows if row.retention.value is not None]
    if not rows or len(values) < len(rows):
        undefined = [row.domain for row in rows if row.retention.value is None]
        return Estimate(
            value=None,
            reason=f"DER is undefined in {', '.join(undefined)}"
            if undefined
            else "no domain was measured",
        )
    return Estimate(value=sum(min(1.0, value) for value in values) / len(values))


def _coherence(found: Coherence | None) -> tuple[Estimate, str]:
    if found is None:
        return Estimate(value=None, reason="there are no cross-domain answers to measure"), ""
    if found.validated:
        return found.score, ""
    return (
        found.score,
        f"its metric is {'not validated' if found.validation is None else 'validated in part'}",
    )


class DomainRetentionEvaluator(MeasuringEvaluator):
    """Measures Domain Expertise Retention, Cross-Domain Accuracy and Integration Coherence.

    DER is P(student) / P(expert) on the expert's domain, a ratio of means over the same items; headroom is
    (student − base) / (expert − base). CDA is the share of cross-domain queries with every part right. IC is the mean coherence of
    the cross-domain answers, always beside their coverage. Every model answers every query, so that the report has the whole
    matrix. The routed oracle is what the experts could do together: each part of a query is graded on its own expert's answer.

    Examples without a reference are in no accuracy. On them the student's agreement with the experts is measured instead, beside an
    expert's agreement with a second answer of its own.

    Args:
        metric: Grades an answer: a metric, the name of one, or one for each domain; by default the share of the example's parts that it
            states. An example may name its own in `metadata["metric"]`.
        coherence_metric: Grades how a text holds together; by default by its surface.
        coherence_validation: What was measured of that metric, by `validate_coherence`; by default what is known of it. The report says it.
        baselines: Further models to measure beside.
        sampling: How the models answer; by default greedily, up to 256 tokens.
        resamples: Bootstrap resamples behind the 95 % intervals.
        seed: Seed of the bootstrap, and of the experts' second answers.
        notes: What a reader of the report has to know about the test set.
        margin: The share of each expert that the student has to keep to replace it.
        weights: What DER, CDA and IC weigh in the overall score; a weight of 0 leaves one out.
        on_overlap: What to do with test queries that were trained on: `refuse` to evaluate, or leave them out and `report` them.
        similarity: How like an answer is to the expert's, 0 to 1, where there is no reference; by default the F1 of their words.
        agreement_judge: A model that says whether an answer agrees with the expert's; None asks none.
        second_temperature: Temperature of the experts' second answers.
        benchmarks: Measures benchmarks beside the test set; what it finds is in the same report, in slices of their own.

    Raises:
        ConfigurationError: A number is out of range, or a weight is of no figure.
    """

    def __init__(
        self,
        *,
        metric: MetricChoice = stated_parts,
        coherence_metric: CoherenceMetric | BatchCoherence = surface_coherence,
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
                "second_temperature draws nothing",
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
        ask: Ask = ask_directly,
    ) -> EvaluationReport:
        """Evaluates the student; see `Evaluator.evaluate`.

        Raises:
            DataError: There are no examples, one needs a domain that has no expert, or queries were trained on.
        """
        check_metric(self.metric, teacher_models)
        items, overlap = hold_apart(
            check_examples(examples, teacher_models), trained_on, self.on_overlap
        )
        student = self._grade(student_model, items, ask, "the student")
        models = [self._result("student", "student", items, student)]
        others: dict[str, Sequence[Graded]] = {}
        for name, model in {**(baselines or {}), **self.baselines}.items():
            others[name] = self._grade(model, items, ask, name)
            models.append(self._result(name, role_of(name), items, others[name]))
        experts: dict[str, Sequence[Graded]] = {}
        for domain, teacher in teacher_models.items():
            experts[domain] = self._grade(teacher, items, ask, f"the expert of {domain}")
            models.append(self._result(domain, "expert", items, experts[domain]))
        oracle = [
            routed(example, [experts[domain][i] for domain in example.domains])
            for i, example in enumerate(items)
        ]
        models.append(replace(self._result("oracle", "oracle", items, oracle), answers=()))
        retention = [
            self._retention(domain, items, student, experts[domain], others.get("base"))
            for domain in teacher_models
            if domain in by_slice(items)
        ]
        found = EvaluationReport(
            models=tuple(models),
            retention=tuple(retention),
            coherence=self._coherence(items, student, ask),
            edge_cases=edge_cases(
                items, [item.correct for item in student], [item.correct for item in oracle]
            ),
            agreement=self._agreement(
                items, student, experts, others.get("base"), teacher_models, ask
            ),
            overlap=overlap,
            examples=tuple(items),
            test_set=fingerprint(items),
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

    def _retention(
        self,
        domain: str,
        examples: Sequence[Example],
        student: Sequence[Graded],
        expert: Sequence[Graded],
        base: Sequence[Graded] | None,
    ) -> DomainRetention:
        places = [
            place for place in by_slice(examples)[domain] if student[place].score.value is not None
        ]
        places = [place for place in places if expert[place].score.value is not None]
        if not places:
            nothing = Estimate(value=None, reason="no answer could be graded")
            return DomainRetention(
                domain=domain,
                items=0,
                student=None,
                expert=None,
                base=None,
                retention=nothing,
                headroom=nothing,
                non_inferiority=NonInferiority(margin=self.margin, verdict="undefined"),
            )
        mine, theirs = (
            [side[place].score.value or 0.0 for place in places] for side in (student, expert)
        )
        bootstrap = self._bootstrap(examples, places)
        retention = bootstrap.ratio(mine, theirs)
        if retention.value is None:
            retention = Estimate(value=None, reason="the expert got nothing right")
        by_chance = [chance_of(examples[place], self.metric) for place in places]
        chances = [chance for chance in by_chance if chance is not None]
        chance_is_known = len(chances) == len(places)
        started = [
            place for place in places if base is not None and base[place].score.value is not None
        ]
        return DomainRetention(
            domain=domain,
            items=len(places),
            student=_mean(mine),
            expert=_mean(theirs),
            base=None
            if base is None or not started
            else _mean([base[place].score.value or 0.0 for place in started]),
            retention=retention,
            headroom=self._headroom(examples, started, student, expert, base),
            chance=_mean(chances) if chance_is_known else None,
            chance_corrected=_above(bootstrap, mine, theirs, chances, "chance")
            if chance_is_known
            else None,
            non_inferiority=non_inferiority(bootstrap, mine, theirs, retention, self.margin),
        )

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
        mine, theirs, before = (
            [side[place].score.value or 0.0 for place in places] for side in (student, expert, base)
        )
        return _above(self._bootstrap(examples, places), mine, theirs, before, "the base")

    def _agreement(
        self,
        examples: Sequence[Example],
        student: Sequence[Graded],
        experts: Mapping[str, Sequence[Graded]],
        base: Sequence[Graded] | None,
        teachers: Mapping[str, LanguageModel],
        ask: Ask,
    ) -> tuple[Agreement, ...]:
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
        self, examples: Sequence[Example], graded: Sequence[Graded], ask: Ask
    ) -> Coherence | None:
        places = by_slice(examples).get(CROSS_DOMAIN, [])
        texts = [graded[place].generation.text for place in places]
        scores = dict(
            zip(places, grade_coherence(self.coherence_metric, texts, ask=ask), strict=True)
        )
        measured = [place for place in places if scores[place].value is not None]
        if not measured:
            return None
        validation = self.coherence_validation or known_validation(self.coherence_metric)
        covered = [place for place in measured if graded[place].score.value is not None]
        return Coherence(
            score=self._bootstrap(examples, measured).mean(
                [scores[place].value or 0.0 for place in measured]
            ),
            coverage=self._bootstrap(examples, covered).mean(
                [graded[place].score.value or 0.0 for place in covered]
            )
            if covered
            else Estimate(value=None, reason="no answer could be graded"),
            validated=validation is not None and validation.passed,
            items=len(measured),
            validation=validation,
        )


def _above(
    bootstrap: Bootstrap,
    student: Sequence[float],
    expert: Sequence[float],
    floor: Sequence[float],
    name: str,
) -> Estimate:
    """Returns (student − floor) / (expert − floor), undefined where the interval of the denominator includes 0."""
    to_learn = [best - least for best, least in zip(expert, floor, strict=True)]
    if not bootstrap.excludes_zero(to_learn) or sum(to_learn) <= 0:
        return Estimate(value=None, reason=f"the expert is not measurably better than {name}")
    return bootstrap.ratio(
        [mine - least for mine, least in zip(student, floor, strict=True)], to_learn
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
