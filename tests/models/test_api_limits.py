"""Laws of the gate: never more in flight, per minute or in cost than allowed, no slower than that,
and an end to failures.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainfusion.models.api.answers import Reply
from domainfusion.models.api.failures import AttemptFailed, retry_after_seconds, scope_of
from domainfusion.models.api.limits import (
    LONGEST_BACKOFF_SECONDS,
    WINDOW_SECONDS,
    Gate,
    Limits,
    Retries,
    Stopped,
    Traffic,
)
from domainfusion.models.costs import Account, Prices, TokenCount
from domainfusion.types import Generation
from models.api_settings import grouped
from models.fake_time import run

REPLY = Reply(Generation(text="yes"), TokenCount(prompt=10, completion=5))


class Settings(NamedTuple):
    """What a gate is made of."""

    limits: Limits
    retries: Retries


def limits(**changes: Any) -> Settings:
    usual: dict[str, Any] = {
        "max_concurrency": 4,
        "max_retries": 3,
        "max_failures_in_a_row": 5,
        "max_wait_seconds": 100.0,
        "backoff_seconds": 1.0,
    }
    return Settings(**grouped(**usual | changes))


class Record:
    """When requests started and ended, by number."""

    def __init__(self) -> None:
        self.started: dict[int, float] = {}
        self.ended: dict[int, float] = {}

    def most_at_once(self) -> int:
        changes = sorted(
            [(time, 1) for time in self.started.values()]
            + [(time, -1) for time in self.ended.values()]
        )
        return max(itertools.accumulate(change for _, change in changes), default=0)

    def most_in(self, seconds: float, weights: Sequence[int] | None = None) -> int:
        """Returns the largest weight of the starts in any stretch of so many seconds."""
        starts = sorted(self.started.items(), key=lambda item: item[1])
        weight = [1 if weights is None else weights[number] for number, _ in starts]
        times = [time for _, time in starts]
        return max(
            sum(w for w, t in zip(weight, times, strict=True) if begin <= t < begin + seconds)
            for begin in times
        )


async def send(
    gate: Gate,
    record: Record,
    number: int,
    seconds: float,
    tokens: int = 1,
    *,
    cost: float = 0.0,
    reply: Reply = REPLY,
) -> None:
    async with gate.request(tokens, cost) as ticket:
        record.started[number] = asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
        record.ended[number] = asyncio.get_running_loop().time()
        gate.succeeded(ticket, reply)


def send_all(
    durations: Sequence[float],
    settings_: Settings,
    *,
    tokens: Sequence[int] | None = None,
    reply: Reply = REPLY,
) -> Record:
    async def main() -> Record:
        record, gate = Record(), Gate(*settings_, Traffic(settings_.limits), Account())
        both = zip(durations, tokens or [1] * len(durations), strict=True)
        await asyncio.gather(
            *(send(gate, record, number, *each, reply=reply) for number, each in enumerate(both))
        )
        return record

    return run(main())


durations = st.lists(st.floats(0.01, 100), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(durations, st.integers(1, 8), st.integers(1, 20))
def test_no_stretch_of_a_minute_has_more_starts_and_no_moment_more_requests_than_allowed(
    times: list[float], most: int, rate: int
) -> None:
    record = send_all(times, limits(max_concurrency=most, requests_per_minute=rate))
    assert len(record.ended) == len(times)
    assert record.most_in(WINDOW_SECONDS - 0.001) <= rate
    assert record.most_at_once() <= most


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 150), min_size=1, max_size=30))
def test_no_stretch_of_a_minute_has_more_tokens_than_allowed_but_for_a_request_that_alone_has(
    weights: list[int],
) -> None:
    uncounted = Reply(Generation(text="yes"), None)
    record = send_all(
        [1.0] * len(weights),
        limits(tokens_per_minute=100, max_concurrency=8),
        tokens=weights,
        reply=uncounted,
    )
    assert len(record.ended) == len(weights)
    assert record.most_in(WINDOW_SECONDS - 0.001, [min(weight, 100) for weight in weights]) <= 100


def test_the_rate_is_not_lower_than_it_has_to_be() -> None:
    record = send_all([0.1] * 30, limits(requests_per_minute=10, max_concurrency=30))
    assert max(record.ended.values()) - 1_000 == pytest.approx(2 * WINDOW_SECONDS + 0.1)


def test_tokens_that_were_not_used_are_free_for_others() -> None:
    record = send_all([1.0] * 6, limits(tokens_per_minute=200, max_concurrency=6), tokens=[90] * 6)
    assert (
        max(record.ended.values()) - 1_000 < WINDOW_SECONDS
    )  # each took 15 in the end, so that all six fit


def test_requests_start_in_the_order_in_which_they_ask() -> None:
    record = send_all([3, 1, 2, 5, 1, 1, 4], limits(max_concurrency=2, requests_per_minute=3))
    assert sorted(record.started, key=lambda number: record.started[number]) == list(range(7))


def test_limits_hold_from_one_call_to_the_next() -> None:
    settings_ = limits(requests_per_minute=5)
    traffic, record = Traffic(settings_.limits), Record()

    async def main() -> None:
        for call in range(3):
            gate = Gate(*settings_, traffic, Account())
            await asyncio.gather(*(send(gate, record, 4 * call + n, 0.1) for n in range(4)))

    run(main())
    assert record.most_in(WINDOW_SECONDS - 0.001) <= 5


# Failures


async def fail(gate: Gate, failure: AttemptFailed, *, seconds: float = 0.1) -> float:
    async with gate.request(1, 0.0) as ticket:
        started = asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
        gate.failed(ticket, failure)
    return started


def in_gate(work: Callable[[Gate], Any], **changes: Any) -> Any:
    async def main() -> Any:
        settings_ = limits(**changes)
        return await work(Gate(*settings_, Traffic(settings_.limits), Account()))

    return run(main())


def test_failures_in_a_row_close_the_gate() -> None:
    async def work(gate: Gate) -> None:
        for _ in range(5):
            assert gate.stop is None
            await fail(gate, AttemptFailed("HTTP 500: broken"))
        assert (
            gate.stop is not None
            and "5 failures in a row" in gate.stop.reason
            and "HTTP 500: broken" in gate.stop.reason
        )
        with pytest.raises(Stopped):
            await fail(gate, AttemptFailed("never sent"))

    in_gate(work)


def test_a_success_between_failures_keeps_the_gate_open() -> None:
    async def work(gate: Gate) -> None:
        for number in range(10):
            await fail(gate, AttemptFailed("HTTP 500"))
            await fail(gate, AttemptFailed("HTTP 500"))
            await send(gate, Record(), number, 0.1)
        assert gate.stop is None

    in_gate(work, max_failures_in_a_row=3)


def test_failures_of_requests_in_flight_together_count_as_one() -> None:
    async def work(gate: Gate) -> None:
        await asyncio.gather(
            *(
                fail(gate, AttemptFailed("the connection failed"), seconds=0.1 * n)
                for n in range(1, 65)
            )
        )
        assert gate.stop is None

    in_gate(work, max_concurrency=64, max_failures_in_a_row=2)


def test_a_server_that_is_down_is_tried_one_request_at_a_time() -> None:
    async def work(gate: Gate) -> tuple[Record, list[float]]:
        record = Record()

        async def one(number: int) -> None:
            with suppress(Stopped):
                async with gate.request(1, 0.0) as ticket:
                    record.started[number] = asyncio.get_running_loop().time()
                    await asyncio.sleep(10)
                    record.ended[number] = asyncio.get_running_loop().time()
                    gate.failed(ticket, AttemptFailed("no answer within 10 s", lost=True))

        await asyncio.gather(*(one(number) for number in range(100)))
        return record, sorted(record.started.values())

    record, times = in_gate(work, max_concurrency=16, max_failures_in_a_row=8)
    # A first wave, one more that starts as the first ends, and then a request at a time.
    assert len(record.started) <= 16 + 16 + 8
    assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(times[32:]))


def test_after_an_outage_the_number_in_flight_grows_again() -> None:
    async def work(gate: Gate) -> int:
        for _ in range(3):
            await fail(gate, AttemptFailed("HTTP 503"))
        record = Record()
        await asyncio.gather(*(send(gate, record, number, 1.0) for number in range(60)))
        return record.most_at_once()

    assert in_gate(work, max_concurrency=16) == 16


def test_an_outage_of_half_a_minute_is_outlived() -> None:
    async def work(gate: Gate) -> None:
        loop = asyncio.get_running_loop()
        back, answered = loop.time() + 30, []

        async def one() -> None:
            for attempt in itertools.count(1):
                async with gate.request(1, 0.0) as ticket:
                    await asyncio.sleep(0.01)
                    if loop.time() >= back:
                        gate.succeeded(ticket, REPLY)
                        answered.append(loop.time())
                        return
                    gate.failed(ticket, AttemptFailed("the connection failed"))
                await gate.rest(gate.backoff(attempt))

        await asyncio.gather(*(one() for _ in range(64)))
        assert len(answered) == 64

    for _ in range(20):
        in_gate(work, max_concurrency=64, max_failures_in_a_row=14, backoff_seconds=1.0)


def test_an_endpoint_that_refuses_everybody_is_asked_no_more() -> None:
    async def work(gate: Gate) -> None:
        await fail(gate, AttemptFailed("HTTP 401", "endpoint", status=401, fix="give a key"))
        assert gate.stop is not None and gate.stop.fix == "give a key"
        with pytest.raises(Stopped):
            await gate.rest(5)

    in_gate(work)


def test_requests_in_flight_end_in_peace_where_the_gate_closes() -> None:
    async def work(gate: Gate) -> Record:
        record = Record()
        slow = asyncio.create_task(send(gate, record, 0, 50))
        await fail(gate, AttemptFailed("HTTP 401", "endpoint", status=401))
        await slow
        return record

    assert in_gate(work).ended.keys() == {0}


def test_waiting_requests_learn_at_once_that_the_gate_has_closed() -> None:
    async def work(gate: Gate) -> float:
        async def rest() -> None:
            with pytest.raises(Stopped):
                await gate.rest(1_000)

        started = asyncio.get_running_loop().time()
        resting = [asyncio.create_task(rest()) for _ in range(5)]
        await fail(gate, AttemptFailed("HTTP 401", "endpoint", status=401))
        await asyncio.gather(*resting)
        return asyncio.get_running_loop().time() - started

    assert in_gate(work) == pytest.approx(0.1)


# Waiting


@pytest.mark.parametrize("seconds", [0.5, 30, 99])
def test_nothing_is_sent_before_the_time_that_the_server_named(seconds: float) -> None:
    async def work(gate: Gate) -> None:
        first = await fail(gate, AttemptFailed("HTTP 429", status=429, retry_after_seconds=seconds))
        record = Record()
        await asyncio.gather(*(send(gate, record, number, 0.1) for number in range(10)))
        assert min(record.started.values()) >= first + 0.1 + seconds

    in_gate(work)


def test_a_wait_that_is_too_long_is_told_at_once() -> None:
    async def work(gate: Gate) -> None:
        started = asyncio.get_running_loop().time()
        await fail(
            gate, AttemptFailed("HTTP 429: come tomorrow", status=429, retry_after_seconds=86_400)
        )
        assert (
            gate.stop is not None
            and "86,400 s" in gate.stop.reason
            and "come tomorrow" in gate.stop.reason
        )
        assert asyncio.get_running_loop().time() - started < 1

    in_gate(work)


def test_a_throttled_endpoint_gets_fewer_requests_at_a_time() -> None:
    """Eight fit at a time; whatever comes beside them is refused at once."""

    async def work(gate: Gate) -> tuple[int, int]:
        busy, refused, answered = 0, 0, 0

        async def one() -> None:
            nonlocal busy, refused, answered
            for attempt in itertools.count(1):
                async with gate.request(1, 0.0) as ticket:
                    if busy >= 8:
                        refused += 1
                        await asyncio.sleep(0.01)
                        gate.failed(
                            ticket, AttemptFailed("HTTP 429", status=429, retry_after_seconds=0.5)
                        )
                    else:
                        busy += 1
                        await asyncio.sleep(1)
                        busy -= 1
                        answered += 1
                        gate.succeeded(ticket, REPLY)
                        return
                await gate.rest(0.5 + gate.backoff(attempt))

        await asyncio.gather(*(one() for _ in range(300)))
        return answered, refused

    answered, refused = in_gate(work, max_concurrency=64)
    assert answered == 300
    assert refused < 150


@given(st.integers(1, 10_000))
def test_a_pause_is_drawn_below_a_bound_that_doubles_and_ends(attempt: int) -> None:
    async def work(gate: Gate) -> None:
        pauses = [gate.backoff(attempt) for _ in range(20)]
        assert all(
            0 <= pause <= min(LONGEST_BACKOFF_SECONDS, 2.0 ** min(attempt - 1, 20))
            for pause in pauses
        )
        assert len(set(pauses)) > 1

    in_gate(work)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "soon", "nan", "Thu, 99 Foo 2026", "-", "1e", "Thu"])
def test_a_wait_that_makes_no_sense_is_not_a_wait(text: str) -> None:
    assert retry_after_seconds({"retry-after": text}, NOW) is None


@given(st.integers(0, 10**6))
def test_a_wait_is_read_in_seconds_or_as_a_date(seconds: int) -> None:
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after_seconds({"retry-after": str(seconds)}) == seconds
    assert retry_after_seconds({"retry-after": date}, NOW) == seconds
    # The server's own clock counts, however wrong it goes.
    skewed = {"retry-after": format_datetime(NOW + timedelta(days=9, seconds=seconds), usegmt=True)}
    assert (
        retry_after_seconds(
            skewed | {"date": format_datetime(NOW + timedelta(days=9), usegmt=True)}, NOW
        )
        == seconds
    )


def test_a_date_that_is_past_is_not_a_wait() -> None:
    assert retry_after_seconds({"retry-after": "Thu, 01 Jan 2015 00:00:00 GMT"}, NOW) == 0
    assert retry_after_seconds({"retry-after": "-5"}, NOW) == 0


@pytest.mark.parametrize(
    ("codes", "scope"),
    [((408, 429, 500, 502, 503, 504, 529), "attempt"), ((400, 413, 422), "request")],
)
def test_what_a_status_spoils(codes: Sequence[int], scope: str) -> None:
    assert {scope_of(code) for code in codes} == {scope}


@pytest.mark.parametrize("code", [301, 302, 307, 308, 401, 402, 403, 404, 405, 410, 501])
def test_statuses_that_concern_every_request(code: int) -> None:
    assert scope_of(code) == "endpoint"


# Money

PRICES = Prices(
    price_per_million_input_tokens=1e6,
    price_per_million_output_tokens=1e6,
    price_per_million_cached_tokens=0.0,
)
"""A unit of money for each token."""


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 20),
            st.floats(0, 1),
            st.sampled_from(["answer", "uncounted", "lost", "refused"]),
        ),
        max_size=30,
    ),
    st.integers(1, 100),
    st.integers(1, 6),
)
def test_the_limit_of_cost_is_never_exceeded_and_never_left_unused(
    requests: list[tuple[int, float, str]], max_cost: int, most: int
) -> None:
    """Each request may cost up to what it reserves; a lost one may have cost all of it."""
    account, real = Account(PRICES, max_cost), [0.0]
    unsent: list[int] = []

    async def one(gate: Gate, worst: int, share: float, end: str) -> None:
        used = round(worst * share)
        try:
            async with gate.request(1, worst) as ticket:
                await asyncio.sleep(1 + share)
                real[0] += used if end != "refused" else 0
                if end == "lost":
                    gate.failed(ticket, AttemptFailed("no answer", lost=True))
                elif end == "refused":
                    gate.failed(ticket, AttemptFailed("HTTP 400", "request"))
                else:
                    gate.succeeded(
                        ticket,
                        Reply(
                            Generation(text="a"),
                            TokenCount(prompt=0, completion=used) if end == "answer" else None,
                        ),
                    )
        except Stopped:
            unsent.append(worst)

    async def main() -> Gate:
        settings_ = limits(max_concurrency=most, max_failures_in_a_row=1_000)
        gate = Gate(*settings_, Traffic(settings_.limits), account)
        await asyncio.gather(*(one(gate, *request) for request in requests))
        return gate

    gate = run(main())
    usage = account.usage
    known = (usage.cost or 0) + usage.unknown_cost
    assert real[0] <= known + 1e-6 and known <= max_cost + 1e-6
    assert usage.requests == usage.answers + usage.failed == len(requests) - len(unsent)
    if unsent:
        assert gate.stop is not None and "max_cost" in gate.stop.reason
        assert known + unsent[0] > max_cost


def test_a_request_that_is_given_up_counts_as_lost() -> None:
    account = Account(PRICES, 10.0)

    async def main() -> None:
        settings_ = limits()
        gate = Gate(*settings_, Traffic(settings_.limits), account)
        task = asyncio.create_task(send(gate, Record(), 0, 100, cost=4.0))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main())
    assert (account.usage.unknown_cost, account.usage.failed) == (4.0, 1)
    assert account.fits(6.0) and not account.fits(6.1)
