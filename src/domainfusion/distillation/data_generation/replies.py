"""Questions in the replies of a model, however it writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator


def find_question(reply: str) -> str | None:
    r"""Returns the first question in a model's reply: plain, in a numbered list, in quotes or in JSON; None if there is none.

    Example:
        >>> find_question('Sure!\n1. "What is the symbol of gold?"\n2. Why?')
        'What is the symbol of gold?'
        >>> find_question('{"question": "Where is Rome?"}')
        'Where is Rome?'
    """
    for line in _lines_of(reply):
        text = re.sub(r"^\s*(?:[-*•]|\(?\d+[.):]|Q(?:uestion)?\s*\d*[:.])\s*", "", line).strip().strip("\"'“”`*").strip()
        match = re.match(r"[^?]*\?", text)
        if match:
            question = re.split(r"(?<=[.!:])\s+(?=[A-Z])", match.group(0))[-1]
            return question.strip().strip("\"'“”").strip()
    return None


def _lines_of(reply: str) -> Iterator[str]:
    try:
        parsed = json.loads(re.sub(r"^```\w*|```$", "", reply.strip(), flags=re.MULTILINE))
    except ValueError:
        yield from reply.splitlines()
        return
    stack = [parsed]
    while stack:
        value = stack.pop(0)
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack = [*value.values(), *stack]
        elif isinstance(value, list):
            stack = [*value, *stack]
