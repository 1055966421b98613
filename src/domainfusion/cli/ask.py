"""The models of a run, loaded once to be asked: `domainfusion ask` puts questions to one of them,
`domainfusion chat` talks to the student and its experts. `play` opens the same models.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from domainfusion.errors import DomainFusionError
from domainfusion.wording import counted

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal
    from domainfusion.distillation import ResponseIntegrator
    from domainfusion.models import LanguageModel
    from domainfusion.progress import Progress
    from domainfusion.types import Generation, Message, Sampling

_ASK = """Ask a model questions; it is loaded once. Without a question, or with -, one is read from each line of stdin."""

_CHAT = """Talk to the student of a run. Models are loaded once, and earlier turns are remembered. Lines of stdin are turns too."""

_HELP = """/expert NAME     talk to NAME from now on: {names}
/all [QUESTION]  ask all of them, side by side; without a question, the last one
/system TEXT     give the system prompt; without a text, none
/new             forget the conversation
/quit            end (Ctrl-D too)"""


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verbs `ask` and `chat` to the parser."""
    parser = verbs.add_parser(
        "ask", parents=[shared], help="ask a model questions", description=_ASK
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a run (its student answers), a folder, an adapter, a .gguf file or a hub id",
    )
    parser.add_argument(
        "questions", metavar="QUESTION", nargs="*", help="a question, in quotes; - reads stdin"
    )
    add_sampling_options(parser)
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object with question and answer a line"
    )
    parser.set_defaults(run=ask)

    parser = verbs.add_parser(
        "chat", parents=[shared], help="talk to the student of a run", description=_CHAT
    )
    parser.add_argument(
        "model", metavar="RUN", help="a run, or a folder, an adapter or a hub id of one model"
    )
    add_sampling_options(parser)
    parser.set_defaults(run=chat)


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that decide how answers are written."""
    parser.add_argument(
        "--system",
        metavar="TEXT",
        help="the system prompt (default: the one that the student of a run learned with)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=256,
        metavar="N",
        help="tokens after which an answer is cut (default: %(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="0 takes the most probable token, more draws (default: %(default)s)",
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="draw from the most probable tokens that have this share (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the draws (default: %(default)s)"
    )
    parser.set_defaults(misused=parser.error)


def sampling_of(arguments: argparse.Namespace) -> Sampling:
    """Returns how answers are written, as the options say; a number out of range ends the command
    as argparse does.
    """
    from domainfusion.errors import ConfigurationError
    from domainfusion.types import Sampling

    try:
        return Sampling(
            max_new_tokens=arguments.max_new_tokens,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            seed=arguments.seed,
        )
    except ConfigurationError as error:
        # The sentence begins with the argument's name, as --max-new-tokens is max_new_tokens.
        arguments.misused(f"argument {error}")
        raise


class ModelToAsk(NamedTuple):
    """Where a model lies, and the system prompt that it learned with."""

    path: str
    system_prompt: str | None


def student_of(model: str) -> ModelToAsk:
    """Returns the student's folder, and the system prompt that it learned with, where `model` is a
    run; else `model` itself.

    Raises:
        RunError: The run has no student yet.
    """
    from domainfusion.cli.runs import saved_student
    from domainfusion.distillation.run import RunFiles, read_description

    run = RunFiles(Path(model))
    if not run.description.is_file():
        return ModelToAsk(model, None)
    system_prompt = read_description(run).student.system_prompt
    return ModelToAsk(str(saved_student(run.path)), system_prompt)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Who can be asked. Weights are loaded when a model is asked first, and stay.

    Attributes:
        models: `student`, `base`, and the expert of each domain by the domain's name.
        experts: The domains that have an expert here.
        integrator: Makes one answer of the experts'; None where there are no experts.
        domains: The description of each domain.
    """

    models: Mapping[str, LanguageModel]
    experts: tuple[str, ...] = ()
    integrator: ResponseIntegrator | None = None
    domains: Mapping[str, str] = field(default_factory=dict)


def open_panel(model: str, *, system: str | None, progress: Progress) -> Panel:
    """Returns the models of a run; of a model that is not a run, or of a run whose experts can't be
    built again, the student alone.

    Args:
        model: A run, or whatever `ask` takes.
        system: A system prompt in place of the one that the student learned with.
        progress: Shows how far loading is.
    """
    from domainfusion.distillation.run import RunFiles
    from domainfusion.models import HuggingFaceModel

    path, system_prompt = student_of(model)
    prompt = system_prompt if system is None else system
    student = HuggingFaceModel(path, system_prompt=prompt)
    files = RunFiles(Path(model))
    if not (files.recipe.is_file() or files.demo.is_file()):
        return Panel(models={"student": student})
    from domainfusion.cli.runs import rebuild

    distiller = rebuild(Path(model), progress=progress)
    experts = dict(distiller.teacher_models)
    # A domain may be called as the others are; its expert is then asked under another name.
    named = {f"{name} expert" if name in ("student", "base") else name: name for name in experts}
    return Panel(
        models={
            "student": student,
            "base": distiller.student_model,
            **{name: experts[domain] for name, domain in named.items()},
        },
        experts=tuple(named),
        integrator=distiller.integrator,
    )


# --- ask


def ask(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Prints the answers."""
    from domainfusion.types import user

    sampling = sampling_of(arguments)
    questions = _questions(arguments.questions)
    path, system_prompt = student_of(arguments.model)
    from domainfusion.models import HuggingFaceModel

    if arguments.system is not None:
        system_prompt = arguments.system
    model = HuggingFaceModel(path, system_prompt=system_prompt)
    answers = model.generate([user(question) for question in questions], sampling)
    for question, answer in zip(questions, answers, strict=True):
        terminal.print(_shown(question, answer, arguments.json, only=len(questions) == 1))
    cut = sum(answer.finish_reason == "length" for answer in answers)
    if cut:
        subject = "The answer was" if len(answers) == 1 else f"{cut} of {len(answers)} answers were"
        terminal.say(
            f"{subject} cut after {counted(sampling.max_new_tokens, 'token')}; --max-new-tokens allows more."
        )


def _questions(words: list[str]) -> list[str]:
    """Returns the questions of the command line, or those on the lines of stdin.

    Raises:
        ConfigurationError: There is none, or one is empty.
    """
    from domainfusion.errors import ConfigurationError

    if words in ([], ["-"]):
        words = [line.strip() for line in sys.stdin.read().splitlines() if line.strip()]
        if not words:
            raise ConfigurationError(
                "There is no question", fix="write it in quotes, or one a line on stdin"
            )
    for word in words:
        if not word.strip():
            raise ConfigurationError(
                "The question is empty", received=word, fix="write it in quotes"
            )
    return words


def _shown(question: str, answer: Generation, as_json: bool, *, only: bool) -> str:
    if as_json:
        fields = {
            "question": question,
            "answer": answer.text,
            "finish_reason": answer.finish_reason,
        }
        return json.dumps(fields, ensure_ascii=False)
    return answer.text if only else f"> {question}\n{answer.text}\n"


# --- chat


def chat(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Answers turn by turn, until there are no more."""
    sampling = sampling_of(arguments)
    panel = open_panel(arguments.model, system=arguments.system, progress=terminal.progress)
    conversation = Chat(panel, sampling, terminal, system=arguments.system)
    if sys.stdin.isatty():
        terminal.say(f"Talking to the student. /help names the commands.\n{conversation.help}")
    for line in _typed_lines():
        if not conversation.take(line):
            return


def _typed_lines() -> Iterator[str]:
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
            self._terminal.say(f"Cut after {counted(self._sampling.max_new_tokens, 'token')}.")
        return found.text
