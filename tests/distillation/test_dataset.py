"""The dataset: every example is in one part or counted as removed, and no part holds a question of
another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.builders import example
from domainfusion.distillation.data_generation import CuratedDataGenerator, DataGenerator
from domainfusion.distillation.dataset import (
    Dataset,
    GeneratedBatch,
    GroupBy,
    HeldOut,
    Hygiene,
    assemble,
    grouped,
    hold_out,
    run_generator,
    split,
)
from domainfusion.distillation.duplicates import EvaluationSets
from domainfusion.distillation.examples import query_key, slice_of
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example, Source

THINGS = ("gold", "iron", "tin", "zinc", "lead", "neon")
FORMS = (
    "What is the symbol of {}?",
    "Tell me the symbol of {}.",
    "Where was {} found, and what is the symbol of {}?",
)


class Given(DataGenerator):
    """Gives what it is given."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def generate(self, ask: Ask = ask_directly) -> Iterable[Example]:
        return self.examples


def made(queries: Sequence[str], source: Source = "custom") -> list[Example]:
    return [example(query, domains=["chemistry"], source=source) for query in queries]


def assembled(
    *parts: Sequence[Example], hygiene: Hygiene = Hygiene(), **held_out: object
) -> Dataset:
    batches = [run_generator(Given(part), ask_directly) for part in parts]
    return assemble(batches, HeldOut(**held_out), hygiene)  # type: ignore[arg-type]


queries = st.lists(
    st.tuples(st.sampled_from(FORMS), st.sampled_from(THINGS), st.sampled_from(THINGS)).map(
        lambda parts: parts[0].format(*parts[1:])
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=40)
@given(first=queries, second=queries, share=st.floats(0, 0.4), seed=st.integers(0, 3))
def test_every_example_is_in_one_part_or_removed_with_a_reason(
    first: list[str], second: list[str], share: float, seed: int
) -> None:
    try:
        dataset = assembled(
            made(first), made(second), test_share=share, validation_share=share, seed=seed
        )
    except DataError as error:
        assert "No example is left" in str(error)
        return
    parts = [
        {query_key(item) for item in part}
        for part in (dataset.train, dataset.validation, dataset.test)
    ]
    removed = {
        query_key(example(item["query"], domains=["a"]))
        for count in dataset.counts
        for item in count["removed"]
    }
    assert set.union(*parts) | removed == {query_key(item) for item in made(first + second)}
    assert sum(map(len, parts)) == len(set.union(*parts))
    for count, given_queries in zip(dataset.counts, (first, second), strict=True):
        assert (
            count["asked"]
            == len(given_queries)
            == count["accepted"] + sum(count["rejected"].values())
        )
        assert len(count["removed"]) == sum(count["rejected"].values())
    assert sum(count["accepted"] for count in dataset.counts) == sum(map(len, parts))
    index = EvaluationSets({"test": dataset.test, "validation": dataset.validation})
    assert [item for item in dataset.train if index.find(item)] == []
    assert dataset == assembled(
        made(first), made(second), test_share=share, validation_share=share, seed=seed
    )


def test_a_question_of_an_earlier_generator_is_dropped_and_what_people_ask_twice_in_other_words_is_not() -> (
    None
):
    base, again = (
        "How much protein does a sprinter need after a race?",
        "After a race, how much protein would the sprinter need?",
    )
    written = assembled(made([base]), made([again], source="synthetic"))
    assert ([item.query for item in written.train], written.counts[1]["rejected"]) == (
        [base],
        {"near-duplicate": 1},
    )
    assert written.counts[1]["removed"] == [
        {"query": again, "reason": "near-duplicate", "contained": ""}
    ]
    assert len(assembled(made([base]), made([again])).train) == 2
    assert (
        len(
            assembled(
                made([base]),
                made([again], source="synthetic"),
                hygiene=Hygiene(duplicate_threshold=1.0),
            ).train
        )
        == 2
    )


def test_what_is_in_a_set_that_is_given_is_listed_with_what_it_contains() -> None:
    trained = [
        "What is the symbol of gold?",
        "So tell me: what is the symbol of iron?",
        "What is the symbol of tin?",
    ]
    test, validation = made(["what is the symbol of GOLD?"]), made(["What is the symbol of iron?"])
    dataset = assembled(made(trained), test=test, validation=validation)
    assert [item.query for item in dataset.train] == trained[2:]
    assert (dataset.test, dataset.validation) == (tuple(test), tuple(validation))
    assert dataset.counts[0]["removed"] == [
        {"query": trained[0], "reason": "is in the test set", "contained": test[0].query},
        {
            "query": trained[1],
            "reason": "contains a question of the validation set",
            "contained": validation[0].query,
        },
    ]


def test_a_stated_key_keeps_its_examples_together() -> None:
    examples = [
        example(f"{form.format(thing, thing)}", domains=["chemistry"], metadata={"fact": thing})
        for thing in THINGS
        for form in FORMS
    ]
    dataset = assembled(examples, test_share=0.3, validation_share=0.2, group_by="fact")
    facts = [
        {item.metadata["fact"] for item in part}
        for part in (dataset.train, dataset.validation, dataset.test)
    ]
    assert [len(part) for part in facts] == [3, 1, 2]
    assert set.union(*facts) == set(THINGS)
    assert sum(count["accepted"] for count in dataset.counts) == len(examples), (
        "facts that no part shares are no leak"
    )


def test_a_generator_that_returns_nothing_is_one_clear_error() -> None:
    with pytest.raises(DataError, match="Given returned no examples"):
        assembled([])


def test_nothing_left_to_train_on_says_why() -> None:
    with pytest.raises(DataError, match=r"No example is left to train on.*is in the test set"):
        assembled(made(["What is gold?"]), test=made(["What is gold?"]))


def test_two_questions_with_one_id_are_one_clear_error() -> None:
    twins = [example("One?", domains=["a"], id="x"), example("Two?", domains=["a"], id="x")]
    with pytest.raises(DataError, match="the same id"):
        assembled(twins)


@pytest.mark.parametrize(
    "rules", [{"duplicate_threshold": 0.1}, {"ngram_words": 1}, {"containment": 2.0}]
)
def test_a_number_out_of_range_is_refused_at_once(rules: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        Hygiene(**rules)  # type: ignore[arg-type]


# Splitting


KINDS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "a b"]), st.integers(0, 12)), min_size=1, max_size=60
)


def examples_of(groups: list[tuple[str, int]]) -> list[Example]:
    return [
        example(f"Question {place}?", domains=kind.split(), group=f"{kind}/{number}")
        for place, (kind, number) in enumerate(groups)
    ]


@given(groups=KINDS, share=st.floats(0, 0.9), seed=st.integers(0, 9))
def test_no_group_crosses_and_each_kind_gives_its_share(
    groups: list[tuple[str, int]], share: float, seed: int
) -> None:
    examples = examples_of(groups)
    parts = split(examples, test=share, seed=seed)
    assert sorted(given.id for part in parts for given in part) == sorted(
        given.id for given in examples
    )
    assert parts.validation == []
    assert not {given.group for given in parts.train} & {given.group for given in parts.test}
    for kind in {kind for kind, _ in groups}:
        total, taken = (
            len({given.group for given in part if given.group.startswith(f"{kind}/")})
            for part in (examples, parts.test)
        )
        fewest = 1 if share > 0 and total > 1 else 0
        assert fewest <= taken <= max(fewest, total * share + 0.5)
        assert taken >= total * share - 0.5
    assert split(examples, test=share, seed=seed) == parts


@given(groups=KINDS, test=st.floats(0, 0.5), validation=st.floats(0, 0.4), seed=st.integers(0, 9))
def test_a_validation_set_is_taken_from_what_the_test_set_leaves(
    groups: list[tuple[str, int]], test: float, validation: float, seed: int
) -> None:
    examples = examples_of(groups)
    parts = split(examples, test=test, validation=validation, seed=seed)
    assert sorted(given.id for part in parts for given in part) == sorted(
        given.id for given in examples
    )
    sets = [{given.group for given in part} for part in parts]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    assert parts.test == split(examples, test=test, seed=seed).test, (
        "the test set does not depend on the validation set"
    )
    if validation > 0:
        for kind in {kind for kind, _ in groups}:
            if len({group for group in sets[0] | sets[1] if group.startswith(f"{kind}/")}) > 1:
                assert any(group.startswith(f"{kind}/") for group in sets[1])


def test_a_group_of_several_kinds_stays_whole() -> None:
    examples = [
        example(f"{number}?", domains=domains, group=str(number))
        for number in range(20)
        for domains in (["a"], ["b"], ["a", "b"])
    ]
    parts = split(examples, test=0.2, validation=0.2)
    groups = [{given.group for given in part} for part in parts]
    assert sum(map(len, groups)) == 20
    assert all(len(part) == 3 * len(own) for part, own in zip(parts, groups, strict=True))


# Groups


@pytest.mark.parametrize(
    ("group_by", "groups"),
    [
        ("group", ["g", "Two?", "Three?"]),
        ("query", ["one?", "two?", "three?"]),
        ("template", ["t1", "t1", "three?"]),
        (lambda given: given.query[0], ["O", "T", "T"]),
    ],
)
def test_examples_are_grouped_as_stated(group_by: GroupBy, groups: list[str]) -> None:
    examples = [
        example("One?", domains=["a"], group="g", metadata={"template": "t1"}),
        example("Two?", domains=["a"], metadata={"template": "t1"}),
        example("Three?", domains=["a"]),
    ]
    assert [given.group for given in grouped(examples, group_by)] == groups
    assert [given.id for given in grouped(examples, group_by)] == [given.id for given in examples]


def test_a_key_that_no_example_has_is_one_clear_error() -> None:
    examples = [example("One?", domains=["a"], metadata={"fact": 3})]
    with pytest.raises(
        ConfigurationError,
        match=r"No example has metadata\['template'\].*or a key of the metadata: fact",
    ):
        grouped(examples, "template")
    assert grouped(examples, "fact")[0].group == "3"
    with pytest.raises(DataError, match="names no group"):
        grouped(examples, lambda _: None)  # type: ignore[arg-type, return-value]


# Facts that nobody asks

ABOUT = st.lists(st.frozensets(st.integers(0, 15), min_size=1, max_size=3), min_size=1, max_size=40)


def about(facts: list[frozenset[int]]) -> list[Example]:
    return [
        example(
            f"Question {place}?",
            domains=["a", "b"][: len(own)],
            metadata={"facts": sorted(map(str, own))},
        )
        for place, own in enumerate(facts)
    ]


@given(facts=ABOUT, share=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_a_fact_that_is_held_out_is_in_no_kept_example(
    facts: list[frozenset[int]], share: float, seed: int
) -> None:
    examples = about(facts)
    apart = hold_out(examples, by="facts", share=share, slice_name="unasked facts", seed=seed)
    assert sorted(given.id for part in apart for given in part) == sorted(
        given.id for given in examples
    )
    kept, held = (
        {fact for given in part for fact in given.metadata["facts"]}
        for part in (apart.kept, apart.held_out)
    )
    assert not kept & held
    for given_example in apart.mixed:
        own = set(given_example.metadata["facts"])
        assert not own <= held
    assert {slice_of(given) for given in apart.held_out} <= {"unasked facts"}
    assert (
        hold_out(examples, by="facts", share=share, slice_name="unasked facts", seed=seed) == apart
    )
    assert (
        hold_out(
            examples,
            by=lambda given: given.metadata["facts"],
            share=share,
            slice_name="unasked facts",
            seed=seed,
        )
        == apart
    )


def test_each_domain_gives_its_share_of_facts() -> None:
    examples = [
        example(
            f"Question {number} of {domain}?",
            domains=[domain],
            metadata={"facts": f"{domain}{number}"},
        )
        for domain, count in {"a": 10, "b": 30}.items()
        for number in range(count)
    ]
    held = hold_out(examples, by="facts", share=0.2).held_out
    assert [sum(given.domains == (domain,) for given in held) for domain in ("a", "b")] == [2, 6]


@pytest.mark.parametrize("value", [None, [], "", [None]])
def test_an_example_that_is_about_nothing_is_an_error(value: object) -> None:
    with pytest.raises(
        DataError,
        match=r"does not say what it is about: metadata\['facts'\] names nothing; received 'One\?'",
    ):
        hold_out([example("One?", domains=["a"], metadata={"facts": value})], by="facts")
    with pytest.raises(ConfigurationError, match="share is out of range"):
        hold_out([], by="facts", share=1.0)


# Questions that people give twice


def _batch_of(*examples: Example) -> GeneratedBatch:
    generator = CuratedDataGenerator(examples)
    return GeneratedBatch(generator, generator.generate())


def test_an_equal_question_is_reported_with_what_differs(caplog: pytest.LogCaptureFixture) -> None:
    batch = _batch_of(
        example("Where is NRT?", {"aviation": "Japan"}, id="1"),
        example("where is  NRT?", {"aviation": "Japan"}, id="2"),
        example("Where is NRT?", {"aviation": "Peru"}, id="3"),
        example("Where is LHR?", {"aviation": "England"}, id="4"),
    )
    dataset = assemble([batch], HeldOut())
    assert [kept.id for kept in dataset.train] == ["1", "4"]
    assert dataset.counts[0]["rejected"] == {"duplicate": 1, "duplicate with another answer": 1}
    (told,) = caplog.messages
    assert "2 given questions are repeated" in told
    assert "1 of them have another reference or other domains" in told
    assert "Where is NRT?" in told


def test_the_same_question_of_another_domain_is_reported_as_such() -> None:
    batch = _batch_of(
        example("What is normal?", {"law": "a standard"}, id="1"),
        example("What is normal?", {"medicine": "37 °C"}, id="2"),
    )
    dataset = assemble([batch], HeldOut())
    assert dataset.counts[0]["rejected"] == {"duplicate with another answer": 1}


def test_different_questions_are_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    assemble([_batch_of(example("A?", {"x": "1"}), example("B?", {"x": "1"}))], HeldOut())
    assert not caplog.messages
