"""`domainfusion chat`: a conversation with the student of a run and with its experts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from domainfusion.cli.conversation import Panel, add_sampling_options, open_panel, sampling_of
from domainfusion.errors import DomainFusionError

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal
    from domainfusion.types import Message, Sampling

_DESCRIPTION = """Talk to the student of a run. Models are loaded once, and earlier turns are remembered. Lines of stdin are turns too."""

_HELP = """/expert NAME     talk to NAME from now on: {names}
/all [QUESTION]  ask all of them, side by side; without a question, the last one
/system TEXT     give the system prompt; without a text, none
/new             forget the conversation
/quit            end (Ctrl-D too)"""


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "chat", parents=[shared], help="talk to the student of a run", description=_DESCRIPTION
    )
    parser.add_argument(
        "model", metavar="RUN", help="a run, or a folder, an adapter or a hub id of one model"
    )
    add_sampling_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Answers turn by turn, until there are no more."""
    sampling = sampling_of(arguments)
    panel = open_panel(arguments.model, system=arguments.system, progress=terminal.progress)
    chat = Chat(panel, sampling, terminal, system=arguments.system)
    if sys.stdin.isatty():
        terminal.say(f"Talking to the student. /help names the commands.\n{chat.help}")
    for line in _lines():
        if not chat.take(line):
            return


def _lines() -> Iterator[str]:
    """Yields the lines that a person types, with a prompt and editing, or those of a pipe."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    with suppress(ImportError):  # not on Windows
        import readline  # noqa: F401  # input() edits lines once it is loaded
    while True:
        try:
            yield input("> ")
        except EOFError:
            return


class Chat:
    """One conversation.

    Args:
        panel: Who can be asked.
        sampling: How answers are written.
        terminal: Where they are printed.
        system: The system prompt that is put before the turns; None leaves each model its own.
    """

    def __init__(
        self, panel: Panel, sampling: Sampling, terminal: Terminal, *, system: str | None = None
    ) -> None:
        self._panel = panel
        self._sampling = sampling
        self._terminal = terminal
        self._system = system
        self._name = "student"
        self._turns: tuple[Message, ...] = ()
        self._last = ""

    @property
    def help(self) -> str:
        """The commands, and who can be asked."""
        return _HELP.format(names=", ".join(self._panel.models))

    def take(self, line: str) -> bool:
        """Answers a line, or does what it commands.

        Args:
            line: What was typed.

        Returns:
            Whether the conversation continues.
        """
        command, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if command == "/quit":
            return False
        if command == "/expert":
            self._switch(rest)
        elif command == "/all":
            self._ask_all(rest or self._last)
        elif command == "/system":
            self._system, self._turns = rest, ()
            self._terminal.say("The system prompt is set, and the conversation starts anew.")
        elif command == "/new":
            self._turns = ()
        elif command.startswith("/"):
            self._terminal.say(self.help)
        elif line.strip():
            self._answer(line.strip())
        return True

    def _switch(self, name: str) -> None:
        if name not in self._panel.models:
            names = ", ".join(self._panel.models)
            self._terminal.say(f"There is no {name!r} here. There are: {names}.")
            return
        self._name = name
        self._turns = ()
        self._terminal.say(f"Talking to {name}, from the start.")

    def _answer(self, question: str) -> None:
        from domainfusion.types import Message

        self._last = question
        turns = (*self._turns, Message("user", question))
        answer = self._ask(self._name, turns)
        if answer is not None:
            self._turns = (*turns, Message("assistant", answer))
            self._terminal.print(answer)

    def _ask_all(self, question: str) -> None:
        from domainfusion.types import user

        if not question:
            self._terminal.say("There is no question yet: /all QUESTION")
            return
        self._last = question
        for name in self._panel.models:
            answer = self._ask(name, user(question))
            if answer is not None:
                self._terminal.print(f"{name}: {answer}")

    def _ask(self, name: str, turns: tuple[Message, ...]) -> str | None:
        """Returns the answer; None where a model can't give one, which is said and ends nothing."""
        from domainfusion.types import Message

        if self._system is not None and self._system:
            turns = (Message("system", self._system), *turns)
        try:
            (found,) = self._panel.models[name].generate([turns], self._sampling)
        except DomainFusionError as error:
            self._terminal.say(f"{name} gives no answer: {error}")
            return None
        if found.finish_reason == "length":
            self._terminal.say(f"Cut after {self._sampling.max_new_tokens} tokens.")
        return found.text
