"""How the steps of an integration call a model: for all tasks at once, and only where the prompt
fits into its context.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from domainfusion.models.base import LanguageModel, SchemaModel, TokenScorer
from domainfusion.models.store import Ask
from domainfusion.types import Conversation, Generation, Sampling

logger = logging.getLogger("domainfusion")

LONGEST_PROMPT = 400_000
"""Characters of a prompt, about 100,000 tokens of English: few models read more, and few of these
tell how much.
"""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Caller:
    """A model, and how a step of an integration calls it.

    Attributes:
        model: The model.
        ask: How it is called.
    """

    model: LanguageModel
    ask: Ask

    def call(
        self,
        conversations: Mapping[Key, Conversation],
        sampling: Sampling,
        label: str,
        schema: Mapping[str, Any] | None = None,
    ) -> dict[Key, Generation]:
        """Returns the model's replies; a conversation that does not fit into its context has none.

        Args:
            conversations: What it is asked, each under a key.
            sampling: How it writes.
            label: Names the work where its progress is shown.
            schema: The JSON schema that a model which can be held to one is held to.
        """
        fitting = {
            key: conversation
            for key, conversation in conversations.items()
            if self._fits(conversation, sampling)
        }
        if len(fitting) < len(conversations):
            logger.warning(
                "%s: %d of %d prompts do not fit into the context of %s.",
                label,
                len(conversations) - len(fitting),
                len(conversations),
                self.model.name,
            )
        if not fitting:
            return {}
        model = (
            self.model.with_json_schema(schema)
            if schema is not None and isinstance(self.model, SchemaModel)
            else self.model
        )
        replies = self.ask(model, list(fitting.values()), sampling, label=label)
        return dict(zip(fitting, replies, strict=True))

    def _fits(self, conversation: Conversation, sampling: Sampling) -> bool:
        """Whether prompt and reply fit into the model's context."""
        if sum(len(message.content) for message in conversation) > LONGEST_PROMPT:
            return False
        if not isinstance(self.model, TokenScorer) or self.model.context_length is None:
            return True
        return (
            len(self.model.encode(conversation)) + sampling.max_new_tokens
            <= self.model.context_length
        )


def is_answer(reply: Generation | None) -> bool:
    """Whether there is a reply with something in it."""
    return (
        reply is not None and bool(reply.text.strip()) and reply.finish_reason in ("stop", "length")
    )
