"""The sound texts on which coherence metrics are measured, written for this purpose."""

from __future__ import annotations

from importlib import resources
from typing import Literal

from domainfusion.distillation.metrics.corruptions import Passage

Half = Literal["development", "held_out"]
"""The metrics were made on the first; the second is of other fields, and was written and put away
before they were.
"""


def read_passages(half: Half) -> tuple[Passage, ...]:
    """Returns the passages of one half: some 60 words each, several fields, each with a sentence
    that contradicts it.
    """
    text = resources.files(__package__).joinpath(f"{half}.txt").read_text(encoding="utf-8")
    found: list[Passage] = []
    field = passage = ""
    for line in text.splitlines():
        if line.startswith("# "):
            field = line.removeprefix("# ")
        elif line.startswith("≠ "):
            found.append(Passage(field, passage, line.removeprefix("≠ ")))
        else:
            passage = line
    return tuple(found)
