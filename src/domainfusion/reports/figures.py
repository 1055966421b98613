"""How a report writes a figure: one way for each kind, in all of its forms."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from domainfusion.distillation.results import Estimate, listed, percent, points

__all__ = [
    "capitalised", "clipped", "command_line", "counted", "duration", "flattened", "interval", "listed", "money", "percent", "points",
    "size",
]  # fmt: skip


def clipped(text: str, limit: int) -> str:
    """Returns `text`, cut at `limit` characters with its true length named."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"


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


def duration(seconds: float) -> str:
    """Writes a time as a person says it.

    Example:
        >>> duration(0.24), duration(42), duration(185), duration(4000)
        ('0.2 s', '42 s', '3 min 05 s', '1 h 07 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds < 3599.5:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


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


def counted(number: int, noun: str, plural: str = "") -> str:
    """Writes a number with its noun.

    Example:
        >>> counted(1, "query", "queries"), counted(1200, "question")
        ('1 query', '1,200 questions')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


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
    command = settings.get("command", "")
    return command if isinstance(command, str) else shlex.join(str(word) for word in command)
