"""Shapes that several kinds of cases share: who is asked what, who answers, and who is right."""

from __future__ import annotations

from writing import Case, Point, Said, Writer, covering, dispute


def single(
    writer: Writer,
    variant: str,
    point: Point,
    said: dict[str, Said],
    covered: list[dict[str, object]],
) -> Case:
    """One question that all experts were asked, without a conflict; the first is the primary
    one.
    """
    home = next(iter(said))
    responses = {
        domain: writer.response(one.sentence, point.relation, place)
        for place, (domain, one) in enumerate(said.items())
    }
    return Case(
        template=template(variant, point),
        facts=[point.fact],
        query=writer.asked(point),
        primary_domain=home,
        responses=writer.shuffled(responses),
        covered=covered,
        right_answer=said[home].sentence,
    )


def against_the_expert(
    writer: Writer, variant: str, point: Point, right: Said, wrong: Said
) -> Case:
    home, other = point.relation.domain, *writer.others(1, point.relation.domain)
    responses = {
        home: writer.response(right.sentence, point.relation, 0),
        other: writer.response(wrong.sentence, point.relation, 1),
    }
    return disputed(writer, variant, point, {home: right}, {other: wrong}, responses)


def disputed(
    writer: Writer,
    variant: str,
    point: Point,
    winners: dict[str, Said],
    losers: dict[str, Said],
    responses: dict[str, str],
    *,
    settled: bool = True,
    copied: list[list[str]] | None = None,
) -> Case:
    """One question, disputed; the primary domain is that of the point."""
    home = point.relation.domain
    said = next(iter(winners.values())).sentence
    return Case(
        template=template(variant, point),
        facts=[point.fact],
        query=writer.asked(point),
        primary_domain=home,
        asks=home,
        responses=writer.shuffled(responses),
        copies=copied or [],
        conflicts=[dispute(winners, losers, settled=settled)],
        covered=[covering(next(iter(winners)), *winners.values())] if settled else [],
        right_answer=said if settled else "The experts disagree.",
    )


def without_the_expert(writer: Writer, number: int, supporters: int, opponents: int) -> Case:
    """The primary expert answers another part, nothing, or that it does not know."""
    variant = ("silent", "empty", "unsure")[number % 3]
    point = writer.point(writer.relation())
    home = point.relation.domain
    named = writer.others(supporters + opponents, home)
    unit = number // 3 % 2 if point.relation.values in ("quantity", "date") else 0
    winners = {
        domain: writer.say(point, number + place, unit=unit * place)
        for place, domain in enumerate(named[:supporters])
    }
    losers = {
        domain: writer.say(point, number + place, wrong=True)
        for place, domain in enumerate(named[supporters:])
    }
    everyone = {**winners, **losers}
    responses = {
        domain: writer.response(one.sentence, point.relation, place)
        for place, (domain, one) in enumerate(everyone.items())
    }
    unsure = writer.turn("unsure", writer.half.unsure)
    case = disputed(
        writer, variant, point, winners, losers, responses, settled=supporters > opponents
    )
    if variant == "silent":
        return with_another_part(writer, case, home, *named)
    case.responses = writer.shuffled({**case.responses, home: "" if variant == "empty" else unsure})
    return case


def with_another_part(
    writer: Writer, case: Case, home: str, *named: str, refer: bool = False
) -> Case:
    """Adds a question that a further expert answers, the primary one unless the reference is about
    it.
    """
    free = [relation for relation in writer.half.relations if relation.domain not in (home, *named)]
    other = writer.point(writer.random.choice(free))
    said = writer.say(other, 0)
    domain = other.relation.domain
    case.query = writer.both(writer.asked(other), case.query)
    case.facts.append(other.fact)
    case.responses = writer.shuffled(
        {**case.responses, domain: writer.response(said.sentence, other.relation)}
    )
    case.covered.append(covering(domain, said))
    case.right_answer = f"{case.right_answer} {said.sentence}"
    if refer:
        case.reference = writer.say(other, 1).sentence
    else:
        case.primary_domain, case.asks = domain, None
    return case


def points_of_different_domains(writer: Writer, number: int) -> list[Point]:
    points: list[Point] = []
    while len(points) < number:
        relation = writer.random.choice(writer.half.relations)
        if relation.domain not in [point.relation.domain for point in points]:
            points.append(writer.point(relation))
    return points


def respond(
    writer: Writer, points: list[Point], said: dict[str, Said], *, short: bool
) -> dict[str, str]:
    layout = "{x}" if short else ""
    return {
        point.relation.domain: writer.response(
            said[point.relation.domain].sentence, point.relation, layout=layout
        )
        for point in points
    }


def template(variant: str, *points: Point) -> str:
    return f"{variant}/{'+'.join(point.relation.name for point in points)}"
