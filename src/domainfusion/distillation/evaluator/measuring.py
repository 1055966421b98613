"""What the evaluators share: how answers are asked for, graded, and summed up by slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from domainfusion.distillation.evaluator.chance import mean_chance
from domainfusion.distillation.evaluator.evaluator import Evaluator
from domainfusion.distillation.evaluator.overlap import OnOverlap
from domainfusion.distillation.evaluator.repetition import is_repetitive
from domainfusion.distillation.evaluator.slices import by_border, by_pair, by_slice
from domainfusion.distillation.metrics import MetricChoice, check_metric, grade, is_extraction_failure
from domainfusion.distillation.metrics import name_of as name_of
from domainfusion.distillation.results import Answer, Estimate, ModelResult, Role, SliceScore
from domainfusion.distillation.statistics import Bootstrap, Resampling
from domainfusion.errors import ConfigurationError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask
from domainfusion.types import Example, Generation, Sampling, Score


@dataclass(frozen=True)
class Graded:
    """An answer and its grade."""

    generation: Generation
    score: Score

    @property
    def correct(self) -> bool | None:
        """Whether every part is right; None where there is no grade."""
        if self.score.value is None:
            return None
        return all(part >= 1 for part in self.score.parts) if self.score.parts else self.score.value >= 1


class MeasuringEvaluator(Evaluator):
    """What the evaluators share: how answers are asked for, graded, and summed up by slice."""

    def __init__(
        self,
        *,
        metric: MetricChoice,
        sampling: Sampling,
        resamples: int,
        seed: int,
        baselines: Mapping[str, LanguageModel] | None,
        on_overlap: OnOverlap,
    ) -> None:
        if resamples < 100:
            raise ConfigurationError("resamples is too low for an interval", received=resamples, allowed="a whole number from 100")
        check_metric(metric)
        if on_overlap not in get_args(OnOverlap):
            raise ConfigurationError("on_overlap is not known", received=on_overlap, allowed=", ".join(get_args(OnOverlap)))
        self.metric = metric
        self.sampling = sampling
        self.resamples = resamples
        self.seed = seed
        self.baselines = dict(baselines or {})
        self.on_overlap = on_overlap
        self._resampling = Resampling(resamples=resamples, seed=seed)

    def _grade(self, model: LanguageModel, examples: Sequence[Example], ask: Ask, label: str) -> list[Graded]:
        found = grade(self.metric, model, examples, sampling=self.sampling, ask=ask, label=f"evaluating {label}")
        return [Graded(generation, score) for generation, score in found]

    def _result(self, name: str, role: Role, examples: Sequence[Example], graded: Sequence[Graded]) -> ModelResult:
        answers = tuple(_as_answer(example, item) for example, item in zip(examples, graded, strict=True))

        def scored(groups: Mapping[str, Sequence[int]]) -> dict[str, SliceScore]:
            return {key: self._slice(examples, answers, places) for key, places in groups.items()}

        return ModelResult(
            name=name,
            role=role,
            slices=scored(by_slice(examples)),
            pairs=scored(by_pair(examples)),
            adversarial=scored(by_border(examples)),
            answers=answers,
        )

    def _slice(self, examples: Sequence[Example], answers: Sequence[Answer], places: Sequence[int]) -> SliceScore:
        scored = [place for place in places if answers[place].score is not None]
        nothing = Estimate(value=None, reason="no answer could be graded")
        bootstrap = self._bootstrap(examples, scored) if scored else None
        return SliceScore(
            items=len(places),
            strict=bootstrap.mean([float(answers[place].correct or 0) for place in scored]) if bootstrap else nothing,
            partial=bootstrap.mean([answers[place].score or 0.0 for place in scored]) if bootstrap else nothing,
            unscored=len(places) - len(scored),
            truncated=sum(answers[place].finish_reason == "length" for place in places),
            extraction_failures=sum(not answers[place].extracted for place in places),
            repetitive=sum(answers[place].repetitive for place in places),
            chance=mean_chance([examples[place] for place in scored], self.metric),
        )

    def _bootstrap(self, examples: Sequence[Example], places: Sequence[int]) -> Bootstrap:
        clusters = [examples[place].group or examples[place].id for place in places]
        return self._resampling.over(clusters)


def routed(example: Example, answers: Sequence[Graded]) -> Graded:
    """Grades what the experts of an example could do together: each part counts where its own expert states it."""
    by_domain = dict(zip(example.domains, answers, strict=True))
    if len(answers) == 1:
        return answers[0]
    if not example.parts or any(len(answer.score.parts) != len(example.parts) for answer in answers):
        return Graded(Generation(text=""), Score.unscored("the example has no parts to route"))
    grades = tuple(by_domain[part.domain].score.parts[i] if part.domain in by_domain else 0.0 for i, part in enumerate(example.parts))
    return Graded(Generation(text=""), Score(sum(grades) / len(grades), parts=grades))


def _as_answer(example: Example, graded: Graded) -> Answer:
    return Answer(
        example_id=example.id,
        text=graded.generation.text,
        score=graded.score.value,
        correct=graded.correct,
        extracted=not is_extraction_failure(graded.score),
        finish_reason=graded.generation.finish_reason,
        reason=graded.score.reason,
        repetitive=is_repetitive(graded.generation.text),
    )


def role_of(name: str) -> Role:
    """Returns what a baseline of that name is to the run."""
    return "base" if name == "base" else "merge" if name == "merge" else "baseline"
