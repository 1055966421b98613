"""Claims: the sentences of an answer, each with the values that it states, what it is about, and whether
it denies it; and what a query asks, about what, and which sort of value answers it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations, takewhile
from typing import Literal, TypeVar

from domainfusion.distillation.integration.words import (
    EMPTY,
    GENERIC,
    MEASURES,
    NO_STANCE,
    POINTING,
    Date,
    Found,
    Name,
    Quantity,
    Stance,
    Value,
    Verdict,
    asks_for_permission,
    compare,
    content,
    denies,
    find_values,
    opposes,
    oppositions,
    order_objects,
    stance_of,
    stem,
    tokens,
    topic,
)
from domainfusion.distillation.text.sentences import sentences
from domainfusion.distillation.text.words import fold

LONGEST = 1000
"""Characters from which on a sentence is not a claim that is compared with others: it is a text
without full stops.
"""
MOST = 1000
"""Sentences of an expert that are compared with the others'; those after them are only compared for
repetition.
"""

# The mark of a list's item at the beginning of a line: "- ", "3. ".
_MARKER = re.compile(r"^\s*(?:[-*•–]|\d{1,2}[.)])\s+")
# An expert that says it does not know: "I am not sure", "I couldn't say", "not my field".
_UNSURE = re.compile(
    r"\b(?:I|we)(?:'m| am| are|'re)? (?:really |simply |just )?(?:(?:do|can|could|would|have)(?:"
    r" ?not|n't)|cannot|not|un)(?: be)? ?"
    r"(?:know|sure|certain|say|tell|answer|help|familiar|confident|able|an expert|no idea)|"
    r"\b(?:beyond|outside) (?:what I|my)\b|\bno (?:idea|information|knowledge)\b|\bnot (?:really"
    r" )?my (?:field|area|domain|subject)\b",
    re.IGNORECASE,
)
# A condition before a sentence and its comma: "At high altitude, …", "Bei Hitze, …".
_CONDITION = re.compile(
    r"^(?:at|in|on|under|above|below|during|after|before|for|near|within|by|since|until|with|without|inside|outside|between|"
    r"among|across|throughout|while|bei|im|in"
    r" der|während|en|durante|pour|chez|dans)\b[^,]{2,60},\s",
    re.IGNORECASE,
)

V = TypeVar("V", bound=Value)


@dataclass(frozen=True, slots=True, eq=False)
class Sentence:
    """A sentence of an expert, taken apart.

    Attributes:
        domain: The expert's domain.
        text: The sentence as it stands in the answer.
        bare: The same without the mark of a list's item.
        place: Its place in the answer, from 0.
        values: The dates, quantities and names in it, in order.
        words: Stems of the words that carry meaning, values left out.
        all_words: The same with the values.
        denies: Whether it denies something.
        condition: What it says to hold for, where that stands first: "At sea level, …".
        points: Whether it begins with a word that stands for what was asked about, as in "It is …".
        is_unsure: Whether the expert says that it does not know.
        topic: What it is about in any of the languages that are known, values left out; see
            `topic`.
        stance: What it says for or against that.
        frame: The sentence with a mark for each value; equal for sentences that differ in values
            alone.
    """

    domain: str
    text: str
    bare: str
    place: int
    values: tuple[Found, ...] = ()
    words: frozenset[str] = frozenset()
    all_words: frozenset[str] = frozenset()
    denies: bool = False
    condition: frozenset[str] = frozenset()
    points: bool = False
    is_unsure: bool = False
    topic: frozenset[str] = frozenset()
    stance: Stance = NO_STANCE
    frame: str = field(default="", repr=False)

    def of_kind(self, kind: type[V]) -> tuple[V, ...]:
        """Returns its values of one kind."""
        return tuple(found.value for found in self.values if isinstance(found.value, kind))

    @property
    def names(self) -> tuple[Name, ...]:
        """Its names, without a first word whose capital says nothing."""
        return tuple(name for name in self.of_kind(Name) if not name.is_initial)

    @property
    def is_checkable(self) -> bool:
        """Whether it states a quantity, a date, a name or a negation."""
        return (
            bool(self.of_kind(Quantity) or self.of_kind(Date) or self.names or self.denies)
            and not self.is_unsure
        )


def claims_of(domain: str, answer: str) -> list[Sentence]:
    """Returns the sentences of an answer as claims, in order.

    What is compared is bounded: sentences of more than `LONGEST` characters, and those after the
    first `MOST`, have no values.

    Example:
        >>> claim, = claims_of("chemistry", "- Gold melts at 1064 °C.")
        >>> sorted(claim.words), claim.frame
        (['gold', 'melt'], '<name> melts at <quantity>.')
    """
    claims = [_read(domain, text, place) for place, text in enumerate(sentences(answer))]
    return [_as_one_word(claims[0])] if len(claims) == 1 else claims


def one_claim(domain: str, text: str, place: int, *, is_alone: bool) -> Sentence:
    """Returns a text of an expert as one claim, whether or not it is a sentence; `is_alone` where
    it is all that the expert says.
    """
    claim = _read(domain, text, place)
    return _as_one_word(claim) if is_alone else claim


def _as_one_word(claim: Sentence) -> Sentence:
    """Takes the capital of an answer of one word for a name's."""
    if (
        len(tokens(claim.bare)) != 1
        or not claim.values
        or not isinstance(name := claim.values[0].value, Name)
    ):
        return claim
    return replace(
        claim,
        values=(replace(claim.values[0], value=replace(name, is_initial=False)),),
        words=frozenset(),
    )


def _read(domain: str, text: str, place: int) -> Sentence:
    if len(text) > LONGEST or place >= MOST:
        return Sentence(domain, text, text, place)
    marker = _MARKER.match(text)
    bare = text[marker.end() :] if marker else text
    values = tuple(found for found in find_values(bare) if not _is_word(found.value))
    beginning = takewhile(lambda word: word in EMPTY, tokens(bare))
    tells = [found for found in values if not _is_initial(found.value)]
    rest = _mask(bare, tells, " ")
    condition = _CONDITION.match(bare)
    return Sentence(
        domain=domain,
        text=text,
        bare=bare,
        place=place,
        values=values,
        words=content(rest),
        all_words=content(bare),
        denies=denies(bare),
        condition=content(condition.group()) if condition else frozenset(),
        points=any(word in POINTING for word in beginning),
        is_unsure=not tells and _UNSURE.search(bare.replace("’", "'")) is not None,
        topic=topic(
            _mask(bare, [found for found in values if not isinstance(found.value, Name)], " ")
        ),
        stance=stance_of(bare),
        frame=" ".join(fold(_mask(bare, values)).split()),
    )


def _is_word(value: Value) -> bool:
    return (
        _is_initial(value)
        and isinstance(value, Name)
        and (value.words[0] if value.words else "") in EMPTY
    )


def _is_initial(value: Value) -> bool:
    return isinstance(value, Name) and value.is_initial


def _mask(text: str, values: list[Found] | tuple[Found, ...], mark: str = "") -> str:
    pieces, position = [], 0
    for found in values:
        pieces += [
            text[position : found.start],
            mark or f"<{type(found.value).__name__.casefold()}>",
        ]
        position = found.end
    return "".join([*pieces, text[position:]])


Kind = Literal["quantity", "date", "name", "yes or no", "any", "open"]
"""What answers a question; `open` is what no single value answers."""

LONGEST_QUESTION = 500
MOST_QUESTIONS = 20
"""Questions that are told apart in one query; there are seldom more than three."""

_AUXILIARY = "is|are|was|were|do|does|did|can|could|may|might|must|should|will|would|has|have|had"
_WH = "what|which|who|whose|whom|when|where|why|how"
# Between two questions of one query: a question mark, or "and" before a question word or verb.
_BORDER = re.compile(
    rf"\?|;|\n|(?:,\s*|\s)(?:and|also|or)[,:]?\s+(?=(?:(?:in|at|on|to|from|by|of|for)\s+)?(?:{_WH})\b)|"
    r",?\s+and\s+(?=(?:does|do|did|is|are)\s)"
)
# What a question of several may begin with: "and then", "second,".
_BEGINNING = re.compile(
    r"^(?:\W|\b(?:and|also|then|next|finally|second|secondly|first)\b)+", re.IGNORECASE
)
# Asks for a date: "when", "which year".
_DATED = re.compile(r"\bwhen\b|\b(?:what|which) (?:day|date|year|month|century)\b")
# Asks for a number: "how many", "how high"; not "how is", "how to".
_COUNTED = re.compile(rf"\bhow (?!(?:{_AUXILIARY}|to|come|about)\b)\w+")
# Asks for a quantity by name within six words: "what is the boiling temperature".
_MEASURED = re.compile(
    rf"\b(?:what|which)\b(?:\W+\w+){{0,6}}?\W+(?:{'|'.join(sorted(MEASURES))})s?\b"
)
_MEASURES = frozenset(map(stem, MEASURES))
# Asks for a name: a person or a place.
_NAMED = re.compile(r"\b(?:who|whom|whose|where)\b")
# Asks for several things: "which countries are", "name three", "examples".
_SEVERAL = re.compile(
    r"\b(?:what|which) (?:\w+ )?(?!is\b|was\b|does\b|has\b)\w{3,}s"
    r" (?:are|were|do|can|have|did)\b|\bwhat can\b|"
    r"\b(?:name|list) (?:some|two|three|all|the main)\b|\bwhat are\b|\bexamples?\b"
)
# A question with a hop: "the capital of the country where …"; group 1 is what comes before it.
_OVER = re.compile(
    r"(.*?)\b(?:of|in|for|from|to|with|call) (?:the|a|an) "
    r"(?:\w+ (?:(?:in"
    r" )?which|where|that|whose)|(?:country|city|state|continent|company|author|inventor|founder)"
    r" of)\b"
)
# What a question is about, after "of": "the symbol of gold"; up to the next preposition.
_ABOUT_OF = re.compile(
    r"\bof"
    rf" (?:(?:an?|the)\s)?(?P<about>[\w\s'-]+?)(?=$|\s(?:in|on|at|for|during|when|if|and|or|from|with|under|{_AUXILIARY})\b|[,?.])"
)
# What a question is about, after its verb: "where is NRT".
_ABOUT_VERB = re.compile(
    rf"\b(?:{_AUXILIARY})\s(?:(?:an?|the|all|any|most)\s)?(?P<about>[\w'-]+(?:\s[\w'-]+)?)"
)


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that a query asks.

    Attributes:
        text: The part of the query that asks it.
        kind: What answers it.
        words: Stems of its words, without the sort of thing that is asked for.
        all_words: The same with it.
        about: The names in it or, where there are none, the words that stand for its subject, as
            far as one can be seen.
        hop: Where the question goes over a second thing, as "the capital of the country where NRT
            is" does, the words before that.
        asks_several: Whether more than one name is a right answer, as of "which languages".
        is_compound: Whether it joins several things with "and" or "or".
    """

    text: str
    kind: Kind
    words: frozenset[str]
    all_words: frozenset[str]
    about: tuple[Name, ...] | frozenset[str]
    hop: frozenset[str]
    asks_several: bool
    is_compound: bool

    def is_named_in(self, claim: Sentence) -> bool:
        """Whether a claim names what the question is about."""
        if isinstance(self.about, frozenset):
            return bool(self.about & claim.all_words)
        return any(stem(name.words[-1]) in claim.all_words for name in self.about if name.words)

    @property
    def relation(self) -> frozenset[str]:
        """What it asks of its subject: its words without those that name that."""
        subject = (
            self.about
            if isinstance(self.about, frozenset)
            else {stem(word) for name in self.about for word in name.words}
        )
        return self.all_words - subject

    def is_pointed_at_by(self, claim: Sentence) -> bool:
        """Whether a claim needs the question to be understood: "It is …", "The length is …", or the
        question's words and a value.
        """
        return not claim.is_unsure and (claim.points or claim.words <= self.all_words | _MEASURES)


def questions_of(query: str) -> list[Question]:
    """Returns what a query asks, in order; what is longer than `LONGEST_QUESTION` characters without a
    question mark is not a question.

    Example:
        >>> [(question.text, question.kind) for question in questions_of("How high is K2? And in which country is the airport NRT?")]
        [('How high is K2', 'quantity'), ('in which country is the airport NRT', 'any')]
    """
    pieces = (
        _BEGINNING.sub("", piece).strip(" .,:!")
        for piece in _BORDER.split(query)
        if piece and len(piece) <= LONGEST_QUESTION
    )
    return [_questions_read(piece) for piece in dict.fromkeys(pieces) if piece][:MOST_QUESTIONS]


def _questions_read(text: str) -> Question:
    low = " ".join(text.casefold().split())
    names = [found.value for found in find_values(text) if isinstance(found.value, Name)]
    names = [
        name for name in names if not name.is_initial and name.words and name.words[0] not in EMPTY
    ]
    # What comes between the question word and its verb: "which large planet is …".
    asked_for = re.search(rf"\b(?:what|which|how)\b(.*?)\b(?:{_AUXILIARY})\b", low)
    words = content(text) - (content(asked_for[1]) if asked_for else frozenset())
    # "and" between two names joins no questions: Marie and Pierre Curie.
    plain = re.sub(r"[A-Z][\w'-]* (?:and|or) (?=(?:the )?[A-Z])", "", text)
    return Question(
        text=text,
        kind=_kind(low),
        words=words,
        all_words=content(text),
        about=tuple(names) or _about(low),
        hop=content(over[1]) if (over := _OVER.match(low)) else frozenset(),
        asks_several=_SEVERAL.search(low) is not None,
        is_compound=re.search(r"\b(?:and|or|as well as)\b|,", plain) is not None,
    )


def _kind(low: str) -> Kind:
    if re.match(rf"(?:{_AUXILIARY})\b", low):
        return "yes or no"
    if _DATED.search(low):
        return "date"
    if _COUNTED.search(low) or _MEASURED.search(low):
        return "quantity"
    if re.search(r"\b(?:why|how)\b", low):
        return "open"
    return "name" if _NAMED.search(low) else "any"


def _about(low: str) -> frozenset[str]:
    for pattern in (_ABOUT_OF, _ABOUT_VERB):
        matches = list(pattern.finditer(low))
        if matches:
            found = [stem(word) for word in tokens(matches[-1]["about"]) if word not in EMPTY]
            if found:
                return frozenset(found[:1] if pattern is _ABOUT_VERB else found)
    return frozenset()


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
_NEGATIVE = re.compile(
    r"\b(?:useless|ineffective|pointless|unnecessary|fail(?:s|ed)?|lacks?|prevents?|avoid(?:s|ed)?|stops?|instead|rather"
    r" than|"
    r"wrong|myth|too|unable|un\w+ed|ohne|sin|sans|without(?! (?:any"
    r" )?(?:concern|risk|problem|harm|danger|hesitation|issue|worr)))\b",
    re.IGNORECASE,
)
"""Words that deny something without a negation."""
# A permission with a condition.
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
    subjects = (
        _subject(first) - asked - _MEASURES,
        _subject(second) - asked - _MEASURES,
    )
    return not (
        all(subjects)
        and subjects[0].isdisjoint(second.topic)
        and subjects[1].isdisjoint(first.topic)
    )


def _shared_words(
    said: Mapping[str, Sequence[Sentence]],
) -> dict[tuple[Sentence, Sentence], _Shared]:
    """Returns the pairs of claims of two experts that share enough words."""
    having: dict[str, list[Sentence]] = defaultdict(list)
    for claims in said.values():
        for sentence in claims:
            for word in sentence.topic:
                having[word].append(sentence)
    counts: Counter[tuple[Sentence, Sentence]] = Counter()
    for alike in having.values():
        if len(alike) <= MOST_WITH_A_WORD:
            counts.update(
                pair for pair in combinations(alike, 2) if pair[0].domain != pair[1].domain
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
    certain = [name.words for name in named if not name.is_initial]
    return frozenset(chain.from_iterable(certain)) - GENERIC


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
        is_alone = kinds == ["negation"] and first.topic != second.topic
        least = LEAST_SHARED + 1 if is_alone else LEAST_SHARED
        return len(kinds) % 2 == 1 and common.count >= least and common.share >= LEAST_SHARE_OPPOSED
    return _compare_dates(first, second) == "different" or have_other_quantities(first, second)


def opposed_kinds(first: Sentence, second: Sentence) -> list[str]:
    """Returns in which ways two sentences are opposed; see `oppositions`. Before and after are,
    where they are so of the same thing.
    """
    kinds = list(oppositions(first.stance, second.stance))
    if opposes(first.topic, second.topic) or opposes(second.topic, first.topic):
        kinds.append("prefix")  # reversible and irreversible
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
