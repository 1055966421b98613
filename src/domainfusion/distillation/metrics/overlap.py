"""Grading by the words that an answer shares with a reference."""

from __future__ import annotations

import re
from collections import Counter

from domainfusion.distillation.metrics.text import normalize


def token_f1(text: str, reference: str) -> float:
    """Returns the harmonic mean of precision and recall of `text`'s words against `reference`'s.

    Example:
        >>> token_f1("the capital is Rome", "Rome")
        0.5
    """
    words, wanted = (Counter(re.findall(r"\w+", normalize(side))) for side in (text, reference))
    shared = sum((words & wanted).values())
    if not shared:
        return float(not words and not wanted)
    precision, recall = shared / sum(words.values()), shared / sum(wanted.values())
    return 2 * precision * recall / (precision + recall)
