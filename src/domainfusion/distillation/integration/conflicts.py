"""Points: what several experts state of one and the same thing, and whether they agree on it.

Two claims are about the same thing where both answer one question of the query, or where they are
the same sentence but for one value or a negation. Only one claim of an expert answers a question:
the one that names what is asked about and has most of the question's words. So nothing here takes
longer than in proportion to the answers' length.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, permutations

from domainfusion.distillation.integration.claims import (
    LEAST_SHARED,
    LONGEST,
    MOST,
    Question,
    Sentence,
    claims_of,
    have_other_quantities,
    hold_for_the_same,
    one_claim,
    opposed_kinds,
    opposed_pairs,
    questions_of,
)
from domainfusion.distillation.integration.planning import is_stated, telling
from domainfusion.distillation.integration.reading import Claim, Kind, Relation, Task, claim_spans
from domainfusion.distillation.integration.words import (
    Date,
    Name,
    Quantity,
    Value,
    Verdict,
    asks_for_permission,
    compare,
    content,
    opposes,
    says_no_more,
    tokens,
    topic,
)
from domainfusion.distillation.metrics import normalize
from domainfusion.types import Example, Response

# A frame of which one value is right: "NAME is the …".
_ONLY_ONE = re.compile(r"<name> (?:is|was|are|were) the\b")
# Words by which others may be right too: "for example", "some", "can".
_ONE_OF_SEVERAL = re.compile(
    r"\b(?:can|may|might|could|includ\w+|such as|for example|e\.g\.|one"
    r" of|some|many|among|also|likes?)\b"
)
# Words by which a name is one of several: "a city", "near Rome".
_ONE_OF_A_KIND = re.compile(r"\b(?:an?|near|with)\b")
# An answer that begins with yes or no; not "no city is …", which denies something else.
_YES = re.compile(
    r"^\W*(?P<yes>yes|yeah|correct|true|right)\b|^\W*(?P<no>no|nope|false|wrong)\b(?!\s\w+"
    r" (?:is|are|has))",
    re.IGNORECASE,
)
# A preposition of place just before a value: "in the ".
_WHERE = re.compile(r"\b(?:in|on|at|under|above|below|near)(?: the)? $", re.IGNORECASE)
_YEARS = range(1000, 2101)
# A verb that states what something is.
_IS = re.compile(r"\b(?:is|are|was|were|called)\b")
_LONGEST_GREETING = 6
"""Words of a first sentence that says nothing yet, such as "Let me answer this one."."""
_LEAST_COVERED = 0.6
"""Share of a yes-or-no question's words that a claim has at least in order to answer it."""


@dataclass(frozen=True, slots=True)
class StatedPoint:
    """Statements of several experts about one thing.

    Attributes:
        question: What was asked; empty where no part of the query asks it.
        owners: The domains whose experts were asked exactly this; empty where all were asked the
            whole query.
        sides: The claims, those that agree together; at most one claim of an expert.
    """

    question: str
    owners: frozenset[str]
    sides: tuple[tuple[Sentence, ...], ...]

    @property
    def is_disputed(self) -> bool:
        """Whether the experts state different things."""
        return len(self.sides) > 1

    @property
    def claims(self) -> tuple[Sentence, ...]:
        """Every claim of it."""
        return tuple(claim for side in self.sides for claim in side)


def find_points(
    example: Example, responses: Mapping[str, Response], claims: Mapping[str, Sequence[Sentence]]
) -> list[StatedPoint]:
    """Returns what several experts state of the same thing: first what the query asks, then what
    else they say alike.

    Args:
        example: What was asked, and of which experts.
        responses: The experts' responses by domain, those that count most first.
        claims: Their sentences, by domain.
    """
    asked = _Asked(example, responses)
    found: list[StatedPoint] = []
    taken: set[tuple[str, int]] = set()
    for place, question in enumerate(asked.questions):
        answers = [
            answer
            for domain in claims
            if (answer := asked.answer(place, domain, claims[domain])) is not None
        ]
        sides = _sides(answers, partial(_verdict, question, asked.is_ambiguous(question)))
        if sum(map(len, sides)) > 1:
            found.append(StatedPoint(question.text, asked.owners[place], sides))
            taken |= {(claim.domain, claim.place) for side in sides for claim in side}
    rest = {
        domain: [claim for claim in said if (domain, claim.place) not in taken]
        for domain, said in claims.items()
    }
    return found + [
        StatedPoint("", frozenset(), sides) for sides in _alike(example, responses, rest)
    ]


def contradict(first: str, second: str) -> bool:
    """Whether two sentences say the same but for a quantity, a date, a name or a negation.

    They have to share a word that says what they are about: "It is Japan." and "It is Au." are two
    answers. A sentence that differs in its first word is about something else, unless only one
    thing can be what it says, as in "Paris is the capital of France."

    Example:
        >>> contradict("Gold melts at 1064 °C.", "Gold melts at 961 °C."), contradict("It is safe.", "It is not safe.")
        (True, True)
        >>> contradict("Gold melts at 1064 °C.", "Gold melts at 1947 °F."), contradict("It is Japan.", "It is Au.")
        (False, False)
    """
    claims = {
        domain: claims_of(domain, text)[:1]
        for domain, text in (("first", first), ("second", second))
    }
    asked = Example(query="-", domains=tuple(claims))
    responses = {
        domain: Response(domain=domain, text=text)
        for domain, text in (("first", first), ("second", second))
    }
    return bool(_alike(asked, responses, claims))


class _Asked:
    """What a query asks, which of it each expert was asked, and which claim of an expert answers
    it.
    """

    def __init__(self, example: Example, responses: Mapping[str, Response]) -> None:
        own = {
            domain: questions_of(example.sub_questions[domain])
            for domain in responses
            if domain in example.sub_questions
        }
        self.questions = list(dict.fromkeys(question for said in own.values() for question in said))
        about = {question.about for question in self.questions}
        self.questions += [
            question for question in questions_of(example.query) if question.about not in about
        ]
        self.owners = [
            frozenset(domain for domain, said in own.items() if question in said)
            for question in self.questions
        ]
        heard = {
            domain: questions_of(response.question or example.question_for(domain))
            for domain, response in responses.items()
        }
        self._only = {
            domain: said[0]
            for domain, said in heard.items()
            if len(said) == 1 and not said[0].is_compound
        }
        self._claims: dict[str, dict[int, Sentence]] = {}

    def answer(self, place: int, domain: str, claims: Sequence[Sentence]) -> Sentence | None:
        """Returns the claim with which an expert answers a question, if there is one."""
        if domain not in self._claims:
            self._claims[domain] = self._assign(domain, claims)
        return self._claims[domain].get(place)

    def is_ambiguous(self, question: Question) -> bool:
        """Whether something else is asked about the same subject."""
        return (
            question.is_compound
            or sum(other.about == question.about for other in self.questions) > 1
        )

    def _assign(self, domain: str, claims: Sequence[Sentence]) -> dict[int, Sentence]:
        best: dict[int, tuple[tuple[int, int], Sentence]] = {}
        last_pointing = min((claim.place for claim in claims if not _is_greeting(claim)), default=0)
        for claim in claims:
            if claim.is_unsure:
                continue
            may_point = claim.place <= last_pointing
            found = {
                place: self._score(domain, question, claim, may_point=may_point)
                for place, question in enumerate(self.questions)
            }
            scores = {place: score for place, score in found.items() if score is not None}
            top = max(scores.values(), default=None)
            fitting = [place for place, score in scores.items() if score == top]
            if (
                top is not None
                and len(fitting) == 1
                and (fitting[0] not in best or best[fitting[0]][0] < top)
            ):
                best[fitting[0]] = (top, claim)
        return {place: claim for place, (_, claim) in best.items()}

    def _score(
        self, domain: str, question: Question, claim: Sentence, *, may_point: bool
    ) -> tuple[int, int] | None:
        """Returns how well a claim answers a question: how much of what is asked it has, and
        whether it names what that is asked about.
        """
        if not _answers(question, claim) or (question.hop and not question.hop & claim.all_words):
            return None
        covered = len(claim.all_words & question.all_words) + opposes(
            claim.all_words, question.all_words
        )
        is_short = (
            covered < _LEAST_COVERED * len(question.words)
            if question.kind == "yes or no"
            else not question.is_named_in(claim)
        )
        related = len(claim.all_words & question.relation)
        if not is_short:
            return related, 1
        if self._only.get(domain) != question or not question.is_pointed_at_by(claim):
            return None
        # A pronoun in a later sentence stands for something in the one before it, and not for what
        # was asked about.
        is_answer = (
            question.kind != "yes or no" or (claim.points and may_point) or _YES.match(claim.text)
        )
        return (related, 0) if is_answer else None


def _is_greeting(claim: Sentence) -> bool:
    return (
        not claim.is_checkable and not claim.points and len(tokens(claim.bare)) <= _LONGEST_GREETING
    )


def _answers(question: Question, claim: Sentence) -> bool:
    match question.kind:
        case "quantity":
            return bool(_quantities(question, claim))
        case "date":
            return bool(_dates(question, claim) or _quantities(question, claim))
        case "name":
            return bool(_names(question, claim))
        case "any":
            return bool(
                _names(question, claim)
                or _quantities(question, claim)
                or claim.of_kind(Date)
                or _noun(question, claim)
            )
        case "yes or no":
            return True
        case "open":
            return False


def _verdict(question: Question, is_ambiguous: bool, one: Sentence, other: Sentence) -> Verdict:
    """Whether two answers to a question agree."""
    if not hold_for_the_same(
        one, other, topic(question.text), is_permission=asks_for_permission(question.text)
    ):
        return "unrelated"
    covered = (one.all_words & question.all_words, other.all_words & question.all_words)
    if is_ambiguous and covered[0] - covered[1] and covered[1] - covered[0]:
        return "unrelated"
    if question.kind == "yes or no":
        kinds = [] if _YES.match(one.bare) or _YES.match(other.bare) else opposed_kinds(one, other)
        if any(kind != "negation" for kind in kinds):
            return "different" if len(kinds) % 2 else "unrelated"
        return "same" if _is_yes(question, one) == _is_yes(question, other) else "different"
    names = (_names(question, one), _names(question, other))
    if question.kind in ("name", "any") and all(names):
        verdict = _compare_all(*names)
        if verdict == "same" and question.kind == "any" and have_other_quantities(one, other):
            return "different"
        return (
            "unrelated"
            if verdict == "different"
            and (question.asks_several or _may_be_one_of_several(one, other))
            else verdict
        )
    nouns = (_noun(question, one), _noun(question, other))
    if question.kind == "any" and all(nouns):
        return (
            "same"
            if nouns[0] == nouns[1]
            else "unrelated"
            if question.asks_several
            else "different"
        )
    for values in (
        (_dates(question, one), _dates(question, other)),
        (_quantities(question, one), _quantities(question, other)),
    ):
        verdict = _compare_all(*values)
        if verdict == "different" and _name_different_things(question, one, other):
            return "unrelated"
        if verdict != "unrelated":
            return verdict
    return "unrelated"


def _is_yes(question: Question, claim: Sentence) -> bool:
    said = _YES.match(claim.bare)
    return (
        said["yes"] is not None
        if said
        else claim.denies == opposes(claim.all_words, question.all_words)
    )


def _may_be_one_of_several(one: Sentence, other: Sentence) -> bool:
    return one.frame == other.frame and _ONE_OF_SEVERAL.search(one.frame) is not None


def _name_different_things(question: Question, first: Sentence, second: Sentence) -> bool:
    """Whether one of two claims about quantities is about something that the other does not name:
    the Nile and the Blue Nile.

    What is named after the quantity is a detail, unless it is where that holds: "… 71 °C on Mount
    Everest".
    """
    named = [_names_told(question, claim) for claim in (first, second)]
    return any(
        all(compare(name, other) != "same" for other in named[1 - side])
        for side in (0, 1)
        for name in named[side]
    )


def _names_told(question: Question, claim: Sentence) -> list[Name]:
    value = min(
        (found.start for found in claim.values if not isinstance(found.value, Name)), default=0
    )
    early = [
        found.value
        for found in claim.values
        if found.start < value or _WHERE.search(claim.bare[: found.start])
    ]
    return [
        name
        for name in _names(question, claim)
        if not name.is_initial and any(name is told for told in early)
    ]


def _compare_all(first: Sequence[Value], second: Sequence[Value]) -> Verdict:
    verdicts = {compare(one, other) for one in first for other in second}
    return "same" if "same" in verdicts else "different" if "different" in verdicts else "unrelated"


def _names(question: Question, claim: Sentence) -> tuple[Name, ...]:
    """Returns the names in a claim that its question does not have."""
    known = set(tokens(question.text))
    sure = question.is_named_in(claim)
    return tuple(
        name
        for name in claim.of_kind(Name)
        if (sure or not name.is_initial) and not known.issuperset(name.words)
    )


def _dates(question: Question, claim: Sentence) -> tuple[Date, ...]:
    """Returns the dates in a claim; where a date is asked for, a bare number that can be a year is
    one.
    """
    years = [
        int(value.middle)
        for value in claim.of_kind(Quantity)
        if not value.dimension and value.middle in _YEARS
    ]
    return claim.of_kind(Date) or tuple(
        Date(year, None, None) for year in years if question.kind == "date"
    )


def _noun(question: Question, claim: Sentence) -> str:
    """Returns the one word that a claim adds to its question, where it says what is what: the
    currency is the *yen*.
    """
    added = claim.all_words - question.all_words
    if len(added) != 1 or claim.denies or not _IS.search(claim.bare):
        return ""
    has_value = (
        bool(_names(question, claim)) or bool(claim.of_kind(Quantity)) or bool(claim.of_kind(Date))
    )
    return "" if has_value else next(iter(added))


def _quantities(question: Question, claim: Sentence) -> tuple[Quantity, ...]:
    known = set(tokens(question.text))
    new = [
        found.value
        for found in claim.values
        if not known.issuperset(tokens(claim.bare[found.start : found.end]))
    ]
    return tuple(value for value in new if isinstance(value, Quantity))


def _sides(
    claims: Iterable[Sentence], verdict: Callable[[Sentence, Sentence], Verdict]
) -> tuple[tuple[Sentence, ...], ...]:
    """Sorts claims into sides: a claim joins the first side with all of which it agrees, and opens
    one where it contradicts every other.
    """
    sides: list[list[Sentence]] = []
    for claim in claims:
        verdicts = [{verdict(claim, other) for other in side} for side in sides]
        home = next(
            (side for side, found in zip(sides, verdicts, strict=True) if found == {"same"}), None
        )
        if home is not None:
            home.append(claim)
        elif all(found == {"different"} for found in verdicts):
            sides.append([claim])
    return tuple(map(tuple, sides))


def _alike(
    example: Example, responses: Mapping[str, Response], claims: Mapping[str, Sequence[Sentence]]
) -> list[tuple[tuple[Sentence, ...], ...]]:
    """Returns the sides of the disputes between sentences that are the same but for one value or a
    negation.
    """
    groups: dict[Hashable, dict[str, list[Sentence]]] = defaultdict(lambda: defaultdict(list))
    for domain, said in claims.items():
        for claim in said:
            for key in _keys(claim):
                groups[key][domain].append(claim)
    found, taken = [], set()
    for key, by_domain in groups.items():
        # An expert that says several things of one shape, such as the items of a list, doesn't mean
        # that only one of them holds.
        single = [
            said[0]
            for said in by_domain.values()
            if len({normalize(claim.text) for claim in said}) == 1
        ]
        single = [claim for claim in single if (claim.domain, claim.place) not in taken]
        sides = _sides(single, partial(_alike_verdict, example, responses, key))
        if len(sides) > 1:
            found.append(sides)
            taken |= {(claim.domain, claim.place) for side in sides for claim in side}
    return found


def _keys(claim: Sentence) -> list[Hashable]:
    """Returns what is the same in sentences that differ in one value, for each of the values, or in
    a negation.
    """
    if claim.is_unsure:
        return []
    values = [normalize(claim.bare[found.start : found.end]) for found in claim.values]
    keys: list[Hashable] = [
        (claim.frame, place, *values[:place], *values[place + 1 :]) for place in range(len(values))
    ]
    return [*keys, claim.all_words] if claim.all_words else keys


def _alike_verdict(
    example: Example,
    responses: Mapping[str, Response],
    key: Hashable,
    one: Sentence,
    other: Sentence,
) -> Verdict:
    questions = [responses[claim.domain].question for claim in (one, other)]
    if questions[0] != questions[1] and "" not in questions and example.query not in questions:
        return "unrelated"
    if isinstance(key, frozenset):
        if not hold_for_the_same(
            one, other, topic(example.query), is_permission=asks_for_permission(example.query)
        ):
            return "unrelated"
        return "same" if one.denies == other.denies else "different"
    place = key[1] if isinstance(key, tuple) else 0
    values = (one.values[place].value, other.values[place].value)
    verdict = compare(*values)
    if verdict == "different":
        if place == 0 and one.frame.startswith("<name>") and not _ONLY_ONE.match(one.frame):
            return "unrelated"
        if isinstance(values[0], Name) and (
            _ONE_OF_SEVERAL.search(one.frame) or _ONE_OF_A_KIND.search(one.frame)
        ):
            return "unrelated"
        if not one.words and len(one.values) < 2:
            return "unrelated"
    return verdict


def rule_claims(task: Task) -> tuple[Claim, ...]:
    """Returns every sentence of a task's responses as a claim."""
    return tuple(
        claim
        for number, domain in enumerate(sorted(task.responses), start=1)
        for claim in _claims_of(task, number, domain)
    )


def _claims_of(task: Task, number: int, domain: str) -> Iterator[Claim]:
    text = task.responses[domain].text
    spans = list(claim_spans(text))
    for place, (start, end) in enumerate(spans):
        read = one_claim(domain, text[start:end], place, is_alone=len(spans) == 1)
        yield Claim(f"{number}.{place + 1}", domain, read.text, start, end, unsure=read.is_unsure)


def rule_relations(task: Task, claims: Sequence[Claim]) -> tuple[Relation, ...]:
    """Returns how claims stand to each other, as far as their values and negations show it."""
    read = {domain: _taken_apart(domain, claims) for domain in sorted(task.responses)}
    id_of = {
        id(sentence): claim_id for said in read.values() for claim_id, sentence in said.items()
    }
    said = {domain: list(found.values()) for domain, found in read.items()}
    responses = {domain: task.responses[domain] for domain in sorted(task.responses)}
    relations: dict[tuple[str, str], Relation] = {}
    for point in find_points(task.example, responses, said):
        owner = next(iter(point.owners)) if len(point.owners) == 1 else ""
        for (one, side), (other, other_side) in combinations(_with_sides(point), 2):
            first, second = id_of[id(one)], id_of[id(other)]
            if side != other_side:
                relations[first, second] = Relation(
                    first, second, "contradicts", point=point.question, owner=owner
                )
                continue
            relations[first, second] = Relation(
                first, second, _agreement(one, other, point), point=point.question, owner=owner
            )
            relations[second, first] = Relation(
                second, first, _agreement(other, one, point), point=point.question, owner=owner
            )
        for again, against in _said_again(point, said):
            pair = id_of[id(again)], id_of[id(against)]
            relations.setdefault(
                pair, Relation(*pair, "contradicts", point=point.question, owner=owner)
            )
    related = {frozenset(pair) for pair in relations}
    for one, other in opposed_pairs(task.example.query, said):
        first, second = id_of[id(one)], id_of[id(other)]
        if frozenset((first, second)) not in related:
            owner = _owner_of(task, one.topic | other.topic)
            relations[first, second] = Relation(first, second, "contradicts", owner=owner)
    for first, second in _repetitions(claims):
        relations.setdefault((first, second), Relation(first, second, "same"))
    return tuple(relations.values())


def _owner_of(task: Task, about: frozenset[str]) -> str:
    """Returns the domain whose expert alone was asked about this; empty where no sub-question, or
    more than one, is about it.
    """
    shared = {
        domain: len(topic(question) & about)
        for domain, question in task.example.sub_questions.items()
    }
    best = [
        domain
        for domain, count in shared.items()
        if count >= LEAST_SHARED and count == max(shared.values())
    ]
    return best[0] if len(best) == 1 else ""


def _taken_apart(domain: str, claims: Sequence[Claim]) -> dict[str, Sentence]:
    own = [claim for claim in claims if claim.domain == domain]
    return {
        claim.id: one_claim(domain, claim.quote, place, is_alone=len(own) == 1)
        for place, claim in enumerate(own)
    }


def _with_sides(point: StatedPoint) -> list[tuple[Sentence, int]]:
    return [(claim, number) for number, side in enumerate(point.sides) for claim in side]


def _agreement(first: Sentence, second: Sentence, point: StatedPoint) -> Kind:
    """Returns `same` where the second sentence repeats the first one in other words and adds nothing,
    else `agrees`.
    """
    if normalize(first.bare) == normalize(second.bare):
        return "same"
    known = first.words | content(point.question)
    values = [
        found.value
        for found in second.values
        if not (isinstance(found.value, Name) and found.value.is_initial)
    ]
    adds_nothing = second.words <= known and all(
        any(says_no_more(value, found.value) for found in first.values) for value in values
    )
    return "same" if adds_nothing else "agrees"


def _said_again(
    point: StatedPoint, said: Mapping[str, Sequence[Sentence]]
) -> Iterator[tuple[Sentence, Sentence]]:
    """Yields the sentences in which an expert says once more what others contradict, each with one
    that contradicts it.
    """
    for (one, side), (other, other_side) in permutations(_with_sides(point), 2):
        if side != other_side:
            yield from (
                (again, other) for again in said[one.domain] if _says_again(again, one, other)
            )


def _says_again(sentence: Sentence, earlier: Sentence, other: Sentence) -> bool:
    values = telling(sentence)
    if sentence is earlier or not values or not all(is_stated(value, earlier) for value in values):
        return False
    return not any(is_stated(value, other) for value in values)


def rule_limits(task: Task) -> Iterator[str]:
    """Yields the pairs that the rules did not compare."""
    for domain, response in task.responses.items():
        said = [response.text[start:end] for start, end in claim_spans(response.text)]
        if len(said) > MOST:
            yield (
                f"of the {len(said)} sentences of {domain}, the first {MOST} were compared with"
                " those of the others"
            )
        if any(len(sentence) > LONGEST for sentence in said):
            yield (
                f"{domain} has sentences of more than {LONGEST} characters, which were not compared"
                " with those of the others"
            )


def _repetitions(claims: Sequence[Claim]) -> Iterator[tuple[str, str]]:
    """Yields the claims of different experts in the same words: the first one of each expert, and
    what it can stand for.
    """
    first: dict[str, dict[str, Claim]] = {}
    wordings = {quote: normalize(quote).rstrip(".!") for quote in {claim.quote for claim in claims}}
    for claim in claims:
        speakers = first.setdefault(wordings[claim.quote], {})
        is_first = claim.domain not in speakers
        for domain, earlier in speakers.items():
            if domain != claim.domain:
                yield earlier.id, claim.id
                if is_first:
                    yield claim.id, earlier.id
        speakers.setdefault(claim.domain, claim)
