"""Coherence as a language model sees it: the order of sentences, and how much each part of a text
has to do with the rest.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from itertools import combinations
from typing import Literal, NamedTuple

from pydantic import TypeAdapter

from domainfusion.distillation.metrics.accuracy import BatchCoherence, CoherenceMetric, MeantFor
from domainfusion.distillation.metrics.grading import grade_coherence, name_of
from domainfusion.distillation.results import CoherenceValidation, Estimate
from domainfusion.distillation.statistics import Resampling
from domainfusion.distillation.text.sentences import sentences
from domainfusion.distillation.text.words import COMMON_WORDS, normalize
from domainfusion.errors import CapabilityError, DataError
from domainfusion.models.base import LanguageModel, TokenScorer
from domainfusion.models.encoding import encode_text
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Message, Score, fingerprint, user

FEWEST_SENTENCES = 3
"""Sentences from which on their order says something."""

_QUESTION = user("Write a short, well-ordered paragraph.")
"""What the text is taken to answer; the metric does not know the query."""


class _View(NamedTuple):
    """A model's judgment of one text.

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

# What a sentence begins with that refers to the one before it: "However", "They", "One of".
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
# Words anywhere in a sentence that refer to one before it.
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


_NUMBER_WORDS = (
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "twelve",
    "twenty",
    "thirty",
    "forty",
    "sixty",
)
# A number, in digits or in words, which a corruption replaces.
_VALUE = re.compile(rf"\b(?:\d+|{'|'.join(_NUMBER_WORDS)})\b", re.IGNORECASE)
# A verb that a corruption can deny.
_VERB = re.compile(
    r"\b(is|are|was|were|can|could|will|would|may|must|should|has|have|had)\b(?! not\b)"
)
# A denied verb, whose "not" a corruption removes.
_DENIED = re.compile(
    r"\b(is|are|was|were|can|could|will|would|may|must|should|has|have|had)(?: not|not) "
)


@dataclass(frozen=True, slots=True)
class Passage:
    """A sound text to corrupt.

    Attributes:
        field: What it is about; two passages of different fields have nothing to do with each
            other.
        text: A few sentences.
        contradiction: A sentence that contradicts the text in other words.
    """

    field: str
    text: str
    contradiction: str


Corruption = Callable[[Passage, Sequence[Passage], random.Random], str | None]
"""Returns a corrupted version of a passage, given all of them and a source of chance; None where
there is none.
"""


def shuffle(passage: Passage, others: Sequence[Passage], chance: random.Random) -> str | None:
    """Puts the sentences into another order."""
    given = sentences(passage.text)
    if len(given) < 3:
        return None
    while (order := chance.sample(given, len(given))) == given:
        pass
    return " ".join(order)


def contradict(passage: Passage, others: Sequence[Passage], chance: random.Random) -> str | None:
    """Adds, somewhere after the second sentence, the one that was written to contradict the text in
    other words.
    """
    given = sentences(passage.text)
    place = chance.randint(min(2, len(given)), len(given))
    return " ".join([*given[:place], passage.contradiction, *given[place:]])


def contradict_in_the_same_words(
    passage: Passage, others: Sequence[Passage], chance: random.Random
) -> str | None:
    """Says one of the sentences again later, with a number changed, or denied."""
    given = sentences(passage.text)
    changed = [
        (place, other) for place, sentence in enumerate(given) if (other := _deny(sentence, chance))
    ]
    if not changed:
        return None
    place, sentence = chance.choice(changed)
    later = chance.randint(place + 1, len(given))
    return " ".join([*given[:later], sentence, *given[later:]])


def _deny(sentence: str, chance: random.Random) -> str | None:
    values = list(_VALUE.finditer(sentence))
    if values:
        value = chance.choice(values)
        return sentence[: value.start()] + _another(value[0], chance) + sentence[value.end() :]
    if _DENIED.search(sentence):
        return _DENIED.sub(r"\1 ", sentence, count=1)
    denied = _VERB.sub(r"\1 not", sentence, count=1).replace("can not", "cannot")
    return denied if denied != sentence else None


def _another(value: str, chance: random.Random) -> str:
    if value.isdigit():
        return str(int(value) * chance.choice((2, 3, 5)) + chance.choice((1, 2, 3)))
    word = chance.choice([word for word in _NUMBER_WORDS if word != value.lower()])
    return word.capitalize() if value[0].isupper() else word


def loop(passage: Passage, others: Sequence[Passage], chance: random.Random) -> str | None:
    """Gets stuck after a while, as small models do: one sentence, or the last few words of one,
    come again and again.
    """
    given = sentences(passage.text)
    place = chance.randint(1, len(given))
    times = chance.randint(3, 8)
    if chance.random() < 0.5:
        return " ".join([*given[:place], *[given[place - 1]] * times])
    tail = " ".join(given[place - 1].rstrip(".!?").split()[-chance.randint(3, 8) :])
    return " ".join([*given[: place - 1], given[place - 1].rstrip(".!?"), *[tail] * times]) + "."


def truncate(passage: Passage, others: Sequence[Passage], chance: random.Random) -> str | None:
    """Breaks off in the middle of a sentence of the second half, as an answer that is cut at its
    token limit.
    """
    words = passage.text.split()
    ends = [
        place for place in range(len(words) // 2, len(words)) if words[place - 1][-1] not in ".!?"
    ]
    return " ".join(words[: chance.choice(ends)]) if ends else None


def concatenate(passage: Passage, others: Sequence[Passage], chance: random.Random) -> str | None:
    """Puts the second half of a text of another field after the first half of this one."""
    strangers = [other for other in others if other.field != passage.field]
    if not strangers:
        return None
    one, other = sentences(passage.text), sentences(chance.choice(strangers).text)
    return " ".join(one[: (len(one) + 1) // 2] + other[len(other) // 2 :])


CORRUPTIONS: Mapping[str, Corruption] = {
    "shuffled": shuffle,
    "contradicted": contradict,
    "contradicted in the same words": contradict_in_the_same_words,
    "looped": loop,
    "truncated": truncate,
    "concatenated": concatenate,
}
"""The corruptions that a coherence metric is tested on, by name."""


def corrupt(passages: Sequence[Passage], *, seed: int) -> dict[str, list[str | None]]:
    """Returns for each corruption a version of every passage, or None where a passage has none;
    equal seeds, equal texts.
    """
    return {
        name: [
            corruption(passage, passages, random.Random(f"{seed}/{name}/{number}"))
            for number, passage in enumerate(passages)
        ]
        for name, corruption in CORRUPTIONS.items()
    }


def validate_coherence(
    metric: CoherenceMetric | BatchCoherence,
    passages: Sequence[Passage] | None = None,
    *,
    ask: Ask = ask_directly,
    seed: int = 0,
    resamples: int = 10_000,
    command: str = "",
) -> CoherenceValidation:
    """Measures how well a coherence metric tells sound texts from shuffled, contradicted, looped,
    truncated and concatenated ones.

    Args:
        metric: The metric.
        passages: The sound texts; by default the held-out ones, which no metric here was made on.
        ask: How a judge is called.
        seed: Seed of the corruptions and the bootstrap.
        resamples: Bootstrap resamples behind the 95 % intervals; a passage is resampled with all
            its versions.
        command: What measures, for the record.

    Returns:
        The AUROC on each corruption, with its interval.

    Raises:
        DataError: There are fewer than two passages.
    """
    sound = read_passages("held_out") if passages is None else tuple(passages)
    if len(sound) < 2:
        raise DataError(
            "There are too few texts to measure a metric on",
            received=len(sound),
            allowed="two or more",
        )
    corrupted = corrupt(sound, seed=seed)
    texts = [passage.text for passage in sound]
    for versions in corrupted.values():
        texts += [version for version in versions if version is not None]
    grades = iter(score.value for score in grade_coherence(metric, texts, ask=ask))
    whole = [next(grades) for _ in sound]
    resampling = Resampling(resamples=resamples, seed=seed)
    found: dict[str, Estimate] = {}
    unscored = sum(grade is None for grade in whole)
    for name, versions in corrupted.items():
        broken = [next(grades) if version is not None else None for version in versions]
        unscored += sum(
            grade is None and version is not None
            for grade, version in zip(broken, versions, strict=True)
        )
        pairs = enumerate(zip(whole, broken, strict=True))
        found[name] = _auroc(
            resampling,
            [
                (str(i), one, other)
                for i, (one, other) in pairs
                if one is not None and other is not None
            ],
        )
    return CoherenceValidation(
        metric=name_of(metric),
        auroc=found,
        texts=len(sound),
        text_set=fingerprint(sound),
        seed=seed,
        unscored=unscored,
        date=datetime.now(UTC).date().isoformat(),
        command=command,
        meant=tuple(metric.sees) if isinstance(metric, MeantFor) else (),
    )


@dataclass(frozen=True)
class ValidatedCoherence:
    """A coherence metric with what was measured of it.

    Attributes:
        metric: The metric.
        validation: What `validate_coherence` found.
    """

    metric: CoherenceMetric | BatchCoherence
    validation: CoherenceValidation


def known_validation(metric: CoherenceMetric | BatchCoherence) -> CoherenceValidation | None:
    """Returns the measured validation of a metric of this package, as `benchmarks/coherence.py`
    keeps it; None for any other.

    A metric that looks through a model is another one with another model.
    """
    return next((found for found in _measured() if found.metric == name_of(metric)), None)


@cache
def _measured() -> tuple[CoherenceValidation, ...]:
    content = (
        resources.files(f"{__package__}.passages")
        .joinpath("measured.json")
        .read_text(encoding="utf-8")
    )
    return TypeAdapter(tuple[CoherenceValidation, ...]).validate_json(content)


def _auroc(resampling: Resampling, graded: Sequence[tuple[str, float, float]]) -> Estimate:
    if not graded:
        return Estimate(value=None, reason="no text has both grades")
    names, sound, broken = zip(*graded, strict=True)
    return resampling.over(list(names)).auroc(list(sound), list(broken))


Half = Literal["development", "held_out"]
"""The metrics were made on the first; the second is of other fields, and was written and put away
before they were.
"""


def read_passages(half: Half) -> tuple[Passage, ...]:
    """Returns the passages of one half: some 60 words each, several fields, each with a sentence
    that contradicts it.
    """
    text = (
        resources.files("domainfusion.distillation.metrics")
        .joinpath("passages", f"{half}.txt")
        .read_text(encoding="utf-8")
    )
    found: list[Passage] = []
    field = passage = ""
    for line in text.splitlines():
        if line.startswith("# "):
            field = line.removeprefix("# ")
        elif line.startswith("≠ "):
            found.append(Passage(field, passage, line.removeprefix("≠ ")))
        else:
            passage = line
    return tuple(found)
