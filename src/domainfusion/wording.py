"""Numbers, times and lists as a sentence, a table and a clock have them."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, noun: str, plural: str = "") -> str:
    """Writes a number with its noun.

    Example:
        >>> counted(1, "query", "queries"), counted(1200, "question")
        ('1 query', '1,200 questions')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def listed(items: Iterable[str]) -> str:
    """Joins items as a sentence does.

    Example:
        >>> listed(["aviation", "chemistry", "geography"])
        'aviation, chemistry and geography'
    """
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last


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


def in_words(seconds: float) -> str:
    """Returns a time as people say it.

    Example:
        >>> in_words(20), in_words(70), in_words(200), in_words(9000)
        ('less than a minute', 'about a minute', 'about 3 minutes', 'about 2.5 hours')
    """
    if seconds < 45:
        return "less than a minute"
    if seconds < 90:
        return "about a minute"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.{1 if seconds < 36_000 else 0}f} hours"


def clock_time(seconds: float) -> str:
    """Returns a time as minutes and seconds, with hours where there are any.

    Example:
        >>> clock_time(75), clock_time(3700)
        ('1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
