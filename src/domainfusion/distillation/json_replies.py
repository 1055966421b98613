"""The JSON in a model's reply: whole, fenced, among other words, cut or broken."""

from __future__ import annotations

import json
import re
from typing import Any

import json_repair

from domainfusion.models.reasoning import split_reasoning

LONGEST_REPLY = 100_000
"""Characters of a reply that are read."""
LONGEST_BROKEN = 20_000
"""Characters of broken JSON that are repaired, which may take time in proportion to their
square.
"""
DEEPEST = 40
"""Brackets within brackets. Nothing that is asked for has as many, and a reply that has no end
does.
"""

# What a structure begins with: a bracket, and in it a string, another bracket, a bare key, a
# comment, or its end.
_BEGINNING = re.compile(r"""[\[{]\s*(?:["'“{\[\]}]|//|/\*|#|\w+["']?\s*:)""")


def structure_in(reply: str) -> Any:
    r"""Returns the data of the first JSON object or list in a reply; None where there is none that
    can be read.

    Example:
        >>> structure_in('Sure!\n```json\n{"claims": [{"quote": "It is red."}]}\n```')
        {'claims': [{'quote': 'It is red.'}]}
        >>> structure_in("{'claims': [{'quote': 'It is r"), structure_in("[" * 100_000), structure_in("It is red.")
        ({'claims': [{'quote': 'It is r'}]}, None, None)
    """
    text = split_reasoning(reply[:LONGEST_REPLY]).answer
    beginning = _BEGINNING.search(text)
    if beginning is None:
        return None
    body = text[beginning.start() :]
    try:
        found, _ = json.JSONDecoder().raw_decode(body)
        return found
    except (ValueError, RecursionError):
        pass
    if _depth(body) > DEEPEST:
        return None
    try:
        return json_repair.loads(body[:LONGEST_BROKEN])
    except (ValueError, RecursionError):
        return None


def entries_of(structure: Any, name: str) -> list[dict[str, Any]]:
    """Returns the objects that a structure lists under a name; a list without a name is taken for
    them.

    Example:
        >>> entries_of({"claims": [{"quote": "a"}, "b"]}, "claims"), entries_of([{"quote": "a"}], "claims"), entries_of(1, "claims")
        ([{'quote': 'a'}], [{'quote': 'a'}], [])
    """
    listed = structure.get(name) if isinstance(structure, dict) else structure
    return (
        [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    )


def text_of(entry: dict[str, Any], name: str) -> str:
    """Returns the text that an object has under a name; a number as text, and anything else as an
    empty text.

    JSON can spell half a character (a lone surrogate), which no file can hold: it is replaced.
    """
    value = entry.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return ""
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").strip()


def _depth(text: str) -> int:
    """Returns how deep brackets stand within brackets, those inside of strings counted too."""
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest
