"""What can go wrong with one request, and what that means for the next."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from domainfusion.models.costs import TokenCount
from domainfusion.records import from_json

Scope = Literal["attempt", "request", "endpoint"]
"""What a failure spoils: this attempt (the next may work), this request (no attempt will), or every
request to the endpoint."""

CONTEXT_FIX = (
    "raise the server's context window (Ollama: OLLAMA_CONTEXT_LENGTH=16384, or num_ctx in the "
    "Modelfile; llama.cpp: -c 16384; vLLM: --max-model-len 16384; LM Studio: Context Length), "
    "ask less in one question, or lower max_new_tokens"
)
"""How to make room for a prompt; the same wherever a server's context window is too small."""

_THROTTLED = 429
_NO_CREDIT = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
# A gateway gave up waiting: the model behind it may have written its answer anyway.
_MAYBE_CHARGED = {408, 504, 524}
_TRANSIENT = {408, 409, 425, _THROTTLED}
_OF_THE_REQUEST = {400, 413, 422, 451}
_NOT_IMPLEMENTED = 501
_UNKNOWN_STATUS = 500
_LONGEST = 4_000
"""Characters of an error that are read."""

_CONTEXT = re.compile(
    r"""context[ _-]?(?:length|window|size) | maximum[ ]context | too[ ]many[ ]tokens
      | (?:prompt|input)[^.]{0,40}\btoo[ ]long | max_model_len | string_above_max_length""",
    re.VERBOSE | re.IGNORECASE,
)
"""A prompt that does not fit, in the words of vLLM, llama.cpp, OpenAI, Anthropic, Mistral,
FastChat.
"""

_MODERATED = re.compile(
    r"""moderat | \bflagged\b | jailbreak | guardrail | responsible[ ]?ai | usage[ ]polic
      | content[ _-]?(?:filter|polic|management|risk|exists[ ]risk|violat)
      | (?:input|prompt|request|output|content).{0,60}(?:inappropriate|high[ ]risk|sensitive|unsafe)
      | safety[ _](?:system|filter|reason|check) | prohibited[ _]content | inspection_failed | 敏感""",
    re.VERBOSE | re.IGNORECASE,
)
"""A question held back: OpenAI, Azure, OpenRouter, Anthropic, Bedrock, Gemini, DeepSeek, DashScope,
Moonshot, Zhipu."""

_NOT_THE_QUESTION = re.compile(
    r"""account | api[ _-]?key | organi[sz]ation | subscription
      | unrecogni[sz]ed | unknown | unsupported | not[ ]permitted | field[ ]required | should[ ]be""",
    re.VERBOSE | re.IGNORECASE,
)
"""Where this stands beside words of moderation, the account or a field is meant, not the
question.
"""

_MEANINGS: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r"rate.?limit|too.?many.?requests|exhausted|throttl", re.IGNORECASE), _THROTTLED),
    (
        re.compile(r"insufficient.?(?:quota|credit|balance|funds)|billing|payment", re.IGNORECASE),
        402,
    ),
    (
        re.compile(
            r"(?:invalid|incorrect|missing).{0,20}key|unauthenticated|unauthori[sz]ed|authentication",
            re.IGNORECASE,
        ),
        401,
    ),
    (re.compile(r"permission|forbidden", re.IGNORECASE), 403),
    (
        re.compile(
            r"not.?found|does not exist|unexpected endpoint|(?:unknown|invalid)"
            r" (?:url|path|endpoint)",
            re.IGNORECASE,
        ),
        404,
    ),
    (
        re.compile(
            r"overload|unavailable|server.?error|internal|time.?out|capacity", re.IGNORECASE
        ),
        503,
    ),
    (
        re.compile(
            r"invalid|bad.?request|unprocessable|failed.?precondition|too long", re.IGNORECASE
        ),
        400,
    ),
)
"""The status that the words of an error stand for, where a body names none; the first that fits."""

_WAIT_IN_WORDS = re.compile(
    r"""(?:(?:try|retry)(?:[ ]again)?[ ](?:in|after) | "retryDelay":)   # OpenAI, Groq; Gemini
        [ ]* "? (?:(?P<hours>\d+)h)? (?:(?P<minutes>\d+)m(?!s))?
        (?:(?P<number>\d+(?:\.\d+)?)[ ]?(?P<unit>ms|s))?""",
    re.VERBOSE | re.IGNORECASE,
)


class AttemptFailed(Exception):
    """One request brought no answer.

    Args:
        reason: What happened, without the key.
        scope: What it spoils.
        status: The HTTP status; None where there was none.
        retry_after_seconds: How long the server asks to wait.
        lost: Whether the server may have written, and charged for, an answer that never arrived.
        fix: What to do about it.
        complaint: All that the server said, for who looks for the field that it refuses.
        tokens: What the server counted for an answer that can't be used.
        answered: Whether the server works and it is the answer that can't be used.
    """

    def __init__(
        self,
        reason: str,
        scope: Scope = "attempt",
        *,
        status: int | None = None,
        retry_after_seconds: float | None = None,
        lost: bool = False,
        fix: str = "",
        complaint: str = "",
        tokens: TokenCount | None = None,
        answered: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.scope = scope
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.lost = lost
        self.fix = fix
        self.complaint = complaint or reason
        self.tokens = tokens
        self.answered = answered

    @property
    def throttled(self) -> bool:
        """Whether the server is well and asks for fewer requests."""
        return self.status == _THROTTLED and self.scope == "attempt"


class CantScore(AttemptFailed):
    """The server gives no scores, or those of other tokens: none of its answers will do.

    Args:
        reason: What happened.
        fix: What to do about it.
    """

    def __init__(
        self,
        reason: str,
        fix: str = "scores=True needs a vLLM server (/tokenize, and /completions with"
        " prompt_logprobs), or SGLang's with Dialect(scoring='sglang'); without scores, use"
        " objective='sequence'",
    ) -> None:
        super().__init__(reason, "endpoint", fix=fix)


@dataclass(frozen=True, slots=True)
class ServerError:
    """An error as a server words it.

    Attributes:
        message: What it says.
        code: Its code or type; empty where there is none.
        field: The field of the request that it names; empty where it names none.
        status: The HTTP status that the body names; None where it names none.
        details: The whole body.
    """

    message: str
    code: str = ""
    field: str = ""
    status: int | None = None
    details: str = ""

    @property
    def everything(self) -> str:
        """All that is said, as one text."""
        return " ".join(
            part for part in (self.message, self.code, self.field, self.details) if part
        )

    @property
    def is_about_context(self) -> bool:
        """Whether the prompt does not fit into the context window."""
        return _CONTEXT.search(f"{self.code} {self.message}") is not None

    @property
    def is_moderation(self) -> bool:
        """Whether a content filter held back this question, while others would be answered."""
        said = f"{self.code} {self.message}"
        return _MODERATED.search(said) is not None and _NOT_THE_QUESTION.search(said) is None

    @property
    def meant_status(self) -> int:
        """The HTTP status that an error stands for which came with one of success."""
        if self.is_about_context:
            return 400
        if self.status is not None:
            return self.status
        for words in (self.code, self.message):
            for pattern, status in _MEANINGS:
                if pattern.search(words):
                    return status
        return _UNKNOWN_STATUS


def error_in(payload: object) -> ServerError | None:
    """Returns the error that a decoded body holds in place of an answer; None where it holds none.

    Example:
        >>> error_in({"error": {"message": "slow down", "code": 429}}).status
        429
        >>> error_in({"choices": [{"error": {"message": "overloaded"}}]}).message
        'overloaded'
        >>> error_in({"choices": []}) is None
        True
    """
    if isinstance(payload, list) and payload:  # Gemini wraps its error in a list
        return error_in(payload[0])
    if not isinstance(payload, dict):
        return None
    choices = payload.get("choices")
    if isinstance(choices, list) and choices:
        first = choices[0]
        inner = first.get("error") if isinstance(first, dict) else None
        return _error_of(inner) if inner else None
    if payload.get("error") or payload.get("errors"):
        return _error_of(payload.get("error") or payload["errors"])
    told = payload.get("message") or payload.get("detail") or payload.get("msg")
    return _error_of(payload) if told and "choices" not in payload else None


def error_of_body(body: str) -> ServerError:
    """Returns the error in the body of a response whose status says that it is one."""
    try:
        payload = from_json(body)
    except ValueError:
        return ServerError(body[:_LONGEST])
    return error_in(payload) or ServerError(body[:_LONGEST])


def _error_of(fields: object) -> ServerError:
    """Reads an error in any of the forms that are in use: a text, a list, an object of objects."""
    if isinstance(fields, list) and fields:
        return _error_of(fields[0])
    if not isinstance(fields, dict):
        return ServerError(str(fields)[:_LONGEST])
    if isinstance(fields.get("error"), dict):
        return _error_of(fields["error"])
    message = next(
        (fields[name] for name in ("message", "detail", "msg", "error") if fields.get(name)), fields
    )
    inner = fields.get("innererror")
    codes = (
        fields.get("code"),
        inner.get("code") if isinstance(inner, dict) else None,
        fields.get("type"),
        fields.get("status"),
    )
    return ServerError(
        message=(message if isinstance(message, str) else _dumped(message))[:_LONGEST],
        code=next((code for code in codes if isinstance(code, str) and not code.isdigit()), ""),
        field=fields["param"] if isinstance(fields.get("param"), str) else "",
        status=next(
            (status for status in map(_status, (*codes, fields.get("status_code"))) if status), None
        ),
        details=_dumped(fields)[:_LONGEST],
    )


def _dumped(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return ""


def _status(code: object) -> int | None:
    """Returns the HTTP status that a code is, or begins with, as FastChat's 42901 does."""
    digits = str(code) if isinstance(code, int | str) and not isinstance(code, bool) else ""
    if not (digits.isascii() and digits.isdigit() and len(digits) in (3, 5)):
        return None
    status = int(digits[:3])
    return status if 400 <= status < 600 else None


def from_error(
    status: int, error: ServerError, reason: str, headers: Mapping[str, str], *, fix: str = ""
) -> AttemptFailed:
    """Returns the failure that an error of the server means.

    Args:
        status: Its HTTP status; not one of success.
        error: What the server said, with the key hidden.
        reason: The same, for people.
        headers: The headers of the response.
        fix: What to do about it.
    """
    scope = scope_of(status, error.code)
    if error.is_about_context and scope == "attempt":
        scope = "request"  # llama.cpp says 500: the next attempt has the same prompt
    wait = retry_after_seconds(headers)
    if wait is None and scope == "attempt":
        wait = _wait_in_words(error.everything)
    return AttemptFailed(
        reason,
        scope,
        status=status,
        retry_after_seconds=wait,
        lost=status in _MAYBE_CHARGED,
        fix=CONTEXT_FIX if error.is_about_context else fix,
        complaint=error.everything,
    )


def scope_of(status: int, code: str = "") -> Scope:
    """Returns what an HTTP status that is not a success spoils.

    Example:
        >>> scope_of(503), scope_of(400), scope_of(401), scope_of(429)
        ('attempt', 'request', 'endpoint', 'attempt')
        >>> scope_of(429, "insufficient_quota")
        'endpoint'
    """
    if code in _NO_CREDIT:
        return "endpoint"
    if status in _OF_THE_REQUEST:
        return "request"
    if status in _TRANSIENT or (status >= 500 and status != _NOT_IMPLEMENTED):
        return "attempt"
    return "endpoint"


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Returns how long a response asks to wait; None where it does not say.

    `Retry-After` is a number of seconds or a date (RFC 9110, section 10.2.3), which counts from the
    server's own clock where it sends one. `retry-after-ms` (OpenAI, Azure) is finer and goes first.

    Example:
        >>> retry_after_seconds({"retry-after": "2.5"}), retry_after_seconds({"retry-after-ms": "1500"})
        (2.5, 1.5)
        >>> date = "Thu, 01 Jan 2026 00:00:00 GMT"
        >>> retry_after_seconds({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT", "date": date})
        60.0
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "").strip()
    seconds = _number(value)
    if seconds is not None:
        return seconds
    until = _date(value)
    if until is None:
        return None
    now = _date(headers.get("date", "")) or now or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _wait_in_words(said: str) -> float | None:
    """Returns the seconds of "Please try again in 1m2.5s"; None where nothing like it is said."""
    found = _WAIT_IN_WORDS.search(said)
    if found is None or not any(found.groupdict().values()):
        return None
    number = float(found["number"] or 0) / (1000 if (found["unit"] or "").lower() == "ms" else 1)
    return int(found["hours"] or 0) * 3600 + int(found["minutes"] or 0) * 60 + number


def _number(value: str) -> float | None:
    """Returns a number of at least 0; None for what is none."""
    try:
        number = float(value)
    except ValueError:
        return None
    return None if math.isnan(number) else max(0.0, number)


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
