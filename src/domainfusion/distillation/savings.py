"""What one student saves against running its experts together: weights, memory and time, measured on the same questions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from domainfusion.models.base import LanguageModel, LocalWeights
from domainfusion.types import Conversation, Example, Sampling

MOST_QUESTIONS = 16
"""Questions that the speed is measured on: enough to see a factor, few enough to cost seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What it takes to answer a set of questions.

    Attributes:
        parameters: Weights; those that several models share count once.
        weight_bytes: The memory that they take.
        calls: Questions that models were asked: an ensemble asks every expert of a question's domains.
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
        experts: What its experts take together, one after the other: each is asked the questions of its domain. The step that would
            integrate their answers is not in it.
    """

    questions: int
    student: Footprint
    experts: Footprint


def measure_savings(
    student: LanguageModel, teachers: Mapping[str, LanguageModel], examples: Sequence[Example], sampling: Sampling
) -> Savings | None:
    """Asks the student and its experts the same questions and times them; nothing of it is stored.

    Args:
        student: The trained student.
        teachers: The expert of each domain.
        examples: The test examples, of which up to `MOST_QUESTIONS` are asked.
        sampling: How the models answer.

    Returns:
        The comparison; None where not all of the models have their weights on this machine, or there are no examples.
    """
    if not examples or not all(isinstance(model, LocalWeights) for model in (student, *teachers.values())):
        return None
    picked = examples[:: -(-len(examples) // MOST_QUESTIONS)]
    asked = {domain: [example for example in picked if domain in example.domains] for domain in teachers}
    alone = _footprint([(student, [example.conversation for example in picked])], sampling)
    together = [(teachers[domain], [example.conversation_for(domain) for example in own]) for domain, own in asked.items()]
    return Savings(questions=len(picked), student=alone, experts=_footprint(together, sampling))


def _footprint(work: Sequence[tuple[LanguageModel, Sequence[Conversation]]], sampling: Sampling) -> Footprint:
    sizes: dict[int, tuple[int, int]] = {}
    seconds, tokens = 0.0, 0
    for model, conversations in work:
        if isinstance(model, LocalWeights):
            sizes |= {id(tensor): (tensor.numel(), tensor.nbytes) for tensor in model.weights()}
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
