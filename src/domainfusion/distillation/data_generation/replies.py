"""What a model wrote, in whatever form: questions and lists, in JSON good or broken, in numbered lists, in plain lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import json_repair

LONGEST_REPLY = 20_000
"""Characters after which no question is looked for: no list of questions is as long."""

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_FENCE = re.compile(r"^[ \t]*```[\w-]*[ \t]*$", re.MULTILINE)
_STRUCTURE = re.compile(r"""[\[{]\s*(?:["'“{\[]|//|/\*|#|\w+["']?\s*:)""")
_MARK = re.compile(r"^\s*(?:[-*•]|\(?\d+[.):]|Q(?:uestion)?\s*\d*[:.])\s*")
_QUOTES = "\"'“”`*"
_QUESTION_KEYS = ("question", "query", "prompt", "instruction", "text", "q")


@dataclass(frozen=True)
class Question:
    """A question that a model wrote.

    Attributes:
        text: The question.
        sub_questions: What the expert of each domain is asked, where the model says so.
    """

    text: str
    sub_questions: Mapping[str, str] = field(default_factory=dict)


def find_questions(reply: str) -> list[Question]:
    r"""Returns the questions in a model's reply, in order.

    Of JSON, what is called a question or stands in a list counts where it ends as a sentence does, and any other text where it ends with
    a question mark; of plain lines, the first sentence with a question mark in each. JSON may be fenced, commented, in single quotes,
    cut, one object a line, or among other words.

    Example:
        >>> [found.text for found in find_questions('Sure!\n1. "What is the symbol of gold?"\n2. Where is Rome?')]
        ['What is the symbol of gold?', 'Where is Rome?']
        >>> [found.text for found in find_questions('''{'questions': ['Where is Rome?', // in Italy''')]
        ['Where is Rome?']
    """
    text = _plain(reply)
    found = [question for question in _questions_of(_structure_of(text)) if question.text.endswith(("?", ".", "!"))]
    return found or [Question(question) for line in text.splitlines() if (question := _question_of(line))]


def find_items(reply: str) -> list[str]:
    r"""Returns the entries of a list that a model wrote, as JSON or one a line, each once.

    Example:
        >>> find_items("Here are two topics:\n1. Sprinting\n2. Muscle recovery.")
        ['Sprinting', 'Muscle recovery']
    """
    text = _plain(reply)
    lines = list(_texts_of(_structure_of(text))) or [line for line in text.splitlines() if not line.rstrip().endswith(":")]
    entries = (_unmarked(line).rstrip(".").strip() for line in lines)
    return list(dict.fromkeys(entry for entry in entries if entry))


def without_thoughts(reply: str) -> str:
    """Returns a reply without what a model thought aloud before it, between `<think>` and `</think>`."""
    return _THOUGHT.sub("", reply[:LONGEST_REPLY])


def _plain(reply: str) -> str:
    return _FENCE.sub("", without_thoughts(reply)).strip()


def _structure_of(text: str) -> Any:
    """Returns the data of the JSON in a text; None where there is none."""
    begin = _STRUCTURE.search(text)
    if begin is None:
        return None
    body = text[begin.start() :]
    lines = [line.strip().rstrip(",") for line in body.splitlines()]
    objects = [line for line in lines if line.startswith("{") and ":" in line]
    try:
        if sum(line.endswith("}") for line in objects) > 1:
            return [json_repair.loads(line) for line in objects]
        return json_repair.loads(body)
    except (RecursionError, ValueError):  # brackets in brackets, a thousand deep: no list of questions
        return None


def _questions_of(value: Any) -> Iterator[Question]:
    if isinstance(value, str):
        yield Question(value.strip())
    elif isinstance(value, list):
        for item in value:
            yield from _questions_of(item)
    elif isinstance(value, dict):
        named = {str(key).strip().casefold(): item for key, item in value.items()}
        text = next((named[key] for key in _QUESTION_KEYS if isinstance(named.get(key), str)), None)
        if text is not None:
            yield Question(text.strip(), _sub_questions_of(named.get("sub_questions")))
        else:
            yield from _questions_of([item for item in value.values() if not isinstance(item, str) or item.rstrip().endswith("?")])


def _sub_questions_of(value: Any) -> dict[str, str]:
    """Reads `{domain: question}` and `[{"domain": ..., "question": ...}]`."""
    if isinstance(value, list):
        value = {item.get("domain"): item.get("question") for item in value if isinstance(item, dict)}
    if not isinstance(value, dict):
        return {}
    return {key: text.strip() for key, text in value.items() if isinstance(key, str) and isinstance(text, str) and text.strip()}


def _texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts_of(item)


def _question_of(line: str) -> str | None:
    match = re.match(r"[^?]*\?", _unmarked(line))
    if match is None:
        return None
    question = re.split(r"(?<=[.!:])\s+(?=[A-Z])", match.group(0))[-1]
    return question.strip().strip("\"'“”").strip() or None


def _unmarked(line: str) -> str:
    return _MARK.sub("", line).strip().strip(_QUOTES).strip()
