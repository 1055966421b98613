"""Laws of the template filler: one pass, inserted text stays text, literal braces stay, and nothing
is left unfilled.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion import prompts
from domainfusion.errors import TemplateError
from domainfusion.prompts import fields_of, fill, unindent

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_ \-]{0,12}", fullmatch=True)
anything = st.text() | st.sampled_from(
    ["{query}", "{a}{b}", "{", "}", "{{query}}", "%s", "\\1", "\\g<0>", "{0.__class__}"]
)
literals = st.text(st.characters(exclude_characters="{}")) | st.sampled_from(
    ["{}", '{"answer": {"unit": "kg"}}', "{ }", "{1}", "{a.b}", "{a[0]}", "{a!r}", "{-}", "{\n}"]
)


@st.composite
def templates(draw: st.DrawFn) -> tuple[str, dict[str, str], str]:
    """Returns a template, values for its placeholders, and what it has to become."""
    values = draw(st.dictionaries(names, anything, min_size=1, max_size=4))
    pieces = draw(
        st.lists(
            st.tuples(st.just("literal"), literals)
            | st.tuples(st.just("name"), st.sampled_from(sorted(values)))
        )
    )
    template = "".join(f"{{{text}}}" if kind == "name" else text for kind, text in pieces)
    return (
        template,
        values,
        "".join(values[text] if kind == "name" else text for kind, text in pieces),
    )


@given(templates())
def test_each_placeholder_becomes_its_value_and_all_else_stays(
    case: tuple[str, dict[str, str], str],
) -> None:
    template, values, expected = case
    assert fill(template, values) == expected


@given(anything, anything)
def test_inserted_text_is_never_looked_at_again(first: str, second: str) -> None:
    assert fill("{a}|{b}", {"a": first, "b": second}) == f"{first}|{second}"


@given(st.text(st.characters(exclude_characters="{}")))
def test_a_template_without_braces_is_itself(text: str) -> None:
    assert fill(text, {}) == text


@given(names, st.dictionaries(names, anything, max_size=3))
def test_a_placeholder_that_nothing_fills_is_an_error_that_names_it(
    name: str, values: dict[str, str]
) -> None:
    values.pop(name, None)
    with pytest.raises(TemplateError) as raised:
        fill(f"Dear {{{name}}},", values)
    assert f"{{{name}}}" in str(raised.value)
    assert all(f"{{{known}}}" in str(raised.value) for known in values)


@given(templates())
def test_the_fields_of_a_template_are_what_has_to_be_given(
    case: tuple[str, dict[str, str], str],
) -> None:
    template, values, expected = case
    fields = fields_of(template)
    assert len(set(fields)) == len(fields)
    assert fill(template, {name: values[name] for name in fields}) == expected
    for name in fields:
        with pytest.raises(TemplateError):
            fill(template, {other: values[other] for other in fields if other != name})


@pytest.mark.parametrize("name", ["química", "物理学", "sports medicine", "e-commerce", "_x"])
def test_a_domain_may_be_named_in_any_alphabet(name: str) -> None:
    assert fields_of(f"{{{name}}}") == (name,)
    assert fill(f"[{{{name}}}]", {name: "text"}) == "[text]"


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        (prompts.QUESTION_PROMPT, {"count", "domain", "description"}),
        (prompts.CROSS_DOMAIN_PROMPT, {"count", "subjects"}),
        (
            prompts.ADVERSARIAL_PROMPT,
            {"count", "apparent", "needed", "apparent_domain", "needed_domain"},
        ),
        (prompts.INTEGRATION_PROMPT, {"query", "responses"}),
    ],
)
def test_default_prompts_ask_for_no_more_than_they_document(
    template: str, fields: set[str]
) -> None:
    assert set(fields_of(template)) <= fields
    assert fields_of(template)
    assert template == unindent(template)


def test_unindent_keeps_the_relative_indentation() -> None:
    assert unindent("\n    a\n      b\n\n    c\n") == "a\n  b\n\nc"
