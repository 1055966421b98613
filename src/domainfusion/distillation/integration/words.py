"""Words: which of them carry meaning, without their endings, and whether a sentence denies what it says."""

from __future__ import annotations

import re

from domainfusion.distillation.integration.values import fold
from domainfusion.distillation.integration.vocabulary import DENIED, EMPTY, MYTHS, NEGATIONS

_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_ENDING = re.compile(r"(?:ies|es|s|ing|ed)$")
_DOUBLED = re.compile(r"([b-df-hj-np-tv-z])\1$")
_LEAST_STEM = 3
_OPPOSING = re.compile(r"^(?:un|in|im|il|ir|non-?)(?=\w{3})")
_QUALIFIED = re.compile(r"\b(?:no|not) (?:less|fewer|more|only|later|earlier) (?:than)?|\bno\. ?\d", re.IGNORECASE)


def tokens(text: str) -> list[str]:
    """Returns the words of a text in order, without case and accents.

    Example:
        >>> tokens("Bats aren't blind: Élan, K2.")
        ['bats', "aren't", 'blind', 'elan', 'k2']
    """
    return _TOKEN.findall(fold(text))


def stem(word: str) -> str:
    """Returns a word without the ending that grammar gives it; the same for `melts`, `melted` and `melting`.

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


def denies(text: str) -> bool:
    """Whether a sentence denies something: `not`, `never`, `forbidden`, `a myth`, but not `no less than`.

    Example:
        >>> denies("Gold never rusts."), denies("It is forbidden."), denies("No less than 5 km.")
        (True, True, False)
    """
    words = tokens(_QUALIFIED.sub(" ", text.replace("’", "'")))
    return any(word in NEGATIONS or word.endswith("n't") or word in DENIED or word in MYTHS for word in words)


def opposes(words: frozenset[str], known: frozenset[str]) -> bool:
    """Whether one of some stems is one of the known ones with a syllable before it that denies it.

    Example:
        >>> opposes(content("It is unsafe."), content("Is it safe?")), opposes(content("Invite him."), content("Is it safe?"))
        (True, False)
    """
    return any(_OPPOSING.sub("", word) in known for word in words - known)
