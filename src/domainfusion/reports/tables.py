"""The shape of a report's tables, free of any form: terminal, HTML and Markdown print the same
cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from domainfusion.distillation.results import Estimate
from domainfusion.reports.figures import interval, points


class Cell(NamedTuple):
    """One cell: what it says, and in smaller type its interval or the reason why there is no
    figure.
    """

    text: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table ready to print.

    Attributes:
        caption: What it shows, in words.
        header: Column titles.
        align: `l` or `r` for each column.
        rows: As many cells a row as there are columns.
        bars: For each row, a share between 0 and 1 that HTML draws as a bar; empty for none.
    """

    caption: str
    header: tuple[str, ...]
    align: str
    rows: tuple[tuple[Cell, ...], ...]
    bars: tuple[float, ...] = ()


def tally_table(caption: str, noun: str, reasons: Iterable[str]) -> Table | None:
    """Returns how often each of `reasons` occurs, the most frequent first; None where there are
    none.
    """
    found = descending(Counter(reasons))
    if not found:
        return None
    return Table(
        caption=caption,
        header=(noun, "Number"),
        align="lr",
        rows=tuple(
            (Cell(reason or "no reason given"), Cell(f"{number:,}")) for reason, number in found
        ),
        bars=tuple(number / found[0][1] for _, number in found),
    )


def pairs_table(caption: str, rows: Sequence[tuple[str, str]]) -> Table:
    """Returns a table of names and what they stand for."""
    return Table(
        caption=caption,
        header=("", ""),
        align="ll",
        rows=tuple((Cell(name), Cell(text)) for name, text in rows),
    )


def descending(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Returns the counts, the highest first."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def share(value: float | None) -> Cell:
    """Returns a share without an interval, in per cent."""
    return Cell("–", "not measured") if value is None else Cell(f"{points(value)} %")


def figure(estimate: Estimate) -> Cell:
    """Returns a share with its interval, or the reason why there is none."""
    if estimate.value is None:
        return Cell("undefined", estimate.reason)
    return Cell(f"{points(estimate.value)} %", interval(estimate))


def bare(estimate: Estimate) -> Cell:
    """Returns a share with its interval, where the caption names the per cent."""
    return (
        Cell("undefined", estimate.reason)
        if estimate.value is None
        else Cell(points(estimate.value), interval(estimate))
    )
