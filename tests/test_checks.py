from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.checks import (
    Interval,
    check_count,
    check_number,
    check_seed,
    check_word,
    is_number,
)
from domainfusion.errors import ConfigurationError

INTERVALS: list[Interval] = ["(0, 1)", "[0, 1)", "(0, 1]", "[0, 1]", "(0, inf)", "[0, inf)"]
NO_NUMBERS = ["0.5", None, True, False, [1], math.nan, math.inf, -math.inf]


def takes(value: object, within: Interval) -> bool:
    try:
        check_number("x", value, within)
    except ConfigurationError:
        return False
    return True


@given(value=st.floats(allow_nan=True) | st.integers(-3, 3), within=st.sampled_from(INTERVALS))
def test_a_range_takes_what_lies_in_it(value: float, within: Interval) -> None:
    low, high = (float(end) for end in within[1:-1].split(", "))
    above = value >= low if within[0] == "[" else value > low
    below = value <= high if within[-1] == "]" else value < high
    assert takes(value, within) == (above and below)


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_not_a_finite_number_is_in_no_range(value: object) -> None:
    assert not any(takes(value, within) for within in INTERVALS)
    with pytest.raises(ConfigurationError, match="x is out of range"):
        check_count("x", value)


def test_none_is_right_only_where_it_is_optional() -> None:
    check_number("x", None, "(0, 1)", optional=True)
    check_count("x", None, optional=True)
    with pytest.raises(ConfigurationError, match=r"a number from 0 to 1\."):
        check_number("x", 2, "[0, 1]", optional=True)
    with pytest.raises(ConfigurationError, match=r"a whole number from 1\."):
        check_count("x", 0, optional=True)


@given(value=st.integers(), least=st.integers(-5, 5), width=st.none() | st.integers(0, 9))
def test_a_count_lies_between_its_ends(value: int, least: int, width: int | None) -> None:
    most = None if width is None else least + width
    if value >= least and (most is None or value <= most):
        check_count("x", value, least, most)
    else:
        with pytest.raises(ConfigurationError, match="x is out of range"):
            check_count("x", value, least, most)


def test_a_count_is_whole() -> None:
    with pytest.raises(ConfigurationError, match=r"received 1\.0; allowed: a whole number from 1"):
        check_count("x", 1.0)


def test_a_seed_fits_into_32_bits() -> None:
    check_seed(2**32 - 1)
    with pytest.raises(ConfigurationError, match="0 to 4,294,967,295"):
        check_seed(2**32)


def test_a_word_is_one_of_a_list() -> None:
    check_word("x", "a", ("a", "b"))
    with pytest.raises(ConfigurationError, match="x is not known; received 'c'; allowed: a, b"):
        check_word("x", "c", ("a", "b"))


def test_true_is_no_number() -> None:
    assert is_number(1) and is_number(0.5)
    assert not is_number(True) and not is_number("1")
