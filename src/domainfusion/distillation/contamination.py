"""Whether a training question contains one of an evaluation set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from domainfusion.distillation.examples import query_key
from domainfusion.distillation.text.words import ARTICLES, content_words, words_of
from domainfusion.errors import ConfigurationError
from domainfusion.types import Example, transcript

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
