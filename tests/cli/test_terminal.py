from __future__ import annotations

import io
import logging
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from domainfusion.cli.terminal import Bars, Lines, Terminal

logger = logging.getLogger("domainfusion")


class Clock:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_every_ten_seconds_and_at_the_end() -> None:
    clock = Clock()
    written: list[str] = []
    with Lines(written.append, clock=clock)("asking", 100, 20) as advance:
        for _ in range(80):
            clock.now += 0.5
            advance(1)
    # Two items a second: the twenty of an earlier session count as done, and not into the rate.
    assert written == [
        "asking: 40 of 100 (40%), 2.0/s, 0:30 left",
        "asking: 60 of 100 (60%), 2.0/s, 0:20 left",
        "asking: 80 of 100 (80%), 2.0/s, 0:10 left",
        "asking: 100 of 100 in 0:40",
    ]


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
        clock.now = 4.0
        for _ in range(16):  # a batch, all at once: sixteen in four seconds are four a second
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


def test_results_go_to_stdout_and_messages_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal() as terminal:
        terminal.print("a [bold]result[/bold]\x1b[2J")
        terminal.say("a [message]")
        with terminal.progress("work", 1) as advance:
            advance(1)
    captured = capsys.readouterr()
    assert captured.out == "a [bold]result[/bold]�[2J\n"
    assert captured.err == "a [message]\nwork: 1 of 1 in 0:00\n"


def test_quiet_shows_results_and_errors_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal(quiet=True) as terminal:
        terminal.print("a result")
        terminal.say("a message")
        terminal.fail("an error", details="why")
        warnings.warn_explicit(
            "careful", UserWarning, "x.py", 1, module="domainfusion.distillation.trainer"
        )
        with terminal.progress("work", 1) as advance:
            advance(1)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("a result\n", "an error\n")


def test_our_warnings_are_messages_and_those_of_others_only_with_verbose(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for verbose, expected in (
        (False, "Warning: careful\n"),
        (True, "Warning: careful\nWarning: noise\n"),
    ):
        with Terminal(verbose=verbose):
            warnings.warn_explicit(
                "careful", UserWarning, "x.py", 1, module="domainfusion.distillation.trainer"
            )
            warnings.warn_explicit(
                "noise", UserWarning, "y.py", 1, module="transformers.modeling_utils"
            )
        assert capsys.readouterr().err == expected


def test_a_terminal_leaves_logging_and_warnings_as_they_were() -> None:
    before = (list(logger.handlers), logger.level, warnings.showwarning, list(warnings.filters))
    with Terminal() as terminal:
        terminal.log_to(Path("nowhere"))
        assert logger.handlers != before[0]
    assert (
        list(logger.handlers),
        logger.level,
        warnings.showwarning,
        list(warnings.filters),
    ) == before


def test_the_log_of_a_run_holds_messages_and_the_details_of_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Terminal(quiet=True) as terminal:
        terminal.log_to(tmp_path)
        terminal.say("a message")
        terminal.fail("an error", details="Traceback: why")
    log = (tmp_path / "run.log").read_text()
    assert all(part in log for part in ("a message", "Traceback: why", "an error"))
    assert capsys.readouterr().err == "an error\n"


def test_a_log_that_can_not_be_written_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Terminal() as terminal:
        terminal.log_to(tmp_path / "gone" / "further")
        terminal.say("on it goes")
    assert capsys.readouterr().err == "on it goes\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_log_on_a_full_disk_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.log").symlink_to("/dev/full")
    with Terminal() as terminal:
        terminal.log_to(tmp_path)
        terminal.say("on it goes")
    assert capsys.readouterr().err == "on it goes\n"


def test_wide_tables_are_not_folded_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from rich.text import Text

    with Terminal() as terminal:
        terminal.print(Text("x" * 110))
    assert capsys.readouterr().out == "x" * 110 + "\n"
    assert not sys.stdout.isatty()


ANSI, OSC, C1 = "\x1b[2J\x1b[31m", "\x1b]0;title\x07", "\x9b2J"
HOSTILE = f"Oslo{ANSI}{OSC}{C1}\u202eolsO\u2066\r\x08"


def steers(shown: str) -> set[str]:
    return set(shown) & set("\x1b\x07\x9b\u202e\u2066\r\x08")


def test_no_text_in_results_messages_or_the_log_steers_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    with Terminal() as terminal:
        terminal.log_to(tmp_path)
        terminal.print(HOSTILE)
        terminal.print(Group(table, Text(HOSTILE)))
        terminal.say(HOSTILE)
        terminal.fail(HOSTILE, details=HOSTILE)
        with terminal.progress(HOSTILE, 1) as advance:
            advance(1)
    captured = capsys.readouterr()
    assert captured.out.count("Oslo") == 5 and captured.err.count("Oslo") == 3
    for shown in (captured.out, captured.err, (tmp_path / "run.log").read_text()):
        assert not steers(shown)


def test_no_label_of_a_bar_steers_a_terminal() -> None:
    def drawn(label: str) -> str:
        screen = io.StringIO()
        with Bars(Console(file=screen, force_terminal=True, width=100), clock=Clock())(
            label, 1
        ) as advance:
            advance(1)
        return screen.getvalue()

    hostile = drawn(HOSTILE)
    assert (
        "Oslo" in hostile
        and OSC not in hostile
        and ANSI not in hostile
        and not steers(hostile) & set("\x07\x9b\u202e\u2066")
    )


def test_a_line_of_a_million_characters_is_shown_and_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Terminal() as terminal:
        terminal.print("x" * 1_000_000)
        terminal.say("y" * 1_000_000)
    captured = capsys.readouterr()
    assert captured.out.count("x") == captured.err.count("y") == 1_000_000
