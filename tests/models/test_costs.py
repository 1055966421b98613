"""Laws of costs: sums add up, an estimate is no less than what comes, and nothing is priced without
a price.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.models.costs import (
    Account,
    Payment,
    Prices,
    TokenCount,
    about_prompt_tokens,
    most_prompt_tokens,
)
from domainfusion.types import Message, user

numbers = st.integers(0, 10_000)
counts = st.builds(
    lambda cached, fresh, thought, rest: TokenCount(
        prompt=cached + fresh, completion=thought + rest, cached=cached, reasoning=thought
    ),
    *[numbers, numbers, numbers, numbers],
)
PRICES = Prices(
    price_per_million_input_tokens=2.0,
    price_per_million_output_tokens=8.0,
    price_per_million_cached_tokens=0.5,
)


def sent(account: Account, worst_cost: float) -> Payment:
    payment = account.reserve(worst_cost)
    assert payment is not None
    return payment


@given(st.lists(counts))
def test_usage_is_the_sum_of_the_answers(answers: list[TokenCount]) -> None:
    account = Account(PRICES)
    for tokens in answers:
        account.settle(sent(account, 1.0), "stop", tokens)
    usage = account.usage
    assert (usage.requests, usage.answers, usage.failed, usage.unknown_cost) == (
        len(answers),
        len(answers),
        0,
        0,
    )
    assert usage.prompt_tokens == sum(tokens.prompt for tokens in answers)
    assert usage.cached_tokens == sum(tokens.cached for tokens in answers)
    assert usage.completion_tokens == sum(tokens.completion for tokens in answers)
    assert usage.reasoning_tokens == sum(tokens.reasoning for tokens in answers)
    assert usage.cost == pytest.approx(sum(PRICES.cost(tokens) for tokens in answers))


def test_a_price_is_per_million_tokens_and_cached_ones_have_their_own() -> None:
    assert (
        PRICES.cost(TokenCount(prompt=3_000_000, completion=0, cached=1_000_000)) == 2 * 2.0 + 0.5
    )
    assert PRICES.cost(TokenCount(prompt=0, completion=1_000_000, reasoning=600_000)) == 8.0


def test_without_prices_there_is_no_cost() -> None:
    account = Account()
    account.settle(
        sent(account, account.worst_cost(user("a"), 100)),
        "stop",
        TokenCount(prompt=10, completion=10),
    )
    assert account.usage.cost is None
    assert account.estimate([user("a")], 100).cost is None
    assert "cost" not in str(account.usage)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_a_prompt_has_no_more_tokens_than_bytes(texts: list[str]) -> None:
    conversation = tuple(Message("user", text) for text in texts)
    assert about_prompt_tokens(conversation) <= most_prompt_tokens(conversation)
    assert most_prompt_tokens(conversation) >= sum(len(text.encode()) for text in texts)


def test_an_estimate_counts_every_conversation() -> None:
    account = Account(PRICES)
    one, ten = account.estimate([user("Why?")], 100), account.estimate([user("Why?")] * 10, 100)
    assert (ten.requests, ten.max_completion_tokens) == (10, 1_000)
    assert one.cost is not None and ten.cost == pytest.approx(10 * one.cost)
    assert account.usage.requests == 0


def test_refusals_and_filtered_answers_are_counted_and_shown() -> None:
    account = Account(PRICES)
    for reason in ("stop", "refused", "filtered", "refused"):
        account.settle(sent(account, 1.0), reason, None)
    assert (account.usage.refused, account.usage.filtered, account.usage.answers) == (2, 1, 4)
    assert account.usage.unknown_cost == 4.0
    assert "2 refused" in str(account.usage) and "1 filtered" in str(account.usage)
