"""Defects of a text that can be seen without understanding it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

from domainfusion.distillation.text.words import normalize

_ENDS = (".", "!", "?", '"', "”", ")", "]", "`", ":")
_LETTERS_AT_ONCE = 4

_LISTED = (
    "a about after again against all also always an and any are as at be because been before both but by can could did do "
    "does each even every few first for from had has have he her here his how if in into is it its just less like made make "
    "makes many may more most much must never no nor not of often on one only or other our out over own same she should so "
    "some still such than that the their them then there these they this those through to too under until up us very was we "
    "were what when where which while who why will with without would you your"
)
_FUNCTION_WORDS = frozenset(_LISTED.split())

_POINTS_BACK_FROM_THE_START = re.compile(
    r"(?:"
    r"however|therefore|thus|hence|then|later|afterwards?|so|but|still|instead|meanwhile|also|moreover|otherwise|"
    r"nevertheless|this|that|these|those|they|it|he|she|them|their|its|his|her|there|one of|another|neither|both|such|"
    r"since then|from then|from there|after|for (?:this|that)|because of this|as a result|in (?:addition|this|that)|"
    r"at (?:that|first)|by then|on (?:this|that|the other)|with(?:out)? (?:it|this|that|these|them)|only then|"
    r"the (?:reason|result|other|same|former|latter|rest|last)|(?:some|most|many|few|part) of|none|each|once|even|apart|yet|"
    r"and|or|elsewhere|above|two|more|what"
    r")\b",
    re.IGNORECASE,
)
_POINTS_BACK = re.compile(
    r"\b(?:"
    r"it|its|they|their|them|he|she|his|her|this|these|those|then|also|however|therefore|thus|hence|instead|though|such|so|"
    r"again|too|nevertheless|otherwise|meanwhile|even|neither|both|another|others?|either"
    r")\b",
    re.IGNORECASE,
)


def breaks_off(text: str) -> bool:
    """Whether a text ends in the midst of a sentence."""
    return not text.rstrip().endswith(_ENDS)


def repetition(text: str) -> float:
    """Returns the share of a text's sequences of three words that came before.

    Example:
        >>> repetition("one two three one two three"), repetition("one two three four")
        (0.25, 0.0)
    """
    words = re.findall(r"\w+", normalize(text))
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


def restatement(given: Sequence[str]) -> float:
    """Returns how like the two sentences that are most alike are: the Jaccard index of their content words' sequences of four letters.

    A sentence that says an earlier one again has a high one, whether it repeats, rewords or contradicts it.
    """
    letters = [_letters(sentence) for sentence in given]
    return max((len(one & other) / max(1, len(one | other)) for one, other in combinations(letters, 2)), default=0.0)


def _letters(sentence: str) -> frozenset[str]:
    words = [f"<{word}>" for word in re.findall(r"\w+", normalize(sentence)) if len(word) > 2 and word not in _FUNCTION_WORDS]
    size = _LETTERS_AT_ONCE
    return frozenset(word[start : start + size] for word in words for start in range(max(1, len(word) - size + 1)))


def dangling(given: Sequence[str]) -> float:
    """Returns how much more the first sentence points back than the others do on average, by pronouns and connectives.

    In a text in its right order it is below 0: the first sentence has nothing to point back to. A single sentence has 0.
    """
    if len(given) < 2:
        return 0.0
    first, *others = (_pointers(sentence) for sentence in given)
    return first - sum(others) / len(others)


def _pointers(sentence: str) -> float:
    return float(_POINTS_BACK_FROM_THE_START.match(sentence) is not None) + 0.5 * min(3, len(_POINTS_BACK.findall(sentence)))
