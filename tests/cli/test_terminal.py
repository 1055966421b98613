from __future__ import annotations

import logging
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from domainfusion.cli.terminal import Terminal

logger = logging.getLogger("domainfusion")


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_messages_that_find_no_room_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        with Terminal() as terminal:
            terminal.say("a message")
            with terminal.progress("work", 1) as advance:
                advance(1)
            terminal.fail("an error")
        with suppress(OSError):
            full.close()


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


def test_a_line_of_a_million_characters_is_shown_and_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Terminal() as terminal:
        terminal.print("x" * 1_000_000)
        terminal.say("y" * 1_000_000)
    captured = capsys.readouterr()
    assert captured.out.count("x") == captured.err.count("y") == 1_000_000
