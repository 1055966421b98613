"""Measures a coherence metric: can it tell sound texts from corrupted ones?"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import TypeAdapter

from domainfusion.distillation.metrics.grading import grade_coherence, name_of
from domainfusion.distillation.metrics.metric import BatchCoherence, CoherenceMetric
from domainfusion.distillation.results import CoherenceValidation, Estimate
from domainfusion.distillation.statistics import Resampling
from domainfusion.distillation.text.sentences import sentences
from domainfusion.errors import DataError
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import fingerprint

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
    texts = [passage.text for passage in sound] + [
        text for texts in corrupted.values() for text in texts if text is not None
    ]
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
        meant=tuple(getattr(metric, "sees", ())),
    )


def known_validation(metric: CoherenceMetric | BatchCoherence) -> CoherenceValidation | None:
    """Returns what was measured of a metric of this package, as `benchmarks/coherence.py` keeps it;
    None for any other.

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
