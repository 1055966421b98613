"""Reads what a server sent: an answer with its reasoning apart and its tokens counted, or a clear
failure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from domainfusion.models.costs import TokenCount
from domainfusion.models.reasoning import read_content, split_reasoning
from domainfusion.records import from_json, whole_characters
from domainfusion.types import FinishReason, Generation


def _any_of(words: str) -> re.Pattern[str]:
    """Returns a pattern of any of these words, each a pattern itself."""
    return re.compile(rf"\b(?:{words.replace(' ', '|')})\b", re.IGNORECASE)


CHECK_URL = "check that base_url is an OpenAI-compatible endpoint; most end in /v1"

_MOST_TOKENS = 10**9
"""A count above it is not a count."""
_THINK, _THOUGHT = "<think>", "</think>"

_LEAST_BYTES_PER_TOKEN = 2
"""An answer with fewer bytes than this a token can hardly have reached a limit of tokens."""

_REASONS: tuple[tuple[FinishReason | None, re.Pattern[str]], ...] = (
    (
        "filtered",
        _any_of(
            "filter filtered block(?:ed)? safety sensitive blocklist prohibited spii recitation"
            " guardrail moderation toxic"
        ),
    ),
    ("refused", _any_of("refusal refused")),
    (
        "length",
        _any_of("length max maximum limit context window truncated incomplete unfinished partial"),
    ),
    (
        None,
        _any_of(
            "tools? functions? calls? error abort(?:ed)? fail(?:ed)? cancell?ed user load unload"
            " network not"
        ),
    ),
    (
        "stop",
        _any_of(
            "stop stopped end ended eo[sdtm] endoftext completed? finished done normal success"
            " natural"
        ),
    ),
)
"""What the words of a finish reason mean, the first that fits; None for no answer that could be
used.

OpenAI, Azure, Anthropic, Gemini, Cohere, Mistral, Bedrock, watsonx, Zhipu, vLLM, SGLang, TGI,
llama.cpp, Ollama and LM Studio between them use several dozen.
"""
_UNSTATED = _any_of("null none unspecified")
"""Words of servers that do not say why an answer ended."""
_ENUMERATION = re.compile(r"finish_?reason[._]?", re.IGNORECASE)
"""The name of an enumeration, before one of its members: `FINISH_REASON_STOP`,
`FinishReason.STOP`.
"""
_INNER_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")
"""Where one word ends and the next begins in `maxPredictedTokensReached`."""
_CONTROL_TOKEN = re.compile(r"<[^<>]*>|\[/?[A-Z_]+\]")
"""`<|eot_id|>`, `</s>`, `[EOS]`: the token that ended the answer, in place of a reason."""

_REASONING_FIELDS = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "reasoning_text",
    "reasoning_details",
)


class UnreadableAnswer(Exception):
    """A body is not a chat completion with an answer in it.

    Args:
        what: What is wrong with it.
        seen: The part of it that is.
        tokens: What the server counted, where it says.
        answered: Whether it is a sound reply in which only the text is missing.
        fix: What to do about it.
    """

    def __init__(
        self,
        what: str,
        seen: str,
        *,
        tokens: TokenCount | None = None,
        answered: bool = False,
        fix: str = CHECK_URL,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.seen = seen
        self.tokens = tokens
        self.answered = answered
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came.

    Attributes:
        generation: The answer.
        tokens: How many tokens the server counted; None where it did not.
    """

    generation: Generation
    tokens: TokenCount | None


class _Texts(NamedTuple):
    """What a message holds."""

    answer: str
    reasoning: str
    refusal: str


# The body


def parse_body(body: str) -> dict[str, Any]:
    """Returns the chat completion in a body: JSON, or an event stream, whose pieces are joined.

    Some servers stream although they were told not to, and some send comments to keep the
    connection.

    Raises:
        UnreadableAnswer: It is neither, or the stream broke off before the answer ended.

    Example:
        >>> pieces = ['data: {"choices": [{"delta": {"content": "F"}}]}', 'data: [DONE]']
        >>> parse_body((2 * chr(10)).join(pieces))["choices"][0]["message"]["content"]
        [{'type': 'text', 'text': 'F'}]
    """
    try:
        payload = from_json(body)
    except ValueError as error:
        events = list(_events(body))
        if not events:
            raise _unreadable(f"the answer is not JSON ({error})", body) from None
        payload = _joined(events, body)
    if not isinstance(payload, dict | list):
        raise _unreadable("the answer is not a JSON object", body)
    return payload if isinstance(payload, dict) else {"error": payload}


def _events(body: str) -> Iterator[Any]:
    """Yields the data of a server-sent event stream (WHATWG HTML, section 9.2), decoded."""
    data: list[str] = []
    # Not splitlines(): it also splits at characters that may stand inside a JSON string.
    for line in [*re.split(r"\r\n|\n|\r", body), ""]:
        if line.startswith("data:"):
            data.append(line.removeprefix("data:"))
        elif line.startswith("{"):  # a whole completion, framed as the beginning of a stream
            data.append(line)
        elif not line.strip() and data:
            text, data = "\n".join(data).strip(), []
            try:
                yield text if text == "[DONE]" else from_json(text)
            except ValueError:
                return


def _joined(events: list[Any], body: str) -> Any:
    """Returns the completion that the pieces of a stream are together."""
    parts: list[Any] = []
    message: dict[str, Any] = {"content": parts}
    choice: dict[str, Any] = {"message": message}
    joined: dict[str, Any] = {"choices": [choice]}
    for event in events:
        if not isinstance(event, dict):
            continue
        if event.get("error"):
            return event
        joined["usage"] = event.get("usage") or joined.get("usage")
        for piece in _first(event.get("choices")):
            if isinstance(piece.get("message"), dict):
                return event
            choice["finish_reason"] = piece.get("finish_reason") or choice.get("finish_reason")
            delta = piece.get("delta")
            _add(
                delta if isinstance(delta, dict) else {"content": piece.get("text")}, parts, message
            )
    if not choice.get("finish_reason") and events[-1] != "[DONE]":
        raise _unreadable("the stream broke off before the answer ended", body[-300:])
    return joined


def _add(delta: dict[str, Any], parts: list[Any], message: dict[str, Any]) -> None:
    content = delta.get("content")
    if isinstance(content, str):
        parts.append({"type": "text", "text": content})
    elif isinstance(content, list):
        parts.extend(content)
    for name in (*_REASONING_FIELDS, "refusal"):
        if isinstance(delta.get(name), str):
            message[name] = message.get(name, "") + delta[name]


def _first(choices: object) -> list[dict[str, Any]]:
    return (
        [choices[0]]
        if isinstance(choices, list) and choices and isinstance(choices[0], dict)
        else []
    )


# The answer


def read_reply(
    payload: dict[str, Any],
    *,
    include_reasoning: bool = False,
    max_new_tokens: int | None = None,
    require_finish_reason: bool = False,
    accept_empty: bool = False,
) -> Reply:
    """Reads a chat completion.

    Args:
        payload: The decoded body.
        include_reasoning: Keep the reasoning in the text, between `<think>` and `</think>`, as
            well.
        max_new_tokens: The limit that the answer was asked for with. Where the server does not say
            why the answer ended, one that reached it was cut, and any other is whole.
        require_finish_reason: Take no answer of which the server does not say why it ended.
        accept_empty: Take an answer without text for what it is.

    Raises:
        UnreadableAnswer: It is not a chat completion with an answer in it.
    """
    choices = _first(payload.get("choices"))
    if not choices:
        raise _unreadable("the answer has no choices", payload)
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict):
        raise _unreadable("the answer has no message", choice)
    tokens = count_tokens(payload.get("usage"))
    texts = _texts(message)
    finish_reason = _stated_reason(choice.get("finish_reason"), tokens)
    if finish_reason is None and require_finish_reason:
        raise _unreadable(
            "the server does not say why the answer ended",
            choice,
            tokens=tokens,
            fix="say require_finish_reason=False",
        )
    if finish_reason is None:
        finish_reason = "length" if _reached(max_new_tokens, tokens, texts) else "stop"
    if texts.refusal and finish_reason != "filtered":
        finish_reason = "refused"
    split = split_reasoning(
        texts.refusal if texts.refusal and finish_reason == "refused" else texts.answer
    )
    reasoning, answer = texts.reasoning or split.reasoning, split.answer
    if split.is_cut and finish_reason == "stop":
        finish_reason = "length"
    # A model that is cut while it thinks, or a filter, leaves no answer; elsewhere that is a fault.
    if finish_reason == "stop" and not (accept_empty or _has_words(answer)):
        where = ": all of it is reasoning" if _has_words(reasoning) else ""
        fix = "raise max_new_tokens, or look at what the model says to this question"
        raise _unreadable(
            f"the answer has no text{where}", choice, tokens=tokens, answered=True, fix=fix
        )
    if include_reasoning and reasoning:
        answer = f"{_THINK}\n{reasoning}\n{_THOUGHT}\n\n{answer}"
    generation = Generation(
        text=answer,
        finish_reason=finish_reason,
        prompt_tokens=tokens.prompt if tokens else 0,
        completion_tokens=tokens.completion if tokens else 0,
        reasoning=reasoning,
    )
    return Reply(generation, tokens)


def _stated_reason(given: object, tokens: TokenCount | None) -> FinishReason | None:
    """Returns why an answer ended; None where the server does not say.

    Raises:
        UnreadableAnswer: It ended as no answer does that can be used, or in words that are not
            known.
    """
    if isinstance(given, dict):  # SGLang: {"type": "stop", "matched": 128009}
        given = given.get("type")
    if given is None:
        return None
    if not isinstance(given, str):
        raise _unreadable(
            "the answer ended for a reason that is not known", given, tokens=tokens, fix=""
        )
    spaced = _INNER_CAPITAL.sub(" ", _ENUMERATION.sub("", given)).replace("_", " ")
    if not given.strip() or _UNSTATED.fullmatch(spaced.strip()):
        return None
    for reason, words in _REASONS:
        if words.search(spaced):
            if reason is None:
                raise _unreadable(
                    "the answer was not finished; it ended for this reason",
                    given,
                    tokens=tokens,
                    fix="",
                )
            return reason
    if _CONTROL_TOKEN.fullmatch(given.strip()):
        return "stop"
    raise _unreadable(
        "the answer ended for a reason that is not known", given, tokens=tokens, fix=""
    )


def _reached(max_new_tokens: int | None, tokens: TokenCount | None, texts: _Texts) -> bool:
    """Whether an answer is as long as it was allowed to be; without a count, whether it may be."""
    if max_new_tokens is None:
        return False
    if tokens is not None and tokens.completion > 0:
        return tokens.completion >= max_new_tokens
    size = len(f"{texts.answer}{texts.reasoning}".encode())
    return size >= _LEAST_BYTES_PER_TOKEN * max_new_tokens


def _has_words(text: str) -> bool:
    """Whether anything in a text can be seen: not in white space, zero-width or control
    characters.
    """
    return any(character.isprintable() and not character.isspace() for character in text)


def _texts(message: dict[str, Any]) -> _Texts:
    """Returns what a message says, what it thought, and why it refuses."""
    content = message.get("content")
    if isinstance(content, dict):  # one part, or Gemini's {"parts": [...]}
        content = content.get("parts") or [content]
    read = read_content(content)
    thoughts = [
        read_content([{"type": "reasoning", "text": message.get(name)}]).reasoning
        for name in _REASONING_FIELDS
    ]
    parts = content if isinstance(content, list) else []
    refusals = [
        message.get("refusal"),
        *(part.get("refusal") for part in parts if isinstance(part, dict)),
    ]
    return _Texts(
        answer=whole_characters("".join(read.texts)),
        reasoning=whole_characters(
            next((thought for thought in thoughts if thought), read.reasoning)
        ).strip(),
        refusal=whole_characters(
            "".join(refusal for refusal in refusals if isinstance(refusal, str))
        ),
    )


# The count


def count_tokens(usage: object) -> TokenCount | None:
    """Returns what a server counted; None where it did not."""
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
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
        else None
    )


def _unreadable(what: str, seen: object, **details: Any) -> UnreadableAnswer:
    return UnreadableAnswer(
        what, seen if isinstance(seen, str) else json.dumps(seen, ensure_ascii=False), **details
    )


def brief(text: str, limit: int = 300) -> str:
    """Returns the beginning of a text, on one line."""
    line = " ".join(whole_characters(text[: 4 * limit]).split())
    return line if len(line) <= limit else f"{line[:limit]}…"
