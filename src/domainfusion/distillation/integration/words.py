"""Words: which of them carry meaning, without their endings, and whether a sentence denies what it
says.
"""

from __future__ import annotations

import re

from domainfusion.distillation.integration.oppositions import is_opposing_word
from domainfusion.distillation.integration.values import (
    DENIED,
    EMPTY,
    EMPTY_ELSEWHERE,
    IRREGULAR,
    MYTHS,
    NEGATIONS,
    fold,
)

_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_ENDING = re.compile(r"(?:ies|es|s|ing|ed)$")
_DOUBLED = re.compile(r"([b-df-hj-np-tv-z])\1$")
_LEAST_STEM = 3
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
"""Scripts without spaces between words."""
_OPPOSING = re.compile(r"^(?:un|in|im|il|ir|non-?)(?=\w{3})")
_QUALIFIED = re.compile(
    r"\b(?:no|not) (?:less|fewer|more|only|later|earlier) (?:than)?|\bno\. ?\d", re.IGNORECASE
)


def tokens(text: str) -> list[str]:
    """Returns the words of a text in order, without case and accents.

    Example:
        >>> tokens("Bats aren't blind: Élan, K2.")
        ['bats', "aren't", 'blind', 'elan', 'k2']
    """
    return _TOKEN.findall(fold(text))


def stem(word: str) -> str:
    """Returns a word without the ending that grammar gives it; the same for `melts`, `melted` and
    `melting`.

    Example:
        >>> stem("melts"), stem("melting"), stem("jog"), stem("jogging"), stem("gas")
        ('melt', 'melt', 'jog', 'jog', 'gas')
    """
    short = _DOUBLED.sub(r"\1", _ENDING.sub("", word.removesuffix("'s")).rstrip("e"))
    return short if len(short) >= _LEAST_STEM else word


def content(text: str) -> frozenset[str]:
    """Returns the stems of the words that carry meaning.

    Example:
        >>> sorted(content("Bats aren't really blind."))
        ['bat', 'blind']
    """
    found = set()
    for word in tokens(text):
        if word in EMPTY or word in NEGATIONS or word.endswith("n't") or word in MYTHS:
            continue
        found.add(DENIED.get(word) or stem(word))
    return frozenset(found)


def topic(text: str) -> frozenset[str]:
    """Returns what a text is about: the stems of its words in several languages, and of Chinese or
    Japanese every two characters in a row.

    Words that deny, and those that name an end of an opposition such as raise and lower, are not
    part of it.

    Example:
        >>> sorted(topic("It must not be given to patients after the free-of-charge visit."))
        ['charg', 'free', 'giv', 'patient', 'visit']
        >>> sorted(topic("每天最多4克"))
        ['天最', '最多', '每天']
    """
    found: set[str] = set()
    for token in tokens(text):
        for run in _HAN.findall(token):
            found.update(run[place : place + 2] for place in range(len(run) - 1))
        for word in _HAN.sub("-", token).removesuffix("'s").split("-"):
            if (
                len(word) < 2
                or word in EMPTY
                or word in EMPTY_ELSEWHERE
                or word in NEGATIONS
                or word.endswith("n't")
            ):
                continue
            if not is_opposing_word(word) and not word.isdigit():
                found.add(stem(IRREGULAR.get(word, word)))
    return frozenset(found)


def denies(text: str) -> bool:
    """Whether a sentence denies something: `not`, `never`, `forbidden`, `a myth`, but not `no less
    than`.

    Example:
        >>> denies("Gold never rusts."), denies("It is forbidden."), denies("No less than 5 km.")
        (True, True, False)
    """
    words = tokens(_QUALIFIED.sub(" ", text.replace("’", "'")))
    return any(
        word in NEGATIONS or word.endswith("n't") or word in DENIED or word in MYTHS
        for word in words
    )


def opposes(words: frozenset[str], known: frozenset[str]) -> bool:
    """Whether one of some stems is one of the known ones with a syllable before it that denies it.

    Example:
        >>> opposes(content("It is unsafe."), content("Is it safe?")), opposes(content("Invite him."), content("Is it safe?"))
        (True, False)
    """
    return any(_OPPOSING.sub("", word) in known for word in words - known)
