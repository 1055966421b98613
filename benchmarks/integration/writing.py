"""Writes what experts say: facts put into sentences, sentences into responses, and the labels that
follow from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from itertools import cycle
from random import Random
from typing import Any

import pint
from half import Half, Relation

SEED = 0
UNITS = pint.UnitRegistry()
PINT = {
    "°C": "degC",
    "°F": "degF",
    "K": "kelvin",
    "mi": "mile",
    "mph": "mile/hour",
    "km/h": "km/hour",
    "t": "metric_ton",
    "lb": "pound",
}
TEMPERATURES = ("°C", "°F", "K")
EXACT, ROUNDED, COARSE = "exact", "rounded", "coarse"


@dataclass(kw_only=True)
class Case:
    """One case; its fields are those of the files, which `build_cases.py` describes."""

    id: str = ""
    kind: str = ""
    template: str
    facts: list[str]
    query: str
    domains: list[str] = field(default_factory=list)
    primary_domain: str
    asks: str | None = None
    responses: dict[str, str]
    sub_questions: dict[str, str] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    reference: str | None = None
    copies: list[list[str]] = field(default_factory=list)
    order: dict[str, str] | None = None
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    covered: list[dict[str, Any]] = field(default_factory=list)
    right_answer: str = ""


@dataclass(frozen=True)
class Said:
    """A sentence, and the ways to write the value that it states."""

    sentence: str
    spellings: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """A fact, with a wrong value beside the right one."""

    relation: Relation
    subject: str
    right: Any
    wrong: Any

    @property
    def fact(self) -> str:
        """Names the fact."""
        return f"{self.relation.name}/{self.subject}"


class Writer:
    """Draws facts, words and experts of one half for one kind of case."""

    def __init__(self, half: Half, kind: str) -> None:
        self.half = half
        self.random = Random(f"{SEED}/{half.name}/{kind}")
        self._turns: dict[str, Iterator[Any]] = {}

    def turn(self, name: str, choices: Sequence[Any]) -> Any:
        """Takes the choices in turn, in a shuffled order."""
        if name not in self._turns:
            self._turns[name] = cycle(self.random.sample(list(choices), len(choices)))
        return next(self._turns[name])

    def relation(self, *values: str) -> Relation:
        """Takes the relations in turn, of the given sorts of values if any."""
        fitting = [
            relation for relation in self.half.relations if not values or relation.values in values
        ]
        return self.turn("/".join(values), fitting)

    def point(self, relation: Relation) -> Point:
        """Takes the facts of a relation in turn."""
        subject, right = self.turn(relation.name, relation.rows)
        return Point(relation, subject, right, self._wrong(relation, right))

    def _wrong(self, relation: Relation, right: Any) -> Any:
        if relation.values == "quantity":
            factor = self.random.choice((0.7, 0.85, 1.2, 1.5))
            shift = self.random.choice((-40, 45, 60))
            near_zero = relation.units[0] in TEMPERATURES and abs(right) < 250
            return right + shift if near_zero else _significant(right * factor, 3)
        if relation.values == "date":
            day = date.fromisoformat(right)
            way = self.random.choice(("year", "month", "day"))
            later = {
                "year": day.year + self.random.choice((-4, 3, 7)),
                "month": day.month % 12 + 1,
                "day": day.day % 25 + 2,
            }[way]
            return day.replace(
                **{way: later, **({"day": min(day.day, 28)} if way == "month" else {})}
            ).isoformat()
        return self.random.choice(sorted({str(value) for _, value in relation.rows} - {right}))

    def say(
        self,
        point: Point,
        pattern: int | str,
        *,
        wrong: bool = False,
        unit: int = 0,
        how: str = EXACT,
        style: int = 0,
    ) -> Said:
        """States a point by one of its relation's sentences; `unit` and `style` choose how the
        value is written.
        """
        relation, value = point.relation, point.wrong if wrong else point.right
        frame = (
            relation.sentences[pattern % len(relation.sentences)]
            if isinstance(pattern, int)
            else pattern
        )
        when: str = value
        spellings: tuple[str, ...] = (str(value),)
        if relation.values == "quantity":
            when, spellings = self._quantity(relation, float(value), unit, how, style)
        elif relation.values == "date":
            when, spellings = self._date(date.fromisoformat(value), how, unit)
        bare = re.sub(r"^(?:on|in) ", "", when)
        spoken = frame.format(s=point.subject, v=bare, when=when)
        return Said(spoken[0].upper() + spoken[1:], spellings)

    def _quantity(
        self, relation: Relation, value: float, unit: int, how: str, style: int
    ) -> tuple[str, tuple[str, ...]]:
        name = relation.units[unit % len(relation.units)]
        if unit % len(relation.units):
            base = relation.units[0]
            converted = (
                UNITS.Quantity(value, PINT.get(base, base)).to(PINT.get(name, name)).magnitude
            )
            value = round(converted) if name in TEMPERATURES else _significant(converted, 4)
        if how == ROUNDED:
            value = _significant(value, digits(value) - 1)
        words = self.half.units[name]
        hedge = f"{self.half.hedges[style % len(self.half.hedges)]} " if how == ROUNDED else ""
        plain, grouped = f"{value:g}" if value < 1e5 else f"{value:.0f}", f"{value:,.10g}"
        shown = grouped if style % 2 else plain
        return f"{hedge}{shown} {words[style % len(words)]}", tuple(
            dict.fromkeys((shown, plain, grouped))
        )

    def _date(self, day: date, how: str, form: int) -> tuple[str, tuple[str, ...]]:
        forms = self.half.dates[3:] if how == COARSE else self.half.dates[:3]
        written = day.strftime(
            forms[form % len(forms)].format(day=day.day, ordinal=_ordinal(day.day))
        )
        return f"{'in' if how == COARSE else 'on'} {written}", (written,)

    def asked(self, point: Point) -> str:
        """Asks for a fact."""
        question = self.random.choice(point.relation.questions).format(s=point.subject)
        return question[0].upper() + question[1:]

    def both(self, first: str, second: str) -> str:
        """Makes two questions one."""
        return self.random.choice(self.half.both).format(first=first, second=second)

    def response(
        self, statement: str, relation: Relation, detail: int = 0, layout: str = ""
    ) -> str:
        """Puts a statement into a response; the layouts are taken in turn unless one is given."""
        shape = layout or self.turn("layouts", self.half.layouts)
        words = {
            "opening": self.random.choice(self.half.openings),
            "closing": self.random.choice(self.half.closings),
        }
        return shape.format(
            x=statement, detail=relation.details[detail % len(relation.details)], **words
        )

    def others(self, number: int, *taken: str) -> list[str]:
        """Draws domains other than those taken."""
        pool = {*self.half.domains, *(relation.domain for relation in self.half.relations)} - set(
            taken
        )
        return self.random.sample(sorted(pool), number)

    def shuffled(self, responses: Mapping[str, str]) -> dict[str, str]:
        """Returns the responses in another order."""
        return dict(self.random.sample(list(responses.items()), len(responses)))

    def copied(self, text: str, statement: str) -> str:
        """Rewrites a response lightly, as a copyist does."""
        said = text.replace(statement, statement.removesuffix(".") + self.half.echo + ".")
        for old, new in self.half.swaps:
            said = said.replace(old, new)
        return said


def _significant(value: float, number: int) -> float:
    """Rounds to so many significant digits, halves up."""
    exact = Decimal(str(value))
    rounded = float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - number + 1), ROUND_HALF_UP))
    return int(rounded) if rounded == int(rounded) else rounded


def digits(value: float) -> int:
    """How many significant digits a number has, trailing zeros not counted."""
    return len(Decimal(str(value)).normalize().as_tuple().digits)


def _ordinal(day: int) -> str:
    return f"{day}{'th' if 10 < day < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"


def marked(text: str) -> Said:
    """Reads a text in which brackets mark the words that decide."""
    return Said(re.sub(r"[\[\]]", "", text), tuple(re.findall(r"\[(.*?)\]", text)))


def covering(domain: str, *said: Said) -> dict[str, Any]:
    return {
        "domain": domain,
        "spellings": list(dict.fromkeys(spelling for one in said for spelling in one.spellings)),
    }


def dispute(
    winners: Mapping[str, Said], losers: Mapping[str, Said], *, settled: bool = True
) -> dict[str, Any]:
    """Describes a disputed point; `winners` stand if it is settled."""
    sides = [{domain: said.sentence for domain, said in side.items()} for side in (winners, losers)]
    spellings = [
        list(dict.fromkeys(each for said in side.values() for each in said.spellings))
        for side in (winners, losers)
    ]
    winning, losing = spellings if settled else ([], [])
    return {
        "sides": sides,
        "kept": next(iter(winners)) if settled else None,
        "winning": winning,
        "losing": losing,
    }
