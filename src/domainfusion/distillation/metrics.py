"""Metrics: how right an answer is, and how well it holds together."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from domainfusion.types import Example, Score

AccuracyMetric = Callable[[Example, str], Score]
"""Grades an answer to an example. A metric of your own is any function of this shape."""

CoherenceMetric = Callable[[str], Score]
"""Grades how well a text holds together."""

_ARTICLES = frozenset(("a", "an", "the"))
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'“(]?[A-Z0-9])")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|approx|e\.g|i\.e)|\b[A-Z])\.$")


def normalize(text: str) -> str:
    """Returns `text` without case, accents, articles and repeated white space; a text of articles alone keeps them.

    Example:
        >>> normalize("The  Élan"), normalize("A")
        ('elan', 'a')
    """
    words = _fold(text).split()
    return " ".join([word for word in words if word not in _ARTICLES] or words)


def _fold(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    return " ".join(plain.casefold().split())


def states(text: str, answer: str) -> bool:
    """Whether `text` contains `answer` as whole words, case, accents and articles aside.

    An `A` that ends an answer is no article. An answer of up to three letters, such as a symbol or a code, has to be there in its
    own case: indium's `In` is not the word "in".

    Example:
        >>> states("It is in Niger.", "Niger"), states("It is in Nigeria.", "Niger"), states("Dial +4420.", "+44")
        (True, False, False)
        >>> states("It is in the Gambia.", "Gambia, The"), states("Hepatitis B.", "Hepatitis A"), states("It is a B.", "A")
        (False, False, False)
        >>> states("It is found in ores.", "In"), states("Its symbol is In.", "In"), states("In EUR.", "EUR")
        (False, True, True)
        >>> states("It is 3.5.", "3"), states("It is 3.5.", "5"), states("It is 3.", "3"), states("It is 3.5.", "3.5")
        (False, False, True, True)
    """
    words = _fold(answer).split()
    if not words:
        return False
    if len(words) == 1 and (words[0] in _ARTICLES or (len(words[0]) <= 3 and answer != answer.lower())):
        return _has_whole(re.escape(answer.strip()), text)
    wanted = [word for word in words[:-1] if word not in _ARTICLES] + words[-1:]
    between = r" (?:(?:a|an|the) )*"
    return _has_whole(between.join(map(re.escape, wanted)), _fold(text))


def _has_whole(pattern: str, text: str) -> bool:
    """Whether `text` has the pattern as whole words and whole numbers: 3 and 5 are no part of 3.5."""
    begins = r"(?<!\w)(?:(?!\d)|(?<!\d[.,]))"
    ends = r"(?!\w)(?:(?<!\d)|(?![.,]\d))"
    return re.search(f"{begins}(?:{pattern}){ends}", text) is not None


def stated_parts(example: Example, text: str) -> Score:
    """Grades an answer by the share of the example's parts that it states.

    Where an example has no parts but a reference, the grade is the token F1 with the reference (Rajpurkar et al., 2016,
    arXiv 1606.05250), and the answer counts as right only where it is the reference.
    """
    if example.parts:
        grades = tuple(float(any(states(text, answer) for answer in part.answers)) for part in example.parts)
        return Score(sum(grades) / len(grades), parts=grades)
    if example.reference is None:
        return Score.unscored("the example has no reference")
    grade = token_f1(text, example.reference)
    return Score(grade, parts=(float(normalize(text) == normalize(example.reference)),))


def token_f1(text: str, reference: str) -> float:
    """Returns the harmonic mean of precision and recall of `text`'s words against `reference`'s.

    Example:
        >>> token_f1("the capital is Rome", "Rome")
        0.5
    """
    words, wanted = (Counter(re.findall(r"\w+", normalize(side))) for side in (text, reference))
    shared = sum((words & wanted).values())
    if not shared:
        return float(not words and not wanted)
    precision, recall = shared / sum(words.values()), shared / sum(wanted.values())
    return 2 * precision * recall / (precision + recall)


def surface_coherence(text: str) -> Score:
    """Grades a text by what can be seen on its surface: whether it ends, and how little of it is said twice.

    The grade is the share of its three-word sequences that are not repeated, times the share of sentences that are not repeated,
    halved where the text breaks off. It has not been validated against corrupted texts.
    """
    found = sentences(text)
    if not found:
        return Score.unscored("the answer is empty")
    words = re.findall(r"\w+", normalize(text))
    triples = list(zip(words, words[1:], words[2:], strict=False))
    fresh_triples = len(set(triples)) / len(triples) if triples else 1.0
    fresh_sentences = len({normalize(sentence) for sentence in found}) / len(found)
    ended = 1.0 if text.rstrip().endswith((".", "!", "?", '"', "”", ")", "]", "`", ":")) else 0.5
    return Score(fresh_triples * fresh_sentences * ended)


def sentences(text: str) -> list[str]:
    """Splits a text into sentences; line breaks end a sentence too.

    Example:
        >>> sentences("Dr. Li came. It was 3.5 km!")
        ['Dr. Li came.', 'It was 3.5 km!']
    """
    found: list[str] = []
    for line in text.splitlines():
        pieces = _SENTENCE_END.split(line.strip())
        pending = ""
        for piece in pieces:
            pending = f"{pending} {piece}".strip()
            if not _ABBREVIATION.search(pending):
                found.append(pending)
                pending = ""
        if pending:
            found.append(pending)
    return [sentence for sentence in found if sentence]
