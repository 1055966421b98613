"""Sentences and blocks: where sentences begin and end in a text of any language, which of them lean on
the one before, and which code, tables and lists of Markdown stay in one piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from domainfusion.distillation.text.words import word_set


class Span(NamedTuple):
    """A part of a text, in characters: `text[start:end]`."""

    start: int
    end: int


_CLOSERS = "\"'”’»)\\]}」』）】》*_"
_OPENERS = "\"'“‘„«(\\[¿¡「『（【《*_`#"

# One or more stops and what closes around them. `wide` stops, those of scripts without capitals,
# need no space after them.
_STOP = re.compile(
    rf"""
    (?: (?P<wide>[。！？｡．؟।॥۔։።။។]+) | (?P<narrow>[.!?…]+) )
    (?P<closers>[{_CLOSERS}]*)
    (?P<space>\s*)
    """,
    re.VERBOSE,
)
# Code in backticks, on one line.
_CODE = re.compile(r"`[^`\n]{1,300}`")
# What a sentence begins with after a stop and a space: a capital, a digit, an opening mark, or a
# letter of a script without case.
_BEGINNING = re.compile(rf"[{_OPENERS}]*(?:[^\W\d_]|\d)|[{_OPENERS}]+\S|[-–—•]\s|[^\w\s]")
# A name of code begins a sentence with a small letter: `utf8mb4`, `pg_repack`, `localStorage`.
_CODE_NAME = re.compile(r"[a-z][a-z]*(?:\d\w|[A-Z_])")
# The first word after a stop, past opening marks.
_WORD_AFTER = re.compile(rf"[{_OPENERS}]*([^\W_]+)")
# A line break of any system.
_LINE_BREAK = re.compile(r"\r\n?|\n")
# The mark of a list's item: "- ", "a) ", "iii. ".
_ITEM = re.compile(r"(?:[-*+•–]|\(?\w{1,3}[.)])\s")
_WINDOW = 48
"""Characters before a stop that are looked at to tell an abbreviation from the end of a
sentence.
"""
_WRAPPED = 40
"""A line of at least so many characters without a stop at its end was wrapped: its sentence
continues in the next line.
"""


_TITLES = word_set("""
    mr mrs ms dr prof mt messrs hon rev gen col lt sgt capt gov sen rep pres fr hr hrn sr sra srta dra ud uds mme mlle mgr st ste
""")
"""Abbreviations before a name."""
_BEFORE_ANYTHING = word_set("""
    e.g i.e vs cf viz approx ca circa bzw resp z.b d.h u.a v.a i.d.r o.ä s.o s.u p.ej p.ex aprox env incl inkl exkl ggf evtl
    sog bspw max min al ej ex
""")
"""Abbreviations in small letters that end no sentence: "ca.", but not the "Ca." of calcium."""
_BEFORE_NUMBERS = word_set(
    "no nos nr núm num fig figs vol vols ch chap sec art abs abb tab eq eqs pp p pg pág págs para"
    " paras bd kap s app"
)
"""Abbreviations only where a number, or a single letter, follows: "No. 5", but "The answer is no.
They left.".
"""
_BEFORE_NAMES = word_set(
    "inc ltd co corp jr bros dept univ assn est ed eds jan feb mar apr jun jul aug sep sept oct"
    " nov dec"
)
"""Abbreviations that may end a sentence: they do where the next word is one that sentences begin
with.
"""
_LABELS = word_set("""
    vitamin vitamins hepatitis plan type class group grade option section part appendix figure table step team point variant version level
    model phase category schedule exhibit room gate platform terminal line product factor influenza party company person site node server
    candidate drug etf fund stock country case example answer choice unit sample test method route zone area district block row column
    side serie series track stage tier article clause annex strain vitamine typ klasse gruppe abschnitt anhang teil vitamina tipo clase
    grupo sección opción classe groupe
""")
"""Words after which a single letter names one of several: "hepatitis B." ends a sentence, "George
B." need not.
"""
_INTRODUCING = word_set(
    "by and or with from of to for as like than said says wrote writes told asked author authors"
    " von und mit y de et par"
)
"""Words after which a single letter is a person's initial."""
_STARTERS = word_set("""
    the a an it its they their this these those that he she his her we our you your i in on at for from with without by if when while
    where after before since because but and or so however therefore thus then there here also both each every all some many most more
    no not never only as to what which who how why do does use take avoid keep try see note consider make
    der die das ein eine es sie er dies diese dieser dieses wir ihr im am bei nach vor wenn aber und auch dann danach daher doch so
    el la los las un una es este esta esto estos estas ello él ella en con sin por para si cuando pero y también
    le les il elle ils elles ce cela cette ces en dans avec sans pour par si quand mais et aussi
""")
"""Words that sentences begin with and names don't."""
_MONTHS = word_set("""
    januar februar märz april mai juni juli august september oktober november dezember january february march may june july october
    december jänner jahrhundert
""")
_ARTICLES = word_set("am vom zum der die das den dem des im bis seit ab")
_OPENING_MARKS = "\"'“‘„«([¿¡「『（【《*_`#-–—"
_LINE_STOPS = (".", "!", "?", "…", ":", "。", "！", "？", "：")

# A pronoun at the beginning of a sentence, which leans on the one before.
_LEANING = re.compile(
    r"""
    \W* (?:
      (?: it|its|it's|they|their|they're|this|these|those|that|he|she|his|her|both|such|the\s(?:former|latter|same)
        | es|sie|er|dies|diese[rsmn]?|dessen|deren|ihre?|seine?|dadurch|damit|dabei
        | él|ella|ello|ellos|ellas|esto|estos|estas|este|esta|eso|su|sus|ambos|ambas
        | il|elle|ils|elles|cela|ceci|ce|cette|ces|son|sa|ses|leurs?
        | it’s|they’re|c['’]est
      )(?!\w)
      | 它|它们|这|這|此|其|该|他们|她们|他|她|これ|それ
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)


def sentences(text: str) -> list[str]:
    """Splits a text into sentences; a line break ends one too, unless the line was wrapped in the
    middle of a sentence.

    Args:
        text: Prose in any language; see `blocks_of` for answers with lists, tables and code.

    Returns:
        The sentences in order, without the space around them.

    Example:
        >>> sentences("Dr. Li came. It was 3.5 km!")
        ['Dr. Li came.', 'It was 3.5 km!']
        >>> sentences("Oranges have vitamin C. They keep. See No. 5, e.g. by J. K. Rowling.")
        ['Oranges have vitamin C.', 'They keep.', 'See No. 5, e.g. by J. K. Rowling.']
        >>> sentences("它很安全。饮酒会降低剂量！")
        ['它很安全。', '饮酒会降低剂量！']
    """
    return [text[span.start : span.end] for span in sentence_spans(text)]


def sentence_spans(text: str) -> list[Span]:
    """Returns where the sentences of a text stand, in order; only white space lies between them.

    Example:
        >>> sentence_spans("Eat.  Sleep.")
        [Span(start=0, end=4), Span(start=6, end=12)]
    """
    found: list[Span] = []
    start = 0
    for end in sorted({*_stops(text), *_line_ends(text), len(text)}):
        piece = text[start:end]
        begin = start + len(piece) - len(piece.lstrip())
        stop = start + len(piece.rstrip())
        if begin < stop:
            found.append(Span(begin, stop))
        start = end
    return found


def leans_on_previous(sentence: str) -> bool:
    """Whether a sentence begins with a word that stands for something in the one before it.

    Example:
        >>> leans_on_previous("They keep."), leans_on_previous("Items keep."), leans_on_previous("它很安全。")
        (True, False, True)
    """
    return _LEANING.match(sentence) is not None


def _stops(text: str) -> Iterator[int]:
    """Yields where a stop and what closes around it end a sentence."""
    code = [match.span() for match in _CODE.finditer(text)]
    place = 0
    for match in _STOP.finditer(text):
        while place < len(code) and code[place][1] <= match.start():
            place += 1
        is_in_code = place < len(code) and code[place][0] < match.start()
        if not is_in_code and match.end() < len(text) and _ends_sentence(text, match):
            yield match.end("closers")


def _ends_sentence(text: str, stop: re.Match[str]) -> bool:
    rest = text[stop.end() : stop.end() + _WINDOW]
    has_space = bool(stop["space"])
    if stop["wide"]:
        # 他说："好。"然后走了: what a quotation ends with ends no sentence where the text continues right
        # behind it.
        return has_space or not stop["closers"] or rest[0] in "“「『《（"
    if not has_space:
        return rest[0] in "¿¡"
    if not _may_begin(rest):
        return False
    if stop["narrow"] != "." or stop["closers"].strip("*_"):
        return True
    before = text[max(0, stop.start() - _WINDOW) : stop.start()]
    return not _is_abbreviated(before.rpartition("\n")[2], rest)


def _may_begin(rest: str) -> bool:
    beginning = _BEGINNING.match(rest)
    if beginning is None:
        return False
    last = beginning.group()[-1]
    return not last.islower() or _CODE_NAME.match(rest) is not None


def _is_abbreviated(before: str, rest: str) -> bool:
    """Whether a full stop belongs to an abbreviation, an initial or an ordinal number, as far as
    the words around it tell.

    Args:
        before: What stands before the stop in its line.
        rest: What follows the stop and the space after it.
    """
    earlier, token = _last_word(before)
    if not token:
        return False
    plain = token.casefold()
    following = _WORD_AFTER.match(rest)
    after = following[1].casefold() if following else ""
    if token.isdigit():
        return _is_ordinal(token, earlier, after)
    if plain in _TITLES:
        return True
    if plain in _BEFORE_ANYTHING:
        return token[0].islower() or not earlier
    if plain in _BEFORE_NUMBERS:
        return after.isdigit() or (len(after) == 1 and len(token) > 1)
    if plain in _BEFORE_NAMES or ("." in token and len(token) <= 8):
        return after not in _STARTERS
    if len(token) > 1 or not token.isalpha() or not token.isascii():
        return False
    if earlier.endswith("."):
        # The second letter of "z. B." or "J. K. Rowling"; a starter still ends "at 5 p. m. They
        # left."
        single = _last_word(earlier[:-1])[1]
        if len(single) == 1:
            return after not in _STARTERS or (single.islower() and token != "m")
    if token.islower():
        return len(after) == 1  # the first letter of "z. B."
    return _is_initial(earlier, after)


def _last_word(text: str) -> tuple[str, str]:
    """Returns a text without its last word, and that word; the word may have stops and hyphens
    inside.
    """
    pieces = text.rsplit(None, 1)
    if not pieces or text[-1].isspace():
        return text.rstrip(), ""
    word = pieces[-1].lstrip(_OPENING_MARKS)
    earlier = text[: len(text) - len(word)].rstrip()
    return earlier, word


def _is_ordinal(number: str, earlier: str, after: str) -> bool:
    """Whether a number is one of a list or a German ordinal: "1. Eat", "am 3. Mai"."""
    return len(number) <= 2 and (
        not earlier or after in _MONTHS or _last_word(earlier)[1].casefold() in _ARTICLES
    )


def _is_initial(earlier: str, after: str) -> bool:
    """Whether a single capital letter is a person's initial: "J. Smith", "George W. Bush", but not
    "vitamin C. Eat".
    """
    if after in _STARTERS or earlier.endswith(("°", "µ", "%")):
        return False
    word = _last_word(earlier)[1]
    if not word:
        return True
    if word.casefold() in _LABELS or not word[0].isalpha():
        return False
    return word[0].isupper() or word in _INTRODUCING


def _line_ends(text: str) -> Iterator[int]:
    """Yields the ends of lines that end a sentence."""
    start = 0
    for match in _LINE_BREAK.finditer(text):
        line = text[start : match.start()]
        start = match.end()
        is_hard = line.endswith(("\\", "  "))  # Markdown's two marks of a line break
        line = line.strip()
        following = text[start : start + 1]
        is_open = len(line) >= _WRAPPED and not line.endswith(_LINE_STOPS) and not _ITEM.match(line)
        is_wrapped = is_open and following.isalnum()
        if is_hard or not is_wrapped:
            yield match.start()


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
# A line with its end, whichever of the three kinds it has.
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
# A line that its author meant as a list's item, where Markdown reads a part of a paragraph: "•
# Eat", "2) Sleep", "b) Rest".
_LISTED_LINE = re.compile(r"\s*(?:[-*+•◦▪–]|\(?\d{1,3}[.)]|\(?[a-h]\))\s+\S")
# A row of a Markdown table.
_ROW = re.compile(r"\s*\|.*\|\s*$")
# A line that is bold as a whole, which stands for a heading.
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
    if any(_LISTED_LINE.match(line) for line in written):
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
