"""Entries as other tools write them: dialogues, Alpaca, and tables whose columns have other
names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from domainfusion.errors import DataError
from domainfusion.models.reasoning import read_content, split_reasoning
from domainfusion.types import Conversation, Message

_ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",  # OpenAssistant
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    **dict.fromkeys(
        ("chatgpt", "gpt4", "bing", "bard", "claude", "chatbot", "bot", "ai"), "assistant"
    ),
}
_TOOL_ROLES = frozenset(
    {"tool", "function", "function_call", "function_response", "observation", "ipython"}
)

_UNREADABLE: Mapping[str, str] = {
    **dict.fromkeys(
        ("image", "images", "videos", "video", "audio", "audios"), "images, videos and sounds"
    ),
    **dict.fromkeys(("tools", "tool_calls", "functions"), "tools"),
}
"""Columns of what no model here is asked with: an example without them would be another
question.
"""

_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "query": ("question", "prompt", "instruction", "input", "problem", "user", "text", "q"),
    "reference": (
        "answer",
        "output",
        "response",
        "completion",
        "solution",
        "target",
        "chosen",
        "assistant",
        "gold",
        "a",
    ),
    "answers": (
        "gold_answers",
        "accepted",
        "accepted_answers",
        "answer_aliases",
        "aliases",
        "labels",
    ),
    "domain": ("category", "subject", "topic", "field"),
}
"""What other tools call the fields of an example, the likeliest name first."""


# Dialogues


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
    """Reads a list of turns: `{"role": ..., "content": ...}`, or `{"from": ..., "value": ...}` as
    in ShareGPT.

    Reasoning in an assistant's turn is left out.

    Args:
        turns: The turns.
        place: Where they stand, for errors.

    Raises:
        DataError: A turn can't be read, or the turns do not alternate from the user's to the
            assistant's.
    """
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise DataError(
            f"{place} has no turns", received=turns, allowed='[{"role": "user", "content": "..."}]'
        )
    messages = [_message(turn, place) for turn in turns]
    system = messages.pop(0).content if messages[0].role == "system" else None
    reference = messages.pop().content if messages and messages[-1].role == "assistant" else None
    roles = [message.role for message in messages]
    if not messages or roles != [*["user", "assistant"] * (len(roles) // 2), "user"]:
        received = [*roles, *(["assistant"] if reference is not None else [])]
        raise DataError(
            f"{place}: the turns do not alternate",
            received=received,
            allowed="user, assistant, user, assistant …",
        )
    return Dialogue(messages[-1].content, tuple(messages[:-1]), reference, system)


def _message(turn: object, place: str) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(
            f"{place} has a turn that is not an object",
            received=turn,
            allowed='{"role": "user", "content": "..."}',
        )
    name = turn.get("role", turn.get("from"))
    if isinstance(name, str) and name.lower() in _TOOL_ROLES:
        raise _no_text_alone(place, "tools", name)
    role = _ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise DataError(
            f"{place} has a turn of an unknown role", received=name, allowed=", ".join(_ROLES)
        )
    if turn.get("tool_calls") or turn.get("function_call"):
        raise _no_text_alone(place, "tools", turn)
    content = turn.get("content", turn.get("value"))
    read = read_content("" if content is None else content)
    if read.others:
        raise _no_text_alone(place, f"parts of the type {read.others[0]!r}", content)
    text = "\n".join(read.texts)
    if role == "assistant":
        text = without_reasoning(text, place)
    if not text.strip():
        raise DataError(
            f"{place} has a turn without text",
            received=turn,
            fix="leave the turn out, or the entry",
        )
    return Message(role, text)


def _no_text_alone(place: str, what: str, received: object) -> DataError:
    return DataError(
        f"{place} has {what}, and models are asked here with text alone",
        received=received,
        fix="leave the entry out, or remove them where the question does not need them",
    )


def without_reasoning(text: str, place: str) -> str:
    """Returns an answer without the reasoning that stands before it, which is nothing to be
    learned.

    Raises:
        DataError: It is reasoning alone, without an end.
    """
    split = split_reasoning(text)
    if split.is_cut:
        raise DataError(
            f"{place} has an answer that is reasoning alone",
            received=text,
            fix="add the answer, or leave the entry out",
        )
    return split.answer if split.reasoning else text


# Alpaca


def read_alpaca(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    r"""Reads `instruction`, `input`, `output`, `system` and `history`; None where it is not such an
    entry.

    What else is there is kept in the metadata.

    Example:
        >>> read_alpaca({"instruction": "Name the symbol.", "input": "iron", "output": "Fe"})
        {'query': 'Name the symbol.\n\niron', 'reference': 'Fe'}
    """
    if "query" in entry or not {"instruction", "output"} <= entry.keys():
        return None
    found: dict[str, Any] = {
        "query": with_input(entry["instruction"], entry.get("input")),
        "reference": entry["output"],
    }
    pairs = entry.get("history")
    if isinstance(pairs, list) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
    ):  # LLaMA-Factory
        found["history"] = [turn for asked, answered in pairs for turn in _turns(asked, answered)]
    elif pairs:
        found["history"] = pairs
    used = {"instruction", "input", "output", "history"}
    return {name: value for name, value in entry.items() if name not in used} | found


def _turns(asked: object, answered: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def with_input(instruction: Any, given: Any) -> Any:
    """Returns an instruction with what it is about, as Alpaca has them apart."""
    if isinstance(instruction, str) and isinstance(given, str) and given.strip():
        return f"{instruction}\n\n{given}"
    return instruction


# Columns


def is_unreadable(name: str) -> bool:
    """Whether a column holds what no model here is asked with, such as images."""
    return name in _UNREADABLE


def refuse_unreadable(entry: Mapping[str, Any], place: str) -> None:
    """Raises a `DataError` where an entry has images or tools: without them, it would be another
    question.
    """
    for name, what in _UNREADABLE.items():
        value = entry.get(name)
        if value is not None and value not in ("", "[]", "{}", "null", [], {}):
            raise _no_text_alone(place, f"{what} in {name!r}", value)


def proposed_fields(columns: Collection[str], own: Collection[str]) -> str:
    """Returns the `fields` that columns of other names most likely need, as it has to be written.

    Args:
        columns: The columns that there are.
        own: The fields of an example.

    Example:
        >>> proposed_fields(["question", "answer", "difficulty"], ["query", "reference"])
        "fields={'query': 'question', 'reference': 'answer'}"
    """
    free = [name for name in columns if name not in own]
    found: dict[str, str] = {}
    for name, synonyms in _SYNONYMS.items():
        has_it = name in columns or (
            name == "query" and ({"messages", "conversations"} & set(columns))
        )
        other = next(
            (column for synonym in synonyms for column in free if column.lower() == synonym), None
        )
        if other is not None and not has_it and other not in found.values():
            found[name] = other
    return f"fields={found!r}"
