"""Evaluators: what the student kept of each expert, whether domains combine, and whether the answers hold together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from domainfusion.distillation.examples import CROSS_DOMAIN, ExampleLike, read_examples, refuse_shared_ids, slice_of
from domainfusion.distillation.metrics import AccuracyMetric, CoherenceMetric, stated_parts, surface_coherence
from domainfusion.distillation.results import Answer, Coherence, DomainRetention, Estimate, EvaluationReport, ModelResult, Role, SliceScore
from domainfusion.distillation.statistics import Bootstrap
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example, Generation, Sampling, Score, fingerprint


class Evaluator(ABC):
    """Measures a student. An evaluator of your own implements `evaluate`."""

    @property
    def own_examples(self) -> Mapping[str, Sequence[Example]]:
        """Examples that the evaluator brings along, by name: a run removes from its training data whatever contains one of them."""
        return {}

    @abstractmethod
    def evaluate(
        self,
        student_model: LanguageModel,
        teacher_models: Mapping[str, LanguageModel],
        examples: Sequence[ExampleLike],
        *,
        baselines: Mapping[str, LanguageModel] | None = None,
        ask: Ask = ask_directly,
    ) -> EvaluationReport:
        """Evaluates the student on `examples`.

        Args:
            student_model: The student.
            teacher_models: The experts by domain.
            examples: Held-out examples: none of them was trained on.
            baselines: Further models to measure beside; `base` is the student before training, `merge` the experts' weight merge.
            ask: How a model is called.

        Returns:
            What was found. It prints as a table and turns into a dict.

        Raises:
            DataError: There is nothing to evaluate on.
        """


@dataclass(frozen=True)
class _Graded:
    generation: Generation
    score: Score

    @property
    def correct(self) -> bool | None:
        if self.score.value is None:
            return None
        return all(part >= 1 for part in self.score.parts) if self.score.parts else self.score.value >= 1


class _MeasuringEvaluator(Evaluator):
    """What the evaluators share: how answers are asked for, graded, and summed up by slice."""

    def __init__(
        self,
        *,
        metric: AccuracyMetric,
        sampling: Sampling,
        resamples: int,
        seed: int,
        baselines: Mapping[str, LanguageModel] | None,
    ) -> None:
        if resamples < 100:
            raise ConfigurationError("resamples is too low for an interval", received=resamples, allowed="a whole number from 100")
        self.metric = metric
        self.sampling = sampling
        self.resamples = resamples
        self.seed = seed
        self.baselines = dict(baselines or {})

    def _grade(self, model: LanguageModel, examples: Sequence[Example], ask: Ask, label: str) -> list[_Graded]:
        answers = ask(model, [example.conversation for example in examples], self.sampling, label=f"evaluating {label}")
        return [_Graded(answer, self._score(example, answer)) for example, answer in zip(examples, answers, strict=True)]

    def _score(self, example: Example, answer: Generation) -> Score:
        score = self.metric(example, answer.text)
        if not isinstance(score, Score):
            score = Score(float(score))
        if score.value is not None and not 0 <= score.value <= 1:
            return Score.unscored(f"the metric gave {score.value}, which is outside of 0 to 1")
        return score

    def _result(self, name: str, role: Role, examples: Sequence[Example], graded: Sequence[_Graded]) -> ModelResult:
        places = _by_slice(examples)
        cross = places.get(CROSS_DOMAIN, [])
        pairs: dict[str, list[int]] = {}
        for place in cross:
            pairs.setdefault(" + ".join(sorted(examples[place].domains)), []).append(place)
        return ModelResult(
            name=name,
            role=role,
            slices={key: self._slice(examples, graded, chosen) for key, chosen in places.items()},
            pairs={key: self._slice(examples, graded, chosen) for key, chosen in sorted(pairs.items())},
            answers=tuple(_as_answer(example, item) for example, item in zip(examples, graded, strict=True)),
        )

    def _slice(self, examples: Sequence[Example], graded: Sequence[_Graded], places: Sequence[int]) -> SliceScore:
        scored = [place for place in places if graded[place].score.value is not None]
        truncated = sum(graded[place].generation.finish_reason == "length" for place in places)
        unscored = len(places) - len(scored)
        if not scored:
            nothing = Estimate(value=None, reason="no answer could be graded")
            return SliceScore(items=len(places), strict=nothing, partial=nothing, unscored=unscored, truncated=truncated)
        bootstrap = self._bootstrap(examples, scored)
        return SliceScore(
            items=len(places),
            strict=bootstrap.mean([float(graded[place].correct or 0) for place in scored]),
            partial=bootstrap.mean([graded[place].score.value or 0.0 for place in scored]),
            unscored=unscored,
            truncated=truncated,
        )

    def _bootstrap(self, examples: Sequence[Example], places: Sequence[int]) -> Bootstrap:
        clusters = [examples[place].group or examples[place].id for place in places]
        return Bootstrap(clusters, resamples=self.resamples, seed=self.seed)


class DomainRetentionEvaluator(_MeasuringEvaluator):
    """Measures Domain Expertise Retention, Cross-Domain Accuracy and Integration Coherence.

    DER is P(student) / P(expert) on the expert's domain, a ratio of means over the same items; headroom is
    (student − base) / (expert − base). CDA is the share of cross-domain queries with every part right. IC is the mean coherence of
    the cross-domain answers, always beside their coverage. Every model answers every query, so that the report has the whole
    matrix. The routed oracle is what the experts could do together: each part of a query is graded on its own expert's answer.

    Args:
        metric: Grades an answer; by default the share of the example's parts that it states.
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
        metric: AccuracyMetric = stated_parts,
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
        others: dict[str, Sequence[_Graded]] = {}
        for name, model in {**(baselines or {}), **self.baselines}.items():
            others[name] = self._grade(model, items, ask, name)
            models.append(self._result(name, _role_of(name), items, others[name]))
        experts: dict[str, Sequence[_Graded]] = {}
        for domain, teacher in teacher_models.items():
            experts[domain] = self._grade(teacher, items, ask, f"the expert of {domain}")
            models.append(self._result(domain, "expert", items, experts[domain]))
        oracle = [_routed(example, [experts[domain][i] for domain in example.domains]) for i, example in enumerate(items)]
        retention = [
            self._retention(domain, items, student, experts[domain], others.get("base"))
            for domain in teacher_models
            if domain in _by_slice(items)
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
            metric=_name_of(self.metric),
            coherence_metric=_name_of(self.coherence_metric),
        )

    def _retention(
        self,
        domain: str,
        examples: Sequence[Example],
        student: Sequence[_Graded],
        expert: Sequence[_Graded],
        base: Sequence[_Graded] | None,
    ) -> DomainRetention:
        sides = {"student": student, "expert": expert, **({} if base is None else {"base": base})}
        places = [place for place in _by_slice(examples)[domain] if all(side[place].score.value is not None for side in sides.values())]
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

    def _coherence(self, examples: Sequence[Example], graded: Sequence[_Graded]) -> Coherence | None:
        places = _by_slice(examples).get(CROSS_DOMAIN, [])
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


class BenchmarkEvaluator(_MeasuringEvaluator):
    """Measures the student, its experts and baselines on benchmarks of each domain.

    Args:
        benchmarks: For each domain its items: examples, dicts with `query` and `answers` or `reference`, or the path of a file of such.
        metric: Grades an answer; by default the share of the example's parts that it states.
        baselines: Further models to measure beside.
        sampling: How the models answer; by default greedily, up to 256 tokens.
        resamples: Bootstrap resamples behind the 95 % intervals.
        seed: Seed of the bootstrap.

    Raises:
        DataError: A benchmark is empty or can't be read.
    """

    def __init__(
        self,
        benchmarks: Mapping[str, str | Path | Sequence[ExampleLike]],
        *,
        metric: AccuracyMetric = stated_parts,
        baselines: Mapping[str, LanguageModel] | None = None,
        sampling: Sampling = Sampling(),
        resamples: int = 10_000,
        seed: int = 0,
    ) -> None:
        super().__init__(metric=metric, sampling=sampling, resamples=resamples, seed=seed, baselines=baselines)
        self.benchmarks = {domain: _read_benchmark(domain, items) for domain, items in benchmarks.items()}
        if not self.benchmarks:
            raise DataError("There are no benchmarks", received=benchmarks, fix='give {"domain": [...]}')

    @property
    def own_examples(self) -> Mapping[str, Sequence[Example]]:
        """The items of the benchmarks."""
        return {f"{domain} benchmark": items for domain, items in self.benchmarks.items()}

    def evaluate(
        self,
        student_model: LanguageModel,
        teacher_models: Mapping[str, LanguageModel],
        examples: Sequence[ExampleLike] = (),
        *,
        baselines: Mapping[str, LanguageModel] | None = None,
        ask: Ask = ask_directly,
    ) -> EvaluationReport:
        """Evaluates on the benchmarks, and on `examples` beside them, in slices of their own named `examples: ...`.

        Raises:
            DataError: Two items of a benchmark, or two of the examples, have the same id.
        """
        extra = [_in_slice(example, f"examples: {slice_of(example)}") for example in read_examples(list(examples))]
        items = [item for benchmark in self.benchmarks.values() for item in benchmark] + extra
        refuse_shared_ids(items)
        rows: list[tuple[str, Role, LanguageModel]] = [("student", "student", student_model)]
        rows += [(name, _role_of(name), model) for name, model in {**(baselines or {}), **self.baselines}.items()]
        rows += [(domain, "expert", teacher) for domain, teacher in teacher_models.items()]
        models = tuple(self._result(name, role, items, self._grade(model, items, ask, name)) for name, role, model in rows)
        return EvaluationReport(
            models=models,
            examples=tuple(items),
            test_set=fingerprint(items),
            seed=self.seed,
            resamples=self.resamples,
            metric=_name_of(self.metric),
        )


def check_examples(examples: Sequence[ExampleLike], teachers: Mapping[str, LanguageModel]) -> list[Example]:
    """Returns the examples to evaluate on.

    Raises:
        DataError: There are none, one needs a domain that has no expert, or two have the same id.
    """
    items = list(read_examples(list(examples)))
    if not items:
        raise DataError("There are no examples to evaluate on", fix="hold some out, or give test_examples")
    for item in items:
        strange = [domain for domain in item.domains if domain not in teachers]
        if strange:
            raise DataError(f"The example {item.id} needs {strange[0]!r}, which has no expert", allowed=", ".join(teachers))
    refuse_shared_ids(items)
    return items


def _read_benchmark(domain: str, items: str | Path | Sequence[ExampleLike]) -> list[Example]:
    read = [_in_slice(example, domain) for example in read_examples(items, domain=domain)]
    if not read:
        raise DataError(f"The benchmark of {domain!r} is empty", received=items, fix="give at least one item")
    return read


def _in_slice(example: Example, name: str) -> Example:
    return replace(example, metadata={**example.metadata, "slice": name}, id=f"{name}/{example.id}")


def _by_slice(examples: Sequence[Example]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        places.setdefault(slice_of(example), []).append(place)
    singles = sorted(places, key=lambda name: (name == CROSS_DOMAIN) + 2 * (name not in _single_domains(examples) | {CROSS_DOMAIN}))
    return {name: places[name] for name in singles}


def _single_domains(examples: Sequence[Example]) -> set[str]:
    return {domain for example in examples for domain in example.domains}


def _routed(example: Example, answers: Sequence[_Graded]) -> _Graded:
    """Grades what the experts of an example could do together: each part counts where its own expert states it."""
    by_domain = dict(zip(example.domains, answers, strict=True))
    if len(answers) == 1:
        return answers[0]
    if not example.parts or any(len(answer.score.parts) != len(example.parts) for answer in answers):
        return _Graded(Generation(text=""), Score.unscored("the example has no parts to route"))
    grades = tuple(by_domain[part.domain].score.parts[i] if part.domain in by_domain else 0.0 for i, part in enumerate(example.parts))
    return _Graded(Generation(text=""), Score(sum(grades) / len(grades), parts=grades))


def _headroom(bootstrap: Bootstrap, values: Mapping[str, Sequence[float]]) -> Estimate:
    if "base" not in values:
        return Estimate(value=None, reason="the base was not measured")
    to_learn = [expert - base for expert, base in zip(values["expert"], values["base"], strict=True)]
    if not bootstrap.excludes_zero(to_learn) or sum(to_learn) <= 0:
        return Estimate(value=None, reason="the expert is not measurably better than the base")
    return bootstrap.ratio([student - base for student, base in zip(values["student"], values["base"], strict=True)], to_learn)


def _as_answer(example: Example, graded: _Graded) -> Answer:
    return Answer(
        example_id=example.id,
        text=graded.generation.text,
        score=graded.score.value,
        correct=graded.correct,
        finish_reason=graded.generation.finish_reason,
        reason=graded.score.reason,
    )


def _role_of(name: str) -> Role:
    return "base" if name == "base" else "merge" if name == "merge" else "baseline"


def _name_of(metric: object) -> str:
    return str(getattr(metric, "__name__", type(metric).__name__))
