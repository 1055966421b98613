"""How long work shows its progress, and each stage its outcome.

A `Progress` shows work. In a terminal and in a notebook a `Distiller` shows its own on stderr;
elsewhere, and in all other parts, nothing is shown unless a `Progress` is passed.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from threading import Event, RLock, Thread
from typing import Literal, Protocol, runtime_checkable

from rich.console import Console, RenderableType
from rich.live import Live
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
from rich.spinner import Spinner
from rich.text import Text

from domainfusion.errors import ConfigurationError, printable
from domainfusion.wording import clock_time

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


@runtime_checkable
class Watches(Protocol):
    """A display that stays on over a stretch of work with many pieces, and says what is under way
    between them.
    """

    def over(self, whole: Callable[[], str] | None = None) -> AbstractContextManager[None]:
        """Watches the work in the block; `whole` says, in a few words, how far all of it is."""
        ...


@runtime_checkable
class Foresees(Protocol):
    """A display that knows which pieces of work are to come."""

    def expect(self, pieces: Iterable[tuple[str, int]]) -> None:
        """Says which pieces, by label and number of items, the stage under way still has, in place
        of what was thought before.
        """
        ...


def watching(
    progress: Progress, whole: Callable[[], str] | None = None
) -> AbstractContextManager[None]:
    """Watches the work in the block, where the display can; see `Watches`."""
    return progress.over(whole) if isinstance(progress, Watches) else nullcontext()


@dataclass(eq=False, frozen=True)
class _Activity:
    what: str


_UNDER_WAY: list[_Activity] = []
"""What this process is doing that has no items to count, the outermost first."""

_LOOKING_ON: list[Callable[[], None]] = []
"""Displays that watch; each is called when what is under way has ended."""


_seconds_spent = 0.0
"""Seconds of all that was under way and has ended."""


def seconds_spent() -> float:
    """Returns how long this process was busy with what has no items to count: no rate of items
    counts it.
    """
    return _seconds_spent


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Names what the block does, such as `loading the model X`. A display that watches shows it
    where it takes more than two seconds.

    It is for what has no items to count and is far below whoever knows a display. It costs nothing
    where nobody looks on.
    """
    global _seconds_spent
    activity = _Activity(what)
    is_outermost = not _UNDER_WAY
    _UNDER_WAY.append(activity)
    began = time.monotonic()
    try:
        yield
    finally:
        _UNDER_WAY.remove(activity)
        if is_outermost:
            _seconds_spent += time.monotonic() - began
        for look in tuple(_LOOKING_ON):
            look()


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


VALIDATING = "validating"
"""What a validation is called where its progress is shown."""

SECONDS_BETWEEN_LINES = 5.0

SECONDS_UNSAID = 2.0
"""What takes no longer than this, and has no items to count, is not shown."""

_SECONDS_BETWEEN_LOOKS = 0.25

_ONE_ARRIVAL = 0.05
"""Seconds within which items count as having come at once."""


_LEAST_TRUST = 0.15
"""Share of the time that has to lie after the first burst, for a rate to be told."""


class Pace:
    """The rate of work whose items come in bursts, and the time that the rest takes.

    Two rates are known: that of all items since the start, which is too low where the start has a
    cost of its own, and that of the items after the first burst, which is far too high where one
    batch comes in two bursts. In time they agree; before, a geometric mean is the least wrong.

    Args:
        now: The time in seconds. Let the clock stop while models are loaded; see `seconds_spent`.
    """

    def __init__(self, now: float) -> None:
        self._started = now
        self._first: tuple[float, int] | None = None
        """The time of the first burst, and its items, once there is a second one."""
        self._latest = now
        self._longest = 0.0
        """The longest wait for a burst."""
        self._count = 0

    def advance(self, count: int, now: float) -> None:
        """Notes that items are done."""
        wait = now - self._latest
        if self._first is None and self._count and wait > _ONE_ARRIVAL:
            self._first = (self._latest, self._count)
        self._longest = max(self._longest, wait)
        self._count += count
        self._latest = now

    def rate(self, now: float) -> float:
        """Returns items a second; 0 until some time after the first burst. The time of the first one,
        in which much is made ready, says little about the others.
        """
        if self._first is None:
            return 0.0
        # A burst that is late makes the rate lower by and by.
        end = self._latest + max(0.0, now - self._latest - self._longest)
        began, early = self._first
        whole, since = end - self._started, end - began
        trust = since / whole if whole > 0 else 1.0
        if trust < _LEAST_TRUST:
            return 0.0
        # Of all the time, the share after the first burst says how far that part is to be trusted.
        per_item, overall = since / (self._count - early), whole / self._count
        seconds: float = per_item**trust * overall ** (1 - trust)
        return 1 / seconds if seconds > 0 else 0.0

    def left(self, remaining: int, now: float) -> float | None:
        """Returns the seconds that the remaining items take; None where that is not known."""
        rate = self.rate(now)
        if not rate:
            return None
        waited = min(now - self._latest, self._longest)
        return max(0.0, remaining / rate - waited)


class _Watch:
    """Looks, four times a second, for as long as somebody wants it.

    Args:
        look: What is done at each look.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        self.look = look
        self._depth = 0

    @property
    def is_on(self) -> bool:
        """Whether somebody wants it."""
        return self._depth > 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Looks while the block runs; a block within a block adds nothing."""
        self._depth += 1
        if self._depth > 1:
            try:
                yield
            finally:
                self._depth -= 1
            return
        ended = Event()

        def beat() -> None:
            while not ended.wait(_SECONDS_BETWEEN_LOOKS):
                self.look()

        thread = Thread(target=beat, daemon=True)
        _LOOKING_ON.append(self.look)
        thread.start()
        try:
            yield
        finally:
            self._depth -= 1
            _LOOKING_ON.remove(self.look)
            ended.set()
            thread.join()


class _Looker:
    """What is under way now that has no items to count, and for how long."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: _Activity | None = None
        self._since = 0.0

    def look(self, above: int = 0) -> tuple[str, float]:
        """Returns what is under way, and for how many seconds it was seen; empty for nothing.

        Args:
            above: How many of the outermost do not count.
        """
        under_way = tuple(_UNDER_WAY)[above:]
        latest = under_way[-1] if under_way else None
        if latest is not self._seen:
            self._seen, self._since = latest, self._clock()
        return ("", 0.0) if latest is None else (latest.what, self._clock() - self._since)


class Bars:
    """Shows work as bars: description, bar, items done, items a second, time left.

    Args:
        console: Where they are drawn; whatever else is printed to it meanwhile stands above them.
        clock: Tells the time in seconds.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._shown: _Shown | None = None
        self._tasks: list[TaskID] = []
        self._within = 0
        """How much is under way around the bars."""
        self._watch = _Watch(self.look)
        self._looker = _Looker(clock)
        self._whole: Callable[[], str] | None = None
        self._idle: Live | None = None
        self._lock = RLock()

    @contextmanager
    def __call__(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Shows one piece of work; see `domainfusion.progress.Progress`. A piece within a piece
        gets a bar below it.
        """
        with self._lock:
            outermost = self._shown is None
            bars = self._shown or _Shown(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                _Speed(self._worked),
                TextColumn("{task.fields[note]}", markup=False),
                console=self._console,
                get_time=self._clock,
            )
            if outermost:
                self._stop_idling()
                bars.below = self._words
                self._within = len(_UNDER_WAY)
                bars.start()
                self._shown = bars
        pace = Pace(self._worked())
        task = bars.add_task(printable(label), total=total, completed=done, pace=pace, note="")
        self._tasks.append(task)

        def advance(count: int) -> None:
            pace.advance(count, self._worked())
            bars.advance(task, count)

        try:
            yield advance
        finally:
            self._tasks.pop()
            if outermost:
                # What stays on the screen is the bar alone.
                bars.below = str
                bars.stop()
                self._shown, self._within = None, 0

    @contextmanager
    def over(self, whole: Callable[[], str] | None = None) -> Iterator[None]:
        """Shows between the bars, and below them, what is under way; see `Watches`."""
        before, self._whole = self._whole, whole or self._whole
        try:
            with self._watch():
                yield
        finally:
            self._whole = before
            self.look()

    def note(self, text: str) -> None:
        """Shows a few words behind the innermost bar."""
        if self._shown is not None and self._tasks:
            self._shown.update(self._tasks[-1], note=printable(text))

    def say(self, message: str) -> None:
        """Prints a line above the bars."""
        _write_line(self._console, message)

    def _worked(self) -> float:
        return self._clock() - seconds_spent()

    def _words(self) -> str:
        """Returns what is under way, and how far the whole is."""
        what, seconds = self._looker.look(self._within)
        shown = f"{what}, {clock_time(seconds)} so far" if seconds > SECONDS_UNSAID else ""
        whole = self._whole() if self._whole is not None else ""
        return printable("; ".join(part for part in (shown, whole) if part))

    def look(self) -> None:
        """Draws what is under way, or takes it away."""
        with self._lock:
            # In a notebook, what is drawn and taken away again would leave empty outputs.
            wants = self._shown is None and not self._console.is_jupyter and bool(self._words())
            if not wants:
                self._stop_idling()
            elif self._idle is None:
                spinner = Spinner("dots")

                def draw() -> RenderableType:
                    spinner.update(text=Text(self._words(), style="progress.remaining"))
                    return spinner

                self._idle = Live(
                    console=self._console,
                    get_renderable=draw,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._idle.start()

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.stop()
            self._idle = None


class _Shown(RichProgress):
    """Bars, with a line of words below them."""

    below: Callable[[], str] = str

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yields what is drawn."""
        yield from super().get_renderables()
        if words := self.below():
            yield Text(words, style="progress.remaining")


@dataclass(eq=False)
class _Piece:
    """A piece of work that is shown in lines."""

    label: str
    total: int
    done: int
    pace: Pace
    within: int
    """How much was under way around it."""


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
        self._latest = clock()
        """When the latest line was written."""
        self._pieces: list[_Piece] = []
        self._watch = _Watch(self.look)
        self._looker = _Looker(clock)
        self._told: set[str] = set()
        """What is under way, as far as a line named it."""
        self._whole: Callable[[], str] | None = None
        self._lock = RLock()

    @contextmanager
    def __call__(self, label: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Shows one piece of work; see `domainfusion.progress.Progress`."""
        started = self._clock()
        piece = _Piece(label, total, done, Pace(self._worked()), len(_UNDER_WAY))
        with self._lock:
            if not self._watch.is_on:
                self._latest = started
            self._note = ""
            self._pieces.append(piece)

        def advance(count: int) -> None:
            if piece.done + count < piece.total:
                self.look()
            with self._lock:
                piece.done += count
                piece.pace.advance(count, self._worked())

        # Where nothing moves on, a line says that the work is still under way.
        try:
            with self._watch():
                yield advance
        finally:
            with self._lock:
                self._pieces.remove(piece)
        took = clock_time(self._clock() - started)
        self.say(f"{label}: {piece.done:,} of {total:,} in {took}")

    @contextmanager
    def over(self, whole: Callable[[], str] | None = None) -> Iterator[None]:
        """Says every five seconds, between pieces too, what is under way; see `Watches`."""
        before, self._whole = self._whole, whole or self._whole
        if not self._watch.is_on:
            self._latest = self._clock()
        try:
            with self._watch():
                yield
        finally:
            self._whole = before

    def note(self, text: str) -> None:
        """Adds a few words to the lines of the work under way."""
        self._note = text

    def say(self, message: str) -> None:
        """Writes a line."""
        with self._lock:
            self._latest = self._clock()
            self._write(message)

    def look(self) -> None:
        """Writes a line where it is time for one."""
        with self._lock:
            now = self._clock()
            piece = self._pieces[-1] if self._pieces else None
            what, seconds = self._looker.look(0 if piece is None else piece.within)
            # The next look comes a moment later.
            is_silent = now - self._latest > SECONDS_BETWEEN_LINES - 2 * _SECONDS_BETWEEN_LOOKS
            if not what:
                self._told.clear()
            if piece is not None:
                if is_silent and piece.done < piece.total:
                    self._say_far(piece, what if seconds > SECONDS_UNSAID else "")
            elif what and what not in self._told and (seconds >= SECONDS_UNSAID or is_silent):
                self._told.add(what)
                self._say_whole(f"{what} …")
            elif is_silent and what:
                self._say_whole(f"{what}: {clock_time(seconds)} so far")
            elif is_silent and self._whole is not None:
                self._say_whole("still working")

    def _worked(self) -> float:
        return self._clock() - seconds_spent()

    def _say_far(self, piece: _Piece, what: str) -> None:
        speed = _speed(piece.pace, piece.total - piece.done, self._worked())
        far = f"{piece.label}: {piece.done:,} of {piece.total:,} ({piece.done / piece.total:.0%})"
        words = [far, *(part for part in (speed, self._note, what) if part)]
        self._say_whole(", ".join(words))

    def _say_whole(self, line: str) -> None:
        """Writes a line, with how far the whole work is."""
        whole = self._whole() if self._whole is not None else ""
        self.say(f"{line}; {whole}" if whole else line)


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
