"""The demo's questions: exact facts, and splits that share nothing but facts."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from domainfusion.demo.build_facts import discovery_country
from domainfusion.demo.questions import (
    TEST,
    TWO_HOP,
    UNASKED,
    FactCheck,
    QuestionSet,
    Sizes,
    build_questions,
)
from domainfusion.demo.world import World, load_world, world_folder
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.metrics import stated_parts, states
from domainfusion.types import Example


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(world_folder())


@pytest.fixture(scope="module")
def questions(world: World) -> QuestionSet:
    return build_questions(world)


def splits_of(questions: QuestionSet) -> tuple[tuple[Example, ...], ...]:
    return questions.train, questions.validation, questions.test


def facts_in(example: Example) -> set[str]:
    return set(example.metadata["facts"])


def test_every_domain_has_sixty_entities(world: World) -> None:
    for domain in world.domains:
        assert len({fact.key for fact in world.facts if fact.domain == domain}) >= 60


def test_facts_are_unique(world: World) -> None:
    assert len(world.by_id) == len(world.facts)


def test_every_bridge_leads_to_a_fact(world: World) -> None:
    for join in world.joins:
        assert all(world.end_of(join, bridge) for bridge in world.of_relation(join.bridge))


@pytest.mark.parametrize(
    ("place", "country"),
    [
        ("England", "United Kingdom"),
        ("England/Scotland", "United Kingdom"),
        ("Germany/France", None),
        (None, None),
        ("Spain", "Spain"),
    ],
)
def test_a_place_of_discovery_names_one_country_or_none(
    place: str | None, country: str | None
) -> None:
    assert discovery_country(place) == country


def test_no_question_gives_its_answer_away(questions: QuestionSet) -> None:
    for example in (example for split in splits_of(questions) for example in split):
        for part in example.parts:
            assert not states(example.query, part.answers[0]), example.query


def test_the_splits_share_no_query(questions: QuestionSet) -> None:
    train, validation, test = (
        {example.query for example in split} for split in splits_of(questions)
    )
    assert not train & validation and not train & test and not validation & test


@pytest.mark.parametrize("name", ["cross-domain", TWO_HOP])
def test_the_splits_share_no_pairing_and_no_bridge(questions: QuestionSet, name: str) -> None:
    train, validation, test = (
        {example.group for example in split if slice_of(example) == name}
        for split in splits_of(questions)
    )
    assert train and validation and test
    assert not train & validation and not train & test and not validation & test


# Facts that nobody asks


def test_a_fifth_of_the_facts_of_each_domain_is_asked_in_the_test_alone(
    world: World, questions: QuestionSet
) -> None:
    unasked = {fact.id for fact in questions.unasked}
    for domain in world.domains:
        own = {fact.id for fact in world.facts if fact.domain == domain}
        assert len(own & unasked) / len(own) == pytest.approx(0.2, abs=0.01)
    keys = "|".join(re.escape(key) for key in {fact.key for fact in questions.unasked})
    named = re.compile(rf"\b(?:{keys})\b")
    for example in (*questions.train, *questions.validation):
        assert not facts_in(example) & unasked, example.query
        assert not named.search(example.query), example.query
    for example in questions.test:
        is_unasked = slice_of(example) == UNASKED
        assert facts_in(example) <= unasked if is_unasked else not facts_in(example) & unasked
    assert {fact for example in questions.test for fact in facts_in(example)} >= unasked


def test_the_unasked_facts_leave_as_many_bridges_as_they_can(
    world: World, questions: QuestionSet
) -> None:
    asked = {fact.id for fact in questions.asked}
    for join in world.joins:
        bridges = [fact for fact in world.of_relation(join.bridge) if fact.id in asked]
        ends = [world.end_of(join, bridge) for bridge in bridges]
        assert all(end is not None and end.id in asked for end in ends)


def test_a_student_that_knows_its_training_questions_alone_shows_nothing_there(
    questions: QuestionSet,
) -> None:
    by_fact = {}
    for example in questions.train:
        if len(example.metadata["facts"]) == 1:
            by_fact[example.group] = example.parts[0].answers[0]
    grades: dict[str, list[float]] = {}
    for example in questions.test:
        answer = by_fact.get(example.group, "I do not know.")
        grades.setdefault(slice_of(example), []).append(stated_parts(example, answer).value or 0.0)
    assert sum(grades[UNASKED]) == 0
    assert sum(grades["geography"]) == len(grades["geography"])


def test_nothing_is_unasked_where_no_share_is_wanted(world: World) -> None:
    every = build_questions(world, unasked=0.0)
    assert every.unasked == ()
    assert UNASKED not in {slice_of(example) for example in every.test}


# The test set


def test_the_test_set_is_large_enough(world: World, questions: QuestionSet) -> None:
    counts = Counter(slice_of(example) for example in questions.test)
    assert all(counts[domain] >= 96 for domain in world.domains)
    assert counts["cross-domain"] == 3 * TEST.pairs
    assert counts[TWO_HOP] == len(world.joins) * TEST.two_hop
    assert counts["adversarial"] == len(world.borders) * TEST.borders
    assert counts[UNASKED] == len(questions.unasked)


def test_the_adversarial_questions_cover_every_border(world: World, questions: QuestionSet) -> None:
    borders = {
        (example.apparent_domain, example.primary_domain)
        for example in questions.test
        if slice_of(example) == "adversarial"
    }
    assert len(borders) == len(world.domains) * (len(world.domains) - 1)


def test_the_grader_takes_the_gold_and_refuses_another_answer(questions: QuestionSet) -> None:
    for example in questions.test:
        gold = ". ".join(part.answers[0] for part in example.parts)
        assert stated_parts(example, gold).value == 1
        assert stated_parts(example, "I do not know.").value == 0


def test_the_same_seed_gives_the_same_questions(world: World, questions: QuestionSet) -> None:
    assert build_questions(world, seed=0) == questions
    assert build_questions(world, seed=1).test != questions.test


@pytest.mark.parametrize("kind", [TWO_HOP, "adversarial"])
def test_what_is_not_a_pair_is_asked_in_as_many_phrasings_as_wanted(
    world: World, kind: str
) -> None:
    def asked(phrasings: int) -> Counter[tuple[str, ...]]:
        sizes = Sizes(singles=1, pairs=1, two_hop=30, borders=10, phrasings=phrasings)
        own = [one for one in build_questions(world, train=sizes).train if slice_of(one) == kind]
        assert len({one.query for one in own}) == len(own)
        return Counter((*one.metadata["facts"], one.apparent_domain or "") for one in own)

    once = asked(1)
    assert set(once.values()) == {1}
    assert asked(2) == Counter(dict.fromkeys(once, 2))


def test_a_world_with_few_facts_gives_fewer_questions_and_does_not_hang() -> None:
    small = load_world(Path(__file__).with_name("sky_and_song"))
    many = Sizes(singles=10_000, pairs=10_000, two_hop=10_000, borders=10_000, phrasings=99)
    found = build_questions(small, train=many, validation=many, test=many)
    pairs = [
        example.group for split in splits_of(found) for example in split if len(example.parts) > 1
    ]
    assert len(pairs) == len(set(pairs)) > 100


def test_the_most_frequent_answer_is_one_of_its_kind(world: World, questions: QuestionSet) -> None:
    two_hops = [example for example in questions.test if slice_of(example) == TWO_HOP]
    assert {len(example.parts) for example in two_hops} == {1}
    for example in two_hops:
        final = example.metadata["relations"][1]
        known = {fact.answers[0] for fact in world.of_relation(final)}
        assert questions.modes[example.query] in known


# Generated questions


def checked(questions: QuestionSet, query: str, *domains: str) -> Example | str:
    check = FactCheck(questions.asked, questions.unasked)
    return check(Example(query=query, domains=domains))


@pytest.mark.parametrize(
    ("query", "domain", "answer"),
    [
        ("What is the capital of Finland?", "geography", "Helsinki"),
        ("What is the official currency of Japan?", "geography", "JPY"),
        ("Which element symbol stands for nickel in the periodic table?", "chemistry", "Ni"),
        ("In which country is the NRT airport located?", "aviation", "Japan"),
    ],
)
def test_a_generated_question_that_asks_a_fact_is_kept_with_its_answer(
    questions: QuestionSet, query: str, domain: str, answer: str
) -> None:
    found = checked(questions, query, domain)
    assert isinstance(found, Example)
    assert found.parts[0].answers[0] == answer


def test_one_across_domains_is_kept_where_both_sides_ask_a_fact(questions: QuestionSet) -> None:
    query = "What is the capital of Finland, and which symbol stands for nickel?"
    found = checked(questions, query, "geography", "chemistry")
    assert isinstance(found, Example)
    assert [part.answers[0] for part in found.parts] == ["Helsinki", "Ni"]
    assert set(found.sub_questions) == {"geography", "chemistry"}
    alone = checked(questions, "What is the capital of Finland?", "geography", "chemistry")
    assert alone == "does not ask one fact of each of its domains"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("What is the capital of Atlantis?", "names nothing that the experts know"),
        (
            "What is the most popular food in Finland?",
            "does not ask one fact of each of its domains",
        ),
        (
            "What is the largest lake near the capital of Finland?",
            "asks for more than the facts say",
        ),
        ("Is the capital of Finland called Helsinki?", "asks for more than the facts say"),
        ("What is the capital of Finland, Helsinki?", "asks for more than the facts say"),
        (
            "Name the capital and the currency of Finland.",
            "does not ask one fact of each of its domains",
        ),
        ("", "names nothing that the experts know"),
        ("?" * 5_000, "names nothing that the experts know"),
    ],
)
def test_one_whose_answer_no_fact_says_is_rejected(
    questions: QuestionSet, query: str, reason: str
) -> None:
    assert checked(questions, query, "geography") == reason


def test_one_about_an_unasked_fact_is_rejected(questions: QuestionSet) -> None:
    for fact in questions.unasked:
        found = checked(questions, fact.questions("train")[0], fact.domain)
        assert found == "names what is kept out of training"


@pytest.mark.slow
def test_the_committed_facts_are_what_the_packages_say() -> None:
    from domainfusion.demo.build_facts import build_facts

    committed, built = (
        json.loads((world_folder() / "facts.json").read_text(encoding="utf-8")),
        build_facts(),
    )
    assert {key: value for key, value in committed.items() if key != "sources"} == {
        key: value for key, value in built.items() if key != "sources"
    }
