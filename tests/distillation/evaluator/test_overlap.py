"""Overlap: what was trained on is found as it is and nearly, and what only looks like it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillation.builders import example
from domainfusion.distillation.evaluator import hold_apart
from domainfusion.errors import DataError
from domainfusion.records import write_records

LONG = "Which country is the airport with the code NRT in, according to the tables?"
TEST = [
    example("Where is NRT?", {"aviation": "Japan"}, id="short"),
    example(LONG, {"aviation": "Japan"}, id="long"),
    example(
        "Which country is the airport with the code CDG in, according to the tables?",
        {"aviation": "France"},
        id="other",
    ),
]


def test_nothing_is_compared_with_what_nobody_names() -> None:
    assert hold_apart(TEST, None) == (TEST, None)


def test_a_query_is_found_whatever_its_case_and_white_space() -> None:
    with pytest.raises(
        DataError, match="1 of 3 test queries were trained on, 1 as they are and 0 nearly"
    ):
        hold_apart(TEST, [{"query": "WHERE is  NRT?", "domain": "aviation"}])


def test_a_query_within_another_is_found_and_one_about_something_else_is_not() -> None:
    trained = [{"query": f"Hello! {LONG} Thanks a lot.", "domain": "aviation"}]
    kept, overlap = hold_apart(TEST, trained, "report")
    assert overlap is not None
    assert (overlap.trained, overlap.same, overlap.near) == (1, (), ("long",))
    assert [item.id for item in kept] == ["short", "other"]


def test_all_that_one_training_query_contains_are_found() -> None:
    both = f"{LONG} {TEST[2].query}"
    _, overlap = hold_apart(TEST, [{"query": both, "domain": "aviation"}], "report")
    assert overlap is not None
    assert overlap.near == ("long", "other")


def test_what_was_trained_on_may_be_a_file(tmp_path: Path) -> None:
    write_records(tmp_path / "examples.jsonl", TEST[:1])
    kept, _ = hold_apart(TEST, tmp_path / "examples.jsonl", "report")
    assert kept == TEST[1:]


def test_where_all_was_trained_on_nothing_can_be_evaluated() -> None:
    with pytest.raises(DataError, match="All test queries"):
        hold_apart(TEST, TEST, "report")
