"""Pairs: sentences of two experts that are about the same thing, as far as their words show it, and
that can't both be right.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from domainfusion.distillation.integration.claims import Sentence as Sentence
from domainfusion.distillation.integration.values import (
    GENERIC,
    MEASURES,
    Date,
    Name,
    Quantity,
    Verdict,
    compare,
)
from domainfusion.distillation.integration.words import (
    asks_for_permission,
    oppositions,
    order_objects,
    stem,
    tokens,
    topic,
)

LEAST_SHARED = 2
"""Words about their topic that two sentences share at least."""
LEAST_SHARE = 0.4
"""Share of the words of the shorter one of two sentences that both have at least, where a value is
in question.
"""
LEAST_SHARE_OPPOSED = 0.5
"""The same where they say opposite things, for which more words have to be the same."""
MOST_WITH_A_WORD = 40
"""Sentences that a word may be in, so that it tells anything; this also bounds the pairs."""

_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|should|must|can|cannot|may|needs?|costs?|takes?|runs?|boils?|melts?|allows?|keeps?|requires?|gets?|"
    r"becomes?|does|do|ist|sind|darf|dürfen|muss|müssen|sollten?|kann|können|braucht|brauchen|es|son|debe|deben|puede|pueden|est|sont|doit|"
    r"doivent|peut|peuvent)\b",
    re.IGNORECASE,
)
"""A verb that a sentence's subject stands before."""
_MEASURES = frozenset(map(stem, MEASURES))
_NEGATIVE = re.compile(
    r"\b(?:useless|ineffective|pointless|unnecessary|fail(?:s|ed)?|lacks?|prevents?|avoid(?:s|ed)?|stops?|instead|rather"
    r" than|"
    r"wrong|myth|too|unable|un\w+ed|ohne|sin|sans|without(?! (?:any"
    r" )?(?:concern|risk|problem|harm|danger|hesitation|issue|worr)))\b",
    re.IGNORECASE,
)
"""Words that deny something without a negation."""
_CONDITIONAL = re.compile(r"\b(?:if|unless|provided|only)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Shared:
    """What two sentences have in common: so many words, which are this share of the shorter
    one's.
    """

    count: int
    share: float


def opposed_pairs(
    query: str, said: Mapping[str, Sequence[Sentence]]
) -> list[tuple[Sentence, Sentence]]:
    """Returns the pairs of sentences of two experts that can't both be right.

    Two sentences are about the same thing where they share enough words, and neither has more in
    common with another sentence of the other expert. They can't both be right where they have
    different values of what is measured in the same unit, or say opposite things of it, unless one
    of them only says that it may be so, or they hold for different people, conditions or subjects.

    Args:
        query: What was asked.
        said: The experts' sentences by domain.
    """
    shared = _shared_words(said)
    best: dict[tuple[int, str], int] = defaultdict(int)
    for (first, second), common in shared.items():
        for one, other in ((first, second), (second, first)):
            best[id(one), other.domain] = max(best[id(one), other.domain], common.count)
    asked = topic(query)
    is_permission = asks_for_permission(query)
    found = []
    for (first, second), common in shared.items():
        is_nearest = (
            common.count >= best[id(first), second.domain]
            and common.count >= best[id(second), first.domain]
        )
        if not is_nearest or _are_told_apart(first, second, asked):
            continue
        if hold_for_the_same(first, second, asked, is_permission=is_permission) and _are_opposed(
            first, second, common
        ):
            found.append((first, second))
    return found


def hold_for_the_same(
    first: Sentence, second: Sentence, asked: frozenset[str], *, is_permission: bool
) -> bool:
    """Whether two sentences hold for the same people, conditions and subject, and neither only says
    that it may be so.

    Args:
        first: A sentence.
        second: A sentence of another expert.
        asked: What the query is about, see `topic`: a subject of these words alone, such as "the
            distance", tells nothing apart.
        is_permission: Whether it was asked what is allowed, so that "may" allows it.
    """
    if first.is_unsure or second.is_unsure or first.stance.is_hedged or second.stance.is_hedged:
        return False
    for sentence in (first, second):
        if sentence.stance.may and (not is_permission or _CONDITIONAL.search(sentence.bare)):
            return False
    people = (first.stance.people, second.stance.people)
    if all(people) and people[0].isdisjoint(people[1]):
        return False
    if first.condition and second.condition and first.condition != second.condition:
        return False
    subjects = (_subject(first) - asked - _MEASURES, _subject(second) - asked - _MEASURES)
    return not (
        all(subjects)
        and subjects[0].isdisjoint(second.topic)
        and subjects[1].isdisjoint(first.topic)
    )


def _shared_words(
    said: Mapping[str, Sequence[Sentence]],
) -> dict[tuple[Sentence, Sentence], _Shared]:
    """Returns the pairs of sentences of two experts that share enough words."""
    having: dict[str, list[Sentence]] = defaultdict(list)
    for sentences in said.values():
        for sentence in sentences:
            for word in sentence.topic:
                having[word].append(sentence)
    counts: Counter[tuple[Sentence, Sentence]] = Counter()
    for sentences in having.values():
        if len(sentences) <= MOST_WITH_A_WORD:
            counts.update(
                pair for pair in combinations(sentences, 2) if pair[0].domain != pair[1].domain
            )
    shared = {}
    for (first, second), count in counts.items():
        shorter = min(len(first.topic), len(second.topic))
        if count >= LEAST_SHARED and shorter and count >= LEAST_SHARE * shorter:
            shared[first, second] = _Shared(count, count / shorter)
    return shared


def _are_told_apart(first: Sentence, second: Sentence, asked: frozenset[str]) -> bool:
    """Whether each is about another one of the things that the query asks about, or one names a
    thing more closely: the Blue Nile.
    """
    if (first.topic - second.topic) & asked and (second.topic - first.topic) & asked:
        return True
    names = (_names_of_subject(first), _names_of_subject(second))
    return all(names) and (names[0] < names[1] or names[1] < names[0])


def _names_of_subject(sentence: Sentence) -> frozenset[str]:
    verb = _VERB.search(sentence.bare, 1)
    end = verb.start() if verb else 0
    named = (
        found.value
        for found in sentence.values
        if found.end <= end and isinstance(found.value, Name)
    )
    return frozenset(
        word for name in named if not name.is_initial for word in name.words if word not in GENERIC
    )


def _subject(sentence: Sentence) -> frozenset[str]:
    """Returns the words before the first verb that is known."""
    verb = _VERB.search(sentence.bare, 1)
    return topic(sentence.bare[: verb.start()]) & sentence.topic if verb else frozenset()


def _are_opposed(first: Sentence, second: Sentence, common: _Shared) -> bool:
    kinds = opposed_kinds(first, second)
    if kinds == ["negation"] and _is_bad_of_itself(first if not first.stance.denies else second):
        return False  # "useless" denies as well
    if kinds:
        # Two oppositions cancel out: what must not be taken after week 20 may be taken before it.
        least = LEAST_SHARED + 1 if kinds == ["negation"] else LEAST_SHARED
        return len(kinds) % 2 == 1 and common.count >= least and common.share >= LEAST_SHARE_OPPOSED
    return _compare_dates(first, second) == "different" or have_other_quantities(first, second)


def opposed_kinds(first: Sentence, second: Sentence) -> list[str]:
    """Returns in which ways two sentences are opposed; see `oppositions`. Before and after are,
    where they are so of the same thing.
    """
    kinds = list(oppositions(first.stance, second.stance))
    if "order" in kinds and order_objects(first.bare).isdisjoint(order_objects(second.bare)):
        kinds.remove("order")
    return kinds


def _is_bad_of_itself(sentence: Sentence) -> bool:
    return _NEGATIVE.search(sentence.bare) is not None


def _compare_dates(first: Sentence, second: Sentence) -> Verdict:
    verdicts = {
        compare(one, other) for one in first.of_kind(Date) for other in second.of_kind(Date)
    }
    return "same" if "same" in verdicts else "different" if "different" in verdicts else "unrelated"


def have_other_quantities(first: Sentence, second: Sentence) -> bool:
    """Whether two sentences have quantities of the same kind, of which none is the same."""
    sides = (_by_measure(first), _by_measure(second))
    for measure in sides[0].keys() & sides[1].keys():
        verdicts = {compare(one, other) for one in sides[0][measure] for other in sides[1][measure]}
        if "different" in verdicts and "same" not in verdicts:
            return True
    return False


def _by_measure(sentence: Sentence) -> dict[str, list[Quantity]]:
    """Returns the quantities by what they measure: their dimension or, for a number of things, the
    word after it.
    """
    found: dict[str, list[Quantity]] = defaultdict(list)
    for each in sentence.values:
        if isinstance(each.value, Quantity):
            after = tokens(sentence.bare[each.end : each.end + 30])
            measure = each.value.dimension or (stem(after[0]) if after else "")
            if measure:
                found[measure].append(each.value)
    return found
