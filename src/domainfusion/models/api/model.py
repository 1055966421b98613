"""A model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from itertools import count
from queue import SimpleQueue
from threading import RLock, Thread
from typing import Any, Protocol
from urllib.parse import urlsplit

from domainfusion.errors import CapabilityError, ConfigurationError, ModelError
from domainfusion.models.api.answers import Reply
from domainfusion.models.api.dialect import Dialect, RequestWriter
from domainfusion.models.api.endpoint import OPENAI_URL, Endpoint, Endpoints, Key, check_url
from domainfusion.models.api.failures import CONTEXT_FIX, AttemptFailed, CantScore
from domainfusion.models.api.limits import Gate, Limits, Retries, Stopped, StopReason, Traffic
from domainfusion.models.base import OnPieces, OnResult, OnScores, TokenScorer, sample_seeds
from domainfusion.models.costs import (
    Account,
    Books,
    CostEstimate,
    Prices,
    TokenCount,
    Usage,
    least_prompt_tokens,
    most_prompt_tokens,
    was_cut,
)
from domainfusion.types import (
    Conversation,
    Generation,
    Sampling,
    check_conversations,
    fingerprint,
    user,
)
from domainfusion.wording import counted

_RETRIES_OF_EMPTY = 2
"""How often a question is asked again whose answer was empty: each of them may have to be paid
for.
"""


OnReply = Callable[[int, Reply], None]
"""Called with the index of a request and its reply."""


class Request(Protocol):
    """One question as it is sent, again where an attempt fails."""

    @property
    def most_tokens(self) -> int:
        """What it reads and writes at most."""
        ...

    @property
    def worst_cost(self) -> float:
        """What it costs at most."""
        ...

    async def send(self, endpoint: Endpoint | Endpoints) -> Reply:
        """Asks once.

        Raises:
            AttemptFailed: There is no reply.
        """
        ...

    def adapts(self, failure: AttemptFailed) -> bool:
        """Learns from a failure; whether the next attempt looks different."""
        ...

    def advice(self, failure: AttemptFailed) -> str:
        """Returns what to do about a failure, as far as the request shows."""
        ...


@dataclass
class Outcome:
    """The outcome of the questions.

    Attributes:
        replies: The answers by position.
        failures: How a question failed that was given up, by position.
        stop: Why the rest was not asked; None where all were.
    """

    replies: dict[int, Reply] = field(default_factory=dict)
    failures: dict[int, AttemptFailed] = field(default_factory=dict)
    stop: StopReason | None = None


@dataclass(frozen=True)
class Asker:
    """Sends many requests to an endpoint at once.

    Attributes:
        open_endpoint: Makes the endpoint.
        limits: What is asked for at most.
        retries: When the server is given up.
        traffic: What was sent lately.
        account: What it costs.
    """

    open_endpoint: Callable[[], Endpoint | Endpoints]
    limits: Limits
    retries: Retries
    traffic: Traffic
    account: Account

    def ask(self, requests: Sequence[Request], on_reply: OnReply) -> Outcome:
        """Sends every request until all are answered, given up, or the endpoint is.

        `on_reply` is called in this thread. A worker sends its next request only once the answer
        before was taken, so that no more than `max_concurrency` answers are ever on their way to
        whoever keeps them.
        """
        outcome = Outcome()

        def take(index: int, reply: Reply) -> None:
            on_reply(index, reply)
            outcome.replies[index] = reply

        async def work(hand_over: HandOver) -> None:
            gate = Gate(self.limits, self.retries, self.traffic, self.account)
            waiting = iter(enumerate(requests))
            async with self.open_endpoint() as endpoint:
                one = _Worker(self.retries, endpoint, gate, outcome.failures, hand_over)
                await asyncio.gather(
                    *(
                        one.work(waiting)
                        for _ in range(min(self.limits.max_concurrency, len(requests)))
                    )
                )
            outcome.stop = gate.stop

        run_apart(work, take)
        return outcome


@dataclass(frozen=True)
class _Worker:
    retries: Retries
    endpoint: Endpoint | Endpoints
    gate: Gate
    failures: dict[int, AttemptFailed]
    hand_over: HandOver

    async def work(self, waiting: Iterator[tuple[int, Request]]) -> None:
        for index, request in waiting:
            try:
                reply = await self._answer(request)
            except Stopped:
                return
            except AttemptFailed as failure:
                self.failures[index] = failure
            else:
                await self.hand_over(index, reply)

    async def _answer(self, request: Request) -> Reply:
        retries = 0
        for attempt in count(1):
            outcome = await self._attempt(request)
            if isinstance(outcome, Reply):
                return outcome
            if outcome is None:
                continue
            # A server that asks for patience is waited for as long as it answers others.
            retries += not outcome.throttled
            most = self.retries.max_retries
            if outcome.answered:
                most = min(most, _RETRIES_OF_EMPTY)
            if outcome.scope != "attempt" or retries > most:
                if outcome.answered:
                    self.gate.gave_up(outcome)
                raise outcome
            await self.gate.rest((outcome.retry_after_seconds or 0.0) + self.gate.backoff(attempt))
        raise AssertionError("the loop ends by itself alone")

    async def _attempt(self, request: Request) -> Reply | AttemptFailed | None:
        """Asks once; returns None where the same question is to be asked in other words."""
        async with self.gate.request(request.most_tokens, request.worst_cost) as ticket:
            try:
                reply = await request.send(self.endpoint)
            except AttemptFailed as failure:
                if request.adapts(failure):
                    self.gate.refused(ticket)
                    return None
                failure.fix = failure.fix or request.advice(failure)
                self.gate.failed(ticket, failure)
                return failure
            self.gate.succeeded(ticket, reply)
            return reply


class _Question:
    """A request for an answer in text."""

    def __init__(
        self,
        writer: RequestWriter,
        account: Account,
        conversation: Conversation,
        sampling: Sampling,
        seed: int,
    ) -> None:
        self._writer, self._account = writer, account
        self._conversation, self._sampling, self._seed = conversation, sampling, seed
        self._body: dict[str, Any] = {}

    @property
    def _whole(self) -> Conversation:
        """The conversation as the server gets it, which may have learned to want it otherwise."""
        return self._writer.conversation(self._conversation)

    @property
    def most_tokens(self) -> int:
        return most_prompt_tokens(self._whole) + self._sampling.max_new_tokens

    @property
    def worst_cost(self) -> float:
        return self._account.worst_cost(self._whole, self._sampling.max_new_tokens)

    async def send(self, endpoint: Endpoint | Endpoints) -> Reply:
        dialect, whole = self._writer.dialect, self._whole
        self._body = self._writer.body(self._conversation, self._sampling, self._seed)
        reply = await endpoint.ask(
            self._body,
            include_reasoning=dialect.include_reasoning,
            max_new_tokens=self._sampling.max_new_tokens,
            require_finish_reason=dialect.require_finish_reason,
            accept_empty=dialect.accept_empty,
        )
        if (
            dialect.check_prompt_tokens
            and reply.tokens is not None
            and was_cut(whole, reply.tokens)
        ):
            raise _cut_prompt(whole, reply.tokens)
        return reply

    def adapts(self, failure: AttemptFailed) -> bool:
        return self._writer.adapt(self._body, failure)

    def advice(self, failure: AttemptFailed) -> str:
        return self._writer.advice(failure)


def _cut_prompt(conversation: Conversation, tokens: TokenCount) -> AttemptFailed:
    return AttemptFailed(
        f"the server read {counted(tokens.prompt, 'token')} of a prompt that has at least"
        f" {least_prompt_tokens(conversation):,}: its context window cut the prompt, and the answer"
        " is to the rest",
        "request",
        tokens=tokens,
        fix=f"{CONTEXT_FIX}; where the server counts otherwise, say check_prompt_tokens=False",
    )


@dataclass(frozen=True)
class _Delivery:
    index: int
    reply: Reply
    taken: asyncio.Event


class HandOver:
    """Gives an answer to the thread that asked, and waits until it was taken."""

    def __init__(self, inbox: SimpleQueue[_Delivery | None]) -> None:
        self._inbox = inbox

    async def __call__(self, index: int, reply: Reply) -> None:
        """Returns once the answer was taken."""
        delivery = _Delivery(index, reply, asyncio.Event())
        self._inbox.put(delivery)
        await delivery.taken.wait()


def run_apart(work: Callable[[HandOver], Coroutine[Any, Any, None]], take: OnReply) -> None:
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
                take(delivery.index, delivery.reply)
                loop.call_soon_threadsafe(delivery.taken.set)
        except BaseException as error:
            working.cancel()
            if not isinstance(error, Exception):
                _take_the_rest(inbox, take)
            raise
        working.result()


def _take_the_rest(inbox: SimpleQueue[_Delivery | None], take: OnReply) -> None:
    while not inbox.empty():
        delivery = inbox.get()
        if delivery is not None:
            take(delivery.index, delivery.reply)


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


logger = logging.getLogger("domainfusion")


class APIModel:
    """A model that a server answers for: a hosted service, vLLM, Ollama, llama.cpp, LM Studio, or
    whatever speaks OpenAI's chat API.

    It gives text, and scores of tokens where its server does: a teacher, a generation model, an
    integration model or a judge, but no student.

    Args:
        model: The model's name on the server.
        base_url: The address that `/chat/completions` follows; by default OpenAI's. Several
            addresses of servers with the same model share the questions, and one may fail.
        api_key_env: The environment variable with the key. By default `OPENAI_API_KEY` for OpenAI's
            own service, and no key for any other, so that a key goes nowhere but where it is meant
            to. The key is read for each call and kept nowhere.
        name: What reports call it; by default `model`.
        system_prompt: A system message put before every conversation that has none: a prompted
            model is an expert too.
        json_schema: Asks for JSON of this schema; a server that refuses is asked in words instead.
        dialect: In what the server differs from OpenAI's, and how its answers are read.
        limits: What it is asked for at most, and what may be spent.
        retries: How long it is waited for, and when it is given up.
        prices: What tokens cost; None where it does not matter.
        scores: Have a vLLM or SGLang server score tokens too: for `objective: distribution`, which
            needs the student's tokenizer, or, with vLLM, for `objective: likelihood`, which takes
            any. `Dialect` says how it is asked.
        allow_insecure_http: Allow plain http to another machine: whoever listens reads the key and
            every text.

    Raises:
        ConfigurationError: An argument is outside of what is allowed, or the key's variable is not
            set.
        MissingDependencyError: The package openai is not installed.

    Attributes:
        name: What reports call it.
        base_url: Where it is asked; the first of several addresses.
        scores: Whether its server is asked for scores.
        fingerprint: Changes with the address, the model, the system prompt and the settings that
            decide its answers.

    Example:
        ```python
        teacher = APIModel("qwen3:8b", base_url="http://localhost:11434/v1", system_prompt="You are a physiologist.")
        print(teacher.ask("How do muscles recover?"))
        print(teacher.usage)
        ```
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | Sequence[str] = OPENAI_URL,
        api_key_env: str | None = None,
        name: str | None = None,
        system_prompt: str | None = None,
        json_schema: Mapping[str, Any] | None = None,
        dialect: Dialect = Dialect(),
        limits: Limits = Limits(),
        retries: Retries = Retries(),
        prices: Prices | None = None,
        scores: bool = False,
        allow_insecure_http: bool = False,
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise ConfigurationError(
                "The model has no name", received=model, allowed="its name on the server"
            )
        if limits.max_cost is not None and prices is None:
            raise ConfigurationError(
                "max_cost needs prices",
                received=limits.max_cost,
                fix="give price_per_million_input_tokens and price_per_million_output_tokens",
            )
        addresses = [base_url] if isinstance(base_url, str) else list(base_url)
        self._urls = tuple(
            check_url(each, allow_insecure_http=allow_insecure_http) for each in addresses
        )
        if not self._urls or len(set(self._urls)) < len(self._urls):
            raise ConfigurationError(
                "base_url has no address, or one twice",
                received=addresses,
                allowed="one address, or several that differ",
                field="base_url",
            )
        # The first names them all: addresses may come and go between sessions.
        self.base_url = self._urls[0]
        self.name = name or model
        self._key_variable = api_key_env or (
            "OPENAI_API_KEY" if self.base_url == OPENAI_URL else None
        )
        self._writer = RequestWriter(
            model,
            dialect,
            system_prompt=system_prompt,
            json_schema=json_schema,
            token_field="max_completion_tokens" if self.base_url == OPENAI_URL else "max_tokens",
        )
        self.fingerprint = self._fingerprint()
        self.scores = scores
        self._limits = limits
        self._retries = retries
        self._traffic = Traffic(limits)
        payer = limits.account or f"{self.base_url} {self._key_variable or ''}".strip()
        self._account = Account(prices, limits.max_cost, payer)
        # Last of all checks: a recipe is checked before its keys are there.
        Key(self._key_variable)
        self._one_call = RLock()

    def _fingerprint(self) -> str:
        return fingerprint(["api", self.base_url, *self._writer.settings()])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._writer.model!r}, base_url={self.base_url!r})"

    @property
    def scored_tokens(self) -> int:
        """How many tokens are scored at each place."""
        return self._writer.dialect.scored_tokens

    @property
    def usage(self) -> Usage:
        """What was asked since the model was made, and what it cost."""
        return self._account.usage

    @contextmanager
    def charging(self, books: Books) -> Iterator[None]:
        """Notes in `books` what is asked in this block, and holds `max_cost` by what stands there;
        see `PaidModel`.
        """
        with self._one_call, self._account.charging(books):
            yield

    def ask(self, question: str, *, sampling: Sampling = Sampling()) -> str:
        """Returns the answer to one question."""
        return self.generate([user(question)], sampling)[0].text

    def with_json_schema(self, json_schema: Mapping[str, Any]) -> APIModel:
        """Returns this model as one that is asked for JSON of this schema; limits, prices, usage
        and what may be spent stay shared.
        """
        constrained = copy(self)
        constrained._writer = self._writer.with_json_schema(json_schema)
        constrained.fingerprint = constrained._fingerprint()
        return constrained

    def estimate(
        self, conversations: Sequence[Conversation], sampling: Sampling = Sampling()
    ) -> CostEstimate:
        """Returns what it would cost to ask each of these conversations once; what a store holds
        already costs nothing.
        """
        return self._account.estimate(
            [self._writer.conversation(each) for each in conversations], sampling.max_new_tokens
        )

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        """Answers each conversation; see `LanguageModel.generate`.

        `on_result` is called in the calling thread, for every answer that arrives, also where the
        call then ends in an error.

        Raises:
            ModelError: Some conversations were left unanswered; its `unanswered` says which, and
                why.
        """
        check_conversations(conversations, sampling)
        if not conversations:
            return []
        questions = [
            _Question(self._writer, self._account, conversation, sampling, seed)
            for conversation, seed in zip(
                conversations, sample_seeds(sampling.seed, conversations), strict=True
            )
        ]

        def take(index: int, reply: Reply) -> None:
            if on_result is not None:
                on_result(index, reply.generation)

        outcome = self._send(questions, take)
        if len(outcome.replies) < len(conversations):
            raise self._error(outcome, conversations)
        return [outcome.replies[index].generation for index in range(len(conversations))]

    def score_answers(
        self,
        answers: Sequence[tuple[Conversation, Sequence[int]]],
        student: TokenScorer,
        on_scores: OnScores,
    ) -> dict[int, str]:
        """Scores the tokens of answers on the server; see `ServedScorer`.

        The server's own chat template writes the prompt where it is vLLM, and the student's where
        it is SGLang, which renders no conversation for others.

        Raises:
            CapabilityError: Its tokens are not the student's, or the server gives no
                log-probabilities of a prompt.
            ModelError: The server was given up; what it scored before was handed over.
        """
        # They load Transformers, which whoever asks for text does without.
        from domainfusion.models.api.scoring import ScoredReply, TokenScoring

        if not answers:
            return {}
        scoring = TokenScoring(self._writer, self._account, student)
        probes = scoring.probes()
        found = self._send(probes, lambda _, __: None)
        self._refuse_stopped(found, len(probes), "texts that show its tokens")
        requests = scoring.requests(answers)

        def take(index: int, reply: Reply) -> None:
            assert isinstance(reply, ScoredReply)
            on_scores(index, reply.scores)

        outcome = self._send(requests, take)
        self._refuse_stopped(outcome, len(requests), "answers")
        return {index: failure.reason for index, failure in outcome.failures.items()}

    def score_pieces(
        self, conversations: Sequence[Conversation], on_pieces: OnPieces
    ) -> dict[int, str]:
        """Scores answers by the server's own tokens; see `ServedScorer`. It has to be vLLM, which
        says what its tokens spell.

        Raises:
            CapabilityError: The server gives no log-probabilities of a prompt, or does not say what
                its tokens spell.
            ModelError: The server was given up; what it scored before was handed over.
        """
        from domainfusion.models.api.scoring import PiecesReply, PiecesRequest, Scoring

        if not conversations:
            return {}
        scoring = Scoring(self._writer, self._account)
        requests = [PiecesRequest(scoring, each) for each in conversations]

        def take(index: int, reply: Reply) -> None:
            assert isinstance(reply, PiecesReply)
            on_pieces(index, reply.scores)

        outcome = self._send(requests, take)
        self._refuse_stopped(outcome, len(requests), "answers")
        return {index: failure.reason for index, failure in outcome.failures.items()}

    def _refuse_stopped(self, outcome: Outcome, count: int, what: str) -> None:
        for failure in outcome.failures.values():
            if isinstance(failure, CantScore):
                raise CapabilityError(
                    f"{self._where} can't score tokens: {failure.reason}", fix=failure.fix
                )
        if outcome.stop is not None:
            raise ModelError(
                f"{self._where} scored {len(outcome.replies)} of {count} {what} before it was given"
                f" up: {outcome.stop.reason}",
                fix=f"{outcome.stop.fix}; what was scored is kept",
            )

    def _send(self, requests: Sequence[Request], on_reply: OnReply) -> Outcome:
        with self._one_call:
            asker = Asker(self._endpoint, self._limits, self._retries, self._traffic, self._account)
            outcome = asker.ask(requests, on_reply)
        logger.info("%s: %s", self.name, self.usage)
        return outcome

    def _endpoint(self) -> Endpoint | Endpoints:
        found = [self._endpoint_at(url) for url in self._urls]
        return found[0] if len(found) == 1 else Endpoints(found)

    def _endpoint_at(self, url: str) -> Endpoint:
        return Endpoint(
            url,
            Key(self._key_variable),
            key_variable=self._key_variable,
            timeout_seconds=self._retries.timeout_seconds,
            max_concurrency=self._limits.max_concurrency,
        )

    @property
    def _where(self) -> str:
        others = f" and {len(self._urls) - 1} more" if len(self._urls) > 1 else ""
        return f"{self.name} at {urlsplit(self.base_url).netloc}{others}"

    def _error(self, outcome: Outcome, conversations: Sequence[Conversation]) -> ModelError:
        missing = [index for index in range(len(conversations)) if index not in outcome.replies]
        where = self._where
        if outcome.stop is not None:
            rest, fix = outcome.stop.reason, outcome.stop.fix
            what = (
                f"{where} answered {len(outcome.replies)} of {counted(len(conversations), 'question')} before"
                f" it was given up: {rest}"
            )
        else:
            first = outcome.failures[missing[0]]
            what = (
                f"{where} left {len(missing)} of {counted(len(conversations), 'question')} unanswered, the"
                f" first for this reason: {first.reason}"
            )
            again = (
                "run again, which asks for these alone; or continue without them:"
                " on_teacher_failure='continue'"
            )
            rest, fix = first.reason, f"{first.fix}; then {again}" if first.fix else again
        error = ModelError(what, fix=fix)
        reasons = {index: failure.reason for index, failure in outcome.failures.items()}
        error.unanswered = {conversations[index]: reasons.get(index, rest) for index in missing}
        return error
