"""The books: what requests to paid models cost, so that a limit holds for all who write into the
same books.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from threading import Lock

from typing_extensions import Protocol, runtime_checkable

from domainfusion.models.base import LanguageModel


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
