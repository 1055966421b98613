"""`domainfusion ask`: questions to one model."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from domainfusion.cli.conversation import add_sampling_options, sampling_of, student_of

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal
    from domainfusion.types import Generation


_DESCRIPTION = """Ask a model questions; it is loaded once. Without a question, or with -, one is read from each line of stdin."""


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "ask", parents=[shared], help="ask a model questions", description=_DESCRIPTION
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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
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
            f"{subject} cut after {sampling.max_new_tokens} tokens; --max-new-tokens allows more."
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
