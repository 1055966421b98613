"""Keeps what a model thought apart from its answer, in every form in which models write it.

Local models, answers of servers and references in files are all read here. The two mistakes are
weighed as follows: reasoning must never be taken for an answer, and an answer that only mentions a
tag must keep all of its words. So a tag counts where models put it (an opening tag at the very
start, a closing tag after it), and not inside of quotation marks, code or a sentence.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Reasoned(NamedTuple):
    """A text as a model wrote it, in two parts.

    Attributes:
        reasoning: What was thought; empty where nothing was, or where it does not show.
        answer: What was answered.
        is_cut: The reasoning was opened and never closed, so there is no answer: `answer` is empty.
    """

    reasoning: str
    answer: str
    is_cut: bool = False


class Content(NamedTuple):
    """The content of a message that comes in parts, as some servers and files have it.

    Attributes:
        texts: The text parts, in order.
        reasoning: What parts of the types `thinking`, `reasoning` … say.
        others: The types of all other parts, such as images.
    """

    texts: tuple[str, ...]
    reasoning: str
    others: tuple[str, ...]


# --- The tags

_NAMES = "think|thinking|thought|thoughts|reasoning|antthinking|inner_thoughts|longcat_think"
# `seed:think`, `mm:think`: some makers put their own name before it.
_TAG_NAME = rf"(?:[a-z_]{{1,20}}[:|])?(?:{_NAMES})"
_BRACKETS = (
    ("<", ">"),
    ("[", "]"),
    ("◁", "▷"),
)  # <think>, Magistral's [THINK], Kimi's ◁think▷; closed with a slash

_PAIRS: Mapping[str, str] = {
    "<|begin_of_thought|>": "<|end_of_thought|>",  # Sky-T1, OpenThinker
    "<|START_THINKING|>": "<|END_THINKING|>",  # Cohere's Command A
    "<|inner_prefix|>": "<|inner_suffix|>",  # Apertus
    "<unused94>thought": "<unused95>",  # MedGemma
    "<|channel>thought": "<channel|>",  # Gemma 4
    '<details type="reasoning" done="true">': "</details>",  # Open WebUI
    "Here is my thought process:": "Here is my response:",  # Granite 3
    "Here are my reasoning steps:": "[BEGIN FINAL RESPONSE]",  # Apriel
}
"""Opening and closing tags that do not mirror each other."""

_PAIRS_IN_LOWER_CASE = {opening.lower(): closing for opening, closing in _PAIRS.items()}

_WORDS_ALONE = frozenset({"here is my thought process:", "here are my reasoning steps:"})
"""Openings that anybody might write, in lower case: they count only where the closing follows."""

_WRAPPERS: Mapping[str, str] = {
    "<|begin_of_solution|>": "<|end_of_solution|>",
    "<|start_response|>": "<|end_response|>",
    "[begin final response]": "[end final response]",
    "<answer>": "</answer>",
    "<response>": "</response>",
}
"""Tags around an answer, in lower case. The last two are removed only after reasoning."""

_CONTROL_WRAPPERS = frozenset({"<|begin_of_solution|>", "<|start_response|>"})

_MOST_THOUGHTS = 20
"""The most thoughts in a row that are read: a text of tags alone would take quadratic time."""

# An opening tag of reasoning, of either kind.
_OPENING = re.compile(
    "|".join(
        [
            *(f"{re.escape(left)}{_TAG_NAME}{re.escape(right)}" for left, right in _BRACKETS),
            *(re.escape(opening) for opening in _PAIRS),
        ]
    ),
    re.IGNORECASE,
)
_CLOSING = re.compile(
    "|".join(
        [
            *(f"{re.escape(left)}/{_TAG_NAME}{re.escape(right)}" for left, right in _BRACKETS),
            *(re.escape(closing) for opening, closing in _PAIRS.items() if "<|" in closing),
        ]
    ),
    re.IGNORECASE,
)
"""Closing tags that may stand alone, where the chat template wrote the opening one in the
prompt.
"""

_NAMES_THE_TAG = re.compile(
    r"[ \t]*[,;)]|[ \t]+(?:is|are|was|and|or|tags?|marks|opens|starts|begins|means|stands)\b"
)
"""What follows an opening tag in an answer about the tag: `<think> is what R1 writes first`."""

# --- gpt-oss writes messages in channels (https://cookbook.openai.com/articles/openai-harmony):
# <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>

# The head of a message, with the channel's name.
_CHANNEL = re.compile(
    r"(?:<\|start\|>assistant[^<\n]{0,80})?<\|channel\|>(?P<name>\w+)[^<\n]{0,80}(?:<\|constrain\|>\w+)?<\|message\|>"
)
# Where a message ends because another one begins.
_NEXT_CHANNEL = re.compile(
    rf"(?:<\|(?:end|call)\|>\s*(?={_CHANNEL.pattern.replace('(?P<name>', '(?:')})|(?=<\|start\|>assistant))"
)
# The end of the last message.
_MESSAGE_END = re.compile(r"<\|(?:end|return|call)\|>\s*\Z")
_BARE_CHANNELS = re.compile(r"analysis(?P<reasoning>.*?)assistantfinal(?P<answer>.*)", re.DOTALL)
"""The same where a server dropped the control tokens and left their words."""

_HARMONY_TOKENS = frozenset(
    {
        "<|start|>",
        "<|end|>",
        "<|message|>",
        "<|channel|>",
        "<|constrain|>",
        "<|return|>",
        "<|call|>",
    }
)


def split_reasoning(text: str, prompt: str = "") -> Reasoned:
    r"""Splits what a model wrote into its reasoning and its answer.

    Args:
        text: What it wrote, control tokens that mark reasoning included (see `is_marker`).
        prompt: The text that it wrote on from, or the end of it: many chat templates open the
            reasoning there, so that the text has the closing tag alone. Where the prompt is not
            known, as behind a server, such a text is recognized by where the tag stands.

    Example:
        >>> split_reasoning("<think>2 and 2</think>4")
        Reasoned(reasoning='2 and 2', answer='4', is_cut=False)
        >>> split_reasoning("It is even.</think>4").answer, split_reasoning("Reasoning ends with </think>, as in R1.").reasoning
        ('4', '')
        >>> split_reasoning("It is ev", prompt="<|im_start|>assistant\n<think>\n")
        Reasoned(reasoning='It is ev', answer='', is_cut=True)
    """
    text = (_opened_by(prompt) + text).strip()
    if found := _split_channels(text):
        return found
    thoughts: list[str] = []
    for _ in range(_MOST_THOUGHTS):
        opening = _OPENING.match(text)
        if opening is None:
            break
        end = _end_of_thought(text, opening)
        if end is None:
            if opening.group().lower() in _WORDS_ALONE or (
                not thoughts and _NAMES_THE_TAG.match(text, opening.end())
            ):
                break
            thoughts.append(text[opening.end() :].strip())
            return Reasoned(_joined(thoughts), "", is_cut=True)
        thoughts.append(text[opening.end() : end.start()].strip())
        text = text[_wrapper_start(end) :].strip()
    if not thoughts and (end := _closing_alone(text)) is not None:
        thoughts.append(text[: end.start()].strip())
        text = text[end.end() :].strip()
        if _OPENING.match(text):  # a second thought follows the one that the prompt opened
            rest = split_reasoning(text)
            return Reasoned(_joined([*thoughts, rest.reasoning]), rest.answer, rest.is_cut)
    return Reasoned(_joined(thoughts), _unwrapped(text, after_reasoning=bool(thoughts)))


def read_content(content: object) -> Content:
    """Reads the content of a message: one text, or parts, of which some may be reasoning.

    What a text itself holds of reasoning is not looked at: that is for `split_reasoning`, once the
    texts are joined.

    Example:
        >>> read_content([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Fe."}])
        Content(texts=('Fe.',), reasoning='Hm.', others=())
    """
    texts: list[str] = []
    thoughts: list[str] = []
    others: list[str] = []
    for part in content if isinstance(content, list | tuple) else [content]:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = str(part.get("type", "")) if isinstance(part, Mapping) else type(part).__name__
        if isinstance(part, Mapping) and _is_reasoning(kind):
            thoughts.append(_text_within(part))
        elif (
            isinstance(part, Mapping)
            and isinstance(part.get("text"), str)
            and kind in ("", "text", "output_text", "input_text")
        ):
            texts.append(part["text"])
        else:
            others.append(kind)
    return Content(tuple(texts), _joined(thoughts), tuple(others))


def is_marker(token: str) -> bool:
    """Returns whether a token marks reasoning or answer, so that `split_reasoning` has to see
    it.
    """
    if token in _HARMONY_TOKENS or _OPENING.fullmatch(token) or _CLOSING.fullmatch(token):
        return True
    lowered = token.lower()
    in_a_pair = any(
        lowered in (opening, closing.lower())
        for opening, closing in (*_PAIRS_IN_LOWER_CASE.items(), *_WRAPPERS.items())
    )
    begins_a_pair = len(token) > 4 and any(
        opening.startswith(lowered) for opening in _PAIRS_IN_LOWER_CASE
    )  # <unused94>, then `thought`
    return in_a_pair or begins_a_pair


def is_channel_marker(token: str) -> bool:
    """Returns whether gpt-oss writes its channels with a token; it may mean something else
    elsewhere.
    """
    return token in _HARMONY_TOKENS


def lead_after_thought(header: str, between: str) -> str:
    r"""Returns what a model writes before the words of an answer where its prompt has a thought.

    A thought that the prompt opens is ended without a word; one that the prompt ends itself, since
    the model is not to think, is over. What the template writes after thoughts follows.

    Args:
        header: What the template writes from the user's words to where the model writes on.
        between: What it writes from the user's words to those of an answer that is there already.

    Returns:
        The text; empty where the prompt has no thought.

    Example:
        >>> lead_after_thought("<|assistant|><think>\n", "<|assistant|>"), lead_after_thought("<|assistant|>", "<|assistant|>")
        ('\n</think>\n\n', '')
    """
    opening = _opened_by(header)
    ending = f"\n{_closing_of(opening)}\n\n" if opening else ""
    if not opening:
        opening = _empty_thought_in(header)
    if not opening:
        return ""
    before = header[: header.rindex(opening)]
    rest = between[len(before) :] if between.startswith(before) else ""
    channel = _CHANNEL.match(opening)
    if channel is None:
        return ending + rest
    if channel["name"] == "final":
        return ""
    return "<|end|>" + (rest or "<|start|>assistant<|channel|>final<|message|>")


def _empty_thought_in(prompt: str) -> str:
    """Returns the empty thought at the end of a prompt; an empty text where there is none."""
    tail = prompt.rstrip()[-200:]
    for opening in _OPENING.finditer(tail):
        if tail[opening.end() :].strip().lower() == _closing_of(opening.group()).lower():
            return tail[opening.start() :]
    return ""


# --- Reasoning that begins with an opening tag


def _opened_by(prompt: str) -> str:
    """Returns the opening tag at the end of a prompt; an empty text where there is none."""
    tail = prompt.rstrip()[-200:]
    for pattern in (_OPENING, _CHANNEL):
        last = [found for found in pattern.finditer(tail) if found.end() == len(tail)]
        if last:
            return last[0].group()
    return ""


def _closing_of(opening: str) -> str:
    """Returns the tag that closes what `opening` opens."""
    return _PAIRS_IN_LOWER_CASE.get(opening.lower()) or f"{opening[0]}/{opening[1:]}"


def _end_of_thought(text: str, opening: re.Match[str]) -> re.Match[str] | None:
    """Returns the closing tag: the first that is not just mentioned, else the last in a
    sentence.
    """
    closing = re.compile(re.escape(_closing_of(opening.group())), re.IGNORECASE)
    code = _Code(text)
    fallback = None
    names_the_tag = _NAMES_THE_TAG.match(text, opening.end()) is not None
    for found in closing.finditer(text, opening.end()):
        if _is_quoted(text, found):
            continue
        if not code.holds(found.start()) and not _is_within_a_sentence(text, found):
            return found
        fallback = found
    return None if names_the_tag else fallback


def _wrapper_start(closing: re.Match[str]) -> int:
    """Returns where the text after a thought begins: at the closing tag, if that opens the
    answer.
    """
    return closing.start() if closing.group().lower() in _WRAPPERS else closing.end()


# --- Reasoning that the prompt opened


def _closing_alone(text: str) -> re.Match[str] | None:
    """Returns the first closing tag that ends reasoning which the prompt opened; None without
    one.
    """
    first = _CLOSING.search(text)
    if first is None:
        return None
    code = _Code(text)
    opened = {
        _closing_of(found.group()).lower()
        for found in _OPENING.finditer(text, 0, _last_closing(text))
        if not _is_quoted(text, found) and not code.holds(found.start())
    }
    for found in _CLOSING.finditer(text):
        if found.group().lower() in opened or _is_quoted(text, found) or code.holds(found.start()):
            continue
        if not _is_within_a_sentence(text, found) and _ends_a_thought(text, found):
            return found
    return None


def _last_closing(text: str) -> int:
    return max((found.start() for found in _CLOSING.finditer(text)), default=0)


def _ends_a_thought(text: str, tag: re.Match[str]) -> bool:
    """Returns whether a closing tag stands directly after a word or a sentence, or ends a
    paragraph.
    """
    before = text[max(0, tag.start() - 80) : tag.start()]
    follows_a_word_and_a_space = before[-1:] in (" ", "\t") and before.rstrip(" \t")[-1:].isalnum()
    return (
        not follows_a_word_and_a_space
        or re.compile(r"[ \t]*\r?\n[ \t]*\r?\n").match(text, tag.end()) is not None
    )


# --- Tags that are mentioned

_QUOTES = {
    "`": "`",
    '"': '"',
    "'": "'",
    "“": "”",
    "„": "“",
    "‘": "’",
    "«": "»",
    "「": "」",
    "『": "』",
    "(": ")",
    "*": "*",
    "_": "_",
}
# A mark after a quoted tag: the tag stands inside of a sentence.
_SENTENCE_GOES_ON = re.compile(r"[ \t]*[,;:)]|[.?!]")


def _is_quoted(text: str, tag: re.Match[str]) -> bool:
    """Returns whether a tag stands between quotation marks, brackets or marks of emphasis."""
    before, after = text[tag.start() - 1 : tag.start()], text[tag.end() : tag.end() + 1]
    return bool(before) and _QUOTES.get(before) == after


def _is_within_a_sentence(text: str, tag: re.Match[str]) -> bool:
    """Returns whether a tag is part of a sentence: `it ends with </think>, and then …`."""
    before = text[max(0, tag.start() - 2) : tag.start()]
    after = text[tag.end() : tag.end() + 2]
    if not before or before[-1] in "\r\n":
        return False
    if before[-1] in " \t":
        word_follows = after[:1] in (" ", "\t") and unicodedata.category(after[1:2] or " ") in (
            "Ll",
            "Lo",
            "Lm",
        )
        return word_follows or _SENTENCE_GOES_ON.match(text, tag.end()) is not None
    # Chinese, Japanese … set no spaces between words
    return (
        unicodedata.category(before[-1]) == "Lo" and unicodedata.category(after[:1] or " ") == "Lo"
    )


class _Code:
    """Where a text is code in Markdown: closed fenced blocks, and spans within a line."""

    _FENCE = re.compile(r" {0,3}(?P<mark>`{3,}|~{3,})")
    _BACKTICKS = re.compile("`+")

    def __init__(self, text: str) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        fence, fence_start, place = "", 0, 0
        spans: list[tuple[int, int]] = []
        for line in text.splitlines(keepends=True):
            mark = self._FENCE.match(line)
            if not fence and mark:
                fence, fence_start, spans = mark["mark"], place, []
            elif (
                fence and mark and mark["mark"].startswith(fence) and not line[mark.end() :].strip()
            ):
                fence = ""
                self._add(fence_start, place + len(line))
            else:
                found = [(place + start, place + end) for start, end in self._spans(line)]
                spans += found  # a fence that is never closed holds no code, but its lines may
                if not fence:
                    for start, end in found:
                        self._add(start, end)
            place += len(line)
        if fence:
            for start, end in spans:
                self._add(start, end)

    def _spans(self, line: str) -> Iterator[tuple[int, int]]:
        """Yields where the spans of a line begin and end: between two runs of as many backticks."""
        opening = None
        for run in self._BACKTICKS.finditer(line):
            if opening is None:
                opening = run
            elif len(run.group()) == len(opening.group()):
                yield opening.start(), run.end()
                opening = None

    def _add(self, start: int, end: int) -> None:
        self._starts.append(start)
        self._ends.append(end)

    def holds(self, place: int) -> bool:
        """Returns whether a place of the text is inside of code."""
        index = bisect_right(self._starts, place) - 1
        return index >= 0 and place < self._ends[index]


# --- Channels, parts and wrappers


def _split_channels(text: str) -> Reasoned | None:
    """Splits the channels of gpt-oss, of which the final one is the answer; None without
    channels.
    """
    channel = _CHANNEL.match(text)
    if channel is None:
        bare = _BARE_CHANNELS.match(text)
        return None if bare is None else Reasoned(bare["reasoning"].strip(), bare["answer"].strip())
    thoughts: list[str] = []
    while channel is not None:
        if channel["name"] == "final":
            return Reasoned(_joined(thoughts), _MESSAGE_END.sub("", text[channel.end() :]).strip())
        following = _NEXT_CHANNEL.search(text, channel.end())
        end = len(text) if following is None else following.start()
        thoughts.append(_MESSAGE_END.sub("", text[channel.end() : end]).strip())
        channel = None if following is None else _CHANNEL.match(text, following.end())
    return Reasoned(_joined(thoughts), "", is_cut=True)


def _unwrapped(text: str, *, after_reasoning: bool) -> str:
    """Returns an answer without what its model writes around answers."""
    for opening, closing in _WRAPPERS.items():
        if not after_reasoning and opening not in _CONTROL_WRAPPERS:
            continue
        has_opening = text[: len(opening)].lower() == opening
        has_closing = text[-len(closing) :].lower() == closing
        if has_opening or (has_closing and opening in _CONTROL_WRAPPERS):
            text = text[
                len(opening) if has_opening else 0 : -len(closing) if has_closing else None
            ].strip()
    return text


def _is_reasoning(kind: str) -> bool:
    return any(name in kind.lower() for name in ("thinking", "reasoning", "thought"))


def _text_within(part: object) -> str:
    """Returns all texts within a part of reasoning, whose form differs from server to server."""
    return "\n".join(_texts_within(part)).strip()


def _texts_within(part: object, depth: int = 0) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif depth < 4 and isinstance(part, Mapping):
        for name in ("thinking", "reasoning", "text", "content", "summary"):
            yield from _texts_within(part.get(name), depth + 1)
    elif depth < 4 and isinstance(part, list | tuple):
        for item in part:
            yield from _texts_within(item, depth + 1)


def _joined(thoughts: list[str]) -> str:
    return "\n\n".join(thought for thought in thoughts if thought)
