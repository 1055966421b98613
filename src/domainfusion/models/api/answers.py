"""Reads what a server sent: an answer with its reasoning apart and its tokens counted, or a clear failure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from domainfusion.models.api.costs import TokenCount
from domainfusion.types import FinishReason, Generation

_FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "filtered",
}
_MOST_TOKENS = 10**9
"""A count above it is no count."""
_THINK, _THOUGHT = "<think>", "</think>"


class UnreadableAnswer(Exception):
    """A body is no chat completion with an answer in it.

    Args:
        what: What is wrong with it.
        seen: The part of it that is.
    """

    def __init__(self, what: str, seen: str) -> None:
        super().__init__(what)
        self.what = what
        self.seen = seen


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came.

    Attributes:
        generation: The answer.
        tokens: How many tokens the server counted; None where it did not.
    """

    generation: Generation
    tokens: TokenCount | None


def read_reply(body: str, *, include_reasoning: bool = False) -> Reply:
    """Reads the body of a chat completion.

    Args:
        body: JSON text.
        include_reasoning: Keep the reasoning in the text, between `<think>` and `</think>`, as well.

    Raises:
        UnreadableAnswer: The body is no chat completion with an answer in it.
    """
    payload = _parse(body)
    choice = _first_choice(payload)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise _unreadable("the answer has no message", choice)
    finish_reason = _finish_reason(choice, message)
    reasoning, text = _texts(message, finish_reason, choice)
    if include_reasoning and reasoning:
        text = f"{_THINK}\n{reasoning}\n{_THOUGHT}\n\n{text}"
    tokens = _count(payload.get("usage"))
    generation = Generation(
        text=text,
        finish_reason=finish_reason,
        prompt_tokens=tokens.prompt if tokens else 0,
        completion_tokens=tokens.completion if tokens else 0,
        reasoning=reasoning,
    )
    return Reply(generation, tokens)


def split_reasoning(text: str) -> tuple[str, str]:
    """Splits a text that begins with reasoning into the reasoning and the answer.

    Some chat templates write the opening tag into the prompt, so that the closing one stands alone. Without a closing tag the model
    was cut while it thought.

    Example:
        >>> split_reasoning("<think>2 and 2</think>4"), split_reasoning("2 and 2</think>4"), split_reasoning("4")
        (('2 and 2', '4'), ('2 and 2', '4'), ('', '4'))
    """
    text = text.strip()
    opened = text.startswith(_THINK)
    reasoning, closed, answer = text.removeprefix(_THINK).partition(_THOUGHT)
    if not opened and not closed:
        return "", text
    return reasoning.strip(), answer.strip()


def whole_characters(text: str) -> str:
    """Returns `text` with half characters (lone surrogates), which no file can hold, replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _parse(body: str) -> dict[str, Any]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"the answer is not JSON ({error})", body) from None
    if not isinstance(payload, dict):
        raise _unreadable("the answer is no JSON object", body)
    return payload


def _first_choice(payload: dict[str, Any]) -> dict[str, Any]:
    choices = payload.get("choices")
    if not choices and payload.get("error"):
        raise _unreadable("the server answered with an error", payload["error"])
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _unreadable("the answer has no choices", payload)
    return choices[0]


def _finish_reason(choice: dict[str, Any], message: dict[str, Any]) -> FinishReason:
    given = choice.get("finish_reason")
    if given == "content_filter":
        return "filtered"
    if message.get("refusal"):
        return "refused"
    if not isinstance(given, str) or given not in _FINISH_REASONS:
        raise _unreadable("the answer ended for a reason that is not known", given)
    return _FINISH_REASONS[given]


def _texts(message: dict[str, Any], finish_reason: FinishReason, choice: dict[str, Any]) -> tuple[str, str]:
    """Returns the reasoning and the answer."""
    content = _plain(message.get("content"))
    apart = _plain(message.get("reasoning_content")) or _plain(message.get("reasoning")) or ""
    if finish_reason == "refused":
        content = _plain(message.get("refusal")) or content
    if content is None:
        # A model that is cut while it thinks, or a filter, leaves no answer; elsewhere an answer without a text is a fault.
        if finish_reason == "stop":
            raise _unreadable("the answer has no text", choice)
        content = ""
    within, answer = split_reasoning(whole_characters(content))
    return (whole_characters(apart).strip() or within), answer


def _plain(content: object) -> str | None:
    """Returns the text of a content, which some servers send in parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str)) if parts else None
    return content if isinstance(content, str) else None


def _count(usage: object) -> TokenCount | None:
    if not isinstance(usage, dict):
        return None
    prompt, completion = _number(usage, "prompt_tokens"), _number(usage, "completion_tokens")
    if prompt is None or completion is None:
        return None
    return TokenCount(
        prompt=prompt,
        completion=completion,
        cached=min(prompt, _number(usage.get("prompt_tokens_details"), "cached_tokens") or 0),
        reasoning=_number(usage.get("completion_tokens_details"), "reasoning_tokens") or 0,
    )


def _number(fields: object, name: str) -> int | None:
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else None


def _unreadable(what: str, seen: object) -> UnreadableAnswer:
    return UnreadableAnswer(what, seen if isinstance(seen, str) else json.dumps(seen, ensure_ascii=False))


def brief(text: str, limit: int = 300) -> str:
    """Returns the beginning of a text, on one line."""
    line = " ".join(whole_characters(text[: 4 * limit]).split())
    return line if len(line) <= limit else f"{line[:limit]}…"
