"""Mixtures: every group has its share in every stretch, and rows come round evenly."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.errors import ConfigurationError
from domainfusion.training.mixtures import interleaved_order, natural_shares

groups = st.lists(st.sampled_from("abcd"), min_size=1, max_size=60)


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[list[str], dict[str, int]]:
    """Rows of some groups, and a share for each group that has rows."""
    rows = draw(groups)
    shares = {group: draw(st.integers(0, 9)) for group in dict.fromkeys(rows)}
    shares[rows[0]] += 1
    return rows, shares


@given(rows=groups, seed=st.integers(0, 99))
def test_natural_shares_show_every_row_once(rows: list[str], seed: int) -> None:
    order = interleaved_order(rows, natural_shares(rows), random.Random(seed))
    assert sorted(order) == list(range(len(rows)))


@given(mixture=mixtures(), seed=st.integers(0, 99))
def test_every_beginning_holds_each_group_in_its_share(
    mixture: tuple[list[str], dict[str, int]], seed: int
) -> None:
    rows, shares = mixture
    order = interleaved_order(rows, shares, random.Random(seed))
    assert len(order) == len(rows)
    total, seen = sum(shares.values()), Counter[str]()
    for length, index in enumerate(order, start=1):
        seen[rows[index]] += 1
        for group, share in shares.items():
            # One for the group's own offset, one for the rounding of its count, and one for its
            # neighbors' offsets.
            assert abs(seen[group] - length * share / total) <= 3


@given(mixture=mixtures(), seed=st.integers(0, 99))
def test_no_row_of_a_group_comes_twice_before_all_came_once(
    mixture: tuple[list[str], dict[str, int]], seed: int
) -> None:
    rows, shares = mixture
    counts = Counter(interleaved_order(rows, shares, random.Random(seed)))
    for group in shares:
        times = [counts[index] for index, own in enumerate(rows) if own == group]
        assert max(times) - min(times) <= 1


def test_a_group_without_a_share_is_not_shown() -> None:
    order = interleaved_order(["a", "b", "a", "c"], {"a": 1, "b": 0}, random.Random(0))
    assert {index % 2 for index in order} == {0}
    assert 3 not in order


def test_the_seed_decides_the_order() -> None:
    rows = ["a", "b"] * 20
    orders = [interleaved_order(rows, {"a": 1, "b": 1}, random.Random(seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("shares", [{}, {"a": 0}, {"a": 2, "b": -1}])
def test_shares_that_make_no_mixture_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="do not make a mixture"):
        interleaved_order(["a", "b"], shares, random.Random(0))


def test_a_share_of_a_group_without_rows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="No training record belongs to 'c'"):
        interleaved_order(["a", "b"], {"a": 1, "c": 1}, random.Random(0))
