"""Sentences: nothing is lost between them, and a stop that ends none is known in several
languages.
"""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.distillation.text.sentences import (
    blocks_of,
    leans_on_previous,
    sentence_spans,
    sentences,
)

WHOLE = (
    "Dr. Li and Mrs. Jones came at 3.5 km/h.",
    "See No. 5, Fig. 3 and Vol. 2 of the report.",
    "J. K. Rowling wrote it, as did George R. R. Martin.",
    "The letter was signed by J. Smith of Leeds.",
    "Use fruit, e.g. Apples or i.e. Pears, vs. Plums.",
    "The U.S. Army left the U.K. Embassy.",
    "Man isst z. B. Äpfel, d. h. Obst, ca. 5 Stück.",
    "Das gilt nach Art. 5 DSGVO und § 3 Abs. 2 BGB.",
    "Die Frist endet am 3. Mai 2018.",
    "La Sra. García y el Dr. Pérez llegaron.",
    "St. Moritz is in Switzerland.",
    "Wait... what is it?",
    "Run `git add . And more` first.",
    "It costs 1.064 euros, not 1,064.",
    '"Why?" he asked.',
)
"""Texts of one sentence."""

SEVERAL = (
    ("Oranges have vitamin C.", "They keep."),
    ("It is hepatitis B.", "It is treated."),
    ("This is Plan B.", "Try it."),
    ("Take vitamin D.", "Eat fish."),
    ("The answer is no.", "They left."),
    ("It melts at 420 °C.", "Then it flows."),
    ("They came at 5 a.m.", "Then they left."),
    ("Bring fruit, nuts, etc.", "They keep."),
    ("It happened in 1990.", "Nobody knew."),
    (
        "Run the checker first.",
        "utf8mb4 is the default.",
        "pg_repack avoids it.",
        "localStorage does not.",
    ),
    ('He said "Go."', "She went (at once).", "**All** of it."),
    ("¿Cómo está?", "¡Muy bien!", "¿Y usted?"),
    ("Es gilt.", "Äpfel fallen.", "Öl schwimmt."),
    ("So it is…", "Nobody knows."),
)


@pytest.mark.parametrize("text", WHOLE)
def test_a_stop_inside_of_a_sentence_ends_none(text: str) -> None:
    assert sentences(text) == [text]


@pytest.mark.parametrize("expected", SEVERAL)
def test_a_stop_at_the_end_of_a_sentence_ends_it(expected: tuple[str, ...]) -> None:
    assert sentences(" ".join(expected)) == list(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "它很安全。饮酒会降低剂量！对吗？对。",
            ["它很安全。", "饮酒会降低剂量！", "对吗？", "对。"],
        ),
        ("他说：“好。”然后走了。", ["他说：“好。”然后走了。"]),
        ("هل هذا آمن؟ نعم.", ["هل هذا آمن؟", "نعم."]),
        ("यह सुरक्षित है। वह नहीं।", ["यह सुरक्षित है।", "वह नहीं।"]),
        ("Eat rice\nSleep well\n\nRest", ["Eat rice", "Sleep well", "Rest"]),
        (
            "It is so long that somebody wrapped it\nat forty. Yes.",
            ["It is so long that somebody wrapped it", "at forty.", "Yes."],
        ),
        (
            "It is so much longer that somebody wrapped it\nat forty. Yes.",
            ["It is so much longer that somebody wrapped it\nat forty.", "Yes."],
        ),
        ("* " + "long " * 12 + "\nlast", ["* " + "long " * 11 + "long", "last"]),
        ("The symbol is Ca. For tin it is Sn.", ["The symbol is Ca.", "For tin it is Sn."]),
        ("Hard  \nbreak", ["Hard", "break"]),
        ("1. Eat. 2. Sleep.", ["1. Eat.", "2.", "Sleep."]),
    ],
)
def test_scripts_and_lines_have_their_own_ends(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(
    st.text(alphabet=st.sampled_from("aA1.!?。 \n\"(*`'\\\u00a0é"), max_size=80)
    | st.text(max_size=60)
)
def test_only_white_space_lies_between_sentences(text: str) -> None:
    spans = sentence_spans(text)
    assert all(span.start < span.end for span in spans)
    assert all(text[span.start : span.end] == text[span.start : span.end].strip() for span in spans)
    edges = [0, *itertools.chain.from_iterable(spans), len(text)]
    assert edges == sorted(edges)
    assert not any(
        text[left:right].strip() for left, right in zip(edges[::2], edges[1::2], strict=True)
    )


@given(
    st.lists(st.sampled_from([text for texts in SEVERAL for text in texts]), min_size=1, max_size=4)
)
def test_a_sentence_by_itself_is_one(texts: list[str]) -> None:
    assert all(sentences(text) == [text] for text in texts)


@pytest.mark.parametrize(
    "text",
    [
        "They keep.",
        "It is.",
        "These do.",
        "Sie hält.",
        "Dies gilt.",
        "Esto es.",
        "Él come.",
        "Il part.",
        "它好。",
        "这很重要。",
    ],
)
def test_a_sentence_with_a_pronoun_in_front_leans_on_the_one_before(text: str) -> None:
    assert leans_on_previous(text)


@pytest.mark.parametrize(
    "text",
    [
        "Items keep.",
        "Hector eats.",
        "Thesis first.",
        "Siena liegt dort.",
        "Ilex wächst.",
        "Eslovenia es.",
        "",
    ],
)
def test_other_words_lean_on_nothing(text: str) -> None:
    assert not leans_on_previous(text)


@pytest.mark.parametrize(
    "text",
    [
        "A. B. " * 33_000,
        " " * 200_000,
        "`" * 200_000,
        "\\\n" * 100_000,
        "Is it.\n" * 28_000,
        ".\u00a0" * 100_000,
    ],
)
def test_a_text_of_two_hundred_thousand_characters_is_split_in_bounded_time(text: str) -> None:
    started = time.process_time()
    sentence_spans(text)
    assert time.process_time() - started < 2


# Blocks


WRITTEN = {
    "code": "```python\nif a:\n    return None\n\nreturn None\n```",
    "list": "1. Eat\n   - rice\n\n   and more\n2. Sleep",
    "table": "| a | b |\n|---|---|\n| 1 | 2 |",
    "quote": "> Assume\n> breach.",
    "html": "<div>\nx\n</div>",
    "math": "$$\na = b\n\n- c\n$$",
    "heading": "## Steps",
    "paragraph": "Two words. And more.",
    "rule": "***",
}


@given(kinds=st.lists(st.sampled_from(sorted(set(WRITTEN) - {"list"})), min_size=1, max_size=6))
def test_blocks_are_read_back_as_they_were_written(kinds: list[str]) -> None:
    text = "\n\n".join(WRITTEN[kind] for kind in kinds)
    assert [(block.kind, block.text) for block in blocks_of(text)] == [
        (kind, WRITTEN[kind]) for kind in kinds
    ]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Steps:\n- Eat\n- Sleep", ["paragraph", "list"]),
        ("  1. Eat\n  2. Sleep\n     - well", ["list"]),
        ("- a\n\n  b\n\n- c", ["list"]),
        ("• Eat\n• Sleep", ["list"]),
        ("Do this:\n2. Eat\n3. Sleep", ["list"]),
        ("    indented\n\n    code", ["code"]),
        ("```\nunclosed\n\n- a", ["code"]),
        ("**Sleep**\n\nIt helps.", ["heading", "paragraph"]),
        ("Sleep\n=====\n\nIt helps.", ["heading", "paragraph"]),
        ("| a | b |\n| c | d |", ["table"]),
        ("$$ a\n\nb", ["math", "paragraph"]),
        ("\\[\na\n\nb\n\\]\n\nc", ["math", "paragraph"]),
        ("[a]: https://a.example\n\nSee [a].", ["definition", "paragraph"]),
        ("It is 1990. a) b", ["paragraph"]),
        ("", []),
        ("\n \n", []),
    ],
)
def test_a_block_is_what_its_author_meant(text: str, kinds: list[str]) -> None:
    assert [block.kind for block in blocks_of(text)] == kinds


@given(
    st.text(alphabet=st.sampled_from("a \n\r\t-*>#|`$1.:[]()\\<\0\u2028"), max_size=80)
    | st.text(max_size=60)
)
def test_every_character_is_in_a_block_or_white_space(text: str) -> None:
    blocks = blocks_of(text)
    assert all(
        text[block.start : block.end] == block.text and block.text.strip() for block in blocks
    )
    edges = [
        0,
        *itertools.chain.from_iterable((block.start, block.end) for block in blocks),
        len(text),
    ]
    assert edges == sorted(edges)
    assert not any(
        text[left:right].strip() for left, right in zip(edges[::2], edges[1::2], strict=True)
    )


@pytest.mark.parametrize(
    "text",
    [
        "* a\n" * 50_000,
        "\\[ a\n\n" * 33_000,
        "- - - a\n" * 25_000,
        "> " * 100_000,
        "|a|b|\n|-|-|\n" + "|1|2|\n" * 33_000,
    ],
)
def test_a_text_of_two_hundred_thousand_characters_is_read_in_bounded_time(text: str) -> None:
    started = time.process_time()
    assert blocks_of(text)
    assert time.process_time() - started < 2
