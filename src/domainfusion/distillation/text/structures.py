"""JSON in what a model wrote: good, cut, commented, in single quotes, or among chatter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import json_repair

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


def structures_in(text: str) -> Iterator[Any]:
    r"""Yields the data of the JSON objects and lists in a text, in order.

    What is broken is repaired as far as it can be, and ends the search; of broken JSON Lines, each
    line is an object.

    Example:
        >>> list(structures_in('Sure!\n```json\n{"claims": [{"quote": "It is red."}]}\n```'))
        [{'claims': [{'quote': 'It is red.'}]}]
        >>> list(structures_in('[1] {"q": "Why?"}\n{"q": "How?"}')), list(structures_in("{'q': 'It is r"))
        ([{'q': 'Why?'}, {'q': 'How?'}], [{'q': 'It is r'}])
        >>> list(structures_in("[" * 100_000)), list(structures_in("It is red."))
        ([], [])
    """
    decoder = json.JSONDecoder()
    start = 0
    while beginning := _BEGINNING.search(text, start):
        try:
            found, start = decoder.raw_decode(text, beginning.start())
        except (ValueError, RecursionError):
            yield from _repaired(text[beginning.start() :])
            return
        yield found


def _repaired(body: str) -> Iterator[Any]:
    if _depth(body) > DEEPEST:
        return
    body = body[:LONGEST_BROKEN]
    lines = [line.strip().rstrip(",") for line in body.splitlines()]
    objects = [line for line in lines if line.startswith("{") and ":" in line]
    are_lines = sum(line.endswith("}") for line in objects) > 1
    for piece in objects if are_lines else [body]:
        try:
            yield json_repair.loads(piece)
        except Exception:  # whatever the parser stumbles over can't be read
            continue


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
