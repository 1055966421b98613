"""What the student kept of each expert, whether domains combine, and whether the answers hold together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from domainfusion.distillation.evaluator.evaluator import check_examples
from domainfusion.distillation.evaluator.measuring import Graded, MeasuringEvaluator, name_of, role_of, routed
from domainfusion.distillation.evaluator.slices import by_slice
from domainfusion.distillation.examples import CROSS_DOMAIN, ExampleLike
from domainfusion.distillation.metrics import CoherenceMetric, MetricChoice, stated_parts, surface_coherence
from domainfusion.distillation.results import Coherence, DomainRetention, Estimate, EvaluationReport
from domainfusion.distillation.statistics import Bootstrap
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example, Sampling, fingerprint


class DomainRetentionEvaluator(MeasuringEvaluator):
    """Measures Domain Expertise Retention, Cross-Domain Accuracy and Integration Coherence.

    DER is P(student) / P(expert) on the expert's domain, a ratio of means over the same items; headroom is
    (student − base) / (expert − base). CDA is the share of cross-domain queries with every part right. IC is the mean coherence of
    the cross-domain answers, always beside their coverage. Every model answers every query, so that the report has the whole
    matrix. The routed oracle is what the experts could do together: each part of a query is graded on its own expert's answer.

    Args:
        metric: Grades an answer: a metric, the name of one, or one for each domain; by default the share of the example's parts that it
            states. An example may name its own in `metadata["metric"]`.
        coherence_metric: Grades how a text holds together; by default by its surface.
        coherence_validated: Whether that metric has been shown to tell sound texts from corrupted ones; the report says so.
        baselines: Further models to measure beside.
        sampling: How the models answer; by default greedily, up to 256 tokens.
        resamples: Bootstrap resamples behind the 95 % intervals.
        seed: Seed of the bootstrap.
        notes: What a reader of the report has to know about the test set.
    """

    def __init__(
        self,
        *,
        metric: MetricChoice = stated_parts,
        coherence_metric: CoherenceMetric = surface_coherence,
        coherence_validated: bool = False,
        baselines: Mapping[str, LanguageModel] | None = None,
        sampling: Sampling = Sampling(),
        resamples: int = 10_000,
        seed: int = 0,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(metric=metric, sampling=sampling, resamples=resamples, seed=seed, baselines=baselines)
        self.coherence_metric = coherence_metric
        self.coherence_validated = coherence_validated
        self.notes = tuple(notes)

    def evaluate(
        self,
        student_model: LanguageModel,
        teacher_models: Mapping[str, LanguageModel],
        examples: Sequence[ExampleLike],
        *,
        baselines: Mapping[str, LanguageModel] | None = None,
        ask: Ask = ask_directly,
    ) -> EvaluationReport:
        """Evaluates the student; see `Evaluator.evaluate`.

        Raises:
            DataError: There are no examples, or one needs a domain that has no expert.
        """
        items = check_examples(examples, teacher_models)
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
        oracle = [routed(example, [experts[domain][i] for domain in example.domains]) for i, example in enumerate(items)]
        retention = [
            self._retention(domain, items, student, experts[domain], others.get("base"))
            for domain in teacher_models
            if domain in by_slice(items)
        ]
        models.append(replace(self._result("oracle", "oracle", items, oracle), answers=()))
        return EvaluationReport(
            models=tuple(models),
            retention=tuple(retention),
            coherence=self._coherence(items, student),
            examples=tuple(items),
            test_set=fingerprint(items),
            notes=self.notes,
            seed=self.seed,
            resamples=self.resamples,
            metric=name_of(self.metric),
            coherence_metric=name_of(self.coherence_metric),
        )

    def _retention(
        self,
        domain: str,
        examples: Sequence[Example],
        student: Sequence[Graded],
        expert: Sequence[Graded],
        base: Sequence[Graded] | None,
    ) -> DomainRetention:
        sides = {"student": student, "expert": expert, **({} if base is None else {"base": base})}
        places = [place for place in by_slice(examples)[domain] if all(side[place].score.value is not None for side in sides.values())]
        if not places:
            nothing = Estimate(value=None, reason="no answer could be graded")
            return DomainRetention(domain=domain, items=0, student=None, expert=None, base=None, retention=nothing, headroom=nothing)
        values = {name: [side[place].score.value or 0.0 for place in places] for name, side in sides.items()}
        means = {name: sum(column) / len(column) for name, column in values.items()}
        bootstrap = self._bootstrap(examples, places)
        retention = bootstrap.ratio(values["student"], values["expert"])
        return DomainRetention(
            domain=domain,
            items=len(places),
            student=means["student"],
            expert=means["expert"],
            base=means.get("base"),
            retention=retention if retention.value is not None else Estimate(value=None, reason="the expert got nothing right"),
            headroom=_headroom(bootstrap, values),
        )

    def _coherence(self, examples: Sequence[Example], graded: Sequence[Graded]) -> Coherence | None:
        places = by_slice(examples).get(CROSS_DOMAIN, [])
        scores = {place: self.coherence_metric(graded[place].generation.text) for place in places}
        measured = [place for place in places if scores[place].value is not None]
        if not measured:
            return None
        covered = [place for place in measured if graded[place].score.value is not None]
        return Coherence(
            score=self._bootstrap(examples, measured).mean([scores[place].value or 0.0 for place in measured]),
            coverage=self._bootstrap(examples, covered).mean([graded[place].score.value or 0.0 for place in covered])
            if covered
            else Estimate(value=None, reason="no answer could be graded"),
            validated=self.coherence_validated,
            items=len(measured),
        )


def _headroom(bootstrap: Bootstrap, values: Mapping[str, Sequence[float]]) -> Estimate:
    if "base" not in values:
        return Estimate(value=None, reason="the base was not measured")
    to_learn = [expert - base for expert, base in zip(values["expert"], values["base"], strict=True)]
    if not bootstrap.excludes_zero(to_learn) or sum(to_learn) <= 0:
        return Estimate(value=None, reason="the expert is not measurably better than the base")
    return bootstrap.ratio([student - base for student, base in zip(values["student"], values["base"], strict=True)], to_learn)
