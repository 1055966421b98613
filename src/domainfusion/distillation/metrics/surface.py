"""Coherence as it can be seen on the surface of a text."""

from __future__ import annotations

import re

from domainfusion.distillation.metrics.text import normalize, sentences
from domainfusion.types import Score


def surface_coherence(text: str) -> Score:
    """Grades a text by what can be seen on its surface: whether it ends, and how little of it is said twice.

    The grade is the share of its three-word sequences that are not repeated, times the share of sentences that are not repeated,
    halved where the text breaks off. It has not been validated against corrupted texts.
    """
    found = sentences(text)
    if not found:
        return Score.unscored("the answer is empty")
    words = re.findall(r"\w+", normalize(text))
    triples = list(zip(words, words[1:], words[2:], strict=False))
    fresh_triples = len(set(triples)) / len(triples) if triples else 1.0
    fresh_sentences = len({normalize(sentence) for sentence in found}) / len(found)
    ended = 1.0 if text.rstrip().endswith((".", "!", "?", '"', "”", ")", "]", "`", ":")) else 0.5
    return Score(fresh_triples * fresh_sentences * ended)
