"""Work is shown where somebody looks on, and nowhere else."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from threading import Thread

import pytest
from rich.console import Console

from domainfusion.errors import ConfigurationError
from domainfusion.progress import (
    Bars,
    Foresees,
    Lines,
    Notes,
    Pace,
    Watches,
    choose_progress,
    doing,
    seconds_spent,
    silent,
    watching,
)


class Clock:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_every_five_seconds_and_at_the_end() -> None:
    clock = Clock()
    written: list[str] = []
    with Lines(written.append, clock=clock)("asking", 100, 20) as advance:
        for _ in range(80):
            clock.now += 0.5
            advance(1)
    # Two items a second: the twenty of an earlier session count as done, and not into the rate.
    assert written == [
        *(
            f"asking: {done} of 100 ({done}%), 2.0/s, 0:{(100 - done) // 2:02d} left"
            for done in range(29, 90, 10)
        ),
        "asking: 100 of 100 in 0:40",
    ]


@pytest.mark.parametrize("seed", range(20))
def test_time_left_is_right_within_a_factor_of_two_from_the_second_batch_on(seed: int) -> None:
    """Batches of 8, each up to a third faster or slower than usual. Loading, for which the clock of
    a display stops, is over when they begin.
    """
    random = Random(seed)
    loading, usual, batches = random.uniform(0, 60), random.uniform(0.1, 20), 20
    ends = [loading]
    for _ in range(batches):
        ends.append(ends[-1] + usual * random.uniform(0.75, 1.33))
    pace, total = Pace(loading), 8 * batches
    for number, end in enumerate(ends[1:], start=1):
        if number > 2:
            for share in (0.2, 0.5, 0.9):
                now = ends[number - 1] + share * (end - ends[number - 1])
                left = pace.left(total - 8 * (number - 1), now)
                assert left is not None
                # Within the last batch, the time left has no more than the batch's own precision.
                truth = ends[-1] - now
                assert truth / 2 - usual / 3 <= left <= truth * 2 + usual / 3
        for place in range(8):
            pace.advance(1, end + place * 0.001)


def test_a_batch_that_does_not_come_makes_the_time_left_longer() -> None:
    pace = Pace(0.0)
    for now in (10.0, 20.0, 30.0):
        pace.advance(8, now)
    assert pace.left(80, 30.0) == pytest.approx(100)
    assert pace.left(80, 35.0) == pytest.approx(95)
    later = [pace.left(80, now) or 0 for now in (45.0, 60.0, 90.0)]
    assert later == sorted(later) and later[-1] > 200


def test_work_that_does_not_move_on_is_not_silent() -> None:
    written: list[str] = []
    with Lines(written.append)("loading", 4) as advance:
        until = time.monotonic() + 15
        while not written and time.monotonic() < until:
            time.sleep(0.05)
        assert written == ["loading: 0 of 4 (0%)"]
        advance(4)
    assert time.monotonic() < until - 15 + 8


def test_a_figure_stands_beside_the_work() -> None:
    screen, written = io.StringIO(), list[str]()
    bars = Bars(Console(file=screen, force_terminal=True, width=120), clock=Clock())
    assert isinstance(bars, Notes) and not isinstance(silent, Notes)
    with bars("training", 2) as advance:
        advance(1)
        bars.note("loss 1.250")
    assert "loss 1.250" in screen.getvalue()
    clock = Clock()
    lines = Lines(written.append, clock=clock)
    with lines("training", 3) as advance:
        advance(1)
        lines.note("loss 1.250")
        clock.now += 6
        advance(1)
    assert written[0].endswith("loss 1.250")


def test_work_that_fails_has_no_line_that_says_it_ended() -> None:
    written: list[str] = []
    with pytest.raises(ValueError, match="no"), Lines(written.append)("asking", 2) as advance:
        advance(1)
        raise ValueError("no")
    assert written == []


def test_bars_show_description_count_rate_and_time_left_and_can_be_opened_again() -> None:
    screen, clock = io.StringIO(), Clock()
    console = Console(file=screen, force_terminal=True, width=100)
    bars = Bars(console, clock=clock)
    with bars("asking [bold]animals", 40, 8) as advance:
        for clock.now in (2.0, 4.0):
            for _ in range(
                8
            ):  # a batch, all at once: two of eight in four seconds are four a second
                advance(1)
        with bars("within", 1) as inner:
            inner(1)
        advance(16)
    with bars("again", 1) as advance:
        advance(1)
    shown = screen.getvalue()
    for part in (
        "asking [bold]animals",
        "24/40",
        "4.0/s, 0:04 left",
        "40/40",
        "in 0:04",
        "within",
        "again",
    ):
        assert part in shown, shown


def test_a_message_stands_above_the_bars() -> None:
    screen = io.StringIO()
    bars = Bars(Console(file=screen, force_terminal=True, width=100), clock=Clock())
    with bars("asking", 2) as advance:
        bars.say("collect: [2] responses\x1b[2J")
        advance(2)
    assert "collect: [2] responses�[2J" in screen.getvalue()


@pytest.mark.parametrize("label", ["Oslo\x1b]0;title\x07", "Oslo\x1b[2J", "Oslo\x9b2J\u202e\u2066"])
def test_no_label_of_a_bar_steers_a_terminal(label: str) -> None:
    screen = io.StringIO()
    bars = Bars(Console(file=screen, force_terminal=True, width=100), clock=Clock())
    with bars(label, 1) as advance:
        advance(1)
    shown = screen.getvalue()
    assert "Oslo" in shown
    # Rich itself moves the cursor and sets colors; the label's own sequences must not be there.
    assert label not in shown and not set(shown) & set("\x07\x9b\u202e\u2066")


# Where somebody looks on


@contextmanager
def terminal_on_stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Makes stderr a terminal; gives the function that closes it and returns what it showed."""
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    screen, stderr = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        try:
            while chunk := os.read(screen, 4096):
                shown.append(chunk)
        except OSError:  # Linux reports the end of a terminal so
            pass

    reader = Thread(target=read)
    reader.start()
    stream = os.fdopen(stderr, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")

    def closed() -> str:
        stream.close()
        reader.join()
        return b"".join(shown).decode()

    try:
        yield closed
    finally:
        if not stream.closed:
            stream.close()
        reader.join()
        os.close(screen)


def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal_on_stderr(monkeypatch) as closed:
        progress = choose_progress("auto")
        assert isinstance(progress, Bars)
        with progress("asking", 3) as advance:
            advance(3)
        progress.say("collect: 3 responses")
        shown = closed()
    assert "asking" in shown and "3/3" in shown and "collect: 3 responses" in shown


def test_a_terminal_that_moves_no_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal_on_stderr(monkeypatch) as closed:
        monkeypatch.setenv("TERM", "dumb")
        progress = choose_progress("auto")
        assert isinstance(progress, Lines)
        with progress("asking", 3) as advance:
            advance(3)
        shown = closed()
    assert shown.startswith("asking: 3 of 3 in ") and "\x1b" not in shown


@pytest.mark.parametrize("is_forced", [False, True])
def test_a_file_gets_nothing(
    is_forced: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if is_forced:
        monkeypatch.setenv("FORCE_COLOR", "1")
    with (tmp_path / "stderr").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert choose_progress("auto") is silent


def test_a_process_without_stderr_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert choose_progress("auto") is silent


class ZMQInteractiveShell:
    """What Jupyter calls its shell; Rich knows a notebook by this name."""


@pytest.mark.parametrize(("has_widgets", "display"), [(True, Bars), (False, Lines)])
def test_a_notebook_gets_bars_where_it_can_draw_them_and_lines_elsewhere(
    has_widgets: bool, display: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.get_ipython", ZMQInteractiveShell, raising=False)
    found = "domainfusion.progress.importlib.util.find_spec"
    monkeypatch.setattr(found, lambda name: object() if has_widgets else None)
    assert isinstance(choose_progress("auto"), display)


def test_none_shows_nothing_in_a_terminal_either(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal_on_stderr(monkeypatch) as closed:
        with choose_progress(None)("asking", 3) as advance:
            advance(3)
        assert closed() == ""


@pytest.mark.parametrize("wrong", [True, False, 1, "bars", Bars])
def test_what_is_not_a_display_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError) as failure:
        choose_progress(wrong)  # type: ignore[arg-type]
    message = str(failure.value)
    assert f"received {wrong!r}" in message
    assert 'allowed: "auto", None, or a domainfusion.progress.Progress' in message
    assert "To fix it: write progress=" in message


def test_a_custom_display_is_taken_as_it_is() -> None:
    written: list[str] = []
    own = Lines(written.append)
    assert choose_progress(own) is own


def test_no_time_is_told_before_the_second_burst() -> None:
    """One answer after 28 seconds, of 100 that take 34, says nothing about the others."""
    pace = Pace(0.0)
    assert pace.left(100, 20.0) is None
    pace.advance(1, 28.0)
    assert pace.left(99, 28.5) is None and pace.rate(28.5) == 0
    pace.advance(1, 28.4)
    assert pace.left(98, 28.4) is None


BURSTS = (
    (411, ((5.2, 16), (6.2, 237), (6.4, 3), (9.6, 5), (10.4, 150))),
    (560, ((6.3, 84), (7.1, 172), (11.6, 62), (12.4, 194), (13.7, 2), (14.1, 46))),
)
"""Seconds and answers of two pieces of a demo: a batch of 256 comes in two bursts."""


@pytest.mark.parametrize(("total", "bursts"), BURSTS)
def test_two_bursts_of_one_batch_do_not_look_like_a_fast_model(
    total: int, bursts: tuple[tuple[float, int], ...]
) -> None:
    pace, done = Pace(0.0), 0
    end = bursts[-1][0]
    for number, (when, count) in enumerate(bursts):
        pace.advance(count, when)
        done += count
        left = pace.left(total - done, when)
        if number and left is not None:
            # A batch takes some five seconds, and nothing is known within one.
            assert (end - when) / 2 - 2 <= left <= 2 * (end - when) + 5


def test_what_takes_more_than_two_seconds_is_named_and_nothing_is_silent_for_five() -> None:
    clock = Clock()
    written: list[tuple[float, str]] = []
    lines = Lines(lambda line: written.append((clock.now, line)), clock=clock)

    def wait(seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            clock.now += 0.5
            lines.look()

    with lines.over(lambda: "stage 1 of 3, generate"):
        with doing("loading small"):
            wait(1.5)
        assert written == []
        with doing("loading large"):
            wait(8)
        with lines("asking", 10) as advance:
            wait(12)
            with doing("loading other"):
                wait(9)
            advance(10)
        wait(6)
    times = [0.0, *(when for when, _ in written), clock.now]
    assert max(after - before for before, after in pairwise(times)) <= 5.0
    shown = [line for _, line in written]
    assert shown[0] == "loading large …; stage 1 of 3, generate"
    assert shown[1] == "loading large: 0:07 so far; stage 1 of 3, generate"
    assert any("asking: 0 of 10 (0%), loading other; stage 1" in line for line in shown)
    assert shown[-1] == "still working; stage 1 of 3, generate"


def test_nothing_is_written_where_nothing_is_under_way() -> None:
    clock = Clock()
    written: list[str] = []
    lines = Lines(written.append, clock=clock)
    with lines.over():  # such as a chat that waits for its user
        for _ in range(100):
            clock.now += 1
            lines.look()
    assert written == []


def test_time_of_loading_counts_into_no_rate() -> None:
    before = seconds_spent()
    with doing("loading"), doing("reading"):
        time.sleep(0.05)
    assert 0.05 <= seconds_spent() - before < 5
    with pytest.raises(ValueError), doing("loading"):
        raise ValueError
    screen = io.StringIO()
    with watching(silent), watching(Bars(Console(file=screen))):
        pass
    assert isinstance(Bars(Console(file=screen)), Watches)
    assert not isinstance(silent, Watches | Foresees)


def test_bars_show_what_is_under_way_between_and_below_them() -> None:
    screen, clock = io.StringIO(), Clock()
    bars = Bars(Console(file=screen, force_terminal=True, width=120), clock=clock)
    with bars.over(lambda: "stage 2 of 5, collect"):
        with doing("loading large"):
            bars.look()
            clock.now += 3
            bars.look()
            until = time.monotonic() + 10
            while "loading large, 0:03 so far" not in screen.getvalue():
                assert time.monotonic() < until
                time.sleep(0.05)
        with bars("asking", 4) as advance:
            advance(1)
            time.sleep(0.3)
    shown = screen.getvalue()
    assert "loading large, 0:03 so far; stage 2 of 5, collect" in shown
    assert shown.count("stage 2 of 5, collect") > 1
    # What is left on the screen is the bar alone.
    assert "stage" not in shown.rsplit("asking", 1)[-1]
