"""Copies: answers that are the same text but for a few words, and therefore one witness, not
several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from domainfusion.distillation.integration.words import tokens

LEAST_WORDS = 12
"""Words that an answer has at least to be held for a copy: two experts may both say "It is Paris."
by themselves.
"""
LEAST_SHARED = 2 / 3
"""Share of the words of two answers together that both have, from which on they are copies."""


def copies_among(answers: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """Returns the groups of experts whose answers are copies of each other, in order of first
    appearance.

    Two answers are copies where `LEAST_SHARED` of their words, counted as often as they occur, are
    the same (the weighted Jaccard index); a group is what such pairs connect.

    Args:
        answers: The answers by domain.

    Example:
        >>> text = "The gestation of a sheep lasts 221 days, but breeds differ a little from each other."
        >>> copies_among({"music": text, "biology": "A sheep is pregnant for 147 days.", "law": text.replace("a little", "a bit")})
        (('music', 'law'),)
    """
    bags = {domain: Counter(tokens(text)) for domain, text in answers.items()}
    long = [domain for domain, bag in bags.items() if bag.total() >= LEAST_WORDS]
    group_of: dict[str, list[str]] = {domain: [domain] for domain in long}
    for index, first in enumerate(long):
        for second in long[index + 1 :]:
            if (
                group_of[first] is not group_of[second]
                and _shared(bags[first], bags[second]) >= LEAST_SHARED
            ):
                group_of[first] += group_of[second]
                for domain in group_of[second]:
                    group_of[domain] = group_of[first]
    groups = {
        id(group): tuple(sorted(group, key=long.index))
        for group in group_of.values()
        if len(group) > 1
    }
    return tuple(groups.values())


def _shared(first: Counter[str], second: Counter[str]) -> float:
    return (first & second).total() / (first | second).total()
