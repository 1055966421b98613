"""Corruptions of a sound text: what a coherence metric has to tell from it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from domainfusion.distillation.text.sentences import sentences

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
_VALUE = re.compile(rf"\b(?:\d+|{'|'.join(_NUMBER_WORDS)})\b", re.IGNORECASE)
_VERB = re.compile(
    r"\b(is|are|was|were|can|could|will|would|may|must|should|has|have|had)\b(?! not\b)"
)
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
"""What a coherence metric is tested on, by name."""


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
