"""The demo's questions: exact facts, and splits that share nothing but facts."""

import json

import pytest

from domainfusion.demo.build_facts import FACTS_PATH, discovery_country
from domainfusion.demo.questions import DOMAINS, PAIR_PHRASINGS, RELATIONS, TEST, TWO_HOP_PHRASINGS, build_questions, load_facts
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.metrics import stated_parts, states


@pytest.fixture(scope="module")
def questions():
    return build_questions()


def test_every_domain_has_sixty_entities():
    entities = {domain: {fact.key for fact in load_facts() if fact.domain == domain} for domain in DOMAINS}
    assert all(len(found) >= 60 for found in entities.values())


def test_facts_are_unique():
    ids = [fact.id for fact in load_facts()]
    assert len(ids) == len(set(ids))


def test_every_country_of_a_bridge_has_a_capital_a_currency_and_a_calling_code():
    facts = {fact.id: fact for fact in load_facts()}
    bridges = [fact for fact in facts.values() if fact.relation in ("airport_country", "element_country")]
    for bridge in bridges:
        for relation in ("country_capital", "country_currency", "country_calling_code"):
            assert f"{relation}/{bridge.answers[0]}" in facts


@pytest.mark.parametrize(
    ("place", "country"),
    [("England", "United Kingdom"), ("England/Scotland", "United Kingdom"), ("Germany/France", None), (None, None), ("Spain", "Spain")],
)
def test_a_place_of_discovery_names_one_country_or_none(place, country):
    assert discovery_country(place) == country


def test_a_fact_states_its_own_answer():
    for fact in load_facts():
        assert all(states(fact.sentence(), answer) for answer in fact.answers[:1])


def test_no_question_gives_its_answer_away(questions):
    for example in (*questions.train, *questions.validation, *questions.test):
        assert not any(states(example.query, answer) for part in example.parts for answer in part.answers[:1]), example.query


def test_the_splits_share_no_query_and_no_phrasing(questions):
    queries = [{example.query for example in split} for split in (questions.train, questions.validation, questions.test)]
    assert not queries[0] & queries[1]
    assert not queries[0] & queries[2]
    assert not queries[1] & queries[2]
    for phrasings in (*(relation.phrasings for relation in RELATIONS.values()), PAIR_PHRASINGS, *TWO_HOP_PHRASINGS.values()):
        every = [phrasing for split in phrasings.values() for phrasing in split]
        assert len(every) == len(set(every))


def test_the_splits_share_no_pairing_and_no_bridge(questions):
    for name in ("cross-domain", "two-hop"):
        splits = (questions.train, questions.validation, questions.test)
        groups = [{example.group for example in split if slice_of(example) == name} for split in splits]
        assert all(groups)
        assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


def test_the_test_set_is_large_enough(questions):
    counts = [slice_of(example) for example in questions.test]
    assert all(counts.count(domain) >= 100 for domain in DOMAINS)
    assert counts.count("cross-domain") >= 100
    assert counts.count("two-hop") >= 60
    assert len(questions.test) == 3 * TEST.singles + 3 * TEST.pairs + 4 * TEST.two_hop


def test_the_grader_takes_the_gold_and_refuses_another_answer(questions):
    for example in questions.test:
        gold = ". ".join(part.answers[0] for part in example.parts)
        assert stated_parts(example, gold).value == 1
        assert stated_parts(example, "I do not know.").value == 0


def test_the_same_seed_gives_the_same_questions(questions):
    assert build_questions(seed=0) == questions
    assert build_questions(seed=1).test != questions.test


def test_no_constant_answer_beats_the_most_frequent_one(questions):
    two_hops = [example for example in questions.test if slice_of(example) == "two-hop"]
    assert {len(example.parts) for example in two_hops} == {1}
    for example in two_hops:
        final = example.metadata["relations"][1]
        assert questions.modes[example.query] in {fact.answers[0] for fact in load_facts() if fact.relation == final}


@pytest.mark.slow
def test_the_committed_facts_are_what_the_packages_say():
    from domainfusion.demo.build_facts import build_facts

    committed, built = json.loads(FACTS_PATH.read_text(encoding="utf-8")), build_facts()
    assert {name: table for name, table in committed.items() if name != "sources"} == {
        name: table for name, table in built.items() if name != "sources"
    }
