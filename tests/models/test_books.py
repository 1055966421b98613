"""Laws of the books: whoever writes into them, now or later, what was spent adds up, and no limit
is passed.
"""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.errors import ModelError
from domainfusion.models import APIModel, ResponseStore, ScriptedModel
from domainfusion.models.costs import MemoryBooks, PaidModel, StoredBooks
from domainfusion.types import Conversation, Sampling, user
from models.api_settings import api_model
from models.faulty_server import FaultyServer, hang

BRIEF = Sampling(max_new_tokens=5)
PRICES = {"price_per_million_input_tokens": 1e6, "price_per_million_output_tokens": 1e6}
"""A unit of money for each token: 15 for an answer of the server, and at most 8 + 5 and a unit for
each byte of the question.
"""
COST = 15.0


def paid(server: FaultyServer, **settings: Any) -> APIModel:
    options: dict[str, Any] = {**PRICES, **settings}
    return api_model(
        "teacher", base_url=server.url, backoff_seconds=0.001, max_retries=0, **options
    )


def questions(count: int) -> list[Conversation]:
    return [user(f"question {number}") for number in range(count)]


amounts = st.integers(0, 50).map(float)


def test_requests_that_cost_nothing_count_no_other_twice() -> None:
    """Some are lost, some in flight while others are paid, and one is canceled in the end."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.execute(f"CREATE TABLE payments ({StoredBooks.COLUMNS})")
        for books in (MemoryBooks(), StoredBooks(database, model="m", role="r")):
            free = [books.reserve("a", 0.0, None) for _ in range(6)]
            for cost in (5.0, 7.0):
                number = books.reserve("a", 9.0, None)
                assert number is not None
                books.settle(number, cost)
            for number in free[:2]:
                assert number is not None
                books.settle(number, 0.0)
            assert free[2] is not None
            books.cancel(free[2])
            assert books.spent("a") == 12.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), amounts, st.sampled_from(["settle", "cancel", "lose"]), amounts
        )
    ),
    st.none() | amounts,
)
def test_stored_books_are_those_in_memory(
    entries: list[tuple[str, float, str, float]], limit: float | None
) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.execute(f"CREATE TABLE payments ({StoredBooks.COLUMNS})")
        kinds: list[Any] = [MemoryBooks(), StoredBooks(database, model="m", role="r")]
        for account, at_most, end, cost in entries:
            numbers = [books.reserve(account, at_most, limit) for books in kinds]
            assert len({number is None for number in numbers}) == 1
            for books, number in zip(kinds, numbers, strict=True):
                if number is not None and end == "settle":
                    books.settle(number, min(cost, at_most))
                elif number is not None and end == "cancel":
                    books.cancel(number)
            spent = [[books.spent(name) for name in "abc"] for books in kinds]
            assert spent[0] == spent[1] and spent[0][2] == 0
            assert limit is None or max(spent[0]) <= limit


def test_what_is_settled_takes_one_row(tmp_path: Path) -> None:
    with FaultyServer() as server, ResponseStore(tmp_path / "s.sqlite") as store:
        store.ask(paid(server), questions(20), BRIEF)
        assert store._connection.execute("SELECT paid, noted FROM payments").fetchall() == [
            (20 * COST, 0.0)
        ]


def test_a_limit_holds_over_sessions(tmp_path: Path) -> None:
    with FaultyServer() as server:
        sent = []
        for _ in range(3):
            with (
                ResponseStore(tmp_path / "s.sqlite") as store,
                pytest.raises(ModelError, match="max_cost"),
            ):
                store.ask(paid(server, max_cost=100), questions(100), BRIEF)
            sent.append(len(server.exchanges))
        assert len(set(sent)) == 1 and 0 < sent[0] * COST <= 100
        with ResponseStore(tmp_path / "s.sqlite") as store:
            store.ask(paid(server, max_cost=2_000), questions(100), BRIEF)
            [usage] = store.usage()
        assert usage.cost == 100 * COST and usage.calls == len(server.exchanges) == 100


@pytest.mark.parametrize("apart", [False, True])
def test_models_of_one_account_spend_together_and_those_of_two_apart(
    apart: bool, tmp_path: Path
) -> None:
    with FaultyServer() as server, ResponseStore(tmp_path / "s.sqlite") as store:
        for number in range(3):
            account = {"account": f"account {number}"} if apart else {}
            with pytest.raises(ModelError, match="max_cost"):
                store.ask(
                    paid(server, system_prompt=f"Be brief: {number}", max_cost=100, **account),
                    questions(100),
                    BRIEF,
                )
        spent = sum(server.answered.values()) * COST
    assert (spent > 100) == apart and spent <= 300


def test_a_model_asked_for_json_spends_from_the_same_account(tmp_path: Path) -> None:
    with FaultyServer() as server, ResponseStore(tmp_path / "s.sqlite") as store:
        model = paid(server, max_cost=200)
        store.ask(model.with_json_schema({"type": "object"}), questions(2), BRIEF)
        with pytest.raises(ModelError, match="max_cost"):
            store.ask(model, questions(100), BRIEF)
        assert sum(server.answered.values()) * COST <= 200
        assert (
            sum(usage.cost or 0 for usage in store.usage()) == sum(server.answered.values()) * COST
        )


KILLED = """
import sys
from domainfusion.models import APIModel, Prices, ResponseStore
from domainfusion.types import Sampling, user

model = APIModel("teacher", base_url=sys.argv[1], prices=Prices(price_per_million_input_tokens=1e6, price_per_million_output_tokens=1e6))
with ResponseStore(sys.argv[2]) as store:
    store.ask(model, [user("question 0")], Sampling(max_new_tokens=5))
"""


def test_what_was_in_flight_when_a_process_was_killed_counts_as_spent(tmp_path: Path) -> None:
    with FaultyServer({"question 0": [hang]}) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, server.url, str(tmp_path / "s.sqlite")]
        )
        while not server.exchanges:
            assert process.poll() is None
        process.kill()
        process.wait()
        with ResponseStore(tmp_path / "s.sqlite") as store:
            [usage] = store.usage()
            assert (
                usage.calls == 0
                and usage.cost == 0
                and usage.unknown_cost == len(b"question 0") + 8 + 5
            )
            with pytest.raises(ModelError, match="max_cost"):
                store.ask(paid(server, max_cost=usage.unknown_cost + 1), questions(1), BRIEF)
            assert len(server.exchanges) == 1
            store.ask(paid(server, max_cost=usage.unknown_cost + 50), questions(1), BRIEF)
            assert (store.usage()[0].cost, store.usage()[0].unknown_cost) == (
                COST,
                usage.unknown_cost,
            )


def test_a_model_without_prices_leaves_the_books_empty(tmp_path: Path) -> None:
    with FaultyServer() as server, ResponseStore(tmp_path / "s.sqlite") as store:
        store.ask(APIModel("teacher", base_url=server.url), questions(3), BRIEF)
        [usage] = store.usage()
        assert (
            usage.cost is None
            and usage.unknown_cost == 0
            and (usage.prompt_tokens, usage.completion_tokens) == (30, 15)
        )


def test_only_a_model_that_can_keep_books_is_paid() -> None:
    assert isinstance(APIModel("m", base_url="http://localhost/v1"), PaidModel)
    assert not isinstance(ScriptedModel(str.upper), PaidModel)
