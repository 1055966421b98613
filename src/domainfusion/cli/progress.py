"""How far work is, on stderr: bars in a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from domainfusion.errors import printable
from domainfusion.progress import Advance

SECONDS_BETWEEN_LINES = 10.0


class Bars:
    """Shows work as bars: description, bar, items done, items a second, time left.

    Args:
        console: Where they are drawn; whatever else is printed to it meanwhile stands above them.
        clock: Tells the time in seconds.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._shown: Progress | None = None

    @contextmanager
    def __call__(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Shows one piece of work; see `domainfusion.progress.Progress`. A piece within a piece
        gets a bar below it.
        """
        outermost = self._shown is None
        bars = self._shown or Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Speed(),
            console=self._console,
            get_time=self._clock,
        )
        if outermost:
            bars.start()
            self._shown = bars
        task = bars.add_task(printable(label), total=total, completed=done, before=done)
        try:
            yield lambda count: bars.advance(task, count)
        finally:
            if outermost:
                bars.stop()
                self._shown = None


class Lines:
    """Shows work as plain lines, one every ten seconds and one at its end.

    Args:
        write: Receives each line.
        clock: Tells the time in seconds.
    """

    def __init__(
        self, write: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock

    @contextmanager
    def __call__(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Shows one piece of work; see `domainfusion.progress.Progress`."""
        started = latest = self._clock()
        count = done

        def advance(items: int) -> None:
            nonlocal count, latest
            count += items
            now = self._clock()
            if now - latest >= SECONDS_BETWEEN_LINES and count < total:
                latest = now
                self._write(
                    f"{label}: {count:,} of {total:,} ({count / total:.0%}),"
                    f" {_speed(count - done, total - count, now - started)}"
                )

        yield advance
        self._write(f"{label}: {count:,} of {total:,} in {_clock_time(self._clock() - started)}")


class _Speed(ProgressColumn):
    """Items a second and the time left; at the end, the time it took.

    The rate is that of the whole of this session. Answers come in batches, all of one at the same
    instant, so the rate between the last few of them would say nothing.
    """

    def render(self, task: Task) -> Text:
        seconds = task.elapsed or 0.0
        if task.finished:
            return Text(f"in {_clock_time(seconds)}", style="progress.elapsed")
        return Text(
            _speed(task.completed - task.fields["before"], task.remaining or 0, seconds),
            style="progress.remaining",
        )


def _speed(items: float, remaining: float, seconds: float) -> str:
    """Writes the rate of what was done in this session, and the time that the rest takes at that
    rate.
    """
    if not items or not seconds:
        return ""
    rate = items / seconds
    return f"{rate:,.{1 if rate < 10 else 0}f}/s, {_clock_time(remaining / rate)} left"


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
