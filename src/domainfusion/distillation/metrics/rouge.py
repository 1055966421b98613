"""Grading by the longest common subsequence of words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from domainfusion.distillation.metrics.accuracy import against_each, check_share, overlap_words
from domainfusion.types import Example, Score


class _Words(Tokenizer):  # type: ignore[misc]
    """Splits into words of any alphabet; the library's own tokenizer knows English letters
    alone.
    """

    def tokenize(self, text: str) -> list[str]:
        return overlap_words(text)


_SCORER = RougeScorer(["rougeL"], tokenizer=_Words())


def rouge_l(text: str, reference: str) -> float:
    """Returns ROUGE-L, the F-measure of the longest common subsequence of words (Lin, 2004,
    aclanthology.org/W04-1013).

    Example:
        >>> round(rouge_l("the cat sat on a mat", "on the mat sat a cat"), 2)
        0.5
    """
    return float(_SCORER.score(reference, text)["rougeL"].fmeasure)


@dataclass(frozen=True)
class RougeL:
    """ROUGE-L of the answer against the accepted one: shared words that stand in the same order.

    It is an overlap and no accuracy: an answer that says the opposite in the same words has a high
    one.

    Args:
        right_from: The ROUGE-L from which an answer counts as right.

    Raises:
        ConfigurationError: `right_from` is not above 0 and up to 1.
    """

    right_from: float = 1.0
    is_overlap: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share("right_from", self.right_from)

    def __call__(self, example: Example, text: str) -> Score:
        """Grades an answer."""
        return against_each(example, text, rouge_l, right_from=self.right_from)
