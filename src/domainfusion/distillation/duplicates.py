"""Questions that ask the same: word for word, or all but."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal

from datasketch import MinHash, MinHashLSH

from domainfusion.distillation.examples import query_key
from domainfusion.distillation.text.sentences import sentences
from domainfusion.distillation.text.words import content_words
from domainfusion.errors import ConfigurationError
from domainfusion.types import Example, transcript

Likeness = Literal["duplicate", "near-duplicate"]

_BANDS, _ROWS = 42, 3
"""Of the pairs that are half alike, 99.6 % become candidates; of those that are 80 % alike, all but
one in 10¹³.
"""
_PERMUTATIONS = _BANDS * _ROWS
_EMPTY = MinHash(num_perm=_PERMUTATIONS)


class Duplicates:
    """Remembers questions and knows them again.

    Two questions are duplicates where they differ in white space, invisible characters and the case
    of longer words alone; see `identity`. They are near-duplicates where they share at least
    `threshold` of their content words (Jaccard similarity) and all their numbers and names in the
    same order, so that a question about Peru is none about Kenya, and the way from Peru to Kenya
    not the way back. Candidates are found by MinHash (Broder, 1997), as in Lee et al., 2022, arXiv
    2107.06499, and then compared exactly.

    Args:
        threshold: The least Jaccard similarity of near-duplicates; 1 looks for duplicates alone.

    Raises:
        ConfigurationError: The threshold is not a share.

    Example:
        >>> seen = Duplicates()
        >>> seen.add(Example(query="How much protein does a sprinter need after a long race?", domains=("nutrition",)))
        >>> seen.find(Example(query="After a long race, how much protein would the sprinter need?", domains=("nutrition",)))
        'near-duplicate'
    """

    def __init__(self, threshold: float = 0.8) -> None:
        if not 0.5 <= threshold <= 1:
            raise ConfigurationError(
                "The threshold of near-duplicates is out of range",
                received=threshold,
                allowed="0.5 to 1",
            )
        self._threshold = threshold
        self._keys: set[str] = set()
        self._seen: list[tuple[frozenset[str], tuple[str, ...]]] = []
        self._index = (
            MinHashLSH(num_perm=_PERMUTATIONS, params=(_BANDS, _ROWS)) if threshold < 1 else None
        )

    def add(self, example: Example) -> None:
        """Remembers the question of an example."""
        self._keys.add(query_key(example))
        words = content_words(text := transcript(example.conversation))
        if self._index is not None and words:
            self._index.insert(len(self._seen), _hash(words))
            self._seen.append((words, _names(text)))

    def find(self, example: Example, *, near: bool = True) -> Likeness | None:
        """Returns how an example's question is like one that is remembered; None where it is new.

        Args:
            example: The example.
            near: Look for near-duplicates, too.
        """
        if query_key(example) in self._keys:
            return "duplicate"
        words = content_words(text := transcript(example.conversation))
        if not near or self._index is None or not words:
            return None
        return "near-duplicate" if self._nearest(words, _names(text)) is not None else None

    def _nearest(self, words: frozenset[str], names: tuple[str, ...]) -> int | None:
        """Returns the place of the first question that is a near-duplicate; None where there is
        none.
        """
        if self._index is None:
            return None
        candidates: list[int] = sorted(self._index.query(_hash(words)))
        for place in candidates:
            other, other_names = self._seen[place]
            if names == other_names and len(words & other) >= self._threshold * len(words | other):
                return place
        return None


def with_groups(examples: Sequence[Example]) -> list[Example]:
    """Returns the examples, those that belong to no group in one with their near-duplicates.

    Of two questions that differ in a word or two, the second tells little that the first did not.
    """
    seen = Duplicates()
    groups: list[str] = []
    found: list[Example] = []
    for example in examples:
        text = transcript(example.conversation)
        words = content_words(text)
        if example.group != example.query or not words:
            found.append(example)
            continue
        nearest = seen._nearest(words, _names(text))
        if nearest is None:
            seen.add(example)
            groups.append(query_key(example))
        group = groups[-1] if nearest is None else groups[nearest]
        found.append(replace(example, group=group))
    return found


def _names(text: str) -> tuple[str, ...]:
    """Returns the words with a digit, and those in capitals that do not just begin a sentence, in
    their order.
    """
    found: list[str] = []
    for sentence in sentences(text):
        for place, word in enumerate(re.findall(r"\w+", sentence)):
            begins_big = place > 0 and word[0].isupper() and word != "I"
            if begins_big or re.search(r"\d", word) or (len(word) > 1 and word.isupper()):
                found.append(word.casefold())
    return tuple(found)


@lru_cache(maxsize=1)
def _hash(words: frozenset[str]) -> MinHash:
    made = _EMPTY.copy()  # to make one afresh draws its permutations again
    made.update_batch([word.encode() for word in sorted(words)])
    return made
