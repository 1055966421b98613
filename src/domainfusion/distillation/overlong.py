"""Questions that are longer than a model that is to read them can take: they are found before
anything is asked, not by the model that fails at them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from domainfusion.distillation.dataset import GeneratedBatch, Removed
from domainfusion.errors import DataError
from domainfusion.models.base import LanguageModel, TokenScorer
from domainfusion.types import Conversation, Example, user

logger = logging.getLogger("domainfusion")

_SHOWN = 3
"""Questions that an error names."""


class QuestionReader:
    """A model that is to answer questions.

    Args:
        model: The model; one that tells no context length takes everything.
        whose: What messages call it.
        new_tokens: The tokens that its answer may have.
    """

    def __init__(self, model: LanguageModel, whose: str, new_tokens: int) -> None:
        self.whose = whose
        scorer = model if isinstance(model, TokenScorer) else None
        limit = None if scorer is None else scorer.context_length
        self._room = None if limit is None else limit - new_tokens
        self._scorer = scorer
        self._turn = 0 if scorer is None or limit is None else len(scorer.encode(user("")))

    def excess(self, conversation: Conversation) -> int:
        """Returns by how many tokens a conversation is too long; 0 where it fits."""
        if self._scorer is None or self._room is None:
            return 0
        # No token stands for less than a byte, and the template writes no more around any turn than
        # around the first. So most questions need not be encoded.
        size = sum(len(turn.content.encode(errors="replace")) for turn in conversation)
        if size + self._turn * (len(conversation) + 1) <= self._room:
            return 0
        return max(0, len(self._scorer.encode(conversation)) - self._room)


class Lengths:
    """Compares questions with the contexts of those that are to read them.

    Args:
        experts: The expert of each domain, which reads its own question of an example.
        student: The student, which reads the whole of each.
        expert_tokens: The tokens that an expert's answer may have.
        student_tokens: The tokens that the student's answer may have, where it is measured.
        leaves_out: Leave out what is too long, in place of refusing it.
    """

    def __init__(
        self,
        experts: Mapping[str, LanguageModel],
        student: LanguageModel,
        *,
        expert_tokens: int,
        student_tokens: int,
        leaves_out: bool,
    ) -> None:
        self._experts = {
            domain: QuestionReader(expert, f"the expert of {domain}", expert_tokens)
            for domain, expert in experts.items()
        }
        # Of a training question the student learns a target, of which one token is the least.
        self._learns = QuestionReader(student, "the student", 1)
        self._answers = QuestionReader(student, "the student", student_tokens)
        self._leaves_out = leaves_out

    def check_batch(self, batch: GeneratedBatch) -> None:
        """Refuses, or leaves out with the reason, what a generator made that is too long.

        Raises:
            DataError: It is refused; the message names the first examples.
        """
        examples = batch.generated.examples
        reasons = self._reasons(examples, self._learns)
        self._refuse(examples, reasons, "training")
        batch.removed += [
            Removed(example.query, reasons[example.id])
            for example in examples
            if example.id in reasons
        ]
        kept = tuple(example for example in examples if example.id not in reasons)
        batch.generated = replace(batch.generated, examples=kept)

    def fitting(self, examples: Sequence[Example] | None, what: str) -> Sequence[Example] | None:
        """Returns the examples to measure on without those that are too long, of which it warns.

        Args:
            examples: The examples; None stays None.
            what: What they are for.

        Raises:
            DataError: They are refused; the message names the first examples.
        """
        reasons = self._reasons(examples or (), self._answers)
        if examples is None or not reasons:
            return examples
        self._refuse(examples, reasons, what)
        named = next(example for example in examples if example.id in reasons)
        logger.warning(
            "%d of %d %s examples are left out: %r %s",
            len(reasons),
            len(examples),
            what,
            named.query[:60],
            reasons[named.id],
        )
        return [example for example in examples if example.id not in reasons]

    def _reasons(self, examples: Sequence[Example], student: QuestionReader) -> dict[str, str]:
        found: dict[str, str] = {}
        for example in examples:
            readers = [
                (self._experts[domain], example.conversation_for(domain))
                for domain in example.domains
                if domain in self._experts
            ]
            for reader, conversation in [*readers, (student, example.conversation)]:
                if excess := reader.excess(conversation):
                    found[example.id] = (
                        f"does not fit the context of {reader.whose}, by {excess:,} tokens"
                    )
                    break
        return found

    def _refuse(self, examples: Sequence[Example], reasons: Mapping[str, str], what: str) -> None:
        if not reasons or self._leaves_out:
            return
        named = [
            f"{example.query[:60]!r} {reasons[example.id]}"
            for example in examples
            if example.id in reasons
        ]
        shown = "; ".join(named[:_SHOWN])
        raise DataError(
            f"{len(named)} of {len(examples)} {what} examples are too long: {shown}",
            fix=(
                "shorten them, lower max_new_tokens, or set on_teacher_failure to continue, which"
                " leaves them out"
            ),
        )
