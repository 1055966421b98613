"""Reads questions and lists out of a model's reply, whatever form and language they are in.

A reply may be JSON (good, broken, or among chatter), a numbered list, a table, tagged, or plain
lines. What marks a question, such as its number, quotes or a tag, does not stay in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from domainfusion.distillation.text.structures import structures_in
from domainfusion.models.reasoning import split_reasoning

LONGEST_REPLY = 20_000
"""Characters after which no question is looked for: no list of questions is as long."""

LONGEST_LINE = 4_000
"""Characters from which on a plain line is not a question: the longest that is kept has 80
words.
"""


@dataclass(frozen=True)
class WrittenQuestion:
    """A question that a model wrote.

    Attributes:
        text: The question.
        sub_questions: What the expert of each domain is asked, where the model says so.
    """

    text: str
    sub_questions: Mapping[str, str] = field(default_factory=dict)


def find_questions(reply: str) -> list[WrittenQuestion]:
    r"""Returns the questions in a model's reply, in order.

    Of JSON, what is called a question or stands in a list counts where it ends as a sentence does.
    Of plain lines and table cells, a question counts with the sentences before it (its situation),
    and ends with its question mark: `?`, `？`, `؟`, or `;` in Greek. Chinese, Japanese, Korean,
    Thai, Khmer, Burmese and Arabic questions are also known by their question words.

    Example:
        >>> [found.text for found in find_questions('Sure!\n1. "What is the symbol of gold?"\n2. Where is Rome?')]
        ['What is the symbol of gold?', 'Where is Rome?']
        >>> [found.text for found in find_questions('''{'questions': ['Where is Rome?', // in Italy''')]
        ['Where is Rome?']
        >>> [found.text for found in find_questions("| 1 | **法国的首都是哪里？** | easy |")]
        ['法国的首都是哪里？']
    """
    text = _plain(reply)
    try:
        found = list(_whole_questions(list(structures_in(text))))
    except RecursionError:  # data a thousand levels deep
        found = []
    return found or [
        WrittenQuestion(question) for line in _lines_of(text) for question in _in_line(line)
    ]


def find_items(reply: str) -> list[str]:
    r"""Returns the entries of a list that a model wrote, as JSON or one a line, each once.

    Example:
        >>> find_items("Here are two topics:\n1. Sprinting\n2. **Muscle recovery**.")
        ['Sprinting', 'Muscle recovery']
    """
    text = _plain(reply)
    try:
        texts = list(_texts_of(list(structures_in(text))))
    except RecursionError:
        texts = []
    lines = texts or [line for line in _lines_of(text) if not line.rstrip().endswith((":", "："))]
    entries = (_unmarked(line).rstrip(".。").strip() for line in lines)
    return list(dict.fromkeys(entry for entry in entries if re.search(r"\w", entry)))


def without_thoughts(reply: str) -> str:
    """Returns a reply without what a model thought aloud before it."""
    return split_reasoning(reply[:LONGEST_REPLY]).answer


# From a reply to lines

# A line that opens or closes a fence: ``` or ```json.
_FENCE = re.compile(r"^[ \t]*```[\w-]*[ \t]*$", re.MULTILINE)

# What no text can hold in a file (lone surrogates), and what no question holds: control characters,
# zero-width marks and the byte order mark. Tabs and line breaks stay.
_UNWRITABLE = re.compile(
    "[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u2060\ufeff\ufffe\uffff]"
)

# Tokens that end or begin a turn: </s>, <|im_end|>, <｜end▁of▁sentence｜>, [INST], <eos> …
_SPECIAL_TOKEN = re.compile(
    r"</?s>|<[|｜][^|｜<>\n]{1,40}[|｜]>|\[/?INST\]|<</?SYS>>"
    r"|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn|end_of_text|endoftext)>",
    re.IGNORECASE,
)

# Tags that models put around questions and their parts, by name: blocks end a line, the others
# format words. A name may have a number: <question1>, <q_2>.
_BLOCKS = (
    "questions?|quer(?:y|ies)|q|prompt|items?|entry|output|result|response|answer|text|instruction|example|user|assistant|human"
    "|p|li|ol|ul|br|div|table|thead|tbody|tr|td|th|h[1-6]|blockquote"
)
_INLINE = "b|i|u|em|strong|span|mark|sub|sup|small|font"
# An opening or closing tag of them, with its attributes; group 2 is its name.
_TAG = re.compile(rf"<(/?)({_BLOCKS}|{_INLINE})[ _-]?\d*(?:\s[^<>\n]{{0,80}})?/?>", re.IGNORECASE)
# The name of a tag that formats words.
_IS_INLINE = re.compile(rf"(?:{_INLINE})", re.IGNORECASE)


def _plain(reply: str) -> str:
    return _FENCE.sub("", _UNWRITABLE.sub("", without_thoughts(reply))).strip()


def _untagged(text: str) -> str:
    """Removes special tokens, and tags that come in pairs or stand at an end of a line.

    Another tag is what the text is about, as in "What does <table> mean in HTML?".
    """
    text = _SPECIAL_TOKEN.sub("\n", text)
    sides: dict[str, set[str]] = {}
    for closing, name in _TAG.findall(text):
        sides.setdefault(name.casefold(), set()).add(closing)

    def replaced(match: re.Match[str]) -> str:
        name = match.group(2).casefold()
        line_start = text.rfind("\n", 0, match.start()) + 1
        line_end = text.find("\n", match.end())
        before = text[line_start : match.start()]
        after = text[match.end() : line_end if line_end >= 0 else len(text)]
        is_at_end = not before.strip() or not after.strip()
        if len(sides[name]) < 2 and not is_at_end and name != "br":
            return match.group(0)
        return "" if _IS_INLINE.fullmatch(name) else "\n"

    return _TAG.sub(replaced, text)


def _lines_of(text: str) -> Iterator[str]:
    """Yields the lines of a text, of a table row each cell."""
    for line in _untagged(text).splitlines():
        if len(line) <= LONGEST_LINE:
            yield from _cells_of(line)


# A row of a table begins or ends with a bar, or begins with its number and a bar.
_ROW = re.compile(r"\s*(?:\|.*|\d+\s*\|.*|.*\|\s*)", re.DOTALL)


def _cells_of(line: str) -> list[str]:
    if "|" not in line or not _ROW.fullmatch(line):
        return [line]
    # Rules between rows (|---|:-:|) and numbers are not cells with words.
    return [cell for cell in re.split(r"(?<!\\)\|", line) if re.search(r"[^\W\d_]", cell)]


# What marks a question

# Bullets, headings, quotation marks of mail, numbers (1. 1) (1) １． ① 一、) and letters (a) b.).
_BULLET = re.compile(
    r"\s*(?:[-–—•▪◦●*+](?=\s)|#{1,6}(?=\s)|>+(?=\s)|[\(\[（]?\d{1,3}[.):：．、）\]](?!\d)|[①-⑳]"
    r"|[一二三四五六七八九十]{1,3}[、．.]|\(?[a-hA-H]\)(?=\s)|[a-h]\.(?=\s))\s*"
)

# "Question:", "Q1.", "Sample question 2:", '"question": "', and the like in other languages.
_LABEL = re.compile(
    r"[\s\"'“{\[]*(?:(?:[\w'’-]+\s+){0,4}?"
    r"(?:questions?|query|prompt|frage|pregunta|domanda|pergunta|вопрос|ερώτηση|سؤال|السؤال|질문|问题|問題|質問|提问|问|問|q)"
    r"\s*(?:no\.?\s*|nr\.?\s*|#\s*)?\d{0,3}[\"'”]?\s*[:：]|q(?:uestion)?\s*\d{1,3}\s*[.)–—-]|q\.|question\s*\d{0,3}\]"
    r"|(?:user|human|student)\s*[:：])[\"'”*]*\s*",
    re.IGNORECASE,
)

# The last "Question:" inside of a line that repeats the prompt before it.
_LABEL_INSIDE = re.compile(
    r".*\b(?:question|query)\s*\d{0,3}\s*[:：]\s*", re.IGNORECASE | re.DOTALL
)

# Bold and italics around words; not the operators of 2**3 and *args, nor the name __init__.
_BOLD = (
    re.compile(r"(?<![A-Za-z0-9*])\*\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*\*(?![A-Za-z0-9*])"),
    re.compile(r"(?<![A-Za-z0-9*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![A-Za-z0-9*])"),
    re.compile(r"(?<![\w])__(?=[^\s_])([^_\n]* [^_\n]*?)(?<=[^\s_])__(?![\w])"),
)
_PAIRS = {
    "“": "”",
    "„": "“",
    "«": "»",
    "‘": "’",
    "「": "」",
    "『": "』",
    "‹": "›",
    '"': '"',
    "'": "'",
    "`": "`",
    "(": ")",
    "（": "）",
    "[": "]",
}
_OPENING = {"*": "*", "_": "_"}
for _opening, _closing in _PAIRS.items():
    _OPENING[_closing] = _OPENING.get(_closing, "") + _opening


def _unmarked(line: str) -> str:
    """Removes numbers, labels, bold and quotes around an entry, in whatever order they come."""
    line = line.strip()
    for _ in range(8):  # 1. **Question:** "…": marks within marks, but not without end
        before = line
        for pattern in _BOLD:
            line = pattern.sub(r"\1", line)
        line = _BULLET.sub("", line, count=1) if _BULLET.match(line) else line
        line = line[match.end() :] if (match := _LABEL.match(line)) else line
        line = _unquoted(line.strip().strip("*").strip())
        if line == before:
            break
    return line


def _unquoted(line: str) -> str:
    """Removes quotes or brackets around the whole line, and one that was never closed or opened."""
    if len(line) > 1 and _PAIRS.get(line[0]) == line[-1] and line[0] not in line[1:-1]:
        return line[1:-1].strip()
    if line and line[0] in _PAIRS and _PAIRS[line[0]] not in line[1:]:
        line = line[1:].strip()
    while line and line[-1] in _OPENING and not _is_closed(line):
        line = line[:-1].rstrip()
    return line


def _is_closed(line: str) -> bool:
    """Whether the quote or bracket at the end of a line closes one that is open."""
    last = line[-1]
    if last in "\"'`*_":
        return line.count(last) % 2 == 0
    return any(line.count(opening) >= line.count(last) for opening in _OPENING[last])


# Which sentence is a question

_MARKS = "?？؟⁇⁈⁉﹖⸮፧"
_CLOSING = "\"'”’»」』›）)]*_`"
_CLOSERS = re.escape(_CLOSING)

# A sentence: up to its stop and the quotes or brackets that close after it. A full stop ends one
# before a space alone, so that 3.5 is one number. The Greek question mark is a semicolon.
_SENTENCE = re.compile(rf".+?(?:[{_MARKS}]+[{_CLOSERS}]*|[.!](?=\s)|[。！।။។։]|\Z)", re.DOTALL)
# As above, where a semicolon (or U+037E, which looks the same) asks.
_GREEK_SENTENCE = re.compile(rf".+?(?:[;\u037e?]+[{_CLOSERS}]*|[.!](?=\s)|\Z)", re.DOTALL)

# Words that make a sentence a question in languages that are also written without the mark.
_QUESTION_WORDS = re.compile(
    r"՞|か[。．]?$"  # Armenian, whose mark is inside of a word; Japanese, at the end
    r"|(?:吗|嗎|呢)[。"
    r"]?$|什么|什麼|哪[里裡儿个個些种種年国國座位]|谁|誰|多少|几[个個年岁歲次种種天]|怎[么麼样樣]|为何|為何|如何|是否|何时|何時"
    r"|(?:까|까요|나요|가요|는가|은가|인가|냐)[.。]?$"  # Korean, at the end
    # Thai
    r"|ไหม|มั้ย|หรือไม่|หรือเปล่า|อะไร|ไหน|เมื่อไร|เมื่อไหร่|อย่างไร|ยังไง|ทำไม|ใคร|กี่|เท่าไร|เท่าไหร่"
    r"|^តើ|(?:လား|လဲ)[။]?$"  # Khmer, Burmese
    r"|^(?:هل|ماذا|متى|أين|كيف|كم|لماذا|ما هو|ما هي|من هو|من هي)\s"  # Arabic, at the beginning
)
_ENDS = (*_MARKS, ".", "!", "。", "！", "…", "।", "။", "។", "։", ";", "\u037e", "```")

# What a model says before its question: "Sure, here is one:", "Of course!".
_CHATTER = re.compile(
    r"(?:sure|of course|certainly|absolutely|okay|ok|great|yes|no problem"
    r"|here(?:['’]s| is| are| you)|i (?:can|will|would|['’]d)|let(?:['’]s|"
    r" me))\b[^.!?:]{0,120}[.!:]\s*",
    re.IGNORECASE,
)
# What names the question that follows: "Another one: Where …".
_HEADING = re.compile(r"[^.!?:：。\d]{1,60}:\s+(?=[\"“']?[^\W\d_a-z])")


def _sentences_of(line: str) -> list[tuple[str, bool]]:
    """Returns the sentences of a line, and whether each is a question."""
    letters = re.findall(r"[^\W\d_]", line)
    greek = sum(
        "\u0370" <= letter <= "\u03ff" or "\u1f00" <= letter <= "\u1fff" for letter in letters
    )
    is_greek = 2 * greek > len(letters)
    marks = f"{_MARKS};\u037e" if is_greek else _MARKS
    found = []
    for match in (_GREEK_SENTENCE if is_greek else _SENTENCE).finditer(line):
        sentence = match.group(0).strip()
        is_question = sentence.rstrip(_CLOSING).endswith(tuple(marks))
        found.append((sentence, is_question or bool(_QUESTION_WORDS.search(sentence))))
    return found


def _in_line(line: str) -> Iterator[str]:
    """Yields the questions of a line: the first, with what comes before it, and numbered others."""
    pending: list[str] = []
    question: list[str] = []
    is_open, is_over = False, False
    for sentence, is_question in _sentences_of(_unmarked(line)):
        if question and _BULLET.match(sentence):  # "1. …? 2. …?" in one line
            yield from _question_from(question)
            question, pending, is_over = [], [], False
        if is_over:
            continue
        if is_question:
            question += [*pending, sentence]
            pending, is_open = [], True
        elif is_open and question:  # such as an answer
            is_over = True
        else:
            pending.append(sentence)
    yield from _question_from(question)


def _question_from(sentences: list[str]) -> Iterator[str]:
    joined = _LABEL_INSIDE.sub("", " ".join(sentences))
    while (match := _CHATTER.match(joined)) and match.end() < len(joined):
        joined = joined[match.end() :]
    joined = joined[match.end() :] if (match := _HEADING.match(joined)) else joined
    if question := _unmarked(joined):
        yield question


def _is_whole(text: str) -> bool:
    """Whether a text ends as a sentence does, and so was not cut."""
    return text.rstrip(_CLOSING).endswith(_ENDS) or bool(_QUESTION_WORDS.search(text))


# JSON

_QUESTION_KEYS = ("question", "query", "prompt", "instruction", "text", "q")


def _whole_questions(value: Any) -> Iterator[WrittenQuestion]:
    for question in _questions_of(value):
        if question.text.startswith("|"):
            yield from (
                replaced
                for cell in _cells_of(question.text)
                for replaced in map(WrittenQuestion, _in_line(cell))
            )
            continue
        text = _unmarked(_untagged(question.text).strip())
        if _is_whole(text):
            yield WrittenQuestion(text, question.sub_questions)


def _questions_of(value: Any) -> Iterator[WrittenQuestion]:
    if isinstance(value, str):
        yield WrittenQuestion(value.strip())
    elif isinstance(value, list):
        for item in value:
            yield from _questions_of(item)
    elif isinstance(value, dict):
        named = {str(key).strip().casefold(): item for key, item in value.items()}
        text = next((named[key] for key in _QUESTION_KEYS if isinstance(named.get(key), str)), None)
        if text is not None:
            yield WrittenQuestion(text.strip(), _sub_questions_of(named.get("sub_questions")))
        else:
            yield from _questions_of(
                [
                    item
                    for item in value.values()
                    if not isinstance(item, str) or _ends_in_mark(item)
                ]
            )


def _ends_in_mark(text: str) -> bool:
    return any(is_question for _, is_question in _sentences_of(text[:LONGEST_LINE])[-1:])


def _sub_questions_of(value: Any) -> dict[str, str]:
    """Reads `{domain: question}` and `[{"domain": ..., "question": ...}]`."""
    if isinstance(value, list):
        pairs = [
            (item.get("domain"), item.get("question")) for item in value if isinstance(item, dict)
        ]
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        return {}
    found = {}
    for domain, text in pairs:
        if (
            isinstance(domain, str)
            and isinstance(text, str)
            and (question := _unmarked(_untagged(text).strip()))
        ):
            found[domain] = question
    return found


def _texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts_of(item)
