"""What a verb shows and keeps: results on stdout, progress and messages on stderr, a log file in
the run.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from domainfusion.distillation.run import RunFiles
from domainfusion.errors import printable
from domainfusion.progress import Bars, Lines, Progress, silent

logger = logging.getLogger("domainfusion")

WIDTH_WITHOUT_TERMINAL = 120
"""Columns of a table that goes to a file or a pipe."""

_QUIETENED = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}
"""Settings, read when they are imported, that keep other libraries off stderr; what the user has
set stays.
"""


class Terminal:
    """The two streams and the log of one command. It is a context manager.

    Args:
        quiet: Show results and errors alone.
        verbose: Show all that is logged, other libraries' warnings, and tracebacks.

    Attributes:
        progress: Shows how far work is.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self._verbose = verbose
        self._results = Console(
            width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False
        )
        self._messages = Console(stderr=True, highlight=False)
        self._level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
        self.progress: Progress = (
            silent
            if quiet
            else Bars(self._messages)
            if self._messages.is_terminal
            else Lines(self._write_message)
        )
        self._open = ExitStack()
        self._run_log: _RunLog | None = None

    def __enter__(self) -> Self:
        if not self._verbose:
            for name, value in _QUIETENED.items():
                os.environ.setdefault(name, value)
        self._show_warnings()
        before = logger.level
        logger.setLevel(logging.DEBUG)
        self._open.callback(logger.setLevel, before)
        self._add_handler(_MessageHandler(self._write_message), self._level)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def print(self, content: RenderableType) -> None:
        """Prints a result to stdout; a text is printed as it is, control characters aside."""
        if isinstance(content, str):
            sys.stdout.write(printable(content) + "\n")
        else:
            self._results.print(_Printable(content))

    @contextmanager
    def replacing(self) -> Iterator[Callable[[str], None]]:
        """Yields what shows a result in the place of the one before; where stdout is not a
        terminal, each is printed that differs from the one before.
        """
        if sys.stdout.isatty():
            with Live(console=self._results, auto_refresh=False) as live:
                yield lambda text: live.update(Text(printable(text)), refresh=True)
            return
        latest = ""

        def show(text: str) -> None:
            nonlocal latest
            if text != latest:
                self.print(text)
                sys.stdout.flush()
            latest = text

        yield show

    def say(self, message: str) -> None:
        """Tells the user something on stderr, and keeps it in the log."""
        logger.info("%s", message)

    def fail(self, message: str, *, details: str = "") -> None:
        """Tells on stderr why the command ends; the details are shown with `--verbose`, and always
        kept in the log.
        """
        if details:
            logger.debug("%s", details.rstrip())
        logger.error("%s", message)

    def log_to(self, run_directory: Path) -> None:
        """Keeps what is logged from now on in `run.log` of a run, and of no other."""
        if self._run_log is not None:
            logger.removeHandler(self._run_log)
            self._run_log.close()
        self._run_log = handler = _RunLog(RunFiles(run_directory).log, encoding="utf-8", delay=True)
        handler.setFormatter(_PrintableLines("%(asctime)s %(process)d %(levelname)s %(message)s"))
        self._add_handler(handler, logging.DEBUG)

    def _add_handler(self, handler: logging.Handler, level: int) -> None:
        handler.setLevel(level)
        logger.addHandler(handler)
        self._open.callback(handler.close)
        self._open.callback(logger.removeHandler, handler)

    def _show_warnings(self) -> None:
        """Makes warnings messages like any other: those that this package raises, and all of them
        with `--verbose`.
        """
        self._open.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default" if self._verbose else "ignore")
        warnings.filterwarnings("default", module=r"domainfusion\b")

        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            logger.warning("Warning: %s", message)

        warnings.showwarning = show

    def _write_message(self, message: str) -> None:
        with suppress(OSError):  # a stderr that is closed, or on a full disk, stops no run
            self._messages.print(printable(message), markup=False, soft_wrap=True)


class _Printable:
    """Shows something in a terminal, which no text in it can steer."""

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._content, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class _PrintableLines(logging.Formatter):
    """Writes a log that can be shown in a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _MessageHandler(logging.Handler):
    def __init__(self, write: Any) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write(self.format(record))


class _RunLog(logging.FileHandler):
    """Appends to the run's log. A log that can't be written stops no run: whoever writes results
    will tell of a full disk.
    """

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:
        """Passes over it."""
