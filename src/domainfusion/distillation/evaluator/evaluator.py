"""The evaluator, and what its kinds share: how answers are asked for, graded, and summed up by slice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import get_args

from domainfusion.checks import check_count, check_seed, check_word
from domainfusion.distillation.duplicates import OnOverlap
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.examples import (
    CROSS_DOMAIN,
    ExampleLike,
    read_examples,
    refuse_shared_ids,
    slice_of,
)
from domainfusion.distillation.metrics import (
    Graded,
    MetricChoice,
    grade,
    measures_overlap,
)
from domainfusion.distillation.metrics.accuracy import KnowsChance
from domainfusion.distillation.metrics.grading import check_metric
from domainfusion.distillation.results import (
    Answer,
    EdgeCase,
    Estimate,
    ModelResult,
    Role,
    SliceScore,
)
from domainfusion.distillation.statistics import Bootstrap, Resampling, share
from domainfusion.errors import DataError, suggestion
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Conversation, Example, Generation, Sampling


class Evaluator(ABC):
    """Measures a student. An evaluator of your own implements `evaluate`, with those of the keyword
    arguments that it needs.

    A run removes the examples that were trained on by itself where `trained_on` is left out.

    Attributes:
        metric: Grades an answer; None where the evaluator grades by something else.
        sampling: How models answer; None for the sampling that teachers answer with.
        baselines: Further models that are measured beside the student, by name.
    """

    metric: MetricChoice | None = None
    sampling: Sampling | None = None
    baselines: Mapping[str, LanguageModel] = MappingProxyType({})

    @property
    def own_examples(self) -> Mapping[str, Sequence[Example]]:
        """Examples that the evaluator brings along, by name: a run removes from its training data
        whatever contains one of them.
        """
        return {}

    @abstractmethod
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
        """Evaluates the student on `examples`.

        Args:
            student_model: The student.
            teacher_models: The experts by domain.
            examples: Held-out examples: none of them was trained on.
            baselines: Further models to measure beside; `base` is the student before training,
                `merge` the experts' weight merge.
            trained_on: What the student was trained on, as examples or a file of them, such as the
                `examples.jsonl` of a run: none of it is evaluated on; see `hold_apart`. None where
                that is not known.
            ask: How a model is called.

        Returns:
            What was found. It prints as a table and turns into a dict.

        Raises:
            DataError: There is nothing to evaluate on, or it was trained on.
        """


def check_examples(
    examples: Sequence[ExampleLike], teachers: Mapping[str, LanguageModel]
) -> list[Example]:
    """Returns the examples to evaluate on.

    Raises:
        DataError: There are none, one needs a domain that has no expert, or two have the same id.
    """
    items = list(read_examples(list(examples)))
    if not items:
        raise DataError(
            "There are no examples to evaluate on", fix="hold some out, or give test_examples"
        )
    for item in items:
        strange = [domain for domain in item.domains if domain not in teachers]
        if strange:
            raise DataError(
                f"The example {item.query!r:.80} needs {strange[0]!r}, which has no expert",
                allowed=", ".join(teachers),
                fix=suggestion(strange[0], teachers) or "add its expert, or leave the example out",
            )
    refuse_shared_ids(items)
    return items


FEWEST_RESAMPLES = 100
"""With fewer, the ends of an interval are noise."""

NOT_GRADED = "no answer could be graded"


class MeasuringEvaluator(Evaluator):
    """Base of the evaluators: asks for answers, grades them, and sums up by slice."""

    metric: MetricChoice
    sampling: Sampling

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
        check_count("resamples", resamples, FEWEST_RESAMPLES)
        check_seed(seed)
        check_metric(metric)
        check_word("on_overlap", on_overlap, get_args(OnOverlap))
        self.metric = metric
        self.sampling = sampling
        self.resamples = resamples
        self.seed = seed
        self.baselines = dict(baselines or {})
        self.on_overlap = on_overlap
        self._resampling = Resampling(resamples=resamples, seed=seed)

    def _grade(
        self, model: LanguageModel, examples: Sequence[Example], ask: Ask, label: str
    ) -> list[Graded]:
        return grade(
            self.metric,
            model,
            examples,
            sampling=self.sampling,
            ask=ask,
            label=f"evaluating {label}",
        )

    def _result(
        self, name: str, role: Role, examples: Sequence[Example], graded: Sequence[Graded]
    ) -> ModelResult:
        answers = tuple(
            _as_answer(example, item, is_overlap=self._is_overlap(example))
            for example, item in zip(examples, graded, strict=True)
        )

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

    def _is_overlap(self, example: Example) -> bool:
        """Whether grades of this example say how many words are shared, and not what is right."""
        return measures_overlap(self.metric, example)

    def _slice(
        self, examples: Sequence[Example], answers: Sequence[Answer], places: Sequence[int]
    ) -> SliceScore:
        graded = [place for place in places if answers[place].score is not None]
        scored = [place for place in graded if not answers[place].is_overlap]
        overlap = [place for place in graded if answers[place].is_overlap]
        reason = "references in words measure overlap alone" if overlap else NOT_GRADED
        strict = partial = Estimate(value=None, reason=reason)
        if scored:
            right = [bool(answers[place].correct) for place in scored]
            strict = share(right, [examples[place].group for place in scored])
            partial = self._mean(examples, answers, scored)
        return SliceScore(
            items=len(places),
            strict=strict,
            partial=partial,
            unscored=len(places) - len(graded),
            truncated=sum(answers[place].finish_reason == "length" for place in places),
            not_readable=sum(not answers[place].readable for place in places),
            repetitive=sum(answers[place].repetitive for place in places),
            chance=mean_chance([examples[place] for place in scored], self.metric),
            overlap=self._mean(examples, answers, overlap) if overlap else None,
            overlap_items=len(overlap),
        )

    def _mean(
        self, examples: Sequence[Example], answers: Sequence[Answer], places: Sequence[int]
    ) -> Estimate:
        grades = [answers[place].score or 0.0 for place in places]
        return self._bootstrap(examples, places).mean(grades)

    def _bootstrap(self, examples: Sequence[Example], places: Sequence[int]) -> Bootstrap:
        return self._resampling.over([examples[place].group for place in places])


def _as_answer(example: Example, graded: Graded, *, is_overlap: bool) -> Answer:
    return Answer(
        example_id=example.id,
        text=graded.generation.text,
        score=graded.score.value,
        correct=None if is_overlap else graded.correct,
        readable=graded.score.readable,
        is_overlap=is_overlap and graded.score.value is not None,
        finish_reason=graded.generation.finish_reason,
        reason=graded.score.reason,
        repetitive=is_repetitive(graded.generation.text),
    )


class Remembering:
    """An `Ask` that asks no model the same question twice: greedy answers are kept for as long as
    it lives.

    Args:
        ask: How a model is called.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: dict[tuple[int, Conversation, Sampling], Generation] = {}

    def __call__(
        self,
        model: LanguageModel,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        *,
        label: str = "",
    ) -> list[Generation]:
        """See `Ask`."""
        if sampling.temperature > 0:
            return self._ask(model, conversations, sampling, label=label)
        keys = [(id(model), conversation, sampling) for conversation in conversations]
        missing = list(dict.fromkeys(key for key in keys if key not in self._known))
        if missing:
            asked = [conversation for _, conversation, _ in missing]
            answers = self._ask(model, asked, sampling, label=label)
            self._known.update(zip(missing, answers, strict=True))
        return [self._known[key] for key in keys]


def role_of(name: str) -> Role:
    """Returns the role of a baseline, by its name."""
    return "base" if name == "base" else "merge" if name == "merge" else "baseline"


# The slices of the examples


def by_slice(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Returns the places of the examples in each slice: domains first, then cross-domain, then the
    others.
    """
    places: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        places.setdefault(slice_of(example), []).append(place)
    domains = {domain for example in examples for domain in example.domains}

    def rank(name: str) -> int:
        """Returns 0 for a domain, 1 for the cross-domain slice, and 2 for any other."""
        if name == CROSS_DOMAIN:
            return 1
        return 0 if name in domains else 2

    return {name: places[name] for name in sorted(places, key=rank)}


def by_pair(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Returns the places of the cross-domain examples by combination of domains, as in `aviation +
    chemistry`.
    """
    places: dict[str, list[int]] = {}
    for place in by_slice(examples).get(CROSS_DOMAIN, []):
        places.setdefault(_joined(examples[place]), []).append(place)
    return dict(sorted(places.items()))


def by_border(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Returns the places of the adversarial examples by what they look like and need, as in
    `aviation → chemistry`.
    """
    places: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        if example.apparent_domain:
            places.setdefault(f"{example.apparent_domain} → {_joined(example)}", []).append(place)
    return dict(sorted(places.items()))


def edge_cases(
    examples: Sequence[Example], student: Sequence[bool | None], experts: Sequence[bool | None]
) -> tuple[EdgeCase, ...]:
    """Returns the adversarial examples that the student does not get right, those that the experts
    know first.

    Args:
        examples: The examples.
        student: Whether the student gets each right; None where that could not be graded.
        experts: Whether the experts that it needs do, between them.
    """
    found = [
        EdgeCase(
            example_id=example.id,
            apparent=example.apparent_domain,
            needed=_joined(example),
            experts_know=known,
        )
        for example, right, known in zip(examples, student, experts, strict=True)
        if example.apparent_domain and right is False
    ]
    return tuple(sorted(found, key=lambda case: case.experts_know is not True))


def _joined(example: Example) -> str:
    return " + ".join(sorted(example.domains))


# Answers that say nothing: chance and repetitions


def chance_of(example: Example, metric: object) -> float | None:
    """Returns the mean score of a blind answer.

    The metric says it (an attribute `chance`: a number, or a function of the example), or the
    example's `metadata["choices"]` do: one of them is right. None where neither does.
    """
    if isinstance(metric, KnowsChance):
        said = metric.chance
        found = said(example) if callable(said) else said
        if isinstance(found, int | float):
            return float(found)
    choices = example.metadata.get("choices")
    return (
        1 / len(choices)
        if isinstance(choices, Sequence) and not isinstance(choices, str) and len(choices) > 1
        else None
    )


def mean_chance(examples: Sequence[Example], metric: object) -> float | None:
    """Returns the mean over examples; None where it is not known of each."""
    known = [chance_of(example, metric) for example in examples]
    values = [value for value in known if value is not None]
    return sum(values) / len(values) if values and len(values) == len(known) else None


LONGEST_PERIOD = 50
"""Words of the longest sequence that is looked for."""

FEWEST_WORDS = 12
"""Words that the repetitions take together: fewer are a figure of speech."""


def is_repetitive(text: str) -> bool:
    """Whether some sequence of up to 50 words comes three times or more in a row, over 12 words or
    more.

    Example:
        >>> is_repetitive("It is in Japan. " * 3), is_repetitive("It is in Japan. It is in Japan."), is_repetitive("No, no, no!")
        (True, False, False)
    """
    words = text.casefold().split()
    return any(
        _has_run(words, period) for period in range(1, min(LONGEST_PERIOD, len(words) // 3) + 1)
    )


def _has_run(words: list[str], period: int) -> bool:
    needed, run = max(2 * period, FEWEST_WORDS - period), 0
    for word, later in zip(words, words[period:], strict=False):
        run = run + 1 if word == later else 0
        if run >= needed:
            return True
    return False
