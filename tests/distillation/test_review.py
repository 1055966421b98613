"""The review file: what is accepted comes back as it was, and nothing is changed without a word."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.builders import example
from distillation.data_generation.test_curated import decide
from domainfusion.distillation.review import read_review, write_review
from domainfusion.errors import DataError
from domainfusion.types import Example, Message, Part

FULL = Example(
    query="Where is NRT, and what is gold?",
    domains=("aviation", "chemistry"),
    primary_domain="chemistry",
    apparent_domain="geography",
    history=(Message("user", "Hello!"), Message("assistant", "Hello.\nHow can I help?")),
    source="adversarial",
    sub_questions={"aviation": "Where is NRT?", "chemistry": "What is gold?"},
    parts=(
        Part(domain="aviation", answers=("Japan", "Nippon")),
        Part(domain="chemistry", answers=("Au",)),
    ),
    reference="In Japan; Au.",
    group="NRT",
    metadata={"level": 3, "tags": ["a", "b"]},
)

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(query=texts, reference=st.none() | texts, answer=texts, domain=texts)
def test_what_is_accepted_comes_back_as_it_was(
    query: str,
    reference: str | None,
    answer: str,
    domain: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("review") / "review.csv"
    given_examples = [
        Example(
            query=query,
            domains=(domain,),
            parts=(Part(domain=domain, answers=(answer,)),),
            reference=reference,
        ),
        FULL,
    ]
    write_review(given_examples, path)
    decide(path, {"decision": "accept"}, {"decision": "accept"})
    assert list(read_review(path).examples) == given_examples


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+33", "-5 °C", "@home", "'=quoted", "''+twice", "'plain'", "＝1", "＋33", "＠home"],
)
def test_no_cell_is_a_formula_or_a_number_to_a_spreadsheet(text: str, tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    write_review([example(text, domains=["a"], reference=text)], path)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        assert not any(
            cell.startswith(tuple("=+-@＝＋－＠\t\r\n"))
            for row in csv.reader(stream)
            for cell in row
        )
    decide(path, {"decision": "accept"})
    (found,) = read_review(path).examples
    assert (found.query, found.reference) == (text, text)


@pytest.mark.parametrize("text", ["\t=1+1", "\r=1+1", "\n=1+1", " \t@home"])
def test_a_cell_that_begins_with_a_control_character_is_no_formula(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "review.csv"
    write_review([example("What?", domains=["a"], reference=text)], path)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        assert not any(
            cell.lstrip(" ").startswith(tuple("=+-@\t\r\n"))
            for row in csv.reader(stream)
            for cell in row
        )
    decide(path, {"decision": "accept"})
    assert [found.reference for found in read_review(path).examples] == [text]


@pytest.mark.parametrize("mark", [",", ";"])
def test_a_cell_of_any_size_is_read_again_and_a_spreadsheet_may_write_semicolons(
    mark: str, tmp_path: Path
) -> None:
    path = tmp_path / "review.csv"
    given_examples = [
        example("What?", domains=["a"], reference="x; y, " * 50_000),
        example("None", domains=["a"], reference="nan"),
    ]
    write_review(given_examples, path)
    csv.field_size_limit(10_000_000)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream))
    finally:
        csv.field_size_limit(131_072)
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream, delimiter=mark).writerows(
            [rows[0], *(["accept", *row[1:]] for row in rows[1:])]
        )
    assert list(read_review(path).examples) == given_examples


def test_an_edit_changes_what_was_edited_and_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    write_review([FULL], path)
    decide(path, {"decision": "edit", "domains": "aviation", "answers": "aviation: Japan"})
    (found,) = read_review(path).examples
    assert (found.query, found.history, found.group, found.reference) == (
        FULL.query,
        FULL.history,
        FULL.group,
        FULL.reference,
    )
    assert (found.domains, found.primary_domain, dict(found.sub_questions)) == (
        ("aviation",),
        "aviation",
        {"aviation": "Where is NRT?"},
    )
    assert found.parts == (Part(domain="aviation", answers=("Japan",)),)
    assert found.id != FULL.id


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"decision": "accept", "query": "Where?"}, r"was edited \(query\), and says accept"),
        ({"decision": "maybe"}, "the decision is not known; received 'maybe'"),
        ({"decision": "accept", "example": "{}"}, "the column example was changed"),
        ({"decision": "edit", "query": " "}, "has no query"),
        ({"decision": "edit", "domains": ";"}, "has no domains"),
        ({"decision": "edit", "answers": "Japan"}, "answers that can't be read"),
        ({"decision": "edit", "answers": "aviation: |"}, "answers that can't be read"),
    ],
)
def test_a_row_that_can_not_be_read_is_one_error_with_its_line(
    changes: dict[str, str], what: str, tmp_path: Path
) -> None:
    path = tmp_path / "review.csv"
    write_review([example("One?", domains=["aviation"]), FULL], path)
    decide(path, {"decision": "accept"}, changes)
    with pytest.raises(DataError, match=rf"review\.csv:3.*{what}"):
        read_review(path)


def test_a_file_that_is_no_review_says_so(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("query,domain\nWhere?,a\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"no column 'decision'.*write_review"):
        read_review(tmp_path / "other.csv")


def test_a_review_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    write_review([FULL], path)
    decide(path, {"decision": "accept"})
    decided = path.read_bytes()
    with pytest.raises(DataError, match="there already"):
        write_review([FULL], path)
    assert path.read_bytes() == decided
