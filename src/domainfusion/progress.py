"""How long work shows its progress, and each stage its outcome.

A `Progress` shows work. In a terminal and in a notebook a `Distiller` shows its own on stderr;
elsewhere, and in all other parts, nothing is shown unless a `Progress` is passed.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Lock, Thread
from typing import Literal, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
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
    """A display that also shows the outcome of the work."""

    def say(self, message: str) -> None:
        """Shows one line."""
        ...


@runtime_checkable
class Notes(Protocol):
    """A display that also shows a figure of the work under way, such as its loss."""

    def note(self, text: str) -> None:
        """Shows a few words beside it."""
        ...


ProgressChoice = Progress | Literal["auto"] | None
"""A display; `auto` for one in a terminal or a notebook; None for none."""


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


SECONDS_BETWEEN_LINES = 5.0

_SHARE_OF_A_GAP = 0.1
"""Items that come within this share of the usual time between batches are of one batch."""


_FEWEST_SECONDS = 0.05
_LONGEST_SECONDS = 1.0
"""Of the first batch: the least wait after it, and the longest that it may take to come in."""


class Pace:
    """The rate of work whose items come in batches, and the time that the rest takes.

    The time before the first batch, in which a model is loaded, is not counted once a second one is
    there. A batch counts when the next one begins or its own time has passed, so that the items
    that are just coming in do not look like a slow batch.

    Args:
        now: The time in seconds.
    """

    def __init__(self, now: float) -> None:
        self._started = now
        self._first: tuple[float, int] | None = None
        """When the first batch ended, and how many items were done."""
        self._began = now
        """When the latest batch began to come in."""
        self._latest = now
        self._before = 0
        """Items that were done before the latest batch."""
        self._count = 0
        self._batches = 0

    def advance(self, count: int, now: float) -> None:
        """Notes that items are done."""
        if self._is_next(now):
            if self._batches == 1:
                self._first = (self._latest, self._count)
            self._before, self._began = self._count, now
            self._batches += 1
        self._count += count
        self._latest = now

    def _is_next(self, now: float) -> bool:
        """Whether what comes in now is of another batch than what came in before."""
        wait = now - self._latest
        if self._batches == 1:
            # What is usual is not known yet: the time before the first batch may be one of loading.
            is_late = now - self._began > _LONGEST_SECONDS
            return is_late or wait > min(_FEWEST_SECONDS, _SHARE_OF_A_GAP * self._gap())
        return self._batches == 0 or wait > _SHARE_OF_A_GAP * self._gap()

    def _gap(self) -> float:
        """The usual time from one batch to the next."""
        if self._first is None or self._batches < 2:
            return self._latest - self._started
        return (self._began - self._first[0]) / (self._batches - 1)

    def rate(self, now: float) -> float:
        """Returns items a second; 0 where there is none yet."""
        since, seconds = self._since(0.0, 0, now)
        if self._first is not None:
            since, seconds = self._since(*self._first, now)
        return since / seconds if seconds > 0 else 0.0

    def _since(self, start: float, done: int, now: float) -> tuple[int, float]:
        """Returns the items since `start`, and the seconds that they took."""
        start = max(start, self._started)
        # A batch that is late makes the rate lower by and by.
        late = max(0.0, now - self._latest - self._gap())
        return self._count - done, self._latest - start + late

    def left(self, remaining: int, now: float) -> float | None:
        """Returns the seconds that the remaining items take; None where that is not known."""
        rate = self.rate(now)
        if not rate:
            return None
        waited = min(now - self._latest, self._gap())
        return max(0.0, remaining / rate - waited)


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
        self._tasks: list[TaskID] = []

    @contextmanager
    def __call__(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Shows one piece of work; see `domainfusion.progress.Progress`. A piece within a piece
        gets a bar below it.
        """
        outermost = self._shown is None
        bars = self._shown or RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Speed(self._clock),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            get_time=self._clock,
        )
        if outermost:
            bars.start()
            self._shown = bars
        pace = Pace(self._clock())
        task = bars.add_task(printable(label), total=total, completed=done, pace=pace, note="")
        self._tasks.append(task)

        def advance(count: int) -> None:
            pace.advance(count, self._clock())
            bars.advance(task, count)

        try:
            yield advance
        finally:
            self._tasks.pop()
            if outermost:
                bars.stop()
                self._shown = None

    def note(self, text: str) -> None:
        """Shows a few words behind the innermost bar."""
        if self._shown is not None and self._tasks:
            self._shown.update(self._tasks[-1], note=printable(text))

    def say(self, message: str) -> None:
        """Prints a line above the bars."""
        _write_line(self._console, message)


class Lines:
    """Shows work as plain lines, one every five seconds, whether or not it moves on, and one at
    its end.

    Args:
        write: Receives each line.
        clock: Tells the time in seconds.
    """

    def __init__(
        self, write: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        self._note = ""

    @contextmanager
    def __call__(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Shows one piece of work; see `domainfusion.progress.Progress`."""
        started = latest = self._clock()
        count, pace, ended, lock = done, Pace(started), Event(), Lock()
        self._note = ""

        def tell(items: int) -> None:
            nonlocal count, latest
            with lock:
                now = self._clock()
                if now - latest >= SECONDS_BETWEEN_LINES and count + items < total:
                    latest = now
                    speed = _speed(pace, total - count, now)
                    words = [part for part in (speed, self._note) if part]
                    shown = f"{label}: {count:,} of {total:,} ({count / total:.0%})"
                    self.say(", ".join([shown, *words]))
                if items:
                    count += items
                    pace.advance(items, now)

        def beat() -> None:
            while not ended.wait(SECONDS_BETWEEN_LINES / 5):
                tell(0)

        # Where nothing moves on, a line says that the work is still under way.
        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield tell
        finally:
            ended.set()
            thread.join()
        self.say(f"{label}: {count:,} of {total:,} in {clock_time(self._clock() - started)}")

    def note(self, text: str) -> None:
        """Adds a few words to the lines of the work under way."""
        self._note = text

    def say(self, message: str) -> None:
        """Writes a line."""
        self._write(message)


class _Speed(ProgressColumn):
    """Items a second and the time left; at the end, the time it took."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text(f"in {clock_time(task.elapsed or 0.0)}", style="progress.elapsed")
        remaining = round(task.remaining or 0)
        words = _speed(task.fields["pace"], remaining, self._clock())
        return Text(words, style="progress.remaining")


def _speed(pace: Pace, remaining: int, now: float) -> str:
    """Writes the rate of what was done in this session, and the time that the rest takes."""
    left = pace.left(remaining, now)
    if left is None:
        return ""
    rate = pace.rate(now)
    return f"{rate:,.{1 if rate < 10 else 0}f}/s, {clock_time(left)} left"


def clock_time(seconds: float) -> str:
    """Returns a time as minutes and seconds, with hours where there are any.

    Example:
        >>> clock_time(75), clock_time(3700)
        ('1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
