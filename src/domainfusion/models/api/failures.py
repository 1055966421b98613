"""What can go wrong with one request, and what that means for the next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

Scope = Literal["attempt", "request", "endpoint"]
"""What a failure spoils: this attempt (the next may work), this request (no attempt will), or every request to the endpoint."""

_THROTTLED = 429
_NO_CREDIT = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_MAYBE_CHARGED = {408, 504, 524}  # a gateway gave up waiting: the model behind it may have written its answer all the same
_TRANSIENT = {408, 409, 425, _THROTTLED}
_OF_THE_REQUEST = {400, 413, 422}
_NOT_IMPLEMENTED = 501


class AttemptFailed(Exception):
    """One request brought no answer.

    Args:
        reason: What happened, without the key.
        scope: What it spoils.
        status: The HTTP status; None where there was none.
        retry_after_seconds: How long the server asks to wait.
        lost: Whether the server may have written, and charged for, an answer that never arrived.
        fix: What to do about it.
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
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.scope = scope
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.lost = lost
        self.fix = fix

    @property
    def throttled(self) -> bool:
        """Whether the server is well and asks for fewer requests."""
        return self.status == _THROTTLED and self.scope == "attempt"


def from_status(status: int, reason: str, headers: Mapping[str, str], *, code: str = "", fix: str = "") -> AttemptFailed:
    """Returns the failure that an HTTP status means.

    Args:
        status: The status; not one of success.
        reason: What the server said.
        headers: The headers of the response.
        code: The code of the error in the body, if there is one.
        fix: What to do about it.
    """
    return AttemptFailed(
        reason,
        scope_of(status, code),
        status=status,
        retry_after_seconds=retry_after_seconds(headers),
        lost=status in _MAYBE_CHARGED,
        fix=fix,
    )


def scope_of(status: int, code: str = "") -> Scope:
    """Returns what an HTTP status that is no success spoils.

    Example:
        >>> scope_of(503), scope_of(400), scope_of(401), scope_of(429), scope_of(429, "insufficient_quota")
        ('attempt', 'request', 'endpoint', 'attempt', 'endpoint')
    """
    if code in _NO_CREDIT:
        return "endpoint"
    if status in _OF_THE_REQUEST:
        return "request"
    if status in _TRANSIENT or (status >= 500 and status != _NOT_IMPLEMENTED):
        return "attempt"
    return "endpoint"


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Returns how long a response asks to wait, given in seconds or as a date (RFC 9110, section 10.2.3); None where it does not say.

    A date counts from the server's own clock where it sends one.

    Example:
        >>> retry_after_seconds({"retry-after": "2.5"})
        2.5
        >>> retry_after_seconds({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT", "date": "Thu, 01 Jan 2026 00:00:00 GMT"})
        60.0
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        until = _date(value)
        if until is None:
            return None
        seconds = (until - (_date(headers.get("date", "")) or now or datetime.now(UTC))).total_seconds()
    return None if math.isnan(seconds) else max(0.0, seconds)


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
