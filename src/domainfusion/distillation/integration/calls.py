"""How experts and the steps of an integration call models: for all tasks at once, and only where the
prompt fits into the context.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from domainfusion.distillation.integration.reading import Task
from domainfusion.distillation.text.structures import structures_in
from domainfusion.models.base import LanguageModel, SchemaModel, TokenScorer
from domainfusion.models.reasoning import split_reasoning
from domainfusion.models.store import Ask
from domainfusion.types import Conversation, Example, Generation, Response, Sampling

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


LONGEST_REPLY = 100_000
"""Characters of a reply that are read."""


def structure_in(reply: str) -> Any:
    r"""Returns the data of the first JSON object or list in a reply; None where there is none that
    can be read.

    Example:
        >>> structure_in('Sure!\n```json\n{"claims": [{"quote": "It is red."}]}\n```')
        {'claims': [{'quote': 'It is red.'}]}
        >>> structure_in("{'claims': [{'quote': 'It is r"), structure_in("[" * 100_000), structure_in("It is red.")
        ({'claims': [{'quote': 'It is r'}]}, None, None)
    """
    return next(structures_in(split_reasoning(reply[:LONGEST_REPLY]).answer), None)


def entries_of(structure: Any, name: str) -> list[dict[str, Any]]:
    """Returns the objects that a structure lists under a name; a list without a name is taken for
    them.

    Example:
        >>> entries_of({"claims": [{"quote": "a"}, "b"]}, "claims"), entries_of([{"quote": "a"}], "claims"), entries_of(1, "claims")
        ([{'quote': 'a'}], [{'quote': 'a'}], [])
    """
    listed = structure.get(name) if isinstance(structure, dict) else structure
    return (
        [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    )


def text_of(entry: dict[str, Any], name: str) -> str:
    """Returns the text that an object has under a name; a number as text, and anything else as an
    empty text.

    JSON can spell half a character (a lone surrogate), which no file can hold: it is replaced.
    """
    value = entry.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return ""
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").strip()


@dataclass(frozen=True)
class Experts:
    """The teachers of a distillation, as those who answer.

    Attributes:
        teachers: The expert of each domain.
        ask: How a model is called.
        sampling: How the experts answer.
    """

    teachers: Mapping[str, LanguageModel]
    ask: Ask
    sampling: Sampling

    def answer(self, examples: Sequence[Example]) -> list[Task]:
        """Asks the expert of each of an example's domains: its sub-question if there is one, else
        the whole query.
        """
        collected: list[dict[str, Response]] = [{} for _ in examples]
        for domain, teacher in self.teachers.items():
            asked = [
                (example, responses)
                for example, responses in zip(examples, collected, strict=True)
                if domain in example.domains
            ]
            conversations = [example.conversation_for(domain) for example, _ in asked]
            answers = self.ask(teacher, conversations, self.sampling, label=f"asking {domain}")
            for (example, responses), answer in zip(asked, answers, strict=True):
                responses[domain] = Response(
                    domain=domain,
                    example_id=example.id,
                    question=example.question_for(domain),
                    teacher=teacher.fingerprint,
                    sampling=self.sampling,
                    **asdict(answer),
                )
        return [
            Task(example, responses) for example, responses in zip(examples, collected, strict=True)
        ]
