"""What a half of the cases is made of: relations with their facts, sentence patterns, and what
experts say around an answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from domainfusion.demo.world import world_folder

THE = ("United Kingdom", "United States", "United Arab Emirates", "Netherlands", "Philippines")
ALSO_WORDS = ("I", "In")
"""Symbols that are English words as well: whether a text states them can't be told."""

Row = tuple[str, "str | float"]


@dataclass(frozen=True, kw_only=True)
class Relation:
    """Facts of one sort, and the ways to ask for one and to state it.

    Patterns have `{s}` for the subject and `{v}` for the value; of a date, `{when}` is the value
    with its preposition.

    Attributes:
        name: The relation.
        domain: Whose expert knows it.
        values: What the values are; quantities have `units`, dates are written YYYY-MM-DD in the
            rows.
        questions: Ways to ask.
        sentences: Ways to state it, at least three.
        short: Ways to give the value alone, as an answer to the question.
        details: Sentences that go with the statement and say nothing about the value, at least two.
        rows: Subject and value of every fact.
        units: Units of a quantity, that of the rows first.
    """

    name: str
    domain: str
    values: Literal["quantity", "exact", "name", "date"]
    questions: tuple[str, ...]
    sentences: tuple[str, ...]
    short: tuple[str, ...]
    details: tuple[str, ...]
    rows: tuple[Row, ...]
    units: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class YesNo:
    """A question of yes or no; in its sentences, brackets mark the words that decide.

    Attributes:
        domain: Whose expert knows it.
        question: The question.
        true: Two ways to say what is so.
        false: Two ways to say the contrary.
    """

    domain: str
    question: str
    true: tuple[str, str]
    false: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class NearMiss:
    """Responses that look as if they contradicted each other and do not; brackets mark what the
    answer has to keep.

    Attributes:
        name: What makes them compatible.
        query: The question; the first domain is the primary one.
        responses: What the experts say.
    """

    name: str
    query: str
    responses: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Half:
    """One half of the cases: facts and words that the other half does not have.

    Attributes:
        name: `development` or `frozen`.
        relations: The facts and how they are stated.
        domains: Domains of experts that may speak up on anything.
        both: How two questions become one, with `{first}` and `{second}`.
        openings: What a chatty expert begins with.
        closings: What a chatty expert ends with.
        layouts: Shapes of a response: `{x}` is the statement, beside `{opening}`, `{closing}` and
            `{detail}`.
        unsure: What an expert says that has no answer.
        orders: Instructions that have no place in an answer.
        swaps: Words that a copyist changes.
        echo: What a copyist adds to a statement.
        hedges: How a rounded number is introduced.
        row: How a list gives a subject and its value.
        units: How each unit is written, the usual way first.
        dates: How dates are written, exact forms first, as for `strftime`; `{day}` and `{ordinal}`
            are the day without a zero.
        same_names: Two names of one thing, by domain and pattern: (domain, question, first
            sentence, second sentence), names in brackets.
        negations: Questions of yes or no.
        near_misses: Responses that are compatible.
    """

    name: str
    relations: tuple[Relation, ...]
    domains: tuple[str, ...]
    both: tuple[str, ...]
    openings: tuple[str, ...]
    closings: tuple[str, ...]
    layouts: tuple[str, ...]
    unsure: tuple[str, ...]
    orders: tuple[str, ...]
    swaps: tuple[tuple[str, str], ...]
    echo: str
    hedges: tuple[str, ...]
    row: str
    units: dict[str, tuple[str, ...]]
    dates: tuple[str, ...]
    same_names: tuple[tuple[str, str, str, str], ...]
    negations: tuple[YesNo, ...]
    near_misses: tuple[NearMiss, ...]


def demo_rows(table: str, subject: str, value: str, parity: int) -> tuple[Row, ...]:
    """Returns every second fact of one of the demo's tables: subject and value, from the even or
    the odd rows.
    """
    facts = json.loads((world_folder() / "facts.json").read_text(encoding="utf-8"))["tables"]
    rows = [row for row in facts[table] if row[value] not in ALSO_WORDS][parity::2]
    return tuple((_with_article(row[subject]), _with_article(row[value])) for row in rows)


def _with_article(name: str) -> str:
    return f"the {name}" if name in THE else name
