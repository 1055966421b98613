"""Coverage: every combination in turn, and each of its domains leads as often."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from domainfusion.distillation.data_generation.synthetic import combinations_in_turn


@pytest.mark.parametrize(("count", "size"), [(2, 2), (3, 2), (3, 3), (4, 2), (5, 3), (6, 4)])
def test_in_a_whole_cycle_each_combination_is_led_once_by_each_of_its_domains(
    count: int, size: int
) -> None:
    domains = "abcdef"[:count]
    combinations = list(itertools.combinations(domains, size))
    found = list(itertools.islice(combinations_in_turn(domains, [size]), len(combinations) * size))
    assert {(lead, frozenset(rest)) for lead, *rest in found} == {
        (lead, frozenset(combination) - {lead})
        for combination in combinations
        for lead in combination
    }
    assert len({lead for lead, *_ in found}) == count
    assert len(set(Counter(lead for lead, *_ in found).values())) == 1, "all lead as often"
    for start in range(0, len(found), len(combinations)):
        round_of_all = found[start : start + len(combinations)]
        assert {frozenset(item) for item in round_of_all} == set(map(frozenset, combinations))


def test_sizes_take_turns() -> None:
    assert [len(found) for found in itertools.islice(combinations_in_turn("abcd", [2, 3]), 6)] == [
        2,
        3,
        2,
        3,
        2,
        3,
    ]
