"""How long work tells how far it is, and each stage what came of it.

A `Progress` shows work. In a terminal and in a notebook a `Distiller` shows its own on stderr;
elsewhere, and in all other parts, nothing is shown unless a `Progress` is passed.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from domainfusion.errors import ConfigurationError, printable

Advance = Callable[[int], None]
"""Called with the number of items finished since the last call."""


class Progress(Protocol):
    """Shows one piece of work."""

    def __call__(self, label: str, total: int, done: int = 0) -> AbstractContextManager[Advance]:
        """Opens a display of `total` items, `done` of which are finished, and gives the function
        that moves it on.
        """
        ...


@runtime_checkable
class Speaks(Protocol):
    """A display that also says what came of the work."""

    def say(self, message: str) -> None:
        """Shows one line."""
        ...


ProgressChoice = Progress | Literal["auto"] | None
"""A display; `auto`, for one where somebody looks on; None for none."""


@contextmanager
def silent(label: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Shows nothing."""
    yield lambda _: None


def choose_progress(choice: ProgressChoice) -> Progress:
    """Returns the display that is meant.

    Args:
        choice: A display; `auto` for bars on stderr where that is a terminal or a notebook, and
            nothing elsewhere; None for nothing.

    Raises:
        ConfigurationError: It is none of these.
    """
    if choice is None:
        return silent
    if choice == "auto":
        return _display_for_onlookers()
    if isinstance(choice, type) or not callable(choice):
        raise ConfigurationError(
            "progress is not a display",
            received=choice,
            allowed='"auto", None, or a domainfusion.progress.Progress',
            fix=(
                'write progress="auto" to see it in a terminal or a notebook, progress=None to see'
                " nothing"
            ),
        )
    return choice


def _display_for_onlookers() -> Progress:
    console = Console(stderr=True, highlight=False)
    if console.is_jupyter:
        # Rich draws bars in a notebook with the help of ipywidgets.
        has_widgets = importlib.util.find_spec("ipywidgets") is not None
        return Bars(console) if has_widgets else _lines_to(console)
    # Not `console.is_terminal`: FORCE_COLOR makes that true of a file.
    if sys.stderr is None or not sys.stderr.isatty():
        return silent
    return _lines_to(console) if console.is_dumb_terminal else Bars(console)


def _lines_to(console: Console) -> Lines:
    return Lines(lambda line: _write_line(console, line))


def _write_line(console: Console, message: str) -> None:
    console.print(printable(message), markup=False, highlight=False, soft_wrap=True)


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
        self._shown: RichProgress | None = None

    @contextmanager
    def __call__(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Shows one piece of work; see `domainfusion.progress.Progress`. A piece within a piece
        gets a bar below it.
        """
        outermost = self._shown is None
        bars = self._shown or RichProgress(
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

    def say(self, message: str) -> None:
        """Prints a line above the bars."""
        _write_line(self._console, message)


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
                self.say(
                    f"{label}: {count:,} of {total:,} ({count / total:.0%}),"
                    f" {_speed(count - done, total - count, now - started)}"
                )

        yield advance
        self.say(f"{label}: {count:,} of {total:,} in {_clock_time(self._clock() - started)}")

    def say(self, message: str) -> None:
        """Writes a line."""
        self._write(message)


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
