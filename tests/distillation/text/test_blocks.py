"""Blocks: together with the white space between them they are the text, whatever it is."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainfusion.distillation.text.blocks import blocks_of

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
