"""Reading and relating by rules: every sentence is a claim, and two claims conflict where their
values or a negation do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations

from domainfusion.distillation.integration.claims import LONGEST, MOST, Sentence, one_claim
from domainfusion.distillation.integration.conflicts import StatedPoint, find_points
from domainfusion.distillation.integration.pairs import LEAST_SHARED, opposed_pairs
from domainfusion.distillation.integration.reading import Claim, Kind, Relation, Task
from domainfusion.distillation.integration.settling import is_stated, telling
from domainfusion.distillation.integration.structure import claim_spans
from domainfusion.distillation.integration.values import Name, says_no_more
from domainfusion.distillation.integration.words import content, topic
from domainfusion.distillation.metrics import normalize
from domainfusion.models.store import Ask


class RuleReader:
    """Takes every sentence for a claim; asks nothing."""

    def read(self, tasks: Sequence[Task], *, ask: Ask) -> list[tuple[Claim, ...]]:
        """Returns the sentences of each task's responses; see `Reader`."""
        return [rule_claims(task) for task in tasks]


class RuleRelater:
    """Compares the values and negations of claims; asks nothing."""

    def relate(
        self, tasks: Sequence[Task], claims: Sequence[Sequence[Claim]], *, ask: Ask
    ) -> list[tuple[Relation, ...]]:
        """Returns what the rules see of how claims stand to each other; see `Relater`."""
        return [rule_relations(task, said) for task, said in zip(tasks, claims, strict=True)]


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
    """Says whether the second sentence says in other words what the first one says, and nothing
    beyond it.
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
    """Yields what the rules did not compare."""
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
