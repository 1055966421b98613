"""Dialogues as other tools write them, read as a query with the turns before it and, where it is there, the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from domainfusion.errors import DataError
from domainfusion.types import Conversation, Message

_ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}


class Dialogue(NamedTuple):
    """A dialogue that ends with a question, or with its answer.

    Attributes:
        query: The last thing that the user said.
        history: The turns before.
        reference: What the assistant answered; None where the dialogue ends with the question.
        system: The system message; None where there is none.
    """

    query: str
    history: Conversation
    reference: str | None
    system: str | None


def read_dialogue(turns: object, place: str) -> Dialogue:
    """Reads a list of turns: `{"role": ..., "content": ...}`, or `{"from": ..., "value": ...}` as in ShareGPT.

    Args:
        turns: The turns.
        place: Where they stand, for errors.

    Raises:
        DataError: A turn can't be read, or the turns do not alternate from the user's to the assistant's.
    """
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise DataError(f"{place} has no turns", received=turns, allowed='[{"role": "user", "content": "..."}]')
    messages = [_message(turn, place) for turn in turns]
    system = messages.pop(0).content if messages[0].role == "system" else None
    reference = messages.pop().content if messages and messages[-1].role == "assistant" else None
    roles = [message.role for message in messages]
    if not messages or roles != [*["user", "assistant"] * (len(roles) // 2), "user"]:
        received = [*roles, *(["assistant"] if reference is not None else [])]
        raise DataError(f"{place}: the turns do not alternate", received=received, allowed="user, assistant, user, assistant …")
    return Dialogue(messages[-1].content, tuple(messages[:-1]), reference, system)


def _message(turn: object, place: str) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(f"{place} has a turn that is no object", received=turn, allowed='{"role": "user", "content": "..."}')
    name = turn.get("role", turn.get("from"))
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise DataError(f"{place} has a turn of an unknown role", received=name, allowed=", ".join(_ROLES))
    content = _text_of(turn.get("content", turn.get("value")))
    if content is None or not content.strip():
        raise DataError(f"{place} has a turn without text", received=turn, fix="leave the turn out, or the entry")
    return Message(role, content)


def _text_of(content: Any) -> str | None:
    """Returns a text, also where it comes in parts of the type `text`; None where it is anything else."""
    if isinstance(content, list | tuple):
        parts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        return "\n".join(texts) if len(texts) == len(parts) else None
    return content if isinstance(content, str) else None
