"""Coherence as a language model sees it: the order of sentences, and how much each part of a text has to do with the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from domainfusion.distillation.metrics.defects import dangling
from domainfusion.distillation.metrics.surface import form, freshness, likelihood
from domainfusion.distillation.text.sentences import sentences
from domainfusion.errors import CapabilityError
from domainfusion.models.base import LanguageModel, TokenScorer
from domainfusion.models.encoding import encode_text
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Message, Score, user

_QUESTION = user("Write a short, well-ordered paragraph.")
"""What the text is taken to answer; the metric does not know the query."""


class _View(NamedTuple):
    """What the model finds of one text.

    Attributes:
        order: How much more probable the text is than its sentences in other orders, in nats a token.
        bond: How much two halves of the text tell of each other where they tell least, in nats for each token of the shorter half.
    """

    order: float
    bond: float


@dataclass(frozen=True, repr=False)
class ModelCoherence:
    """Grades a text by its surface and by a language model's view of its order and of its continuity.

    The grade is that of `surface_coherence` with two other factors in place of the one of the first sentence:
    (1 − r)⁴ · e · σ(5.7 − 30 s) · σ(8 o − 1.8 d) · σ(7.4 b − 2.3). Here o = (log p(text) − log p(text in another
    order)) / tokens, the mean of two other orders, the sentences in reverse and the halves swapped: the discrimination of orders
    (Barzilay and Lapata, 2008, doi 10.1162/coli.2008.34.1.1) by a language model in place of an entity grid.
    b is the least, over all places between two sentences, of the pointwise mutual information of the two sides,
    log p(right | left) − log p(right), for each token of the shorter side: where two texts were merely put together it is near 0. The
    numbers were chosen on the development passages.

    A text is scored in its three orders, and each of its endings once; all texts are scored together, and nothing is generated or stored.

    Args:
        model: The reference model: any whose probabilities can be had, such as the student's base. Never the student, which would judge
            itself.

    Raises:
        CapabilityError: The model gives text alone.
    """

    model: LanguageModel

    def __post_init__(self) -> None:
        if not isinstance(self.model, TokenScorer):
            raise CapabilityError(
                "The probabilities of this model can't be had, which a model's view of coherence needs",
                received=self.model,
                allowed="a local model",
                fix="give one, or use surface_coherence or JudgedCoherence",
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model.name}, {self.model.fingerprint})"

    def grade_all(self, texts: Sequence[str], *, ask: Ask = ask_directly) -> list[Score]:
        """Grades each text that is not empty and fits the model's context; nothing is asked."""
        split = [tuple(sentences(text)) for text in texts]
        too_long = {given for given in set(split) if not self._fits(given)}
        views = self._views([given for given in split if len(given) > 1 and given not in too_long])
        return [
            Score.unscored("the text is longer than the reference model's context")
            if given in too_long
            else _score(text, given, views.get(given))
            for text, given in zip(texts, split, strict=True)
        ]

    def _fits(self, given: tuple[str, ...]) -> bool:
        assert isinstance(self.model, TokenScorer)
        limit = self.model.context_length
        if limit is None:
            return True
        # In another order a sentence may take a token more, for the space before it; and one token ends the turn.
        needed = len(self.model.encode(_QUESTION)) + len(encode_text(self.model.tokenizer, " ".join(given))) + len(given) + 1
        return needed <= limit

    def _views(self, split: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], _View]:
        assert isinstance(self.model, TokenScorer)
        wanted = dict.fromkeys(variant for given in split for variant in (given, *_other_orders(given), *_endings(given)))
        rows = [(*_QUESTION, Message("assistant", " ".join(variant))) for variant in wanted]
        # The token that ends the turn is left out: it says that the text is over, and nothing of its order.
        found = {variant: scores.log_probabilities[:-1] for variant, scores in zip(wanted, self.model.score(rows), strict=True)}
        tokenizer = self.model.tokenizer

        def tokens_before(given: tuple[str, ...]) -> list[int]:
            return [len(encode_text(tokenizer, " ".join(given[:place]))) for place in range(1, len(given))]

        return {given: _view(given, tokens_before(given), found) for given in dict.fromkeys(split)}


def _other_orders(given: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Returns the sentences in reverse, and the text with its halves swapped."""
    half = len(given) // 2
    return [given[::-1], given[half:] + given[:half]]


def _endings(given: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [given[place:] for place in range(1, len(given))]


def _view(given: tuple[str, ...], lengths: Sequence[int], found: Mapping[tuple[str, ...], Sequence[float]]) -> _View:
    """Puts the scores of a text, its reverse and its endings together; `lengths` are the tokens before each place between two sentences."""
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
    grade = form(text) * freshness(given)
    if view is None:
        return Score(grade)
    return Score(grade * likelihood(8 * view.order - 1.8 * dangling(given)) * likelihood(7.4 * view.bond - 2.3))
