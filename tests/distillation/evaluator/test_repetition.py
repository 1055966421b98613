"""Repetition: loops are found wherever they stand and whatever they say, and ordinary texts are not
called so.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.distillation.evaluator.evaluator import LONGEST_PERIOD, is_repetitive

words = st.lists(st.sampled_from("abcdefghij"), min_size=4, max_size=LONGEST_PERIOD)


@given(before=words, loop=words, after=words)
def test_a_loop_is_found_wherever_it_stands(
    before: list[str], loop: list[str], after: list[str]
) -> None:
    assert is_repetitive(" ".join([*before, *loop * 3, *after]))


@given(count=st.integers(0, 200))
def test_a_text_without_a_repeated_word_is_not_repetitive(count: int) -> None:
    assert not is_repetitive(" ".join(f"w{index}" for index in range(count)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Ha ha ha ha!",
        "Gold is Au, silver is Ag, iron is Fe, tin is Sn, lead is Pb, and copper is Cu.",
        "The symbol of gold is Au. The symbol of silver is Ag. The symbol of iron is Fe.",
    ],
)
def test_ordinary_texts_are_not_repetitive(text: str) -> None:
    assert not is_repetitive(text)
