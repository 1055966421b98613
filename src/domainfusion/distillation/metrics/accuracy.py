"""Grading by what an answer is, what it states, and which words it shares with the accepted one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, ClassVar, NamedTuple

from rouge_score.scoring import fmeasure
from typing_extensions import Protocol, runtime_checkable

from domainfusion.checks import check_number
from domainfusion.distillation.text.denial import (
    MOST_SPANS,
    is_denied,
    is_one_of_guesses,
    says_yes_or_no,
)
from domainfusion.distillation.text.statements import has_same_flags, is_symbol, spans_of
from domainfusion.distillation.text.words import ARTICLES, normalize, render, words_of
from domainfusion.errors import MissingDependencyError, ModelError
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example, Generation, Sampling, Score

AccuracyMetric = Callable[[Example, str], Score]
"""Grades an answer to an example. A metric of your own is any function of this shape."""

CoherenceMetric = Callable[[str], Score]
"""Grades how well a text holds together. A metric of your own is any function of this shape."""


class Graded(NamedTuple):
    """An answer and its grade."""

    generation: Generation
    score: Score

    @property
    def correct(self) -> bool | None:
        """Whether every part is right; None where there is no grade."""
        if self.score.value is None:
            return None
        return all(part >= 1 for part in self.score.parts or (self.score.value,))


@runtime_checkable
class BatchMetric(Protocol):
    """Grades many answers together: a metric that runs or asks a model of its own, such as a
    judge.
    """

    def grade_all(
        self, examples: Sequence[Example], texts: Sequence[str], *, ask: Ask
    ) -> list[Score]:
        """Returns the grade of each example's text, in order; a model is asked through `ask`."""
        ...


@runtime_checkable
class BatchCoherence(Protocol):
    """Grades the coherence of many texts together."""

    def grade_all(self, texts: Sequence[str], *, ask: Ask) -> list[Score]:
        """Returns the grade of each text, in order; a model is asked through `ask`."""
        ...


@runtime_checkable
class ModelMetric(Protocol):
    """Needs the model that is measured, and not only what it wrote: multiple choice by likelihood
    asks for probabilities.
    """

    def ask_and_grade(
        self,
        model: LanguageModel,
        examples: Sequence[Example],
        *,
        sampling: Sampling,
        ask: Ask,
        label: str = "",
    ) -> list[Graded]:
        """Puts each example to the model in the metric's own way, and returns what counts as its
        answer with the grade, in order.
        """
        ...


@runtime_checkable
class MayBeOverlap(Protocol):
    """Says whether its grade is how many words two texts share, or how near they are, and not how
    right an answer is.
    """

    is_overlap: bool


@runtime_checkable
class KnowsChance(Protocol):
    """Knows the mean score of an answer drawn blindly: a number, or a function of the example."""

    chance: float | Callable[[Example], float | None]


@runtime_checkable
class MeantFor(Protocol):
    """Names the corruptions of a text that a coherence metric is meant to see."""

    sees: Sequence[str]


Metric = AccuracyMetric | BatchMetric | ModelMetric

MetricChoice = Metric | str | Mapping[str, Metric | str]
"""A metric, the name of one, or one for each domain; `grade` says how they go together."""


NO_REFERENCE = "the example has no reference"
EMPTY = "the answer is empty"

_WRAPPING = " \t\r\n\"'`*.!?。！？、，,;:،؟।()[]「」『』（）"
"""What may stand around an answer that is the accepted one."""
# The mark of a list's item at the beginning of an answer.
_BULLET = re.compile(r"^\s*[-*•–]\s+")


def accepted_answers(example: Example) -> tuple[tuple[str, ...], ...]:
    """Returns for each thing that a right answer states the accepted ways to write it.

    They are those of the example's parts, else its reference.
    """
    if example.parts:
        return tuple(part.answers for part in example.parts)
    return () if example.reference is None else ((example.reference,),)


def against_each(
    example: Example, text: str, similarity: Callable[[str, str], float], *, right_from: float = 1.0
) -> Score:
    """Grades a text against each part of an example, or its reference, by the accepted answer that
    it is most like.

    Args:
        example: The example.
        text: The answer.
        similarity: Of the answer and an accepted one, 0 to 1.
        right_from: The similarity that is worth full marks. The accepted answer itself always is.

    Returns:
        The mean over the parts, and the grade of each; unscored where there is no reference, not
        readable where there is no answer.
    """

    def grade(answer: str) -> float:
        if is_the_answer(text, answer):
            return 1.0
        found = similarity(text, answer)
        return 1.0 if found >= right_from else max(0.0, found)

    wanted = accepted_answers(example)
    if not wanted:
        return Score.unscored(NO_REFERENCE)
    if not text.strip():
        return Score.not_readable(EMPTY, parts=len(wanted))
    grades = tuple(max((grade(answer) for answer in answers), default=0.0) for answers in wanted)
    return Score(sum(grades) / len(grades), parts=grades)


def is_the_answer(text: str, answer: str) -> bool:
    """Whether a text is the accepted answer, but for case, accents, articles, markup, and what
    stands around it.

    A symbol of up to three letters has its own case: cobalt's `Co` is not `CO`.
    """
    said, wanted = _bare(text), _bare(answer)
    if normalize(said) != normalize(wanted) or not has_same_flags(said, wanted):
        return False
    if said == wanted or not is_symbol(wanted):
        return True
    words = " ".join(word for word in said.split() if word.lower() not in ARTICLES) or said
    return words.replace("^", "") in (wanted.replace("^", ""), wanted.lower().replace("^", ""))


def _bare(text: str) -> str:
    seen = _BULLET.sub("", render(text).text)
    return seen.strip(_WRAPPING) or seen.strip()


def stated_parts(example: Example, text: str) -> Score:
    """Grades an answer by the share of the example's parts that it states.

    A part is not stated where the answer denies it ("It is not Lima"), where it is one of several
    guesses ("Lima, Quito or Bogotá"), and where the answer is the question again.

    Where an example has no parts but a reference, the grade is the token F1 with the reference
    (Rajpurkar et al., 2016, arXiv 1606.05250), which is an overlap of words and no accuracy; the
    answer counts as right only where it is the reference.

    Example:
        >>> from domainfusion.types import Part
        >>> parts = (Part(domain="geography", answers=("Lima",)), Part(domain="chemistry", answers=("Fe",)))
        >>> example = Example(query="What is Peru's capital and iron's symbol?", domains=("geography", "chemistry"), parts=parts)
        >>> stated_parts(example, "Lima, and **Fe**.").parts, stated_parts(example, "It isn't Lima. It is Fe or Ir.").parts
        ((1.0, 1.0), (0.0, 0.0))
    """
    if not example.parts and example.reference is None:
        return Score.unscored(NO_REFERENCE)
    if not text.strip():
        return Score.not_readable(EMPTY, parts=max(1, len(example.parts)))
    if example.parts:
        grades = tuple(float(gives_one(example, text, part.answers)) for part in example.parts)
        return Score(sum(grades) / len(grades), parts=grades)
    reference = example.reference or ""
    grade = 1.0 if is_the_answer(text, reference) else token_f1(text, reference)
    return Score(grade, parts=(float(is_the_answer(text, reference)),))


def gives_one(example: Example, text: str, answers: Sequence[str]) -> bool:
    """Whether an answer gives one of the accepted ones as its own: not denied, not as a guess, and
    not in the question's words.
    """
    if any(is_the_answer(text, answer) for answer in answers):
        return True
    seen = render(text).text
    if normalize(seen) == normalize(example.query):
        return False
    known = [answer for accepted in accepted_answers(example) for answer in accepted]
    for answer in answers:
        for span in islice(spans_of(seen, answer), MOST_SPANS):
            if not is_denied(seen, span, query=example.query) and not is_one_of_guesses(
                seen, span, known, example.query, spare=parts_unknown(example)
            ):
                return True
    verdicts = [normalize(answer) for answer in answers if normalize(answer) in ("yes", "no")]
    return bool(verdicts) and says_yes_or_no(example.query, seen) in verdicts


def parts_unknown(example: Example) -> int:
    """Returns how many of the domains of an example have no part: what a right answer states of
    these is not known, and so no wrong guess at the others.
    """
    if not example.parts:
        return 0
    return len(set(example.domains) - {part.domain for part in example.parts})


@dataclass(frozen=True)
class Exact:
    """Right is an answer that is the accepted one, but for case, accents, articles, markup, and the
    quotes and full stop around it.

    Example:
        >>> example = Example(query="What is the capital of Italy?", domains=("geography",), reference="Rome")
        >>> Exact()(example, "“Rome”.").value, Exact()(example, "It is Rome.").value
        (1.0, 0.0)
    """

    def __call__(self, example: Example, text: str) -> Score:
        """Grades an answer."""
        return against_each(example, text, lambda one, other: 0.0)


@dataclass(frozen=True)
class Contains:
    """Right is an answer that states the accepted one as its own; see `stated_parts`.

    Example:
        >>> example = Example(query="What is the capital of Italy?", domains=("geography",), reference="Rome")
        >>> [Contains()(example, text).value for text in ("It is Rome.", "It is Romeo.", "It isn't Rome.")]
        [1.0, 0.0, 0.0]
    """

    def __call__(self, example: Example, text: str) -> Score:
        """Grades an answer."""
        return against_each(
            example, text, lambda one, other: float(gives_one(example, one, [other]))
        )


# Overlap


def overlap_words(text: str) -> list[str]:
    """Returns the words of a text without case, accents and articles; articles alone stay."""
    words = words_of(text)
    return [word for word in words if word not in ARTICLES] or words


def token_f1(text: str, reference: str) -> float:
    """Returns the harmonic mean of precision and recall of `text`'s words against `reference`'s.

    Example:
        >>> token_f1("the capital is Rome", "Rome")
        0.5
    """
    words, wanted = Counter(overlap_words(text)), Counter(overlap_words(reference))
    shared = sum((words & wanted).values())
    if not shared:
        return float(not words and not wanted)
    precision, recall = shared / sum(words.values()), shared / sum(wanted.values())
    return 2 * precision * recall / (precision + recall)


@dataclass(frozen=True)
class TokenF1:
    """The F1 of the answer's words against the accepted answer's (Rajpurkar et al., 2016, arXiv
    1606.05250).

    It is an overlap and no accuracy: an answer that says the opposite in the same words has a high
    one.

    Args:
        right_from: The F1 from which an answer counts as right.

    Raises:
        ConfigurationError: `right_from` is not above 0 and up to 1.
    """

    right_from: float = 1.0
    is_overlap: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("right_from", self.right_from, "(0, 1]")

    def __call__(self, example: Example, text: str) -> Score:
        """Grades an answer."""
        return against_each(example, text, token_f1, right_from=self.right_from)


MOST_WORDS_IN_ORDER = 10_000
"""Words of a text that ROUGE-L compares; what follows them is left out."""


def rouge_l(text: str, reference: str) -> float:
    """Returns ROUGE-L, the F-measure of the longest common subsequence of words (Lin, 2004,
    aclanthology.org/W04-1013), of the first `MOST_WORDS_IN_ORDER` words of each.

    Example:
        >>> round(rouge_l("the cat sat on a mat", "on the mat sat a cat"), 2)
        0.5
    """
    said, wanted = (overlap_words(each)[:MOST_WORDS_IN_ORDER] for each in (text, reference))
    if not said or not wanted:
        return 0.0
    length = _longest_common(said, wanted)
    return float(fmeasure(length / len(said), length / len(wanted)))


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Returns the length of the longest common subsequence, a row of the table at a time, each of
    whose steps is a bit (Hyyrö, 2004, "Bit-parallel LCS-length computation revisited").
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    ones = (1 << len(first)) - 1
    row = ones
    for word in second:
        met = row & places.get(word, 0)
        row = (row + met | row - met) & ones
    return len(first) - row.bit_count()


@dataclass(frozen=True)
class RougeL:
    """ROUGE-L of the answer against the accepted one: shared words that stand in the same order.

    It is an overlap and no accuracy: an answer that says the opposite in the same words has a high
    one.

    Args:
        right_from: The ROUGE-L from which an answer counts as right.

    Raises:
        ConfigurationError: `right_from` is not above 0 and up to 1.
    """

    right_from: float = 1.0
    is_overlap: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("right_from", self.right_from, "(0, 1]")

    def __call__(self, example: Example, text: str) -> Score:
        """Grades an answer."""
        return against_each(example, text, rouge_l, right_from=self.right_from)


@dataclass(frozen=True)
class EmbeddingSimilarity:
    """The cosine between the embeddings of the answer and of the accepted one; below 0 counts as 0.

    Near is not right: "It melts at 961 °C" is near "It melts at 1064 °C". Use it for answers in
    free words, beside a metric that checks what they state. Needs `domainfusion[embeddings]`.

    Args:
        model: A folder or hub id that sentence-transformers loads, such as
            `sentence-transformers/all-MiniLM-L6-v2`.
        right_from: The cosine from which an answer counts as right. The default asks for the same
            words but for rounding.

    Raises:
        ConfigurationError: `right_from` is not above 0 and up to 1.
        MissingDependencyError: sentence-transformers is not installed.
    """

    model: str
    right_from: float = 0.999
    is_overlap: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("right_from", self.right_from, "(0, 1]")
        _library()

    def grade_all(
        self, examples: Sequence[Example], texts: Sequence[str], *, ask: Ask = ask_directly
    ) -> list[Score]:
        """Grades each text; all that is to be embedded is embedded together.

        Raises:
            ModelError: The embedding model can't be loaded.
        """
        wanted = [
            answer
            for example in examples
            for answers in accepted_answers(example)
            for answer in answers
        ]
        vectors = _embed(self.model, list(dict.fromkeys([*texts, *wanted])))

        def cosine(one: str, other: str) -> float:
            return float(vectors[one] @ vectors[other])

        return [
            against_each(example, text, cosine, right_from=self.right_from)
            for example, text in zip(examples, texts, strict=True)
        ]


def _embed(model: str, texts: Sequence[str]) -> dict[str, Any]:
    if not texts:
        return {}
    return dict(
        zip(
            texts,
            _load(model).encode(list(texts), normalize_embeddings=True, show_progress_bar=False),
            strict=True,
        )
    )


@lru_cache(maxsize=2)
def _load(model: str) -> Any:
    try:
        return _library().SentenceTransformer(model)
    except (
        Exception
    ) as error:  # whatever the libraries below it raise for a folder or a hub id that is none
        raise ModelError(
            f"The embedding model can't be loaded: {error}",
            received=model,
            allowed="a folder or hub id that sentence-transformers loads",
        ) from error


def _library() -> Any:
    try:
        import sentence_transformers
    except ImportError as error:
        raise MissingDependencyError(
            "Similarity by embeddings needs sentence-transformers",
            fix='run: pip install "domainfusion[embeddings]"',
        ) from error
    return sentence_transformers
