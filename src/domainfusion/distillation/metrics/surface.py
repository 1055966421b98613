"""Coherence as it can be seen on the surface of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from domainfusion.distillation.metrics.defects import breaks_off, dangling, repetition, restatement
from domainfusion.distillation.text.sentences import sentences
from domainfusion.types import Score

_NOTHING = Score.unscored("the answer is empty")


def surface_coherence(text: str) -> Score:
    """Grades a text by its surface: whether it ends, repeats itself, goes over the same ground, or begins in the middle.

    The grade is (1 − r)⁴ · e · σ(5.7 − 30 s) · σ(1.3 − 2 d). Here r is the share of sequences of three words that came before; e is 1
    where the text ends and 0.25 where it breaks off; s is how like its two most similar sentences are; d is how much more its first
    sentence points back than the others (left out for a single sentence); and σ(x) = 1/(1 + e⁻ˣ). The numbers were chosen on the
    development passages. It sees loops, texts that break off, and sentences that deny an earlier one in the same words. It does not see
    leaps from one topic to another, nor much of the order: `benchmarks/coherence.md` has the figures.
    """
    given = sentences(text)
    if not given:
        return _NOTHING
    return Score(form(text) * freshness(given) * (likelihood(1.3 - 2 * dangling(given)) if len(given) > 1 else 1.0))


def form(text: str) -> float:
    """Returns the part of the grade that loops and broken ends take away."""
    return float((1 - repetition(text)) ** 4 * (0.25 if breaks_off(text) else 1.0))


def freshness(given: Sequence[str]) -> float:
    """Returns the part of the grade that sentences which go over the same ground take away."""
    return likelihood(5.7 - 30 * restatement(given))


def likelihood(logit: float) -> float:
    """Returns the logistic function σ."""
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, logit))))
