"""Numbers and times in words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import domainfusion
from domainfusion.wording import clock_time, counted, duration, in_words, listed

# What a count is followed by in some message of the package; one of them alone is another word.
_PLURAL = re.compile(
    r"^ (answers|domains|entries|examples|experts|items|log-probabilities|models|questions|records"
    r"|replies|requests|rounds|rows|runs|seconds|steps|texts|tokens)\b"
)
# A format that shows a number: thousands apart, or without decimals.
_NUMBER = re.compile(r"^(,|,?\.0f|g)$")


@given(st.integers(0, 10**9))
def test_one_alone_is_singular(number: int) -> None:
    shown, noun = counted(number, "query", "queries").split()
    assert int(shown.replace(",", "")) == number
    assert (noun == "query") == (number == 1)
    assert counted(number, "step").endswith("steps") == (number != 1)


@given(st.floats(0, 10**6))
def test_a_time_in_any_words_has_a_unit_that_fits_it(seconds: float) -> None:
    assert re.fullmatch(r"\d\.\d s|\d+ s|\d+ min \d\d s|\d+ h \d\d min", duration(seconds))
    assert not re.search(r"\b1 (minutes|hours)", in_words(seconds))
    hours, minutes, rest = map(int, f"0:{clock_time(seconds)}".rsplit(":", 3)[-3:])
    assert 3600 * hours + 60 * minutes + rest == round(seconds)


def test_a_list_reads_as_a_sentence() -> None:
    assert [listed("a"), listed("ab"), listed("abc")] == ["a", "a and b", "a, b and c"]


def numbers_before_plurals(source: str) -> Iterator[str]:
    """Yields the f-strings of a file that write a number before a plural by hand."""
    for text in ast.walk(ast.parse(source)):
        if not isinstance(text, ast.JoinedStr):
            continue
        for shown, after in zip(text.values, text.values[1:], strict=False):
            if not (isinstance(shown, ast.FormattedValue) and isinstance(after, ast.Constant)):
                continue
            form = ast.unparse(shown.format_spec)[2:-1] if shown.format_spec else ""
            is_count = bool(_NUMBER.match(form)) or ast.unparse(shown.value).startswith("len(")
            is_constant = isinstance(shown.value, ast.Name) and shown.value.id.isupper()
            if is_count and not is_constant and _PLURAL.match(str(after.value)):
                yield f"{text.lineno}: {ast.unparse(shown)}{after.value!s}"


MAY_BE_ONE_OF = re.compile(r"len\((conversations|answers|variants|tests|examples)\)")
"""Counts that follow "n of", or that a branch knows to be several."""


@pytest.mark.parametrize(
    "path", sorted(Path(domainfusion.__file__).parent.rglob("*.py")), ids=lambda path: path.stem
)
def test_no_message_writes_one_of_something_as_several(path: Path) -> None:
    found = numbers_before_plurals(path.read_text(encoding="utf-8"))
    assert [one for one in found if not MAY_BE_ONE_OF.search(one)] == []
