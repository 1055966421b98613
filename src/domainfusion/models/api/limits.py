"""When the next request to an endpoint may start, how long to wait after a failure, and when to
give up.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from domainfusion.checks import check_count, check_number
from domainfusion.models.api.answers import Reply
from domainfusion.models.api.failures import AttemptFailed
from domainfusion.models.costs import Account, Payment

WINDOW_SECONDS = 60.5
"""A minute, and a margin: a request may be half a second longer on its way than a later one."""

LONGEST_BACKOFF_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server is asked for at most, and what may be spent.

    Args:
        max_concurrency: Requests in flight.
        requests_per_minute: Requests that start in any minute; None for no limit.
        tokens_per_minute: Tokens read and written in any minute; None for no limit. Until an answer
            is there, its request counts with one token for each byte of the prompt and
            `max_new_tokens`.
        max_cost: What may be spent from the account. A request with which that could come to more,
            at one token for each byte of the prompt and `max_new_tokens` of answer, is not sent. In
            a run, everything counts that the run's models have spent from the account since the run
            began, in whatever process; elsewhere, what is asked through this object.
        account: Who pays: models that name the same one spend from it together. By default the
            server and the key's variable.

    Raises:
        ConfigurationError: A limit is not positive.
    """

    max_concurrency: int = 16
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_cost: float | None = None
    account: str | None = None

    def __post_init__(self) -> None:
        counts = {
            "max_concurrency": self.max_concurrency,
            "requests_per_minute": self.requests_per_minute,
            "tokens_per_minute": self.tokens_per_minute,
        }
        for name, number in counts.items():
            check_count(name, number, optional=True)
        check_number("max_cost", self.max_cost, "(0, inf)", optional=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How long a server is waited for, and when it is given up.

    Args:
        timeout_seconds: The longest that one request may take.
        max_retries: Further attempts at a question after timeouts, broken connections, unreadable
            answers and errors of the server. Where the server asks for fewer requests (HTTP 429),
            it is asked again as long as others succeed.
        max_failures_in_a_row: Failures, those in flight together counted as one, after which
            nothing more is asked.
        max_wait_seconds: The longest wait that the server may ask for; where it asks for more,
            nothing more is asked.
        backoff_seconds: The longest wait after a first failure; it doubles with each that follows,
            up to 30 s.

    Raises:
        ConfigurationError: A number is outside of what is allowed.
    """

    timeout_seconds: float = 300.0
    max_retries: int = 6
    max_failures_in_a_row: int = 10
    max_wait_seconds: float = 120.0
    backoff_seconds: float = 0.5

    def __post_init__(self) -> None:
        check_count("max_failures_in_a_row", self.max_failures_in_a_row)
        check_count("max_retries", self.max_retries, 0)
        check_number("timeout_seconds", self.timeout_seconds, "(0, inf)")
        check_number("backoff_seconds", self.backoff_seconds, "(0, inf)")
        check_number("max_wait_seconds", self.max_wait_seconds, "[0, inf)")


@dataclass
class _Entry:
    time: float
    units: int


class Window:
    """Lets at most `limit` units pass in any stretch of a minute.

    What alone is more than the limit passes by itself.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._entries: deque[_Entry] = deque()

    def ready_at(self, units: int, now: float) -> float:
        """Returns the time from which `units` may pass."""
        if self._limit is None:
            return now
        while self._entries and self._entries[0].time + WINDOW_SECONDS <= now:
            self._entries.popleft()
        excess = sum(entry.units for entry in self._entries) + min(units, self._limit) - self._limit
        for entry in self._entries:
            if excess <= 0:
                return now
            excess -= entry.units
            now = max(now, entry.time + WINDOW_SECONDS)
        return now

    def add(self, units: int, now: float) -> _Entry:
        """Lets units pass; set the entry's `units` once it is known how many they really were."""
        entry = _Entry(now, units if self._limit is None else min(units, self._limit))
        if self._limit is not None:
            self._entries.append(entry)
        return entry


class Traffic:
    """What a model has sent lately; it outlives a call."""

    def __init__(self, limits: Limits) -> None:
        self.requests = Window(limits.requests_per_minute)
        self.tokens = Window(limits.tokens_per_minute)
        self.paused_until = 0.0

    def ready_at(self, tokens: int, now: float) -> float:
        """Returns the time from which a request of so many tokens may start."""
        return max(
            now,
            self.paused_until,
            self.requests.ready_at(1, now),
            self.tokens.ready_at(tokens, now),
        )


@dataclass(frozen=True)
class StopReason:
    """Why nothing more is asked, and what to do about it."""

    reason: str
    fix: str


class Stopped(Exception):
    """Raised where a request would start after the gate has closed."""


@dataclass
class Ticket:
    """A request that may start: when it did, what it was thought to take, and whether its end was
    reported.
    """

    started: float
    payment: Payment
    tokens: _Entry
    open: bool = field(default=True)


class Gate:
    """Lets requests start, one after the other in the order in which they ask.

    A first failure delays its own request alone. From the second in a row on, requests go one at a
    time with growing pauses, until one succeeds; then the number in flight grows again. Failures of
    requests that were in flight together count as one: a server that falls over with sixty-four
    requests on it has failed once. A server that asks for fewer requests gets half as many at a
    time; from there their number grows slowly, by one for each round of answers, as in the
    congestion control of TCP (RFC 5681).

    Args:
        limits: What is asked for at most.
        retries: When the server is given up.
        traffic: What was sent lately.
        account: What it costs.
    """

    def __init__(
        self, limits: Limits, retries: Retries, traffic: Traffic, account: Account
    ) -> None:
        self.stop: StopReason | None = None
        self._limits = limits
        self._retries = retries
        self._traffic = traffic
        self._account = account
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._in_flight = 0
        self._allowed = float(limits.max_concurrency)
        self._comfortable = self._allowed
        self._failures = 0
        self._failed_at = float("-inf")

    @asynccontextmanager
    async def request(self, tokens: int, worst_cost: float) -> AsyncIterator[Ticket]:
        """Waits until a request may start, and holds its place while it lasts.

        Args:
            tokens: How many tokens it reads and writes, at most.
            worst_cost: What it costs at most.

        Raises:
            Stopped: Nothing more is asked.
        """
        async with self._turn:
            while (ticket := self._admitted(tokens, worst_cost)) is None:
                await self._wait(self._seconds_to_wait(tokens, worst_cost))
        try:
            yield ticket
        finally:
            if ticket.open:
                self._close(ticket)
                self._account.fail(ticket.payment, lost=True)

    def _seconds_to_wait(self, tokens: int, worst_cost: float) -> float | None:
        """Returns 0 where a request may start, None where one in flight has to end first."""
        if self.stop is not None:
            raise Stopped
        if self._in_flight >= int(self._allowed):
            return None
        if not self._account.fits(worst_cost):
            if self._in_flight > 0:
                return None
            self.close(
                "the next answer could cost more than max_cost leaves",
                "raise max_cost, and run again",
            )
            raise Stopped
        now = _now()
        return max(0.0, self._traffic.ready_at(tokens, now) - now)

    def _admitted(self, tokens: int, worst_cost: float) -> Ticket | None:
        """Returns the ticket of a request that may start; None where it has to wait, if only as
        another process spent the rest.
        """
        if self._seconds_to_wait(tokens, worst_cost) != 0:
            return None
        payment = self._account.reserve(worst_cost)
        if payment is None:
            return None
        now = _now()
        self._in_flight += 1
        self._traffic.requests.add(1, now)
        return Ticket(now, payment, self._traffic.tokens.add(tokens, now))

    def _close(self, ticket: Ticket) -> None:
        ticket.open = False
        self._in_flight -= 1
        self._changed.set()

    def succeeded(self, ticket: Ticket, reply: Reply) -> None:
        """Reports an answer."""
        self._close(ticket)
        self._account.settle(ticket.payment, reply.generation.finish_reason, reply.tokens)
        if reply.tokens is not None:
            ticket.tokens.units = reply.tokens.prompt + reply.tokens.completion
        self._failures = 0
        growth = 1.0 if self._allowed < self._comfortable else 1 / self._allowed
        self._allowed = min(self._allowed + growth, self._limits.max_concurrency)

    def refused(self, ticket: Ticket) -> None:
        """Reports a request that the server took for wrong and that is sent again in other words:
        no failure of the server.
        """
        self._close(ticket)
        self._account.fail(ticket.payment, lost=False)

    def failed(self, ticket: Ticket, failure: AttemptFailed) -> None:
        """Reports a request that brought no answer."""
        self._close(ticket)
        self._account.fail(ticket.payment, lost=failure.lost, tokens=failure.tokens)
        if failure.scope == "endpoint":
            self.close(failure.reason, failure.fix)
        self._heed(failure)
        if ticket.started >= self._failed_at and not failure.answered:
            self._count(failure)

    def gave_up(self, failure: AttemptFailed) -> None:
        """Reports a question that is asked no more, though the server answers: see
        `AttemptFailed.answered`.

        Its attempts were not failures of the server, but a server that answers nothing of use is
        given up.
        """
        self._count(failure)

    def _heed(self, failure: AttemptFailed) -> None:
        seconds = failure.retry_after_seconds
        if seconds is None:
            return
        if seconds > self._retries.max_wait_seconds:
            reason = (
                f"the server asks to wait {seconds:,.0f} s, more than"
                f" max_wait_seconds={self._retries.max_wait_seconds:g}"
            )
            self.close(f"{reason} ({failure.reason})", "run again later, or raise max_wait_seconds")
        self._traffic.paused_until = max(
            self._traffic.paused_until, _now() + min(seconds, self._retries.max_wait_seconds)
        )

    def _count(self, failure: AttemptFailed) -> None:
        self._failed_at = _now()
        self._failures += 1
        if failure.throttled:
            self._comfortable = max(1.0, self._allowed / 2)
            self._allowed = self._comfortable
        if self._failures > 1:
            self._allowed = 1.0
            self._traffic.paused_until = max(
                self._traffic.paused_until, self._failed_at + self.backoff(self._failures - 1)
            )
        if self._failures >= self._retries.max_failures_in_a_row:
            reason = f"{self._failures} failures in a row, the latest: {failure.reason}"
            self.close(reason, failure.fix or "check the server, and run again")

    def backoff(self, attempt: int) -> float:
        """Returns how long to wait after the given failure, counted from 1.

        Exponential, with full jitter:
        https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        longest = min(
            LONGEST_BACKOFF_SECONDS, self._retries.backoff_seconds * 2.0 ** min(attempt - 1, 30)
        )
        return random.uniform(0, longest)

    async def rest(self, seconds: float) -> None:
        """Waits before a question is asked again.

        Raises:
            Stopped: Nothing more is asked.
        """
        until = _now() + seconds
        while self.stop is None and (left := until - _now()) > 0:
            await self._wait(left)
        if self.stop is not None:
            raise Stopped

    def close(self, reason: str, fix: str) -> None:
        """Lets no further request start; those in flight continue. The first reason stands."""
        self.stop = self.stop or StopReason(reason, fix)
        self._changed.set()

    async def _wait(self, seconds: float | None) -> None:
        """Waits until a request ends or the gate closes, and no longer than `seconds`."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()


def _now() -> float:
    return asyncio.get_running_loop().time()
