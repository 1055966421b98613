"""The experts and the integrator answering together: what the student replaces, what it costs, and
how its answers are graded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from domainfusion.distillation.integration import Experts, ResponseIntegrator, Task
from domainfusion.distillation.metrics import Graded, MetricChoice
from domainfusion.distillation.metrics.grading import grade_texts, reads_texts
from domainfusion.distillation.results import AnswerCost
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask
from domainfusion.types import Conversation, Example, Generation, Sampling, Score


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
        """Returns the counts."""
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
    """Returns the grade where no text of the experts can be graded: how the one expert did, if
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
