"""Blocks: the paragraphs, lists, tables, code and headings that a Markdown text consists of, each
with its place in the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

Kind = Literal[
    "paragraph",
    "heading",
    "list",
    "table",
    "code",
    "quote",
    "html",
    "math",
    "rule",
    "definition",
    "rest",
]
"""What a block is: `rule` is a thematic break, `definition` the target of a link, `rest` what comes
after `MOST_LINES`.
"""

MOST_LINES = 8000
"""Lines that are read as Markdown, so that a response of any length is read in bounded time."""

_KINDS: dict[str, Kind] = {
    "paragraph_open": "paragraph",
    "heading_open": "heading",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "table_open": "table",
    "fence": "code",
    "code_block": "code",
    "blockquote_open": "quote",
    "html_block": "html",
    "hr": "rule",
}
BOLD_LEVEL = 7
"""The level of a paragraph that is one bold line, which authors use as the lowest heading."""

_PARSER = MarkdownIt("commonmark", {"maxNesting": 20}).enable("table")
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
# A line that its author meant as a list's item, where Markdown reads a part of a paragraph: "•
# Eat", "2) Sleep", "b) Rest".
_ITEM = re.compile(r"\s*(?:[-*+•◦▪–]|\(?\d{1,3}[.)]|\(?[a-h]\))\s+\S")
_ROW = re.compile(r"\s*\|.*\|\s*$")
_BOLD_LINE = re.compile(r"\s*(\*\*|__)(?!\s)[^*_\n]{1,120}\1[:.]?\s*$")
_MATH_ENDS = {"$$": "$$", "\\[": "\\]", "\\begin{": "\\end{"}
"""What a displayed formula begins with, at the beginning of a line, and what ends it."""


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a text that Markdown shows as one.

    Attributes:
        kind: What it is.
        text: Its source, from the beginning of its first line to the end of its last one.
        start: Where it begins in the whole text, in characters.
        end: Where it ends, exclusive: `whole[start:end] == text`.
        level: The rank of a heading, from 1; 0 for everything else.
    """

    kind: Kind
    text: str
    start: int
    end: int
    level: int = 0

    @property
    def is_prose(self) -> bool:
        """Whether it is a paragraph, which may be taken apart into sentences; everything else is
        kept whole.
        """
        return self.kind == "paragraph"


class _Line(NamedTuple):
    """A line's place in the text, without its line break."""

    start: int
    end: int


class _Region(NamedTuple):
    """A block's lines, the last one exclusive."""

    kind: Kind
    first: int
    last: int
    level: int


def blocks_of(text: str) -> list[Block]:
    r"""Reads a text as Markdown (CommonMark with tables and displayed formulas) and returns its
    blocks in order.

    Every line that is not blank is in one block, so that the blocks and the white space between
    them are the text.

    Args:
        text: Any text; what is no Markdown is paragraphs.

    Example:
        >>> [(block.kind, block.text) for block in blocks_of("Steps:\n- Eat.\n- Sleep.\n\nDone.")]
        [('paragraph', 'Steps:'), ('list', '- Eat.\n- Sleep.'), ('paragraph', 'Done.')]
    """
    lines = [
        _Line(match.start(), match.start() + len(match.group().rstrip("\r\n")))
        for match in _LINE.finditer(text)
    ]
    read = lines[:MOST_LINES]
    found: list[Block] = []
    unclosed: set[str] = set()
    position = 0  # the first line that is in no block yet
    for region in _regions(text, read):
        first = max(position, region.first)
        if first >= region.last:
            continue  # inside of a displayed formula
        found += _block(text, read[position:first], "definition")
        kind, last, level = region.kind, region.last, region.level
        if kind == "paragraph":
            closing = _end_of_formula(text, read, first, last, unclosed)
            kind, level = ("math", 0) if closing else _kind_of_paragraph(text, read[first:last])
            last = closing or last
        found += _block(text, read[first:last], kind, level)
        position = last
    found += _block(text, read[position:], "definition")
    return found + _block(text, lines[MOST_LINES:], "rest")


def _regions(text: str, lines: Sequence[_Line]) -> Iterator[_Region]:
    """Yields every block that is in no other, as the parser sees it."""
    # One kind of line break and no NUL, as Markdown has it; neither changes the lines' numbers.
    source = "\n".join(text[line.start : line.end].replace("\0", "\ufffd") for line in lines)
    tokens: list[Token] = []
    _PARSER.block.parse(source, _PARSER, {}, tokens)
    for token in tokens:
        if token.level == 0 and token.map is not None and token.type in _KINDS:
            level = int(token.tag[1]) if token.type == "heading_open" else 0
            yield _Region(_KINDS[token.type], token.map[0], token.map[1], level)


def _block(text: str, lines: Sequence[_Line], kind: Kind, level: int = 0) -> list[Block]:
    """Returns the block of these lines, without the blank ones around it; none where all are
    blank.
    """
    filled = [line for line in lines if text[line.start : line.end].strip()]
    if not filled:
        return []
    start, end = filled[0].start, filled[-1].end
    return [Block(kind, text[start:end], start, end, level)]


def _kind_of_paragraph(text: str, lines: Sequence[_Line]) -> tuple[Kind, int]:
    """Returns the kind, and the level, of what Markdown takes for a paragraph, as its author meant
    it.
    """
    written = [text[line.start : line.end] for line in lines]
    if len(written) == 1 and _BOLD_LINE.match(written[0]):
        return "heading", BOLD_LEVEL
    if any(_ITEM.match(line) for line in written):
        return "list", 0
    if len(written) > 1 and all(_ROW.match(line) for line in written):
        return "table", 0
    return "paragraph", 0


def _end_of_formula(
    text: str, lines: Sequence[_Line], first: int, last: int, unclosed: set[str]
) -> int | None:
    """Returns the line after a displayed formula that begins in lines `first` to `last`, at least
    `last`; None where none does.

    Args:
        text: The whole text.
        lines: Its lines.
        first: The first line of a paragraph.
        last: The line after it.
        unclosed: The marks that are known to end nothing in the rest of the text; added to, so that
            nobody looks for them twice.
    """
    for place in range(first, last):
        line = text[lines[place].start : lines[place].end].strip()
        opening = next((mark for mark in _MATH_ENDS if line.startswith(mark)), None)
        if opening is None:
            continue
        ending = _MATH_ENDS[opening]
        if ending in line[len(opening) :] or ending in unclosed:
            return last
        for closing in range(place + 1, len(lines)):
            if ending in text[lines[closing].start : lines[closing].end]:
                return max(last, closing + 1)
        unclosed.add(ending)
        return last
    return None
