"""Mixtures of domains: how many rows of each group a phase shows, and in which order."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from domainfusion.errors import ConfigurationError

Key = TypeVar("Key", bound=Hashable)


def interleaved_order(
    groups: Sequence[str], shares: Mapping[str, float], rng: random.Random
) -> list[int]:
    """Returns an order in which every stretch holds each group in its share.

    Each group is shuffled and its rows are spread evenly over the order; a group with a share above
    its natural one is repeated, one below is shown in part. The length of the order is the number
    of rows.

    Args:
        groups: The group of each row.
        shares: The share of each group, in any unit; groups that are not named share nothing.
        rng: Source of the shuffles.

    Raises:
        ConfigurationError: A share is negative, none is positive, or a group with a share has no
            rows.

    Example:
        >>> order = interleaved_order(["a"] * 6 + ["b"] * 2, {"a": 1, "b": 1}, random.Random(0))
        >>> sum(index < 6 for index in order[:4]), len(order)
        (2, 8)
    """
    rows = {group: [index for index, own in enumerate(groups) if own == group] for group in shares}
    check_shares(shares)
    empty = [group for group, share in shares.items() if share > 0 and not rows[group]]
    if empty:
        raise ConfigurationError(
            f"No training record belongs to {empty[0]!r}, which has a share",
            received=dict(shares),
            fix="leave it out, or make examples of it",
        )
    counts = apportion(len(groups), shares)
    places = []
    for group, count in counts.items():
        cycle = _shuffled_cycle(rows[group], count, rng)
        offset = rng.random()
        places += [((position + offset) / count, index) for position, index in enumerate(cycle)]
    return [index for _, index in sorted(places)]


def check_shares(shares: Mapping[str, float]) -> None:
    """Refuses shares that do not make a mixture.

    Raises:
        ConfigurationError: There are none, one is negative or no number, or all are 0.
    """
    if not all(0 <= share < math.inf for share in shares.values()) or not sum(shares.values()) > 0:
        raise ConfigurationError(
            "The shares do not make a mixture",
            received=dict(shares),
            allowed="finite numbers from 0, at least one above 0",
        )


def natural_shares(groups: Sequence[str]) -> dict[str, float]:
    """Returns each group's share of the rows, in order of first appearance."""
    return {group: groups.count(group) / len(groups) for group in dict.fromkeys(groups)}


def apportion(total: int, shares: Mapping[Key, float]) -> dict[Key, int]:
    """Splits `total` by `shares`, in any unit, into whole numbers that sum to it (largest
    remainders first).

    Example:
        >>> apportion(4, {"a": 3, "b": 2, "c": 0})
        {'a': 2, 'b': 2, 'c': 0}
    """
    whole = sum(shares.values())
    exact = {group: total * (share / whole) for group, share in shares.items()}
    counts = {group: int(count) for group, count in exact.items()}
    by_remainder = sorted(shares, key=lambda group: exact[group] - counts[group], reverse=True)
    for group in by_remainder[: total - sum(counts.values())]:
        counts[group] += 1
    return counts


def _shuffled_cycle(rows: Sequence[int], count: int, rng: random.Random) -> list[int]:
    cycle: list[int] = []
    while len(cycle) < count:
        turn = list(rows)
        rng.shuffle(turn)
        cycle += turn
    return cycle[:count]
