"""Questions that ask the same, word for word or nearly: duplicates among examples, evaluation
questions in training data, and test queries that were trained on.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

from domainfusion.checks import check_count, check_number, is_number
from domainfusion.distillation.examples import ExampleLike, query_key, read_examples
from domainfusion.distillation.metrics import normalize
from domainfusion.distillation.results import Overlap
from domainfusion.distillation.text.sentences import sentences
from domainfusion.distillation.text.words import (
    ARTICLES,
    FUNCTION_WORDS,
    content_words,
    split_words,
    words_of,
)
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.types import Example, Part, transcript

Likeness = Literal["duplicate", "near-duplicate"]

NEAR = 0.8
"""The Jaccard similarity from which on two questions are near-duplicates, if nothing else is
said."""


class Duplicates:
    """Remembers questions and knows them again.

    Two questions are duplicates where they differ in white space, invisible characters and the case
    of longer words alone; see `identity`. They are near-duplicates where they share at least
    `threshold` of their content words (Jaccard similarity) and all their numbers and names in the
    same order, so that a question about Peru is none about Kenya, and the way from Peru to Kenya
    not the way back. All that are alike are found, none by chance; see `AlikeSets`.

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

    def __init__(self, threshold: float = NEAR) -> None:
        if not is_number(threshold) or not 0.5 <= threshold <= 1:
            raise ConfigurationError(
                "duplicate_threshold is out of range",
                received=threshold,
                allowed="0.5 to 1",
            )
        self._threshold = threshold
        self._keys: set[str] = set()
        self._alike = AlikeSets(threshold) if threshold < 1 else None

    def add(self, example: Example) -> None:
        """Remembers the question of an example."""
        self._keys.add(query_key(example))
        words = content_words(text := transcript(example.conversation))
        if self._alike is not None and words:
            self._alike.add(words, _names(text))

    def find(self, example: Example, *, near: bool = True) -> Likeness | None:
        """Returns how an example's question is like one that is remembered; None where it is new.

        Args:
            example: The example.
            near: Look for near-duplicates, too.
        """
        if query_key(example) in self._keys:
            return "duplicate"
        words = content_words(text := transcript(example.conversation))
        if not near or self._alike is None or not words:
            return None
        return "near-duplicate" if self._alike.first(words, _names(text)) is not None else None


_LONGEST_IN_PAIRS = 32
"""Words of a set from which on single words tell enough, and pairs of them would be too many."""


class AlikeSets:
    """Sets of words, in which one that is alike to a given set is found without looking at each.

    Two sets x and y are alike if their names are equal and |x ∩ y| ≥ threshold · |x ∪ y|. With all
    words in one order, the rarest first, at most |x| − o words of x are missing in y, where o is
    the overlap that is needed. So the first two words that both have are among the first
    |x| − o + 2 of x and the first |y| − o + 2 of y (prefix filtering: Chaudhuri et al., 2006, doi
    10.1109/ICDE.2006.9). The index has these pairs by the size of y and the place of the second
    word, so that words which a template puts into every question lead to no candidates. Of sets of
    many words it has single ones.

    How rare a word is, is counted anew whenever there are twice as many sets.

    Args:
        threshold: The least Jaccard similarity, from 0.5, below 1.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._sets: list[tuple[frozenset[str], tuple[str, ...]]] = []
        self._counts: Counter[str] = Counter()
        self._order: dict[str, int] = {}
        self._count_again_at = 2
        self._index: dict[int, list[int]] = {}
        self._sizes: dict[tuple[str, ...], set[int]] = {}
        self._overlaps: dict[tuple[int, int], int] = {}

    def add(self, words: frozenset[str], names: tuple[str, ...]) -> None:
        """Adds a set, at the next place, counted from 0."""
        self._counts.update(words)
        self._sets.append((words, names))
        if len(self._sets) < self._count_again_at:
            self._enter(len(self._sets) - 1)
            return
        self._count_again_at = 2 * len(self._sets)
        self._order = dict(self._counts)
        self._index.clear()
        for place in range(len(self._sets)):
            self._enter(place)

    def first(self, words: frozenset[str], names: tuple[str, ...]) -> int | None:
        """Returns the place of the first set that is alike; None where there is none."""
        candidates: set[int] = set()
        for key in self._keys_of_query(words, names):
            candidates.update(self._index.get(key, ()))
        for place in sorted(candidates):
            other, other_names = self._sets[place]
            shared = len(words & other)
            is_alike = shared >= self._threshold * (len(words) + len(other) - shared)
            if is_alike and names == other_names:
                return place
        return None

    def _enter(self, place: int) -> None:
        """Puts a set into the index, for every size of a set that is alike to it."""
        words, names = self._sets[place]
        size, ranked = len(words), self._ranked(words)
        self._sizes.setdefault(names, set()).add(size)
        sizes = self._sizes_alike(size)
        ways = {self._uses_pairs(other, size) for other in sizes}
        # The smallest set that is alike leaves most of this one's words out.
        missing = size - self._overlap(sizes[0], size)
        keys: list[int] = []
        if False in ways:
            keys += [hash((names, word)) for word in ranked[: missing + 1]]
        if True in ways:
            keys += [
                hash((names, size, second, ranked[first], ranked[second]))
                for first, second in combinations(range(min(size, missing + 2)), 2)
            ]
        for key in keys:
            self._index.setdefault(key, []).append(place)

    def _keys_of_query(self, words: frozenset[str], names: tuple[str, ...]) -> Iterator[int]:
        """Yields where sets are that may be alike to this one, and a few others."""
        size, ranked = len(words), self._ranked(words)
        singles = 0
        for other in self._sizes.get(names, set()).intersection(self._sizes_alike(size)):
            overlap = self._overlap(size, other)
            if not self._uses_pairs(size, other):
                singles = max(singles, size - overlap + 1)
                continue
            places = range(1, min(other, other - overlap + 2))
            for one, two in combinations(ranked[: size - overlap + 2], 2):
                for place in places:
                    yield hash((names, other, place, one, two))
        for word in ranked[:singles]:
            yield hash((names, word))

    def _uses_pairs(self, size: int, other: int) -> bool:
        return max(size, other) <= _LONGEST_IN_PAIRS and self._overlap(size, other) > 1

    def _ranked(self, words: frozenset[str]) -> list[str]:
        return sorted(words, key=lambda word: (self._order.get(word, 0), word))

    def _overlap(self, size: int, other: int) -> int:
        """Returns how many words two sets of these sizes need to share; where it is more than one
        of them has, they can't be alike.
        """
        known = self._overlaps.get((size, other))
        if known is not None:
            return known
        # o ≥ t (a + b − o) means o ≥ t (a + b) / (1 + t). From a little below that, the loop decides
        # by the same product as `first`, which a division would round otherwise.
        both = size + other
        shared = max(0, math.floor(self._threshold * both / (1 + self._threshold)) - 1)
        while shared < self._threshold * (both - shared):
            shared += 1
        self._overlaps[size, other] = shared
        return shared

    def _sizes_alike(self, size: int) -> range:
        """Returns the sizes of sets that may be alike to one of this size."""
        smallest = max(1, math.floor(size * self._threshold) - 1)
        while self._overlap(smallest, size) > smallest:
            smallest += 1
        largest = math.ceil(size / self._threshold) + 1
        while self._overlap(size, largest) > size:
            largest -= 1
        return range(smallest, largest + 1)


def with_groups(examples: Sequence[Example]) -> list[Example]:
    """Returns the examples, those that belong to no group in one with their near-duplicates.

    Of two questions that differ in a word or two, the second tells little that the first did not.
    """
    seen = AlikeSets(NEAR)
    groups: list[str] = []
    found: list[Example] = []
    for example in examples:
        text = transcript(example.conversation)
        words = content_words(text)
        if example.group != example.query or not words:
            found.append(example)
            continue
        names = _names(text)
        nearest = seen.first(words, names)
        if nearest is None:
            seen.add(words, names)
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
        for place, word in enumerate(split_words(sentence)):
            begins_big = place > 0 and word[0].isupper() and word != "I"
            if begins_big or re.search(r"\d", word) or (len(word) > 1 and word.isupper()):
                found.append(word.casefold())
    return tuple(found)


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
        if ngram_words != 0:
            check_count("ngram_words", ngram_words, FEWEST_WORDS)
        check_number("containment", containment, "(0, 1]")
        self._containment = containment
        self._whole: dict[str, Leak] = {}
        self._leaks: list[Leak] = []
        self._ngrams: list[frozenset[NGram]] = []
        words: list[frozenset[str]] = []
        for name, examples in sets.items():
            for example in examples:
                self._whole.setdefault(_key(example), Leak(name, example.query, exact=True))
                if ngram_words:
                    own = _words(example)
                    if len(own) >= FEWEST_WORDS:
                        size = min(ngram_words, len(own))
                        self._leaks.append(Leak(name, example.query, exact=False))
                        self._ngrams.append(frozenset(_ngrams(own, size)))
                        words.append(frozenset(own) - FUNCTION_WORDS)
        self._subsets = Subsets(words)

    def find(self, example: Example) -> Leak | None:
        """Returns the evaluation question that a training question contains; None where it contains
        none.
        """
        if (whole := self._whole.get(_key(example))) is not None:
            return whole
        words = _words(example)
        ngrams: dict[int, frozenset[NGram]] = {}
        for place in self._subsets.within(frozenset(words)):
            wanted = self._ngrams[place]
            size = len(next(iter(wanted)))
            if size not in ngrams:
                ngrams[size] = frozenset(_ngrams(words, size))
            if len(wanted & ngrams[size]) >= self._containment * len(wanted):
                return self._leaks[place]
        return None


class _Node:
    """A beginning that sorted sets of words have in common."""

    def __init__(self) -> None:
        self.after: dict[str, _Node] = {}
        self.places: list[int] = []


class Subsets:
    """Sets of words, of which those that stand within another set are found without looking at
    each.

    They are a tree by their words, the rarest first, so that a set which lacks the one rare word of
    a question never comes to the words that all questions of its template share (a set-trie:
    Savnik, 2013, doi 10.1007/978-3-642-40511-2_10).

    Args:
        sets: The sets.
    """

    def __init__(self, sets: Sequence[frozenset[str]]) -> None:
        counts = Counter(word for words in sets for word in words)
        by_rarity = sorted(counts, key=lambda word: (counts[word], word))
        self._order = {word: rank for rank, word in enumerate(by_rarity)}
        self._root = _Node()
        for place, words in enumerate(sets):
            node = self._root
            for word in sorted(words, key=self._order.__getitem__):
                node = node.after.setdefault(word, _Node())
            node.places.append(place)

    def within(self, words: frozenset[str]) -> list[int]:
        """Returns the places of the sets whose words are all among these, in their order."""
        known = sorted(words & self._order.keys(), key=self._order.__getitem__)
        found: list[int] = []
        waiting = [(self._root, 0)]
        while waiting:
            node, start = waiting.pop()
            found += node.places
            for at in range(start, len(known)):
                after = node.after.get(known[at])
                if after is not None:
                    waiting.append((after, at + 1))
        return sorted(found)


def _key(example: Example) -> str:
    """Returns a key that is the same for questions that differ in articles alone: leaving out one
    question too many does no harm here.
    """
    words = query_key(example).split()
    return " ".join([word for word in words if word not in ARTICLES] or words)


def _words(example: Example) -> list[str]:
    return words_of(transcript(example.conversation))


def _ngrams(words: Sequence[str], size: int) -> Iterator[NGram]:
    return (tuple(words[start : start + size]) for start in range(len(words) - size + 1))


OnOverlap = Literal["refuse", "report"]
"""What to do with test queries that were trained on: refuse to evaluate, or leave them out and
report them.
"""

OVERLAP_METHOD = (
    "a training query contains 70 % of the test query's eight-word sequences, or a shorter one as a"
    " whole, and all its content words"
)


class HeldApart(NamedTuple):
    """The examples that nothing was trained on, and what was found among the others; None where
    nobody said what was trained on.
    """

    examples: list[Example]
    overlap: Overlap | None


def hold_apart(
    examples: Sequence[Example],
    trained_on: str | Path | Sequence[ExampleLike] | None,
    on_overlap: OnOverlap = "refuse",
) -> HeldApart:
    """Separates examples that were not trained on from those that were.

    Args:
        examples: The examples to evaluate on.
        trained_on: What was trained on, as objects, dicts or a file, such as the `examples.jsonl`
            of a run; None where that is not known.
        on_overlap: What to do with queries that were trained on, as they are or nearly (see
            `EvaluationSets`).

    Raises:
        DataError: Queries were trained on, and that is to be refused; or no others are left.
    """
    if trained_on is None:
        return HeldApart(list(examples), None)
    trained = list(read_examples(trained_on))
    keys = {query_key(example) for example in trained}
    same = tuple(example.id for example in examples if query_key(example) in keys)
    near = _contained([example for example in examples if example.id not in set(same)], trained)
    found = {*same, *near}
    kept = [example for example in examples if example.id not in found]
    facts = asked_in_other_words(kept, trained)
    overlap = Overlap(
        trained=len(trained), same=same, near=near, method=OVERLAP_METHOD, facts=facts
    )
    first = next((example.query for example in examples if example.id in found), "")
    if found and on_overlap == "refuse":
        raise DataError(
            f"{len(found)} of {len(examples)} test queries were trained on, {len(same)} as they are"
            f" and {len(near)} nearly",
            received=first,
            fix='evaluate on held-out examples, or set on_overlap="report", which leaves them out',
        )
    if found and not kept:
        raise DataError(
            "All test queries were trained on", received=first, fix="evaluate on held-out examples"
        )
    return HeldApart(kept, overlap)


COMMON_FROM = 0.05
"""The share of the test queries from which on a word that they have in common does not tell one
from another.
"""


def asked_in_other_words(
    examples: Sequence[Example], trained: Sequence[Example]
) -> tuple[str, ...]:
    """Returns the ids of the examples that ask for what was trained on, however it was put.

    That is where a training query has each word that tells the test query from the others (a name,
    a code, a rare word) and accepts the same answer; of a query with several parts, one such word
    for each part, in one training query or in several. Accuracy there is recall of what was
    trained, and not what the expert knows beyond it.

    Args:
        examples: The examples to evaluate on.
        trained: What was trained on.
    """
    queries = [content_words(transcript(example.conversation)) for example in examples]
    counts = Counter(word for words in queries for word in words)
    common = max(2.0, COMMON_FROM * len(examples))
    by_answer: dict[tuple[str, str], list[frozenset[str]]] = {}
    for example in trained:
        words = content_words(transcript(example.conversation))
        for part in example.parts:
            for answer in part.answers:
                by_answer.setdefault((part.domain, normalize(answer)), []).append(words)
    found = []
    for example, words in zip(examples, queries, strict=True):
        telling = frozenset(word for word in words if counts[word] <= common) or words
        needed = telling if len(example.parts) == 1 else frozenset()
        if example.parts and all(
            _is_taught(part, telling, needed, by_answer) for part in example.parts
        ):
            found.append(example.id)
    return tuple(found)


def _is_taught(
    part: Part,
    telling: frozenset[str],
    needed: frozenset[str],
    by_answer: Mapping[tuple[str, str], Sequence[frozenset[str]]],
) -> bool:
    """Whether a training query accepts the answer of a part, has a telling word, and all that are
    needed.
    """
    keys = [(part.domain, normalize(answer)) for answer in part.answers]
    asked = [words for key in keys for words in by_answer.get(key, ())]
    return any(needed <= words and telling & words for words in asked)


def _contained(examples: Sequence[Example], trained: Sequence[Example]) -> tuple[str, ...]:
    """Returns the ids of the examples whose query stands in one that was trained on. One search
    finds one in each training query.
    """
    left, found = list(examples), set[str]()
    while left:
        index = EvaluationSets({"test": left})
        queries = {leak.query for example in trained if (leak := index.find(example)) is not None}
        if not queries:
            break
        found |= {example.id for example in left if example.query in queries}
        left = [example for example in left if example.query not in queries]
    return tuple(example.id for example in examples if example.id in found)
