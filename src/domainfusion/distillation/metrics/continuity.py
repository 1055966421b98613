"""Coherence as a language model sees it: the order of sentences, and how much each part of a text
has to do with the rest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from domainfusion.distillation.text.sentences import sentences
from domainfusion.distillation.text.words import COMMON_WORDS, normalize
from domainfusion.errors import CapabilityError
from domainfusion.models.base import LanguageModel, TokenScorer
from domainfusion.models.encoding import encode_text
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Message, Score, user

FEWEST_SENTENCES = 3
"""Sentences from which on their order says something."""

_QUESTION = user("Write a short, well-ordered paragraph.")
"""What the text is taken to answer; the metric does not know the query."""


class _View(NamedTuple):
    """What the model finds of one text.

    Attributes:
        order: How much more probable the text is than its sentences in other orders, in nats a
            token.
        bond: How much two halves of the text tell of each other where they tell least, in nats for
            each token of the shorter half.
    """

    order: float
    bond: float


@dataclass(frozen=True, repr=False)
class ModelCoherence:
    """Grades a text by what can be seen of it, and by a language model's view of its order and of
    its continuity.

    The grade is (1 − r)⁴ · e · σ(5.7 − 30 s) · σ(8 o − 1.8 d) · σ(7.4 b − 2.3), where σ(x) = 1/(1 +
    e⁻ˣ). r is the share of sequences of three words that came before; e is 1 where the text ends
    and 0.25 where it breaks off; s is how like its two most similar sentences are; d is how much
    more its first sentence points back than the others. o = (log p(text) − log p(text in another
    order)) / tokens, the mean of two other orders, the sentences in reverse and the halves swapped:
    the discrimination of orders (Barzilay and Lapata, 2008, doi 10.1162/coli.2008.34.1.1) by a
    language model in place of an entity grid. b is the least, over all places between two
    sentences, of the pointwise mutual information of the two sides, log p(right | left) − log
    p(right), for each token of the shorter side: where two texts were merely put together it is
    near 0. The numbers were chosen on the development passages.

    Fewer than three sentences have no order to grade, and no score.

    A text is scored in its three orders, and each of its endings once; all texts are scored
    together, and nothing is generated or stored.

    Args:
        model: The reference model: any whose probabilities can be had, such as the student's base.
            Never the student, which would judge itself.

    Raises:
        CapabilityError: The model gives text alone.
    """

    model: LanguageModel

    def __post_init__(self) -> None:
        if not isinstance(self.model, TokenScorer):
            raise CapabilityError(
                "The probabilities of this model can't be had, which a model's view of coherence"
                " needs",
                received=self.model,
                allowed="a local model",
                fix="give one, or use JudgedCoherence",
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model.name}, {self.model.fingerprint})"

    def grade_all(self, texts: Sequence[str], *, ask: Ask = ask_directly) -> list[Score]:
        """Grades each text that is not empty and fits the model's context; nothing is asked."""
        split = [tuple(sentences(text)) for text in texts]
        too_long = {given for given in set(split) if not self._fits(given)}
        views = self._views(
            [given for given in split if len(given) >= FEWEST_SENTENCES and given not in too_long]
        )
        return [
            (
                Score.unscored("the text is longer than the reference model's context")
                if given in too_long
                else _score(text, given, views.get(given))
            )
            for text, given in zip(texts, split, strict=True)
        ]

    def _fits(self, given: tuple[str, ...]) -> bool:
        assert isinstance(self.model, TokenScorer)
        limit = self.model.context_length
        if limit is None:
            return True
        # In another order a sentence may take a token more, for the space before it; and one token
        # ends the turn.
        needed = (
            len(self.model.encode(_QUESTION))
            + len(encode_text(self.model.tokenizer, " ".join(given)))
            + len(given)
            + 1
        )
        return needed <= limit

    def _views(self, split: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], _View]:
        assert isinstance(self.model, TokenScorer)
        wanted = dict.fromkeys(
            variant
            for given in split
            for variant in (given, *_other_orders(given), *_endings(given))
        )
        rows = [(*_QUESTION, Message("assistant", " ".join(variant))) for variant in wanted]
        # The token that ends the turn is left out: it says that the text is over, and nothing of
        # its order.
        found = {
            variant: scores.log_probabilities[:-1]
            for variant, scores in zip(wanted, self.model.score(rows), strict=True)
        }
        tokenizer = self.model.tokenizer

        def tokens_before(given: tuple[str, ...]) -> list[int]:
            return [
                len(encode_text(tokenizer, " ".join(given[:place])))
                for place in range(1, len(given))
            ]

        return {given: _view(given, tokens_before(given), found) for given in dict.fromkeys(split)}


def _other_orders(given: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Returns the sentences in reverse, and the text with its halves swapped."""
    half = len(given) // 2
    return [given[::-1], given[half:] + given[:half]]


def _endings(given: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [given[place:] for place in range(1, len(given))]


def _view(
    given: tuple[str, ...], lengths: Sequence[int], found: Mapping[tuple[str, ...], Sequence[float]]
) -> _View:
    """Puts the scores of a text, its reverse and its endings together; `lengths` are the tokens
    before each place between two sentences.
    """
    whole = found[given]
    bonds = []
    for place, before in enumerate(lengths, start=1):
        right, alone = whole[before:], found[given[place:]]
        bonds.append((sum(right) - sum(alone)) / max(1, min(before, len(right))))
    others = [sum(found[order]) for order in _other_orders(given)]
    return _View((sum(whole) - sum(others) / len(others)) / max(1, len(whole)), min(bonds))


def _score(text: str, given: tuple[str, ...], view: _View | None) -> Score:
    if not given:
        return Score.unscored("the answer is empty")
    if view is None:
        return Score.unscored(f"fewer than {FEWEST_SENTENCES} sentences have no order to grade")
    grade = form(text) * freshness(given)
    return Score(
        grade
        * likelihood(8 * view.order - 1.8 * dangling(given))
        * likelihood(7.4 * view.bond - 2.3)
    )


# What can be seen without a model

_ENDS = (".", "!", "?", '"', "”", ")", "]", "`", ":")
_LETTERS_AT_ONCE = 4

_POINTS_BACK_FROM_THE_START = re.compile(
    r"(?:"
    r"however|therefore|thus|hence|then|later|afterwards?|so|but|still|instead|meanwhile|also|moreover|otherwise|"
    r"nevertheless|this|that|these|those|they|it|he|she|them|their|its|his|her|there|one"
    r" of|another|neither|both|such|"
    r"since then|from then|from there|after|for (?:this|that)|because of this|as a result|in"
    r" (?:addition|this|that)|"
    r"at (?:that|first)|by then|on (?:this|that|the other)|with(?:out)?"
    r" (?:it|this|that|these|them)|only then|"
    r"the (?:reason|result|other|same|former|latter|rest|last)|(?:some|most|many|few|part)"
    r" of|none|each|once|even|apart|yet|"
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
    # Runs of letters, not `words_of`: three characters of Chinese recur in any text.
    words = re.findall(r"\w+", normalize(text))
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


def restatement(given: Sequence[str]) -> float:
    """Returns how like the two sentences that are most alike are: the Jaccard index of their
    content words' sequences of four letters.

    A sentence that says an earlier one again has a high one, whether it repeats, rewords or
    contradicts it.
    """
    letters = [_letters(sentence) for sentence in given]
    return max(
        (len(one & other) / max(1, len(one | other)) for one, other in combinations(letters, 2)),
        default=0.0,
    )


def _letters(sentence: str) -> frozenset[str]:
    # Runs of letters, not `words_of`: in a script without spaces their sequences tell sentences apart.
    words = [
        f"<{word}>"
        for word in re.findall(r"\w+", normalize(sentence))
        if len(word) > 2 and word not in COMMON_WORDS
    ]
    size = _LETTERS_AT_ONCE
    return frozenset(
        word[start : start + size]
        for word in words
        for start in range(max(1, len(word) - size + 1))
    )


def dangling(given: Sequence[str]) -> float:
    """Returns how much more the first sentence points back than the others do on average, by
    pronouns and connectives.

    In a text in its right order it is below 0: the first sentence has nothing to point back to. A
    single sentence has 0.
    """
    if len(given) < 2:
        return 0.0
    first, *others = (_pointers(sentence) for sentence in given)
    return first - sum(others) / len(others)


def _pointers(sentence: str) -> float:
    return float(_POINTS_BACK_FROM_THE_START.match(sentence) is not None) + 0.5 * min(
        3, len(_POINTS_BACK.findall(sentence))
    )


def form(text: str) -> float:
    """Returns the part of the grade that loops and broken ends take away."""
    return float((1 - repetition(text)) ** 4 * (0.25 if breaks_off(text) else 1.0))


def freshness(given: Sequence[str]) -> float:
    """Returns the part of the grade that sentences which go over the same ground take away."""
    return likelihood(5.7 - 30 * restatement(given))


def likelihood(logit: float) -> float:
    """Returns the logistic function σ."""
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, logit))))
