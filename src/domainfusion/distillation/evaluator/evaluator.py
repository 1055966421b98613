"""What the evaluators share: what is evaluated on, how answers are asked for, graded, and summed up
by slice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from domainfusion.distillation.duplicates import EvaluationSets
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.examples import (
    CROSS_DOMAIN,
    ExampleLike,
    query_key,
    read_examples,
    refuse_shared_ids,
    slice_of,
)
from domainfusion.distillation.integration import Experts, ResponseIntegrator, Task
from domainfusion.distillation.metrics import (
    Graded,
    MetricChoice,
    check_metric,
    grade,
    grade_texts,
    measures_overlap,
    normalize,
    reads_texts,
)
from domainfusion.distillation.metrics import name_of as name_of
from domainfusion.distillation.metrics.accuracy import KnowsChance
from domainfusion.distillation.results import (
    Answer,
    AnswerCost,
    EdgeCase,
    Estimate,
    ModelResult,
    Overlap,
    Role,
    SliceScore,
)
from domainfusion.distillation.statistics import Bootstrap, Resampling, share
from domainfusion.distillation.text.words import content_words
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Conversation, Example, Generation, Part, Sampling, Score, transcript


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
                f"The example {item.id} needs {strange[0]!r}, which has no expert",
                allowed=", ".join(teachers),
            )
    refuse_shared_ids(items)
    return items


OnOverlap = Literal["refuse", "report"]
"""What to do with test queries that were trained on: refuse to evaluate, or leave them out and
report them.
"""

METHOD = (
    "a training query contains 70 % of the test query's eight-word sequences, or a shorter one as a"
    " whole, and all its content words"
)


class HeldApart(NamedTuple):
    """The examples that nothing was trained on, and what was found among the others; None where
    nobody said what was trained on.
    """

    examples: list[Example]
    overlap: Overlap | None


def hold_apart(
    examples: Sequence[Example],
    trained_on: str | Path | Sequence[ExampleLike] | None,
    on_overlap: OnOverlap = "refuse",
) -> HeldApart:
    """Holds examples against what was trained on, so that none of these is ever evaluated on.

    Args:
        examples: The examples to evaluate on.
        trained_on: What was trained on, as objects, dicts or a file, such as the `examples.jsonl`
            of a run; None where that is not known.
        on_overlap: What to do with queries that were trained on, as they are or nearly (see
            `EvaluationSets`).

    Raises:
        DataError: Queries were trained on, and that is to be refused; or no others are left.
    """
    if trained_on is None:
        return HeldApart(list(examples), None)
    trained = list(read_examples(trained_on))
    keys = {query_key(example) for example in trained}
    same = tuple(example.id for example in examples if query_key(example) in keys)
    near = _contained([example for example in examples if example.id not in set(same)], trained)
    found = {*same, *near}
    kept = [example for example in examples if example.id not in found]
    facts = asked_in_other_words(kept, trained)
    overlap = Overlap(trained=len(trained), same=same, near=near, method=METHOD, facts=facts)
    first = next((example.query for example in examples if example.id in found), "")
    if found and on_overlap == "refuse":
        raise DataError(
            f"{len(found)} of {len(examples)} test queries were trained on, {len(same)} as they are"
            f" and {len(near)} nearly",
            received=first,
            fix='evaluate on held-out examples, or set on_overlap="report", which leaves them out',
        )
    if found and not kept:
        raise DataError(
            "All test queries were trained on", received=first, fix="evaluate on held-out examples"
        )
    return HeldApart(kept, overlap)


COMMON_FROM = 0.05
"""The share of the test queries from which on a word that they have in common says nothing of what
one asks for.
"""


def asked_in_other_words(
    examples: Sequence[Example], trained: Sequence[Example]
) -> tuple[str, ...]:
    """Returns the ids of the examples that ask for what was trained on, however it was put.

    That is where a training query has each word that tells the test query from the others (a name,
    a code, a rare word) and accepts the same answer; of a query with several parts, one such word
    for each part, in one training query or in several. Accuracy there is recall of what was
    trained, and not what the expert knows beyond it.

    Args:
        examples: The examples to evaluate on.
        trained: What was trained on.
    """
    queries = [content_words(transcript(example.conversation)) for example in examples]
    counts = Counter(word for words in queries for word in words)
    common = max(2.0, COMMON_FROM * len(examples))
    by_answer: dict[tuple[str, str], list[frozenset[str]]] = {}
    for example in trained:
        words = content_words(transcript(example.conversation))
        for part in example.parts:
            for answer in part.answers:
                by_answer.setdefault((part.domain, normalize(answer)), []).append(words)
    found = []
    for example, words in zip(examples, queries, strict=True):
        telling = frozenset(word for word in words if counts[word] <= common) or words
        needed = telling if len(example.parts) == 1 else frozenset()
        if example.parts and all(
            _is_taught(part, telling, needed, by_answer) for part in example.parts
        ):
            found.append(example.id)
    return tuple(found)


def _is_taught(
    part: Part,
    telling: frozenset[str],
    needed: frozenset[str],
    by_answer: Mapping[tuple[str, str], Sequence[frozenset[str]]],
) -> bool:
    """Whether a training query accepts the answer of a part, has a telling word, and all that are
    needed.
    """
    keys = [(part.domain, normalize(answer)) for answer in part.answers]
    asked = [words for key in keys for words in by_answer.get(key, ())]
    return any(needed <= words and telling & words for words in asked)


def _contained(examples: Sequence[Example], trained: Sequence[Example]) -> tuple[str, ...]:
    """Returns the ids of the examples whose query stands in one that was trained on. One search
    finds one in each training query.
    """
    left, found = list(examples), set[str]()
    while left:
        index = EvaluationSets({"test": left})
        queries = {leak.query for example in trained if (leak := index.find(example)) is not None}
        if not queries:
            break
        found |= {example.id for example in left if example.query in queries}
        left = [example for example in left if example.query not in queries]
    return tuple(example.id for example in examples if example.id in found)


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


def by_slice(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Returns the places of the examples in each slice: domains first, then cross-domain, then the
    others.
    """
    places: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        places.setdefault(slice_of(example), []).append(place)
    singles = sorted(
        places,
        key=lambda name: (
            (name == CROSS_DOMAIN) + 2 * (name not in _single_domains(examples) | {CROSS_DOMAIN})
        ),
    )
    return {name: places[name] for name in singles}


def _single_domains(examples: Sequence[Example]) -> set[str]:
    return {domain for example in examples for domain in example.domains}


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


NOT_GRADED = "no answer could be graded"


class MeasuringEvaluator(Evaluator):
    """What the evaluators share: how answers are asked for, graded, and summed up by slice."""

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
        if resamples < 100:
            raise ConfigurationError(
                "resamples is too low for an interval",
                received=resamples,
                allowed="a whole number from 100",
            )
        check_metric(metric)
        if on_overlap not in get_args(OnOverlap):
            raise ConfigurationError(
                "on_overlap is not known",
                received=on_overlap,
                allowed=", ".join(get_args(OnOverlap)),
            )
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


def role_of(name: str) -> Role:
    """Returns what a baseline of that name is to the run."""
    return "base" if name == "base" else "merge" if name == "merge" else "baseline"


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


@dataclass
class Metered:
    """An `Ask` that counts calls and tokens.

    Attributes:
        ask: How a model is called.
        calls: Questions that models were asked.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
    """

    ask: Ask
    calls: int = field(default=0, init=False)
    prompt_tokens: int = field(default=0, init=False)
    completion_tokens: int = field(default=0, init=False)

    def __call__(
        self,
        model: LanguageModel,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        *,
        label: str = "",
    ) -> list[Generation]:
        """See `Ask`."""
        answers = self.ask(model, conversations, sampling, label=label)
        self.calls += len(answers)
        self.prompt_tokens += sum(answer.prompt_tokens for answer in answers)
        self.completion_tokens += sum(answer.completion_tokens for answer in answers)
        return answers

    def cost(self, questions: int) -> AnswerCost:
        """Returns what was counted."""
        return AnswerCost(
            questions=questions,
            calls=self.calls,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
        )


@dataclass(frozen=True)
class Ensemble:
    """The experts and the integrator as they would answer users: without a reference.

    Args:
        integrator: Makes one answer of the experts'; by default by its rules, without a model.
        domains: The description of each domain, for a model that reads.
    """

    integrator: ResponseIntegrator = field(default_factory=ResponseIntegrator)
    domains: Mapping[str, str] = field(default_factory=dict)

    def respond(
        self,
        teachers: Mapping[str, LanguageModel],
        examples: Sequence[Example],
        sampling: Sampling,
        ask: Ask,
    ) -> list[Task]:
        """Asks each expert of an example its own question, as the targets of a training are
        made.
        """
        # In use there is no reference, so none may settle a conflict here.
        unseen = [replace(example, parts=(), reference=None) for example in examples]
        return Experts(teachers, ask, sampling, self.integrator.screening).answer(unseen)

    def answer(
        self,
        teachers: Mapping[str, LanguageModel],
        examples: Sequence[Example],
        sampling: Sampling,
        ask: Ask,
    ) -> list[Generation]:
        """Answers each example: the experts first, then the integrator."""
        tasks = self.respond(teachers, examples, sampling, ask)
        return self.integrate(tasks, Experts(teachers, ask, sampling))

    def integrate(self, tasks: Sequence[Task], experts: Experts) -> list[Generation]:
        """Returns the ensemble's answer to each example; models are asked as the experts are."""
        found = self.integrator.integrate_all(tasks, domains=self.domains, ask=experts.ask)
        return [Generation(text=one.text, finish_reason=one.finish_reason) for one in found]


def grade_together(
    metric: MetricChoice,
    examples: Sequence[Example],
    answers: Sequence[Generation],
    tasks: Sequence[Task],
    experts: Mapping[str, Sequence[Graded]],
    ask: Ask,
) -> list[Graded]:
    """Grades the ensemble's answers.

    Args:
        metric: Grades an answer.
        examples: The examples with their references.
        answers: The ensemble's answer to each.
        tasks: What the experts of each said.
        experts: How each expert did by itself, for metrics that need the model and read no text.
        ask: How a judge is called.
    """
    places = [
        place
        for place, example in enumerate(examples)
        if _is_gradable(metric, example, tasks[place])
    ]
    asked, texts = [examples[place] for place in places], [answers[place].text for place in places]
    scores = dict(zip(places, grade_texts(metric, asked, texts, ask=ask), strict=True))
    return [
        Graded(answers[place], scores[place])
        if place in scores
        else _without_text(example, place, experts)
        for place, example in enumerate(examples)
    ]


def routed(
    metric: MetricChoice,
    examples: Sequence[Example],
    tasks: Sequence[Task],
    experts: Mapping[str, Sequence[Graded]],
    ask: Ask,
) -> list[Graded]:
    """Grades the most that the experts' answers hold: each part on the answer of its own expert.

    Args:
        metric: Grades an answer.
        examples: The examples with their references.
        tasks: What the experts of each said, to their own questions.
        experts: How each expert did by itself, for metrics that need the model and read no text.
        ask: How a judge is called.
    """
    pieces: list[tuple[int, Example, str]] = []
    found: dict[int, Graded] = {}
    for place, (example, task) in enumerate(zip(examples, tasks, strict=True)):
        if not _is_gradable(metric, example, task):
            found[place] = _without_text(example, place, experts)
            continue
        if len(example.domains) == 1:
            pieces.append((place, example, task.responses[example.domains[0]].text))
            continue
        for part in example.parts:
            response = task.responses.get(part.domain)
            own = replace(
                example, query=example.question_for(part.domain), parts=(part,), reference=None
            )
            # A part of a domain that the example does not need has no expert that was asked.
            pieces.append((place, own, response.text if response else ""))
    asked, texts = [example for _, example, _ in pieces], [text for _, _, text in pieces]
    scores: dict[int, list[Score]] = {}
    for (place, _, _), score in zip(
        pieces, grade_texts(metric, asked, texts, ask=ask), strict=True
    ):
        scores.setdefault(place, []).append(score)
    nothing = Generation(text="")
    return [
        found.get(place) or Graded(nothing, _together(scores.get(place, [])))
        for place in range(len(examples))
    ]


def _is_gradable(metric: MetricChoice, example: Example, task: Task) -> bool:
    failed = any(response.finish_reason == "failed" for response in task.responses.values())
    return not failed and reads_texts(metric, example)


def _without_text(example: Example, place: int, experts: Mapping[str, Sequence[Graded]]) -> Graded:
    """Returns what is known where no text of the experts can be graded: how the one expert did, if
    one is enough.
    """
    if len(example.domains) == 1:
        return experts[example.domains[0]][place]
    reason = "the experts' answers can't be put together: one failed, or the metric reads no texts"
    return Graded(Generation(text=""), Score.unscored(reason))


def _together(scores: Sequence[Score]) -> Score:
    """Returns the grade of an answer from those of its parts."""
    if not scores:
        return Score.unscored("the example has no parts to route")
    missing = next((score for score in scores if score.value is None), None)
    if missing is not None or len(scores) == 1:
        return missing or scores[0]
    parts = tuple(float(Graded(Generation(text=""), score).correct or 0) for score in scores)
    return Score(sum(score.value or 0.0 for score in scores) / len(scores), parts=parts)
