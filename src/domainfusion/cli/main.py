"""The command `domainfusion`: its verbs, and the one place where an error becomes a message and an
exit code.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from domainfusion import __version__
from domainfusion.cli import (
    ask,
    demo,
    distill,
    evaluate,
    export,
    extend,
    init,
    merge,
    play,
    report,
    status,
)
from domainfusion.errors import DomainFusionError, RunError, advice_on, printable, suggestion
from domainfusion.interruption import Stop, stopping_on_signals

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal

VERBS = (
    demo,
    init,
    distill,
    extend,
    status,
    evaluate,
    report,
    ask,
    play,
    merge,
    export,
)
"""Each module adds one verb, or the two that do one thing: `report` and `compare`, `ask` and `chat`."""

FAILED = 1
_EPILOG = """exit codes:
  0    done
  1    an error, told in one message; --verbose adds the traceback
  2    the command was written wrongly
  3    the student does not meet what `evaluate --require` demands
  130  stopped by Ctrl-C (SIGINT)
  143  stopped by SIGTERM
Whatever stopped a run, what it had finished is kept: the same command resumes from there."""


# Of argparse's message: the word that it does not know, and the words that it does.
_UNKNOWN_CHOICE = re.compile(r"invalid choice: '(?P<word>.*)' \(choose from (?P<choices>.*)\)")


class _Parser(argparse.ArgumentParser):
    """A parser that proposes the word that was meant, and whose messages repeat no control
    character that it was given.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses options that it does not know, so that the verb's own usage is shown."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [word for word in self._option_string_actions if word.startswith("--")]
            words = " ".join(unknown)
            self.error(f"unrecognized arguments: {words}{_meant(unknown[0], options)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Ends with the message and, where a choice is misspelled, with the one that was meant."""
        unknown = _UNKNOWN_CHOICE.search(message)
        if unknown is not None:
            choices = [word.strip("' ") for word in unknown["choices"].split(",")]
            message += _meant(unknown["word"], choices)
        super().error(message)

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(printable(message), file)


def _meant(word: str, choices: Sequence[str]) -> str:
    advice = suggestion(word.partition("=")[0], choices)
    return f"; {advice}" if advice else ""


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all verbs."""
    parser = _Parser(
        prog="domainfusion",
        description="Distill several domain experts into one model, and measure what was retained.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"domainfusion {__version__}")
    shared = _Parser(add_help=False, allow_abbrev=False)
    volume = shared.add_mutually_exclusive_group()
    volume.add_argument("--quiet", action="store_true", help="show results and errors alone")
    volume.add_argument(
        "--verbose",
        action="store_true",
        help="show all that is logged, and the traceback of an error",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in VERBS:
        verb.add_to(verbs, shared)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        argv: The words after `domainfusion`; by default those of the process.

    Returns:
        The exit code: 0 done, 1 an error, 3 a requirement is not met, 130 stopped by SIGINT, 143 by SIGTERM.

    Raises:
        SystemExit: With 2, the command was written wrongly; with 0, help or version was asked for.
    """
    arguments = build_parser().parse_args(argv)
    # Read when torch is loaded, which no verb has done yet. Threads that spin long while they wait
    # take the cores from others, and from their own team where another process is busy.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    is_main = (
        os.environ.get("RANK", "0") == "0"
    )  # of several processes, which torchrun starts, only the main one prints
    try:
        # Around all of it, so that a second signal never meets Python's own handler, which would
        # show a traceback after the message.
        with stopping_on_signals():
            from domainfusion.cli.terminal import Terminal
            from domainfusion.progress import watching

            with Terminal(
                quiet=arguments.quiet or not is_main, verbose=arguments.verbose and is_main
            ) as terminal:
                try:
                    with watching(terminal.progress):
                        code: int | None = arguments.run(arguments, terminal)
                        sys.stdout.flush()
                except BaseException as error:
                    return _failed(error, terminal)
        return code or 0
    except Stop as stop:  # while it began, or ended by another error
        return 128 + stop.signal_number


def _failed(error: BaseException, terminal: Terminal) -> int:
    """The boundary at which whatever escaped becomes one message; returns the exit code."""
    if isinstance(error, Stop):
        terminal.fail("Stopped. What was finished is kept; run the same command to resume.")
        return 128 + error.signal_number
    if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ENOSPC):
        _discard_output()
    if isinstance(error, BrokenPipeError):
        # who read the output has left, as `head` does: nothing that anybody wants to be told
        return FAILED
    if not isinstance(error, Exception):
        raise error
    if isinstance(error, DomainFusionError):
        message = str(error)
    elif any(map(_is_full_disk, _chain(error))):
        message = (
            "The disk is full. What was finished is kept; free some space and run the same command"
            " to resume."
        )
    elif isinstance(error, OSError) and (error.filename is not None or error.errno == errno.EIO):
        # A path that is too long, a loop of links, a folder that may not be read: whatever met it.
        what = f"A file or folder can't be used: {error.strerror or error}"
        place = str(error.filename or "one that the system does not name")
        message = str(RunError(what, received=place, fix=advice_on(error)))
    else:
        message = f"Unexpected {type(error).__name__}: {error}"
    terminal.fail(f"Error: {message}", details="".join(traceback.format_exception(error)))
    return FAILED


def _discard_output() -> None:
    """Sends what stdout could not take to nowhere: Python would try to write it once more at its
    end, and complain.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # Writers in other languages, such as that of safetensors, tell it in words alone.
    return "No space left on device" in str(error)
