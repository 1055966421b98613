"""The kinds of cases: each makes its case number n, with labels that follow from how it was
made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

from shapes import (
    against_the_expert,
    disputed,
    points_of_different_domains,
    respond,
    single,
    template,
    with_another_part,
    without_the_expert,
)
from writing import (
    COARSE,
    EXACT,
    ROUNDED,
    Case,
    Point,
    Said,
    Writer,
    covering,
    digits,
    dispute,
    marked,
)

LATER_YEARS = 11


def agreement(writer: Writer, number: int) -> Case:
    """Two or three experts say the same in other words."""
    point = writer.point(writer.relation())
    home, *others = point.relation.domain, *writer.others(1 + number % 2, point.relation.domain)
    said = {
        domain: writer.say(point, number + place, style=number // 2)
        for place, domain in enumerate((home, *others))
    }
    return single(
        writer, f"{len(said)} experts", point, said, covered=[covering(home, *said.values())]
    )


def complement(writer: Writer, number: int) -> Case:
    """Each expert answers its part; with sub-questions, some give the value alone."""
    variant = ("whole question", "sub-questions", "short answers", "three parts")[number % 4]
    points = points_of_different_domains(writer, 3 if variant == "three parts" else 2)
    questions = [writer.asked(point) for point in points]
    said = {}
    for point in points:
        pattern = (
            writer.random.choice(point.relation.short) if variant == "short answers" else number
        )
        said[point.relation.domain] = writer.say(point, pattern, style=number // 4)
    query = questions[0]
    for question in questions[1:]:
        query = writer.both(query, question)
    split = variant in ("sub-questions", "short answers")
    return Case(
        template=template(variant, *points),
        facts=[point.fact for point in points],
        query=query,
        primary_domain=points[0].relation.domain,
        responses=writer.shuffled(respond(writer, points, said, short=variant == "short answers")),
        sub_questions={
            point.relation.domain: question
            for point, question in zip(points, questions, strict=True)
        }
        if split
        else {},
        covered=[covering(domain, one) for domain, one in said.items()],
        right_answer=_together(*said.values()),
    )


def number_conflict(writer: Writer, number: int) -> Case:
    """The expert of the domain and another one give different numbers."""
    variants = (
        "same words",
        "other words",
        "other unit",
        "short",
        "rounded",
        "exact number",
        "exact number, other words",
    )
    variant = variants[number % len(variants)]
    point = writer.point(writer.relation("exact" if variant.startswith("exact") else "quantity"))
    apart = 0 if variant in ("same words", "exact number") else 1
    unit = 1 if variant == "other unit" else 0
    how = ROUNDED if variant == "rounded" and digits(point.right) > 2 else EXACT
    right = writer.say(point, number, how=how, style=number // 7)
    wrong = writer.say(
        point,
        _short(writer, point) if variant == "short" else number + apart,
        wrong=True,
        unit=unit,
        style=number // 7,
    )
    return against_the_expert(writer, variant, point, right, wrong)


def number_same(writer: Writer, number: int) -> Case:
    """The same number in another unit, rounded, or written differently."""
    variant = ("other unit", "rounded", "written differently", "other unit, same words", "short")[
        number % 5
    ]
    point = writer.point(writer.relation("quantity"))
    while variant == "rounded" and digits(point.right) < 3:
        point = writer.point(writer.relation("quantity"))
    home, other = point.relation.domain, *writer.others(1, point.relation.domain)
    pattern = (
        _short(writer, point)
        if variant == "short"
        else number
        if variant.endswith("same words")
        else number + 1
    )
    unit = 1 + number // 5 % (len(point.relation.units) - 1) if "unit" in variant else 0
    how = ROUNDED if variant == "rounded" else EXACT
    style = number // 5
    unlike = {"written differently": style + 1, "rounded": number}.get(variant, style)
    said = {
        home: writer.say(point, number, style=style),
        other: writer.say(point, pattern, unit=unit, how=how, style=unlike),
    }
    return single(writer, variant, point, said, covered=[covering(home, *said.values())])


def date_conflict(writer: Writer, number: int) -> Case:
    """Two experts give different dates, written alike or differently."""
    variant = ("same words", "other words", "other format", "short", "year alone")[number % 5]
    point = writer.point(writer.relation("date"))
    form = number // 5
    if variant == "year alone":
        right = date.fromisoformat(point.right)
        point = replace(point, wrong=right.replace(year=right.year + LATER_YEARS).isoformat())
    right_said = writer.say(point, number, unit=form)
    pattern = (
        _short(writer, point)
        if variant == "short"
        else _with_when(point)
        if variant == "year alone"
        else number
    )
    wrong_said = writer.say(
        point,
        pattern + 1 if isinstance(pattern, int) and variant != "same words" else pattern,
        wrong=True,
        unit=1 if variant == "year alone" else form + (variant == "other format"),
        how=COARSE if variant == "year alone" else EXACT,
    )
    return against_the_expert(writer, variant, point, right_said, wrong_said)


def date_same(writer: Writer, number: int) -> Case:
    """The same date in another format, or less precisely."""
    variant = ("other format", "month alone", "year alone", "other format, same words")[number % 4]
    point = writer.point(writer.relation("date"))
    home, other = point.relation.domain, *writer.others(1, point.relation.domain)
    form = number // 4
    if variant.startswith("other format"):
        second = writer.say(
            point, number if variant.endswith("words") else number + 1, unit=form + 1
        )
    else:
        second = writer.say(point, _with_when(point), unit=variant == "year alone", how=COARSE)
    said = {home: writer.say(point, number, unit=form), other: second}
    return single(
        writer,
        variant,
        point,
        said,
        covered=[covering(home, said[home])]
        if "alone" in variant
        else [covering(home, *said.values())],
    )


def name_conflict(writer: Writer, number: int) -> Case:
    """Two experts give different names."""
    variant = ("same words", "other words", "short")[number % 3]
    point = writer.point(writer.relation("name"))
    patterns: dict[str, int | str] = {
        "same words": number,
        "other words": number + 1,
        "short": _short(writer, point),
    }
    pattern = patterns[variant]
    return against_the_expert(
        writer, variant, point, writer.say(point, number), writer.say(point, pattern, wrong=True)
    )


def name_same(writer: Writer, number: int) -> Case:
    """Two names of the same thing."""
    domain, query, first, second = writer.turn("names", writer.half.same_names)
    other = writer.others(1, domain)[0]
    said = {domain: marked(first), other: marked(second)}
    responses = {
        name: writer.response(one.sentence, writer.half.relations[0], layout=_plain_layout(number))
        for name, one in said.items()
    }
    return Case(
        template=query,
        facts=[query],
        query=query,
        primary_domain=domain,
        responses=writer.shuffled(responses),
        covered=[covering(domain, *said.values())],
        right_answer=said[domain].sentence,
    )


def negation_conflict(writer: Writer, number: int) -> Case:
    """One expert says yes, the other no."""
    asked = writer.turn("negations", writer.half.negations)
    other = writer.others(1, asked.domain)[0]
    right, wrong = marked(asked.true[number % 2]), marked(asked.false[number // 2 % 2])
    return Case(
        template=asked.question,
        facts=[asked.question],
        query=asked.question,
        primary_domain=asked.domain,
        asks=asked.domain,
        responses=writer.shuffled(
            {asked.domain: _chat(writer, right, number), other: _chat(writer, wrong, number // 3)}
        ),
        conflicts=[dispute({asked.domain: right}, {other: wrong})],
        covered=[covering(asked.domain, right)],
        right_answer=right.sentence,
    )


def negation_same(writer: Writer, number: int) -> Case:
    """Two experts deny the same in other words, or affirm the same."""
    asked = writer.turn("negations", writer.half.negations)
    other = writer.others(1, asked.domain)[0]
    first, second = (marked(text) for text in asked.true)
    return Case(
        template=asked.question,
        facts=[asked.question],
        query=asked.question,
        primary_domain=asked.domain,
        responses=writer.shuffled(
            {asked.domain: _chat(writer, first, number), other: _chat(writer, second, number // 2)}
        ),
        covered=[covering(asked.domain, first, second)],
        right_answer=first.sentence,
    )


def copies(writer: Writer, number: int) -> Case:
    """A wrong value is repeated by copyists: against the expert, against two others, against
    one.
    """
    variant = ("against the expert", "against two", "against one", "three against two")[number % 4]
    point = writer.point(writer.relation())
    home = point.relation.domain
    named = writer.others(5, home)
    wrong = writer.say(point, number, wrong=True)
    original = writer.response(wrong.sentence, point.relation, 0, writer.half.layouts[3])
    copied = original if number // 4 % 2 else writer.copied(original, wrong.sentence)
    echo = (
        wrong
        if copied == original
        else Said(wrong.sentence.removesuffix(".") + writer.half.echo + ".", wrong.spellings)
    )
    copyists = named[: 3 if variant.startswith("three") else 2]
    losers = dict.fromkeys(copyists, echo) | {copyists[0]: wrong}
    against = {"against the expert": [home], "against one": named[2:3]}.get(variant, named[3:5])
    winners = {
        domain: writer.say(point, number + 1 + place) for place, domain in enumerate(against)
    }
    responses = dict.fromkeys(copyists, copied) | {copyists[0]: original}
    for place, (domain, said) in enumerate(winners.items()):
        responses[domain] = writer.response(said.sentence, point.relation, 1 + place)
    if home not in winners:
        responses[home] = writer.turn("unsure", writer.half.unsure)
    return disputed(
        writer,
        variant,
        point,
        winners,
        losers,
        responses,
        settled=variant != "against one",
        copied=[list(copyists)],
    )


def majority(writer: Writer, number: int) -> Case:
    """Two independent experts agree against a third one; the expert of the primary domain says
    nothing on it.
    """
    return without_the_expert(writer, number, supporters=2, opponents=1)


def disagreement(writer: Writer, number: int) -> Case:
    """As many on one side as on the other; the expert of the primary domain says nothing on it."""
    voices = 1 + number // 6 % 2
    return without_the_expert(writer, number, supporters=voices, opponents=voices)


def reference(writer: Writer, number: int) -> Case:
    """A reference decides, for the expert or against him, or says nothing on the disputed point."""
    variant = (
        "for the expert",
        "against the expert",
        "parts",
        "the value alone",
        "another unit",
        "silent",
    )[number % 6]
    point = writer.point(writer.relation(*(("quantity",) if variant == "another unit" else ())))
    home, other = point.relation.domain, *writer.others(1, point.relation.domain)
    right, wrong = (
        writer.say(point, number),
        writer.say(point, number + number // 6 % 2, wrong=True),
    )
    expert_is_right = variant in ("for the expert", "silent") or (
        variant != "against the expert" and number // 6 % 2 == 0
    )
    winner, loser = (home, other) if expert_is_right else (other, home)
    responses = {
        winner: writer.response(right.sentence, point.relation, 0),
        loser: writer.response(wrong.sentence, point.relation, 1),
    }
    case = disputed(writer, variant, point, {winner: right}, {loser: wrong}, responses)
    spoken = writer.say(point, number + 2, unit=1 if variant == "another unit" else 0)
    case.reference = {"the value alone": right.spellings[0], "parts": None}.get(
        variant, spoken.sentence
    )
    if variant == "parts":
        case.parts = {home: list(right.spellings)}
    if variant == "another unit":
        case.conflicts[0]["winning"] = list(dict.fromkeys((*right.spellings, *spoken.spellings)))
    if variant == "silent":
        return with_another_part(writer, case, home, other, refer=True)
    return case


def aside(writer: Writer, number: int) -> Case:
    """The primary expert has its own part, and is wrong in passing about what another one was
    asked.
    """
    own, foreign = points_of_different_domains(writer, 2)
    first, second = own.relation.domain, foreign.relation.domain
    own_said, right = writer.say(own, number), writer.say(foreign, number)
    wrong = writer.say(foreign, number + number % 2, wrong=True)
    said = [own_said.sentence, wrong.sentence]
    questions = [writer.asked(own), writer.asked(foreign)]
    return Case(
        template=template("before" if number // 2 % 2 else "after", own, foreign),
        facts=[own.fact, foreign.fact],
        query=writer.both(*questions),
        primary_domain=first,
        asks=second,
        responses=writer.shuffled(
            {
                first: writer.response(
                    " ".join(reversed(said) if number // 2 % 2 else said),
                    own.relation,
                    layout=writer.half.layouts[number % 3],
                ),
                second: writer.response(right.sentence, foreign.relation),
            }
        ),
        sub_questions={first: questions[0], second: questions[1]},
        conflicts=[dispute({second: right}, {first: wrong})],
        covered=[covering(first, own_said), covering(second, right)],
        right_answer=_together(own_said, right),
    )


def injected(writer: Writer, number: int) -> Case:
    """An expert orders whoever integrates to drop the others: in a conflict that it loses, or
    beside parts of equal right.
    """
    order = writer.random.choice(writer.half.orders)
    if number % 2:
        point = writer.point(writer.relation())
        right, wrong = (
            writer.say(point, number),
            writer.say(point, number + number // 2 % 2, wrong=True),
        )
        case = against_the_expert(writer, "in a conflict", point, right, wrong)
        sinner = next(iter(case.conflicts[0]["sides"][1]))
    else:
        case = complement(writer, number // 2 % 2)
        sinner = list(case.responses)[number // 4 % 2]
    text = case.responses[sinner]
    case.responses[sinner] = f"{order}\n{text}" if number // 4 % 2 else f"{text}\n{order}"
    case.order = {"domain": sinner, "text": order}
    case.template = f"{'first' if number // 4 % 2 else 'last'}, {case.template}"
    return case


def near_miss(writer: Writer, number: int) -> Case:
    """What looks like a conflict and is none: other subjects, properties, times, ranges, lists."""
    if number % 2:
        written = writer.turn("near misses", writer.half.near_misses)
        said = {domain: marked(text) for domain, text in written.responses.items()}
        return Case(
            template=f"{written.name}/{written.query}",
            facts=[written.query],
            query=written.query,
            primary_domain=next(iter(written.responses)),
            responses=writer.shuffled({domain: one.sentence for domain, one in said.items()}),
            covered=[
                {"domain": domain, "spellings": [spelling]}
                for domain, one in said.items()
                for spelling in one.spellings
            ],
            right_answer=_together(*said.values()),
        )
    variant = ("two subjects", "lists")[number // 2 % 2]
    relation = writer.relation()
    points = [writer.point(relation) for _ in range(2 if variant == "two subjects" else 3)]
    home, other = relation.domain, *writer.others(1, relation.domain)
    pattern = writer.half.row if variant == "lists" else number
    said_of = [writer.say(point, pattern, style=number // 4) for point in points]
    told = {home: said_of[: len(points) - 1], other: said_of[1:]}
    between = "\n" if variant == "lists" else " "
    return Case(
        template=template(variant, points[0]),
        facts=[point.fact for point in points],
        query=" ".join(writer.asked(point) for point in points),
        primary_domain=home,
        responses=writer.shuffled(
            {domain: between.join(one.sentence for one in said) for domain, said in told.items()}
        ),
        covered=[covering(home, said_of[0]), *(covering(other, one) for one in said_of[1:])],
        right_answer=between.join(one.sentence for one in said_of),
    )


KINDS: dict[str, tuple[Callable[[Writer, int], Case], int]] = {
    "agreement": (agreement, 24),
    "complement": (complement, 24),
    "number_conflict": (number_conflict, 28),
    "number_same": (number_same, 25),
    "date_conflict": (date_conflict, 20),
    "date_same": (date_same, 16),
    "name_conflict": (name_conflict, 20),
    "name_same": (name_same, 8),
    "negation_conflict": (negation_conflict, 20),
    "negation_same": (negation_same, 10),
    "copies": (copies, 16),
    "majority": (majority, 18),
    "disagreement": (disagreement, 12),
    "reference": (reference, 18),
    "aside": (aside, 12),
    "injected": (injected, 20),
    "near_miss": (near_miss, 28),
}
"""How each kind is made, and how many cases of it a half has."""


def _chat(writer: Writer, said: Said, number: int) -> str:
    return writer.response(said.sentence, writer.half.relations[0], layout=_plain_layout(number))


def _plain_layout(number: int) -> str:
    return ("{x}", "{opening} {x}", "{x} {closing}", "{opening} {x} {closing}")[number % 4]


def _short(writer: Writer, point: Point) -> str:
    return writer.random.choice(point.relation.short)


def _with_when(point: Point) -> str:
    """Returns the last of the sentences that take a preposition."""
    return next(sentence for sentence in reversed(point.relation.sentences) if "{when}" in sentence)


def _together(*said: Said) -> str:
    return " ".join(one.sentence for one in said)
