"""Laws of the data types: equal values have equal fingerprints, records are frozen, and what can't
be right is refused.
"""

import dataclasses
import unicodedata
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.errors import ConfigurationError, DataError
from domainfusion.types import (
    Example,
    Integration,
    Message,
    Part,
    Response,
    Sampling,
    Score,
    TrainingRecord,
    domains_of,
    fingerprint,
    user,
)

TURNS = (Message("user", "What is NRT?"), Message("assistant", "An airport."))

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _same_in_other_clothes(value: Any) -> Any:
    """Returns an equal value: tuples for lists, dicts in reverse order, whole floats for the
    integers that they can hold.
    """
    if isinstance(value, list):
        return tuple(_same_in_other_clothes(item) for item in value)
    if isinstance(value, dict):
        return MappingProxyType(
            {key: _same_in_other_clothes(item) for key, item in reversed(value.items())}
        )
    if isinstance(value, int) and abs(value) < 2**53:
        return float(value)
    return value


@given(json_values)
def test_equal_values_have_equal_fingerprints(value: Any) -> None:
    assert fingerprint(_same_in_other_clothes(value)) == fingerprint(value)


@given(json_values, json_values)
def test_different_values_have_different_fingerprints(one: Any, other: Any) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["ab", "c"], ["a", "bc"]),
        ([["a"], "b"], ["a", ["b"]]),
        ("1", 1),
        (None, "null"),
        ([], {}),
        (0, None),
        ("", None),
    ],
)
def test_values_that_read_alike_are_told_apart(one: Any, other: Any) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_a_dataclass_has_the_fingerprint_of_its_fields() -> None:
    assert fingerprint(Message("user", "hi")) == fingerprint({"content": "hi", "role": "user"})
    assert fingerprint([Part(domain="a", answers=("b",))]) == fingerprint(
        [{"domain": "a", "answers": ["b"]}]
    )


def test_equal_settings_written_differently_have_one_fingerprint() -> None:
    assert fingerprint(Sampling(temperature=0, top_p=1)) == fingerprint(
        Sampling(temperature=0.0, top_p=1.0)
    )


@given(st.integers(min_value=1, max_value=64))
def test_a_fingerprint_has_the_length_that_was_asked_for(length: int) -> None:
    assert len(fingerprint("x", length=length)) == length
    assert fingerprint("x").startswith(fingerprint("x", length=min(length, 16)))


def test_a_fingerprint_is_the_hash_of_canonical_json() -> None:
    import hashlib

    assert (
        fingerprint({"b": [1, "é"], "a": None})
        == hashlib.sha256('{"a":null,"b":[1,"é"]}'.encode()).hexdigest()[:16]
    )


@pytest.mark.parametrize("setting", ["max_new_tokens", "temperature", "top_p", "seed"])
def test_every_setting_of_the_sampling_counts(setting: str) -> None:
    other: dict[str, Any] = {"max_new_tokens": 7, "temperature": 0.7, "top_p": 0.7, "seed": 7}
    assert fingerprint(Sampling(**{setting: other[setting]})) != fingerprint(Sampling())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", -1),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", float("nan")),
    ],
)
def test_settings_that_can_not_be_right_are_refused_by_name(setting: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=setting) as raised:
        Sampling(**{setting: value})  # type: ignore[arg-type]
    assert repr(value) in str(raised.value)


def test_an_example_leads_with_its_first_domain_and_keeps_to_itself() -> None:
    example = Example(query="Why?", domains=("b", "a"))
    assert example.primary_domain == "b"
    assert example.group == "Why?"
    assert (
        Example(query="Why?", domains=("b", "a"), primary_domain="a", group="g").primary_domain
        == "a"
    )
    assert Example(query="Why?", domains=("b", "a"), group="g").group == "g"


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=3, unique=True))
def test_the_id_is_made_of_the_query_and_the_domains_alone(query: str, domains: list[str]) -> None:
    plain = Example(query=query, domains=tuple(domains))
    listed: Any = domains
    dressed = Example(
        query=query, domains=listed, reference="r", source="curated", metadata={"k": 1}
    )
    assert plain.id == dressed.id
    assert plain.id != Example(query=query + "?", domains=tuple(domains)).id
    assert plain.id != Example(query=query, domains=(*domains, "another" * 9)).id


def test_the_id_knows_no_form_but_every_word_and_turn() -> None:
    plain = Example(query="Where is the Élan?", domains=("a", "b"))
    decomposed = unicodedata.normalize("NFD", plain.query)
    assert plain.query != decomposed
    assert Example(query=f" Where  is the\n{decomposed[13:]}", domains=("b", "a")).id == plain.id
    assert Example(query="Where is the élan?", domains=("a", "b")).id != plain.id, "Co is not CO"
    assert Example(query=plain.query, domains=("a", "b"), history=TURNS).id != plain.id


def test_an_example_of_several_turns_is_asked_after_what_was_said_before() -> None:
    example = Example(
        query="And its capital?",
        domains=("a", "b"),
        sub_questions={"a": "Its capital?"},
        history=TURNS,
    )
    assert example.conversation == (*TURNS, Message("user", "And its capital?"))
    assert example.conversation_for("a") == (*TURNS, Message("user", "Its capital?"))
    assert Example(query="Why?", domains=("a",)).conversation == user("Why?")


@pytest.mark.parametrize(
    "roles",
    [
        ["user"],
        ["assistant"],
        ["assistant", "user"],
        ["user", "user"],
        ["system", "user", "assistant"],
    ],
)
def test_turns_that_do_not_alternate_are_refused(roles: list[Any]) -> None:
    with pytest.raises(DataError, match="do not alternate"):
        Example(query="Why?", domains=("a",), history=tuple(Message(role, "x") for role in roles))


def test_an_example_does_not_look_like_what_it_is() -> None:
    assert Example(query="Why?", domains=("a",), apparent_domain="b").apparent_domain == "b"
    with pytest.raises(DataError, match="looks like a domain that it needs"):
        Example(query="Why?", domains=("a",), apparent_domain="a")


def test_an_example_without_a_domain_is_refused() -> None:
    with pytest.raises(DataError, match="names no domain; received 'Why\\?'"):
        Example(query="Why?", domains=())


def test_one_string_is_not_taken_for_a_list_of_letters() -> None:
    with pytest.raises(DataError, match="biology"):
        Example(query="Why?", domains="biology")  # type: ignore[arg-type]


def test_an_example_is_cross_domain_from_two_domains() -> None:
    assert not Example(query="Why?", domains=("a",)).is_cross_domain
    assert Example(query="Why?", domains=("a", "b")).is_cross_domain


def test_an_example_can_be_graded_with_parts_or_a_reference_even_an_empty_one() -> None:
    assert not Example(query="Why?", domains=("a",)).has_reference
    assert Example(query="Why?", domains=("a",), reference="").has_reference
    assert Example(
        query="Why?", domains=("a",), parts=(Part(domain="a", answers=("x",)),)
    ).has_reference


def test_an_expert_is_asked_its_sub_question_or_else_the_whole() -> None:
    example = Example(query="Both?", domains=("a", "b"), sub_questions={"a": "First?"})
    assert (example.question_for("a"), example.question_for("b")) == ("First?", "Both?")


def test_data_is_frozen() -> None:
    for value, field in [
        (Message("user", "x"), "role"),
        (Sampling(), "seed"),
        (Example(query="q", domains=("a",)), "query"),
    ]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, "other")


def test_unscored_is_not_zero() -> None:
    score = Score.unscored("no reference")
    assert score.value is None and score.reason == "no reference"
    assert score != Score(0.0)


def test_an_integration_reads_as_its_text() -> None:
    assert str(Integration(text="So it is.", method="merge")) == "So it is."


def test_domains_come_once_in_order_of_appearance() -> None:
    examples = [
        Example(query="1", domains=("b", "a")),
        Example(query="2", domains=("a", "c")),
        Example(query="3", domains=("b",)),
    ]
    assert domains_of(examples) == ("b", "a", "c")
    assert domains_of([]) == ()


def test_user_is_a_conversation_of_one_question() -> None:
    assert user("Why?") == (Message("user", "Why?"),)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", {("a", "b"): 1}, 1j])
def test_metadata_that_no_file_can_hold_are_refused(value: object) -> None:
    with pytest.raises(DataError, match="metadata of an example can't be kept"):
        Example(query="q", domains=("a",), metadata={"key": value})


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_metadata_of_json_are_taken_as_they_are(metadata: dict[str, Any]) -> None:
    assert Example(query="q", domains=("a",), metadata=metadata).metadata == metadata


def test_examples_and_records_are_shown_short_and_with_every_text_escaped() -> None:
    hostile = "<script>alert(1)</script> " * 40
    example = Example(query=hostile, domains=("law", "tax"), reference=hostile)
    record = TrainingRecord(
        example=example,
        responses=(Response(domain="law", text=hostile, example_id=example.id),),
        integration=Integration(text=hostile, method="single"),
    )
    assert repr(example).endswith("law + tax, custom)")
    assert repr(record).endswith("unverified)")
    for shown in (example, record):
        assert len(repr(shown)) < 250
        html = shown._repr_html_()
        assert "<script>" not in html
        assert html.count("&lt;script&gt;") >= 80
