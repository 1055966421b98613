"""The split: no group crosses, each kind gives its share, and the same seed splits in the same
way.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.builders import example
from domainfusion.distillation.dataset import GroupBy, grouped, hold_out, split
from domainfusion.distillation.examples import slice_of
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.types import Example

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
