"""What models cost: what each was asked for and what that took, the books of paid requests, prices,
and estimates before a request is sent, so that a limit holds for all who write into the same books.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from itertools import count
from threading import Lock
from typing import NamedTuple

from typing_extensions import Protocol, runtime_checkable

from domainfusion.checks import check_number
from domainfusion.errors import ConfigurationError
from domainfusion.models.base import LanguageModel
from domainfusion.types import Conversation, FinishReason
from domainfusion.wording import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsage:
    """What one model wrote for a run since the run began, whichever process asked.

    Attributes:
        name: What people call the model.
        roles: What it was asked as: `generation`, `judge`, `expert of …`, `integration`, `base`,
            `merge`, `student`; `scoring for …` where its server scored targets for a training.
        calls: Answers that it wrote or scored; what the run had already is not counted again.
        prompt_tokens: Tokens read for them.
        completion_tokens: Tokens written.
        seconds: Wall-clock time in which the run waited for them.
        cost: What is known to be paid, retries included; None where its prices are not known.
        unknown_cost: At most this much more: for requests whose answer was lost, or came without a
            count of tokens.
    """

    name: str
    roles: tuple[str, ...] = ()
    calls: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cost: float | None = None
    unknown_cost: float = 0.0


def total_cost(usage: Sequence[ModelUsage]) -> float | None:
    """Returns what all of the models are known to have cost; None where no price is known."""
    known = [model.cost for model in usage if model.cost is not None]
    return sum(known) if known else None


class Books(Protocol):
    """Keeps what each account spent.

    What a request costs at most is noted before it is sent. Its price stands there from when its
    answer has come; where none comes, the request stays noted at its most, since the server may
    have written an answer anyway.
    """

    def spent(self, account: str) -> float:
        """Returns what was paid from the account, with what is noted for requests that have no
        price yet.
        """
        ...

    def reserve(self, account: str, at_most: float, limit: float | None) -> int | None:
        """Notes a request and returns its number; None, and nothing noted, where the account could
        come to more than `limit`.
        """
        ...

    def settle(self, number: int, cost: float) -> None:
        """Notes what a request cost."""
        ...

    def cancel(self, number: int) -> None:
        """Strikes a request that cost nothing."""
        ...


@runtime_checkable
class PaidModel(LanguageModel, Protocol):
    """Costs money, and notes in the books that it is given what it spends."""

    def charging(self, books: Books) -> AbstractContextManager[None]:
        """For the time of the block, notes what answers cost in `books`; what stands there counts
        against the model's limit.
        """
        ...


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Writes all of a block or none of it, and lets no other process write between its lines."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite rolls back by itself where the disk is full
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


class MemoryBooks:
    """Books that end with the process: those of a model that is used by itself."""

    def __init__(self) -> None:
        self._payments: dict[int, tuple[str, float]] = {}
        self._paid: dict[str, float] = {}
        self._numbers = count()

    def spent(self, account: str) -> float:
        """See `Books`."""
        return self._paid.get(account, 0.0) + sum(
            at_most for payer, at_most in self._payments.values() if payer == account
        )

    def reserve(self, account: str, at_most: float, limit: float | None) -> int | None:
        """See `Books`."""
        if limit is not None and self.spent(account) + at_most > limit:
            return None
        number = next(self._numbers)
        self._payments[number] = (account, at_most)
        return number

    def settle(self, number: int, cost: float) -> None:
        """See `Books`."""
        account, _ = self._payments.pop(number)
        self._paid[account] = self._paid.get(account, 0.0) + cost

    def cancel(self, number: int) -> None:
        """See `Books`."""
        del self._payments[number]


class StoredBooks:
    """Books in a SQLite database, which all processes share that have it open, now and later.

    A process that is killed leaves what it had in flight noted at its most.

    Args:
        connection: The database, in autocommit mode; it may belong to another thread.
        model: Fingerprint of the model that spends.
        role: What it is asked as.
    """

    COLUMNS = (
        "number INTEGER PRIMARY KEY, account TEXT NOT NULL, model TEXT NOT NULL, role TEXT NOT"
        " NULL, paid REAL NOT NULL, noted REAL NOT NULL"
    )
    """Those of the table `payments`: a row of what was paid for each account, model and role, one
    for each request without a price yet.
    """

    def __init__(self, connection: sqlite3.Connection, *, model: str, role: str) -> None:
        self._connection = connection
        self._model = model
        self._role = role
        self._one_at_a_time = Lock()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._one_at_a_time, transaction(self._connection):
            yield self._connection

    def spent(self, account: str) -> float:
        """See `Books`."""
        with self._one_at_a_time:
            return self._spent(account)

    def _spent(self, account: str) -> float:
        [total] = self._connection.execute(
            "SELECT total(paid) + total(noted) FROM payments WHERE account = ?", (account,)
        ).fetchone()
        return float(total)

    def reserve(self, account: str, at_most: float, limit: float | None) -> int | None:
        """See `Books`."""
        with self._changing() as database:
            if limit is not None and self._spent(account) + at_most > limit:
                return None
            row = (account, self._model, self._role, at_most)
            return database.execute(
                "INSERT INTO payments (account, model, role, paid, noted) VALUES (?, ?, ?, 0, ?)",
                row,
            ).lastrowid

    def settle(self, number: int, cost: float) -> None:
        """See `Books`."""
        with self._changing() as database:
            added = database.execute(
                # One row alone: requests that cost nothing at most have rows that look like it.
                "UPDATE payments SET paid = paid + ? + (SELECT paid FROM payments WHERE number = ?)"
                " WHERE number = (SELECT min(number) FROM payments WHERE noted = 0 AND (account,"
                " model, role) = (SELECT account, model, role FROM payments WHERE number = ?) AND"
                " number != ?)",
                (cost, number, number, number),
            ).rowcount
            if added:
                database.execute("DELETE FROM payments WHERE number = ?", (number,))
            else:
                database.execute(
                    "UPDATE payments SET paid = paid + ?, noted = 0 WHERE number = ?",
                    (cost, number),
                )

    def cancel(self, number: int) -> None:
        """See `Books`."""
        with self._changing() as database:
            # What another request paid may have been added to the row of one that costs nothing.
            row = (number,)
            database.execute("UPDATE payments SET noted = 0 WHERE number = ?", row)
            database.execute("DELETE FROM payments WHERE number = ? AND paid = 0", row)


_BYTES_PER_TOKEN = 4
"""Of usual English text; other scripts take fewer bytes a token."""
_SMALLEST_WINDOW = 256
"""Tokens; no server is run with a smaller context window."""
_SURELY_LESS = 0.8
"""Of the fewest tokens that a prompt may have: a margin for tokens of two words."""
# A word, whatever its script.
_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Japanese and Chinese, which are written without spaces, and of which a token is seldom more than
two characters.
"""
_TOKENS_AROUND_MESSAGE = 8
"""Role, separators and the start of the answer, at most, in the templates that are in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCount:
    """Tokens of one answer, as the server counted them.

    Attributes:
        prompt: Tokens read.
        completion: Tokens written, those of the reasoning among them.
        cached: Tokens of the prompt that the server had read before.
        reasoning: Tokens of the reasoning.
    """

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Prices per million tokens, in any currency but the same for all models of an account.

    Args:
        price_per_million_input_tokens: Price of tokens read.
        price_per_million_output_tokens: Price of tokens written.
        price_per_million_cached_tokens: Price of tokens that the server had read before; by default
            that of tokens read.

    Raises:
        ConfigurationError: A price is negative, or one of the first two is missing.
    """

    price_per_million_input_tokens: float | None = None
    price_per_million_output_tokens: float | None = None
    price_per_million_cached_tokens: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            price = getattr(self, each.name)
            check_number(each.name, price, "[0, inf)", optional=True)
        for name in ("price_per_million_input_tokens", "price_per_million_output_tokens"):
            if getattr(self, name) is None:
                raise ConfigurationError(
                    "One price is missing",
                    received=self,
                    allowed="the prices of input and output tokens, or none",
                    fix="give both; 0 is a price",
                )

    def cost(self, tokens: TokenCount) -> float:
        """Returns what an answer costs."""
        read = self.price_per_million_input_tokens or 0.0
        written = self.price_per_million_output_tokens or 0.0
        cached = self.price_per_million_cached_tokens
        fresh = max(0, tokens.prompt - tokens.cached)
        again = tokens.cached * (read if cached is None else cached)
        return (fresh * read + again + tokens.completion * written) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """What questions would cost.

    Attributes:
        requests: Answers that would be asked for.
        prompt_tokens: About this many tokens would be read, at four bytes each.
        max_completion_tokens: At most this many tokens would be written.
        cost: What that many tokens cost; None without prices.
    """

    requests: int
    prompt_tokens: int
    max_completion_tokens: int
    cost: float | None

    def __str__(self) -> str:
        text = (
            f"{counted(self.requests, 'request')}, about {counted(self.prompt_tokens, 'prompt token')}, at most"
            f" {self.max_completion_tokens:,} to write"
        )
        return text if self.cost is None else f"{text}: at most about {self.cost:.4f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was asked of a model since it was made, and what that cost; `usage.json` of a run has
    that of all its sessions.

    Attributes:
        requests: Requests sent, those that failed among them.
        failed: Requests that brought no answer.
        answers: Answers that arrived.
        refused: Answers that are a refusal.
        filtered: Answers that a content filter held back.
        prompt_tokens: Tokens read.
        cached_tokens: Those of them that the server had read before.
        completion_tokens: Tokens written.
        reasoning_tokens: Those of them that are reasoning.
        cost: What the answers cost; None without prices.
        unknown_cost: At most this much more: for answers that came without a count, and for
            requests whose answer was lost.
    """

    requests: int = 0
    failed: int = 0
    answers: int = 0
    refused: int = 0
    filtered: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float | None = None
    unknown_cost: float = 0.0

    def __str__(self) -> str:
        text = (
            f"{counted(self.answers, 'answer')} in {counted(self.requests, 'request')} ({self.failed:,} failed),"
            f" {self.refused:,} refused, "
        )
        text += (
            f"{self.filtered:,} filtered; {counted(self.prompt_tokens, 'token')} read"
            f" ({self.cached_tokens:,} cached), "
        )
        text += f"{self.completion_tokens:,} written ({self.reasoning_tokens:,} reasoning)"
        if self.cost is not None:
            text += f"; cost {self.cost:.4f}"
            text += f", and at most {self.unknown_cost:.4f} more" if self.unknown_cost else ""
        return text


class Payment(NamedTuple):
    """A request that was sent: what it costs at most, and its number in the books; None where
    nothing has a price.
    """

    at_most: float
    number: int | None


class Account:
    """Keeps a model's usage, and notes in the books what its requests cost, so that `max_cost` is
    never exceeded.

    Args:
        prices: What tokens cost; None where it does not matter.
        max_cost: What may be spent from the account; None for no limit.
        name: The account in the books: whoever names the same one spends from it.
    """

    def __init__(
        self, prices: Prices | None = None, max_cost: float | None = None, name: str = ""
    ) -> None:
        self.name = name
        self.usage = Usage(cost=None if prices is None else 0.0)
        self._prices = prices
        self._max_cost = max_cost
        self._books: Books = MemoryBooks()

    @contextmanager
    def charging(self, books: Books) -> Iterator[None]:
        """Writes into other books for the time of the block."""
        own, self._books = self._books, books
        try:
            yield
        finally:
            self._books = own

    def worst_cost(
        self, conversation: Conversation, max_new_tokens: int, *, also_read: int = 0
    ) -> float:
        """Returns what one answer costs at most.

        Args:
            conversation: What is read.
            max_new_tokens: Tokens that are written at most.
            also_read: Further tokens that are read.
        """
        if self._prices is None:
            return 0.0
        return self._prices.cost(
            TokenCount(
                prompt=most_prompt_tokens(conversation) + also_read, completion=max_new_tokens
            )
        )

    def estimate(self, conversations: Sequence[Conversation], max_new_tokens: int) -> CostEstimate:
        """Returns what these conversations would cost, each asked once."""
        tokens = TokenCount(
            prompt=sum(map(about_prompt_tokens, conversations)),
            completion=max_new_tokens * len(conversations),
        )
        return CostEstimate(
            requests=len(conversations),
            prompt_tokens=tokens.prompt,
            max_completion_tokens=tokens.completion,
            cost=None if self._prices is None else self._prices.cost(tokens),
        )

    def fits(self, worst_cost: float) -> bool:
        """Whether a further request can't exceed the limit, whatever it and those in flight come
        to.
        """
        return self._max_cost is None or self._books.spent(self.name) + worst_cost <= self._max_cost

    def reserve(self, worst_cost: float) -> Payment | None:
        """Notes a request that is sent now; None where it does not fit."""
        number = None
        if self._prices is not None:
            number = self._books.reserve(self.name, worst_cost, self._max_cost)
            if number is None:
                return None
        self.usage = replace(self.usage, requests=self.usage.requests + 1)
        return Payment(worst_cost, number)

    def settle(
        self, payment: Payment, finish_reason: FinishReason, tokens: TokenCount | None
    ) -> None:
        """Counts an answer; `tokens` is None where the server did not count them."""
        self._count(payment, tokens, lost=tokens is None)
        self.usage = replace(
            self.usage,
            answers=self.usage.answers + 1,
            refused=self.usage.refused + (finish_reason == "refused"),
            filtered=self.usage.filtered + (finish_reason == "filtered"),
        )

    def fail(self, payment: Payment, *, lost: bool, tokens: TokenCount | None = None) -> None:
        """Counts a request that brought no answer.

        Args:
            payment: The request.
            lost: Whether it may have been charged.
            tokens: What the server counted, for an answer that arrived and can't be used.
        """
        if not lost and tokens is None and payment.number is not None:
            self._books.cancel(payment.number)
        self._count(payment, tokens, lost=lost)
        self.usage = replace(self.usage, failed=self.usage.failed + 1)

    def _count(self, payment: Payment, tokens: TokenCount | None, *, lost: bool) -> None:
        """Adds up tokens and what they cost; what is lost stands in the books at its most
        expensive.
        """
        usage, count = self.usage, tokens or TokenCount(prompt=0, completion=0)
        cost = None if self._prices is None else self._prices.cost(count)
        if cost is not None and tokens is not None and payment.number is not None:
            self._books.settle(payment.number, cost)
        self.usage = replace(
            usage,
            prompt_tokens=usage.prompt_tokens + count.prompt,
            cached_tokens=usage.cached_tokens + count.cached,
            completion_tokens=usage.completion_tokens + count.completion,
            reasoning_tokens=usage.reasoning_tokens + count.reasoning,
            cost=None if cost is None else (usage.cost or 0.0) + cost,
            unknown_cost=usage.unknown_cost + (payment.at_most if lost else 0.0),
        )


def about_prompt_tokens(conversation: Conversation) -> int:
    """Returns about how many tokens a conversation has."""
    return sum(
        _size(message.content) // _BYTES_PER_TOKEN + _TOKENS_AROUND_MESSAGE
        for message in conversation
    )


def most_prompt_tokens(conversation: Conversation) -> int:
    """Returns how many tokens a conversation has at most: a token stands for one byte or more."""
    return sum(_size(message.content) + _TOKENS_AROUND_MESSAGE for message in conversation)


def least_prompt_tokens(conversation: Conversation) -> int:
    """Returns how many tokens a conversation has at least, with any tokenizer in common use.

    A token may be a long word, and is seldom more than one: words that are written apart count one
    each, and so do four Chinese or Japanese characters.

    Example:
        >>> from domainfusion.types import user
        >>> least_prompt_tokens(user("How do muscles recover?")), least_prompt_tokens(user("肌肉如何恢复？"))
        (4, 2)
    """
    return sum(_least(message.content) for message in conversation)


def _least(text: str) -> int:
    unspaced = len(_UNSPACED.findall(text))
    return len(_WORD.findall(_UNSPACED.sub(" ", text))) + math.ceil(unspaced / 4)


def was_cut(conversation: Conversation, tokens: TokenCount) -> bool:
    """Whether a server read far fewer tokens than a conversation has: its window cut the prompt.

    Servers that count only what they had not read before report small numbers, so a count below any
    context window says nothing.
    """
    read = max(tokens.prompt, tokens.cached)
    return read >= _SMALLEST_WINDOW and read < _SURELY_LESS * least_prompt_tokens(conversation)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
