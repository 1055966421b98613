"""The shape of a report's tables, free of any form: terminal, HTML and Markdown print the same
cells.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from domainfusion.distillation.results import Estimate, percent, points
from domainfusion.errors import clipped

__all__ = [
    "capitalised", "clipped", "command_line", "flattened", "interval", "money", "percent", "points",
    "size",
]  # fmt: skip


def interval(estimate: Estimate) -> str:
    """Writes the 95 % interval in per cent; empty where there is none, or where it is the figure
    itself.

    Example:
        >>> interval(Estimate(value=0.5, low=0.4, high=0.6))
        '40.0 to 60.0'
    """
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return ""
    if estimate.low == estimate.value == estimate.high:
        return ""
    return f"{points(estimate.low)} to {points(estimate.high)}"


def size(count: int) -> str:
    """Writes a number of bytes in decimal units.

    Example:
        >>> size(3_870_000_000), size(512_000)
        ('3.87 GB', '512 kB')
    """
    for unit, bytes_per_unit in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= bytes_per_unit:
            return f"{count / bytes_per_unit:.3g} {unit}"
    return f"{count} B"


def money(amount: float) -> str:
    """Writes an amount, in whatever currency the prices are given: cents, and of less than one the
    first two figures.

    Example:
        >>> money(12.5), money(1234), money(0.00123), money(0)
        ('12.50', '1,234.00', '0.0012', '0.00')
    """
    return (
        f"{amount:,.2f}"
        if amount >= 0.1 or amount == 0
        else f"{float(f'{amount:.2g}'):.15f}".rstrip("0")
    )


def capitalised(sentence: str) -> str:
    """Returns `sentence` with a capital at its start and the rest untouched."""
    return sentence[:1].upper() + sentence[1:]


def flattened(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Returns the settings as rows of name and text; what is nested gets a row each.

    Example:
        >>> flattened({"seed": 7, "versions": {"torch": "2.13.0"}, "resumed": False})
        [('seed', '7'), ('versions · torch', '2.13.0'), ('resumed', 'no')]
    """
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{prefix}{key}"
        rows += (
            flattened(value, f"{name} · ")
            if isinstance(value, Mapping)
            else [(name, _plain(value))]
        )
    return rows


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def command_line(settings: Mapping[str, Any]) -> str:
    """Returns the command that repeats the run, ready for a shell; empty where it is not known."""
    command = settings.get("command")
    if isinstance(command, list | tuple):
        return shlex.join(map(str, command))
    return command if isinstance(command, str) else ""


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
