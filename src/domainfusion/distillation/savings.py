"""What one student saves against running its experts together: weights, memory and time, measured
on the same questions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from domainfusion.models.base import LanguageModel, LocalWeights
from domainfusion.models.store import Ask
from domainfusion.types import Conversation, Example, Generation, Sampling

MOST_QUESTIONS = 16
"""Questions that the speed is measured on: enough to see a factor, few enough to cost seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What it takes to answer a set of questions.

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


Answering = Callable[[Mapping[str, LanguageModel], Sequence[Example], Sampling, Ask], object]
"""How experts and integrator answer questions together; models are called through the last
argument.
"""


def measure_savings(
    student: LanguageModel,
    teachers: Mapping[str, LanguageModel],
    examples: Sequence[Example],
    sampling: Sampling,
    ensemble: Answering | None = None,
) -> Savings | None:
    """Asks the student and its experts the same questions and times them; nothing of it is stored.

    Args:
        student: The trained student.
        teachers: The expert of each domain.
        examples: The test examples, of which up to `MOST_QUESTIONS` are asked.
        sampling: How the models answer.
        ensemble: How the experts answer together, integrator included; None leaves the integration
            out.

    Returns:
        The comparison; None where not all of the models have their weights on this machine, or
        there are no examples.
    """
    if not examples or not all(
        isinstance(model, LocalWeights) for model in (student, *teachers.values())
    ):
        return None
    picked = examples[:: -(-len(examples) // MOST_QUESTIONS)]
    asked = {
        domain: [example for example in picked if domain in example.domains] for domain in teachers
    }
    alone = _footprint([(student, [example.conversation for example in picked])], sampling)
    together = [
        (teachers[domain], [example.conversation_for(domain) for example in own])
        for domain, own in asked.items()
    ]
    whole = None if ensemble is None else _ensemble_footprint(ensemble, teachers, picked, sampling)
    experts = _footprint(together, sampling)
    return Savings(
        questions=len(picked),
        student=alone,
        experts=whole or experts,
        integrated=whole is not None,
        adapters=None if whole is None else experts,
    )


def _ensemble_footprint(
    ensemble: Answering,
    teachers: Mapping[str, LanguageModel],
    examples: Sequence[Example],
    sampling: Sampling,
) -> Footprint | None:
    """Times experts and integrator; None where a model of the integrator has its weights
    elsewhere.
    """
    for teacher in teachers.values():
        teacher.generate([examples[0].conversation], replace(sampling, max_new_tokens=1))
    timed = _Timed(dict.fromkeys(teachers.values()))
    started = time.perf_counter()
    try:
        ensemble(teachers, examples, sampling, timed)
    except _ElsewhereError:
        return None
    seconds = time.perf_counter() - started
    sizes = _sizes(timed.models)
    return Footprint(
        parameters=sum(count for count, _ in sizes.values()),
        weight_bytes=sum(size for _, size in sizes.values()),
        calls=timed.calls,
        completion_tokens=timed.completion_tokens,
        seconds=round(seconds, 3),
    )


class _ElsewhereError(Exception):
    """A model would be asked that may cost money: timing goes past the store of answers."""


class _Timed:
    """An `Ask` past every store that counts, remembers which models were asked, and asks none that
    runs elsewhere.
    """

    def __init__(self, models: dict[LanguageModel, None]) -> None:
        self.models = models
        self.calls = self.completion_tokens = 0

    def __call__(
        self,
        model: LanguageModel,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        *,
        label: str = "",
    ) -> list[Generation]:
        """See `Ask`."""
        if not isinstance(model, LocalWeights):
            raise _ElsewhereError
        self.models[model] = None
        answers = model.generate(conversations, sampling) if conversations else []
        self.calls += len(answers)
        self.completion_tokens += sum(answer.completion_tokens for answer in answers)
        return answers


def _sizes(models: Iterable[LanguageModel]) -> dict[int, tuple[int, int]]:
    """Returns the number and the bytes of each tensor once, however many models share it."""
    local = [model for model in models if isinstance(model, LocalWeights)]
    return {
        id(tensor): (tensor.numel(), tensor.nbytes) for model in local for tensor in model.weights()
    }


def _footprint(
    work: Sequence[tuple[LanguageModel, Sequence[Conversation]]], sampling: Sampling
) -> Footprint:
    sizes = _sizes(model for model, _ in work)
    seconds, tokens = 0.0, 0
    for model, conversations in work:
        if not conversations:
            continue
        model.generate(conversations[:1], replace(sampling, max_new_tokens=1))
        started = time.perf_counter()
        answers = model.generate(conversations, sampling)
        seconds += time.perf_counter() - started
        tokens += sum(answer.completion_tokens for answer in answers)
    return Footprint(
        parameters=sum(count for count, _ in sizes.values()),
        weight_bytes=sum(size for _, size in sizes.values()),
        calls=sum(len(conversations) for _, conversations in work),
        completion_tokens=tokens,
        seconds=round(seconds, 3),
    )
