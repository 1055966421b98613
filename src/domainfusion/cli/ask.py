"""`domainfusion ask`: one question to one model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "ask",
        parents=[shared],
        help="ask a model a question",
        description="Ask a model a question.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a run (its student answers), a folder, an adapter, a .gguf file or a hub id",
    )
    parser.add_argument("question", help="the question, in quotes")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=256,
        metavar="N",
        help="tokens after which it is cut (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Prints the answer."""
    from domainfusion.errors import ConfigurationError
    from domainfusion.types import Sampling, user

    sampling = Sampling(max_new_tokens=arguments.max_new_tokens)
    if not arguments.question.strip():
        raise ConfigurationError(
            "The question is empty", received=arguments.question, fix="write it in quotes"
        )
    path, system_prompt = _student_of(arguments.model)
    from domainfusion.models import HuggingFaceModel

    answer = HuggingFaceModel(path, system_prompt=system_prompt).generate(
        [user(arguments.question)], sampling
    )[0]
    terminal.print(answer.text)
    if answer.finish_reason == "length":
        terminal.say(
            f"The answer was cut after {sampling.max_new_tokens} tokens; --max-new-tokens allows"
            " more."
        )


class _ModelToAsk(NamedTuple):
    path: str
    system_prompt: str | None


def _student_of(model: str) -> _ModelToAsk:
    """Returns the student's folder, and the system prompt that it learned with, where `model` is a
    run; else `model` itself.
    """
    from domainfusion.distillation.run import RunFiles
    from domainfusion.errors import RunError
    from domainfusion.records import read_json

    run = RunFiles(Path(model))
    if not run.description.is_file():
        return _ModelToAsk(model, None)
    if not (run.student / "config.json").is_file():
        raise RunError(
            "This run has no student yet",
            received=model,
            fix=f"see `domainfusion status {model}`, and run its command again",
        )
    return _ModelToAsk(
        str(run.student),
        read_json(run.description).get("student", {}).get("system_prompt"),
    )
