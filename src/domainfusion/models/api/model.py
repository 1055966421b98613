"""A model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from threading import RLock
from typing import Any
from urllib.parse import urlsplit

from domainfusion.errors import ConfigurationError, ModelError
from domainfusion.models.api.asking import Asker, Outcome
from domainfusion.models.api.costs import Account, CostEstimate, Prices, Usage
from domainfusion.models.api.dialect import Dialect
from domainfusion.models.api.endpoint import Endpoint
from domainfusion.models.api.key import OPENAI_URL, Key, check_url
from domainfusion.models.api.limits import Limits, Traffic
from domainfusion.models.base import OnResult, sample_seeds
from domainfusion.models.books import Books
from domainfusion.types import Conversation, Generation, Sampling, fingerprint, user

logger = logging.getLogger("domainfusion")


class APIModel:
    """A model that a server answers for: a hosted service, vLLM, Ollama, llama.cpp, LM Studio, or
    whatever speaks OpenAI's chat API.

    It gives text and nothing else: a teacher, a generation model, an integration model or a judge,
    but no student.

    Args:
        model: The model's name on the server.
        base_url: The address that `/chat/completions` follows; by default OpenAI's.
        api_key_env: The environment variable with the key. By default `OPENAI_API_KEY` for OpenAI's
            own service, and no key for any other, so that a key goes nowhere but where it is meant
            to. The key is read for each call and kept nowhere.
        name: What reports call it; by default `model`.
        system_prompt: A system message put before every conversation that has none: a prompted
            model is an expert too.
        json_schema: Asks for JSON of this schema; a server that refuses is asked in words instead.
        include_reasoning: Keep the reasoning in the text, between `<think>` and `</think>`. By
            default it is kept apart, in `Generation.reasoning`, and not trained on.
        omit: What the server or the model refuses: `temperature`, `top_p`, `seed`, `stream`;
            `response_format`, so that JSON is asked for in words; `system`, so that the system
            message stands before the first question. What is refused and is not named here is left
            out once that is known, with a warning.
        extra_body: Further fields of each request, such as `{"reasoning_effort": "low"}`.
        require_finish_reason: Take no answer of which the server does not say why it ended. By
            default such an answer is whole unless it has as many tokens as it was allowed.
        check_prompt_tokens: Take no answer where the server counts far fewer tokens than the prompt
            has, since its context window was too small. False for a server that counts otherwise.
        max_concurrency: Requests in flight.
        requests_per_minute: Requests that start in any minute; None for no limit.
        tokens_per_minute: Tokens read and written in any minute; None for no limit. Until an answer
            is there, its request counts with one token for each byte of the prompt and
            `max_new_tokens`.
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
        price_per_million_input_tokens: Price of tokens read, in any currency.
        price_per_million_output_tokens: Price of tokens written.
        price_per_million_cached_tokens: Price of tokens that the server had read before; by default
            that of tokens read.
        max_cost: What may be spent from the account. A request with which that could come to more,
            at one token for each byte of the prompt and `max_new_tokens` of answer, is not sent. In
            a run, everything counts that the run's models have spent from the account since the run
            began, in whatever process; elsewhere, what is asked through this object.
        account: Who pays: models that name the same one spend from it together. By default the
            server and the key's variable.
        allow_insecure_http: Allow plain http to another machine: whoever listens reads the key and
            every text.

    Raises:
        ConfigurationError: An argument is outside of what is allowed, or the key's variable is not
            set.
        MissingDependencyError: The package openai is not installed.

    Attributes:
        name: What reports call it.
        base_url: Where it is asked.
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
        base_url: str = OPENAI_URL,
        api_key_env: str | None = None,
        name: str | None = None,
        system_prompt: str | None = None,
        json_schema: Mapping[str, Any] | None = None,
        include_reasoning: bool = False,
        omit: Collection[str] = (),
        extra_body: Mapping[str, Any] | None = None,
        require_finish_reason: bool = False,
        check_prompt_tokens: bool = True,
        max_concurrency: int = 16,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        timeout_seconds: float = 300.0,
        max_retries: int = 6,
        max_failures_in_a_row: int = 10,
        max_wait_seconds: float = 120.0,
        backoff_seconds: float = 0.5,
        price_per_million_input_tokens: float | None = None,
        price_per_million_output_tokens: float | None = None,
        price_per_million_cached_tokens: float | None = None,
        max_cost: float | None = None,
        account: str | None = None,
        allow_insecure_http: bool = False,
    ) -> None:
        if not model.strip():
            raise ConfigurationError(
                "The model has no name", received=model, allowed="its name on the server"
            )
        counts = {
            "max_concurrency": max_concurrency,
            "max_failures_in_a_row": max_failures_in_a_row,
        }
        rates = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        for argument, number in (
            counts | {key: rate for key, rate in rates.items() if rate is not None}
        ).items():
            if number < 1:
                raise ConfigurationError(
                    f"{argument} is not positive", received=number, allowed="a whole number from 1"
                )
        for argument, seconds in {
            "timeout_seconds": timeout_seconds,
            "backoff_seconds": backoff_seconds,
        }.items():
            if not seconds > 0:
                raise ConfigurationError(
                    f"{argument} is not positive", received=seconds, allowed="a number above 0"
                )
        for argument, least in {
            "max_retries": max_retries,
            "max_wait_seconds": max_wait_seconds,
        }.items():
            if not least >= 0:
                raise ConfigurationError(
                    f"{argument} is negative", received=least, allowed="a number from 0"
                )
        self.base_url = check_url(base_url, allow_insecure_http=allow_insecure_http)
        self.name = name or model
        self._key_variable = api_key_env or (
            "OPENAI_API_KEY" if self.base_url == OPENAI_URL else None
        )
        self._timeout_seconds = timeout_seconds
        self._include_reasoning = include_reasoning
        self._require_finish_reason = require_finish_reason
        self._check_prompt_tokens = check_prompt_tokens
        self._dialect = Dialect(
            model,
            system_prompt=system_prompt,
            json_schema=json_schema,
            extra_body=extra_body,
            omit=omit,
            token_field="max_completion_tokens" if self.base_url == OPENAI_URL else "max_tokens",
        )
        self.fingerprint = self._fingerprint()
        self._limits = Limits(
            max_concurrency=max_concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            max_retries=max_retries,
            max_failures_in_a_row=max_failures_in_a_row,
            max_wait_seconds=max_wait_seconds,
            backoff_seconds=backoff_seconds,
        )
        self._traffic = Traffic(self._limits)
        prices = _prices(
            price_per_million_input_tokens,
            price_per_million_output_tokens,
            price_per_million_cached_tokens,
        )
        payer = account or f"{self.base_url} {self._key_variable or ''}".strip()
        self._account = Account(prices, _checked_cost(max_cost, prices), payer)
        # Last of all checks: a recipe is checked before its keys are there.
        Key(self._key_variable)
        self._one_call = RLock()

    def _fingerprint(self) -> str:
        return fingerprint(
            ["api", self.base_url, *self._dialect.settings(), self._include_reasoning]
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._dialect.model!r}, base_url={self.base_url!r})"

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
        constrained._dialect = self._dialect.with_json_schema(json_schema)
        constrained.fingerprint = constrained._fingerprint()
        return constrained

    def estimate(
        self, conversations: Sequence[Conversation], sampling: Sampling = Sampling()
    ) -> CostEstimate:
        """Returns what it would cost to ask each of these conversations once; what a store holds
        already costs nothing.
        """
        return self._account.estimate(
            [self._dialect.conversation(each) for each in conversations], sampling.max_new_tokens
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
        if not conversations:
            return []
        with self._one_call:
            asker = Asker(
                self._endpoint,
                self._dialect,
                self._limits,
                self._traffic,
                self._account,
                include_reasoning=self._include_reasoning,
                require_finish_reason=self._require_finish_reason,
                check_prompt_tokens=self._check_prompt_tokens,
            )
            outcome = asker.ask(
                conversations, sample_seeds(sampling.seed, conversations), sampling, on_result
            )
        logger.info("%s: %s", self.name, self.usage)
        if len(outcome.answers) < len(conversations):
            raise self._error(outcome, conversations)
        return [outcome.answers[index] for index in range(len(conversations))]

    def _endpoint(self) -> Endpoint:
        return Endpoint(
            self.base_url,
            Key(self._key_variable),
            key_variable=self._key_variable,
            timeout_seconds=self._timeout_seconds,
            max_concurrency=self._limits.max_concurrency,
        )

    def _error(self, outcome: Outcome, conversations: Sequence[Conversation]) -> ModelError:
        missing = [index for index in range(len(conversations)) if index not in outcome.answers]
        where = f"{self.name} at {urlsplit(self.base_url).netloc}"
        if outcome.stop is not None:
            rest, fix = outcome.stop.reason, outcome.stop.fix
            what = (
                f"{where} answered {len(outcome.answers)} of {len(conversations)} questions before"
                f" it was given up: {rest}"
            )
        else:
            first = outcome.failures[missing[0]]
            what = (
                f"{where} left {len(missing)} of {len(conversations)} questions unanswered, the"
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


def _prices(prompt: float | None, completion: float | None, cached: float | None) -> Prices | None:
    given = {"input": prompt, "output": completion, "cached": cached}
    for kind, price in given.items():
        if price is not None and not 0 <= price < float("inf"):
            raise ConfigurationError(
                f"price_per_million_{kind}_tokens is out of range",
                received=price,
                allowed="a number from 0",
            )
    if prompt is None and completion is None and cached is None:
        return None
    if prompt is None or completion is None:
        raise ConfigurationError(
            "One price is missing",
            received=given,
            allowed="the prices of input and output tokens, or none",
            fix="give both; 0 is a price",
        )
    return Prices(prompt=prompt, completion=completion, cached=prompt if cached is None else cached)


def _checked_cost(max_cost: float | None, prices: Prices | None) -> float | None:
    if max_cost is None:
        return None
    if prices is None:
        raise ConfigurationError(
            "max_cost needs prices",
            received=max_cost,
            fix="give price_per_million_input_tokens and price_per_million_output_tokens",
        )
    if not max_cost > 0:
        raise ConfigurationError(
            "max_cost is not positive",
            received=max_cost,
            allowed="a number above 0, or None for no limit",
        )
    return max_cost
