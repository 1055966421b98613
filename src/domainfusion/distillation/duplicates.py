"""Questions that ask the same: word for word, or all but."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal, NamedTuple

from datasketch import MinHash, MinHashLSH

from domainfusion.distillation.examples import query_key
from domainfusion.distillation.text.sentences import sentences
from domainfusion.distillation.text.words import ARTICLES, content_words, words_of
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


FEWEST_WORDS = 4
"""A shorter evaluation question is only looked for as a whole."""

NGram = tuple[str, ...]


class Leak(NamedTuple):
    """An evaluation question that stands in a training question.

    Attributes:
        source: The evaluation set.
        query: The evaluation question.
        exact: Whether the two are the same question but for articles; see `identity`.
    """

    source: str
    query: str
    exact: bool


class EvaluationSets:
    """The questions of evaluation sets, found again in training questions.

    A training question contains an evaluation question where at least `containment` of the
    evaluation question's word n-grams stand in it, and all its content words do: a question about
    Peru is none about Kenya, however much they have in common. N-grams of eight words and a share
    of 70 % are those of PaLM (Chowdhery et al., 2022, arXiv 2204.02311, section 8). An evaluation
    question of fewer than `ngram_words` words is one n-gram; one of fewer than four has to be the
    whole training question.

    Args:
        sets: The evaluation sets by name.
        ngram_words: Words of an n-gram, from four; 0 looks for whole questions alone.
        containment: Share of an evaluation question's n-grams.

    Raises:
        ConfigurationError: A number is out of range.
    """

    def __init__(
        self,
        sets: Mapping[str, Sequence[Example]],
        *,
        ngram_words: int = 8,
        containment: float = 0.7,
    ) -> None:
        if ngram_words != 0 and ngram_words < FEWEST_WORDS:
            raise ConfigurationError(
                "ngram_words is too low",
                received=ngram_words,
                allowed=f"a whole number from {FEWEST_WORDS}, or 0",
            )
        if not 0 < containment <= 1:
            raise ConfigurationError(
                "containment is not a share",
                received=containment,
                allowed="a number above 0, up to 1",
            )
        self._containment = containment
        self._whole: dict[str, Leak] = {}
        self._leaks: list[Leak] = []
        self._words: list[frozenset[str]] = []
        self._needed: list[float] = []
        self._places: dict[NGram, list[int]] = {}
        for name, examples in sets.items():
            for example in examples:
                self._whole.setdefault(_key(example), Leak(name, example.query, exact=True))
                if ngram_words:
                    self._add(name, example, ngram_words)
        self._sizes = sorted({len(ngram) for ngram in self._places})

    def _add(self, name: str, example: Example, ngram_words: int) -> None:
        words = _words(example)
        if len(words) < FEWEST_WORDS:
            return
        ngrams = set(_ngrams(words, min(ngram_words, len(words))))
        for ngram in ngrams:
            self._places.setdefault(ngram, []).append(len(self._leaks))
        self._leaks.append(Leak(name, example.query, exact=False))
        self._words.append(content_words(transcript(example.conversation)))
        self._needed.append(self._containment * len(ngrams))

    def find(self, example: Example) -> Leak | None:
        """Returns the evaluation question that a training question contains; None where it contains
        none.
        """
        if (whole := self._whole.get(_key(example))) is not None:
            return whole
        words = _words(example)
        found = Counter(
            place
            for size in self._sizes
            for ngram in set(_ngrams(words, size))
            for place in self._places.get(ngram, ())
        )
        own = set(words)
        for place, count in sorted(found.items()):
            if count >= self._needed[place] and self._words[place] <= own:
                return self._leaks[place]
        return None


def _key(example: Example) -> str:
    """Returns what two questions share that are one but for articles: to leave out one more than
    need be does no harm here.
    """
    words = query_key(example).split()
    return " ".join([word for word in words if word not in ARTICLES] or words)


def _words(example: Example) -> list[str]:
    return words_of(transcript(example.conversation))


def _ngrams(words: Sequence[str], size: int) -> Iterator[NGram]:
    return (tuple(words[start : start + size]) for start in range(len(words) - size + 1))
