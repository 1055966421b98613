"""One call of `generate`: workers on an event loop in a thread of its own, and answers handed over
in the thread that asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from queue import SimpleQueue
from threading import Thread
from typing import Any

from domainfusion.models.api.answers import Reply
from domainfusion.models.api.costs import (
    Account,
    TokenCount,
    least_prompt_tokens,
    most_prompt_tokens,
    was_cut,
)
from domainfusion.models.api.dialect import Dialect
from domainfusion.models.api.endpoint import Endpoint
from domainfusion.models.api.failures import CONTEXT_FIX, AttemptFailed
from domainfusion.models.api.limits import Gate, Limits, Stopped, StopReason, Traffic
from domainfusion.models.base import OnResult
from domainfusion.types import Conversation, Generation, Sampling

_RETRIES_OF_EMPTY = 2
"""How often a question is asked again whose answer was empty: each of them may have to be paid
for.
"""


@dataclass
class Outcome:
    """What came of the questions.

    Attributes:
        answers: The answers by position.
        failures: How a question failed that was given up, by position.
        stop: Why the rest was not asked; None where all were.
    """

    answers: dict[int, Generation] = field(default_factory=dict)
    failures: dict[int, AttemptFailed] = field(default_factory=dict)
    stop: StopReason | None = None


@dataclass(frozen=True)
class Asker:
    """Asks an endpoint many questions at once.

    Attributes:
        open_endpoint: Makes the endpoint.
        dialect: What requests look like.
        limits: What is asked for at most.
        traffic: What was sent lately.
        account: What it costs.
        include_reasoning: Keep the reasoning in the text.
        require_finish_reason: Take no answer of which the server does not say why it ended.
        check_prompt_tokens: Take no answer to a prompt of which the server read only a part.
    """

    open_endpoint: Callable[[], Endpoint]
    dialect: Dialect
    limits: Limits
    traffic: Traffic
    account: Account
    include_reasoning: bool = False
    require_finish_reason: bool = False
    check_prompt_tokens: bool = True

    def ask(
        self,
        conversations: Sequence[Conversation],
        seeds: Sequence[int],
        sampling: Sampling,
        on_result: OnResult | None = None,
    ) -> Outcome:
        """Asks every question until all are answered, given up, or the endpoint is.

        `on_result` is called in this thread. A worker asks its next question only once the answer
        before was taken, so that no more than `max_concurrency` answers are ever on their way to
        whoever keeps them.
        """
        outcome = Outcome()

        def take(index: int, generation: Generation) -> None:
            if on_result is not None:
                on_result(index, generation)
            outcome.answers[index] = generation

        async def work(hand_over: HandOver) -> None:
            gate = Gate(self.limits, self.traffic, self.account)
            questions = iter(enumerate(zip(conversations, seeds, strict=True)))
            async with self.open_endpoint() as endpoint:
                one = _Worker(self, endpoint, gate, sampling, outcome.failures, hand_over)
                await asyncio.gather(
                    *(
                        one.work(questions)
                        for _ in range(min(self.limits.max_concurrency, len(conversations)))
                    )
                )
            outcome.stop = gate.stop

        run_apart(work, take)
        return outcome


@dataclass(frozen=True)
class _Worker:
    asker: Asker
    endpoint: Endpoint
    gate: Gate
    sampling: Sampling
    failures: dict[int, AttemptFailed]
    hand_over: HandOver

    async def work(self, questions: Iterator[tuple[int, tuple[Conversation, int]]]) -> None:
        for index, (conversation, seed) in questions:
            try:
                reply = await self._answer(conversation, seed)
            except Stopped:
                return
            except AttemptFailed as failure:
                self.failures[index] = failure
            else:
                await self.hand_over(index, reply.generation)

    async def _answer(self, conversation: Conversation, seed: int) -> Reply:
        retries = 0
        for attempt in count(1):
            outcome = await self._attempt(conversation, seed)
            if isinstance(outcome, Reply):
                return outcome
            if outcome is None:
                continue
            # A server that asks for patience is waited for as long as it answers others.
            retries += not outcome.throttled
            most = (
                min(self.asker.limits.max_retries, _RETRIES_OF_EMPTY)
                if outcome.answered
                else self.asker.limits.max_retries
            )
            if outcome.scope != "attempt" or retries > most:
                if outcome.answered:
                    self.gate.gave_up(outcome)
                raise outcome
            await self.gate.rest((outcome.retry_after_seconds or 0.0) + self.gate.backoff(attempt))
        raise AssertionError("the loop ends by itself alone")

    async def _attempt(self, conversation: Conversation, seed: int) -> Reply | AttemptFailed | None:
        """Asks once; returns None where the same question is to be asked in other words."""
        asker, limit = self.asker, self.sampling.max_new_tokens
        whole = asker.dialect.conversation(conversation)
        worst_cost = asker.account.worst_cost(whole, limit)
        async with self.gate.request(most_prompt_tokens(whole) + limit, worst_cost) as ticket:
            body = asker.dialect.body(conversation, self.sampling, seed)
            try:
                reply = await self.endpoint.ask(
                    body,
                    include_reasoning=asker.include_reasoning,
                    max_new_tokens=limit,
                    require_finish_reason=asker.require_finish_reason,
                )
                if (
                    asker.check_prompt_tokens
                    and reply.tokens is not None
                    and was_cut(whole, reply.tokens)
                ):
                    raise _cut_prompt(whole, reply.tokens)
            except AttemptFailed as failure:
                if asker.dialect.adapt(body, failure):
                    self.gate.refused(ticket)
                    return None
                failure.fix = failure.fix or asker.dialect.advice(failure)
                self.gate.failed(ticket, failure)
                return failure
            self.gate.succeeded(ticket, reply)
            return reply


def _cut_prompt(conversation: Conversation, tokens: TokenCount) -> AttemptFailed:
    return AttemptFailed(
        f"the server read {tokens.prompt:,} tokens of a prompt that has at least"
        f" {least_prompt_tokens(conversation):,}: its context window cut the prompt, and the answer"
        " is to the rest",
        "request",
        tokens=tokens,
        fix=f"{CONTEXT_FIX}; where the server counts otherwise, say check_prompt_tokens=False",
    )


@dataclass(frozen=True)
class _Delivery:
    index: int
    generation: Generation
    taken: asyncio.Event


class HandOver:
    """Gives an answer to the thread that asked, and waits until it was taken."""

    def __init__(self, inbox: SimpleQueue[_Delivery | None]) -> None:
        self._inbox = inbox

    async def __call__(self, index: int, generation: Generation) -> None:
        """Returns once the answer was taken."""
        delivery = _Delivery(index, generation, asyncio.Event())
        self._inbox.put(delivery)
        await delivery.taken.wait()


def run_apart(work: Callable[[HandOver], Coroutine[Any, Any, None]], take: OnResult) -> None:
    """Runs `work` on an event loop in a thread of its own, and `take` in this one for each answer
    that it hands over.

    So it works where an event loop runs already, as in notebooks, and what `take` does, such as
    writing to a file, holds up no request. Where this thread is interrupted, requests in flight are
    given up and answers that have arrived are still taken.
    """
    inbox: SimpleQueue[_Delivery | None] = SimpleQueue()
    with _loop_apart() as loop:
        working = asyncio.run_coroutine_threadsafe(work(HandOver(inbox)), loop)
        working.add_done_callback(lambda _: inbox.put(None))
        try:
            while (delivery := inbox.get()) is not None:
                take(delivery.index, delivery.generation)
                loop.call_soon_threadsafe(delivery.taken.set)
        except BaseException as error:
            working.cancel()
            if not isinstance(error, Exception):
                _take_the_rest(inbox, take)
            raise
        working.result()


def _take_the_rest(inbox: SimpleQueue[_Delivery | None], take: OnResult) -> None:
    while not inbox.empty():
        delivery = inbox.get()
        if delivery is not None:
            take(delivery.index, delivery.generation)


@contextmanager
def _loop_apart() -> Iterator[asyncio.AbstractEventLoop]:
    started: SimpleQueue[asyncio.AbstractEventLoop] = SimpleQueue()

    def serve() -> None:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            started.put(loop)
            loop.run_forever()

    thread = Thread(target=serve, name="domainfusion-api", daemon=True)
    thread.start()
    loop = started.get()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
