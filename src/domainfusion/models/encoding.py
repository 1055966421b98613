"""From words to tokens: prompts and answers as a chat template writes them; control tokens in words
stay text.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import TemplateError as JinjaError
from transformers import PreTrainedTokenizerBase

from domainfusion.errors import ModelError
from domainfusion.models.chat_template import (
    check_length,
    check_template,
    literal_template,
    within_time,
)
from domainfusion.models.reasoning import is_channel_marker, is_marker, lead_after_thought
from domainfusion.types import Conversation, Message

# --- How a template writes an answer


class AnswerForm(NamedTuple):
    r"""What a chat template writes around the words of an answer.

    Attributes:
        header: What stands between the user's words and where the model writes on:
            `<|im_end|>\n<|im_start|>assistant\n`.
        lead: What stands between there and the answer's words, and is the model's to write: a
            channel, an empty thought.
        closing: The tokens after the words, up to and with the one that ends the answer.
        takes_parts: Whether the template wants the content of a message in parts rather than as one
            text.
    """

    header: str
    lead: str
    closing: tuple[int, ...]
    takes_parts: bool

    @property
    def end(self) -> int:
        """The token that ends an answer."""
        return self.closing[-1]


class AnswerTokens(NamedTuple):
    """The tokens of an answer as a model writes it.

    Attributes:
        lead: What the template puts before its words.
        words: Its words.
        closing: What ends it.
    """

    lead: tuple[int, ...]
    words: tuple[int, ...]
    closing: tuple[int, ...]

    def row(self, *, finished: bool = True) -> list[int]:
        """Returns all of its tokens; without the end where it was cut."""
        return [*self.lead, *self.words, *(self.closing if finished else ())]


_QUESTION, _ANSWER, _FOLLOW_UP = "xqquestionqx", "xqanswerqx", "xqfollowupqx"
"""Stand-ins for words while a template is examined; trimming or lower-casing does not change
them.
"""

_forms: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, tuple[object, AnswerForm]] = (
    weakref.WeakKeyDictionary()
)


def answer_form(tokenizer: PreTrainedTokenizerBase, name: str = "this model") -> AnswerForm:
    """Returns what the chat template of a tokenizer writes around answers, found by rendering one.

    Args:
        tokenizer: The tokenizer.
        name: What an error calls the model.

    Raises:
        ModelError: The template can't be rendered, leaves words out, or ends an answer with no
            token.
    """
    template = tokenizer.chat_template
    known = _forms.get(tokenizer)
    if known is None or known[0] != template:
        known = _forms[tokenizer] = (template, _find_form(tokenizer, name))
    return known[1]


def _find_form(tokenizer: PreTrainedTokenizerBase, name: str) -> AnswerForm:
    check_template(str(tokenizer.chat_template), name)
    probe = _Probe(tokenizer, name)
    opened = probe.rendered(_QUESTION, reply=True)
    if opened is None:
        raise probe.problem()
    header = opened[opened.rfind(_QUESTION) + len(_QUESTION) :]
    closed = probe.rendered(_QUESTION, _ANSWER, reply=False)
    middle = probe.rendered(_QUESTION, _ANSWER, _FOLLOW_UP, reply=True)
    between = next(
        (_between(text, _QUESTION, _ANSWER) for text in (closed, middle) if text is not None),
        header,
    )
    after_last = None if closed is None else closed[closed.rfind(_ANSWER) + len(_ANSWER) :]
    after_middle = None if middle is None else _between(middle, _ANSWER, _FOLLOW_UP)
    closing = _closing(tokenizer, opened[: opened.rfind(_QUESTION)], after_last, after_middle)
    if not closing:
        raise ModelError(
            f"The chat template of {name} ends an answer with no token, and its tokenizer names no"
            " end token",
            fix=(
                "give a chat_template that ends answers with a control token, or set eos_token in"
                " tokenizer_config.json"
            ),
        )
    return AnswerForm(header, _lead(header, between), closing, probe.takes_parts)


class _Probe:
    """Renders words that stand for others, in the form of content that the template takes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self._error: Exception | None = None
        self._system: tuple[Message, ...] = ()
        self.takes_parts = False
        for system in (
            (),
            (Message("system", "xqsystemqx"),),
        ):  # some templates refuse a conversation without a system message
            for takes_parts in (False, True):
                self._system, self.takes_parts = system, takes_parts
                if self.rendered(_QUESTION, reply=True) is not None:
                    return

    def rendered(self, *words: str, reply: bool) -> str | None:
        """Returns a dialogue as the template renders it; None where it refuses, or leaves words
        out.
        """
        turns = [
            Message("assistant" if place % 2 else "user", content)
            for place, content in enumerate(words)
        ]
        try:
            found = _render(
                self._tokenizer, [*self._system, *turns], reply, self.takes_parts, self._name
            )
        except ModelError:
            raise
        except Exception as error:  # a template raises whatever it stumbles over
            self._error = self._error or error
            return None
        return found if all(content in found for content in words) else None

    def problem(self) -> ModelError:
        """Returns why not even a question can be rendered."""
        if self._error is None:
            return ModelError(
                f"The chat template of {self._name} leaves the user's words out",
                fix="give chat_template=...",
            )
        return _cant_render(self._name, self._error, ["user"])


def _between(text: str, first: str, second: str) -> str:
    start = text.rfind(first, 0, text.rfind(second)) + len(first)
    return text[start : text.rfind(second)]


def _lead(header: str, between: str) -> str:
    """Returns what a model writes before the words of an answer.

    Args:
        header: What the template writes from the user's words to where the model writes on.
        between: What it writes from the user's words to those of an answer that is there already.
    """
    if between.startswith(header):
        return between[len(header) :]
    if ending := lead_after_thought(
        header, between
    ):  # templates leave the thought out of an answer that is there already
        return ending
    shared = next(
        (
            place
            for place, pair in enumerate(zip(header, between, strict=False))
            if pair[0] != pair[1]
        ),
        len(between),
    )
    return between[shared:] if not header[shared:].strip() else ""


def _closing(
    tokenizer: PreTrainedTokenizerBase,
    before: str,
    after_last: str | None,
    after_middle: str | None,
) -> tuple[int, ...]:
    """Returns the tokens that end an answer.

    At the end of a dialogue a template may write more (the end of the text), and in its midst too
    (the next turn), so what it writes in both places is the end of the answer, where there is a
    control token in it.

    Args:
        tokenizer: The tokenizer.
        before: What the template writes before the first words.
        after_last: What follows the last answer; None where the template refuses to end with one.
        after_middle: What stands between an answer and the next question; None where the template
            refuses a second one.
    """
    control = template_tokens(tokenizer)
    last, middle = _plain(tokenizer, after_last or ""), _plain(tokenizer, after_middle or "")
    in_both = next(
        (place for place, pair in enumerate(zip(last, middle, strict=False)) if pair[0] != pair[1]),
        min(len(last), len(middle)),
    )
    shared = [place for place in range(in_both) if last[place] in control]
    if shared:
        return tuple(last[: shared[-1] + 1])
    in_last = [place for place, token in enumerate(last) if token in control]
    if in_last:
        return tuple(last[: in_last[0] + 1])
    in_middle = [place for place, token in enumerate(middle) if token in control]
    # A single control token between an answer and a question may be the one that begins every
    # question.
    begins_questions = len(in_middle) == 1 and middle[in_middle[0]] in _plain(tokenizer, before)
    if in_middle and not begins_questions:
        return tuple(middle[: in_middle[0] + 1])
    return () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)


def _plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


# --- Prompts


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    *,
    reply: bool = True,
    name: str = "this model",
) -> list[int]:
    """Returns the token ids of `conversation` as the chat template renders it.

    Control tokens are the template's alone: `<|im_end|>` in somebody's words is spelled out as
    text, and ends no turn.

    Args:
        tokenizer: The tokenizer, whose template is used.
        conversation: The turns.
        reply: Go on up to where an answer begins.
        name: What an error calls the model.

    Raises:
        ModelError: The template can't render this conversation, leaves words of it out, or takes
            too long; or the tokenizer has no way to write a control token as text.
    """
    form = answer_form(tokenizer, name)
    try:
        text = _render(tokenizer, conversation, reply, form.takes_parts, name)
        if all(_is_in(message.content, text) for message in conversation):
            return _encode_with(tokenizer, None, _messages(conversation, form.takes_parts), reply)
        pieces = _pieces(tokenizer, conversation, reply, form.takes_parts, name)
        return _encode_with(
            tokenizer, literal_template(pieces), _messages(conversation, takes_parts=False), reply
        )
    except ModelError:
        raise
    except Exception as error:  # a template raises whatever it stumbles over
        raise _cant_render(name, error, [message.role for message in conversation]) from error


def _messages(conversation: Sequence[Message], takes_parts: bool) -> list[dict[str, Any]]:
    if takes_parts:
        return [
            {"role": message.role, "content": [{"type": "text", "text": message.content}]}
            for message in conversation
        ]
    return [{"role": message.role, "content": message.content} for message in conversation]


def _render(
    tokenizer: Any, conversation: Sequence[Message], reply: bool, takes_parts: bool, name: str
) -> str:
    messages = _messages(conversation, takes_parts)
    text = within_time(
        lambda: str(
            tokenizer.apply_chat_template(messages, add_generation_prompt=reply, tokenize=False)
        ),
        name,
    )
    check_length(text, sum(len(message.content) for message in conversation), name)
    return text


def _encode_with(
    tokenizer: Any, template: str | None, messages: list[dict[str, Any]], reply: bool
) -> list[int]:
    return list(
        tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            add_generation_prompt=reply,
            tokenize=True,
            return_dict=False,
            sanitize_control_tokens=True,
        )
    )


def _is_in(words: str, text: str) -> bool:
    """Returns whether a template wrote these words, in its own white space, or as JSON."""
    if words.strip() in text:
        return True
    without_space = "".join(text.split())
    as_json = [json.dumps(words, ensure_ascii=ascii_alone)[1:-1] for ascii_alone in (False, True)]
    return any("".join(form.split()) in without_space for form in (words, *as_json))


def _pieces(
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    reply: bool,
    takes_parts: bool,
    name: str,
) -> list[str | int]:
    """Returns what a template writes around the turns of a conversation, whatever their words are.

    Many templates cut from an answer what they take for a thought: all that stands before
    `</think>`, also where it is just mentioned.
    """
    stand_ins = [f"xqturn{place}qx" for place in range(len(conversation))]
    turns = [
        Message(message.role, word) for message, word in zip(conversation, stand_ins, strict=True)
    ]
    text = _render(tokenizer, turns, reply, takes_parts, name)
    if left_out := [
        message.role
        for message, word in zip(conversation, stand_ins, strict=True)
        if word not in text
    ]:
        raise ModelError(
            f"The chat template of {name} leaves out words of a conversation",
            received=left_out,
            fix=(
                "give chat_template=..., or leave out the system prompt where the template knows"
                " none"
            ),
        )
    pieces: list[str | int] = []
    place = 0
    for start, turn in sorted((text.index(word), turn) for turn, word in enumerate(stand_ins)):
        pieces += [text[place:start], turn]
        place = start + len(stand_ins[turn])
    return [*pieces, text[place:]]


def _cant_render(name: str, error: Exception, roles: list[str]) -> ModelError:
    kind = "" if isinstance(error, JinjaError | ValueError) else f"{type(error).__name__}: "
    return ModelError(
        f"The chat template of {name} can't render this conversation: {kind}{error}",
        received=roles,
        fix="give chat_template=..., or leave out the system prompt where the template knows none",
    )


# --- Answers


def encode_answer(
    tokenizer: PreTrainedTokenizerBase, text: str, name: str = "this model"
) -> AnswerTokens:
    """Returns the tokens of an answer: what the template puts before its words, the words, the end.

    A control token inside of the text is spelled out as text, so that nothing in it ends the
    answer.

    Args:
        tokenizer: The tokenizer, whose template is used.
        text: The answer's words.
        name: What an error calls the model.

    Raises:
        ModelError: The template can't be rendered, or the tokenizer has no way to write a control
            token as text.
    """
    form = answer_form(tokenizer, name)
    lead = tuple(_after(tokenizer, form.header, form.lead)) if form.lead else ()
    before = form.header + form.lead
    for context in (
        before,
        "\n",
    ):  # words are cut as after what stands before them, where that makes no other tokens of it
        start = _plain(tokenizer, context)
        found = _encode_words(tokenizer, [context, 0], text)
        if found[: len(start)] == start:
            return AnswerTokens(lead, tuple(found[len(start) :]), form.closing)
    return AnswerTokens(lead, tuple(_encode_words(tokenizer, [0], text)), form.closing)


def _after(tokenizer: PreTrainedTokenizerBase, context: str, text: str) -> list[int]:
    """Returns the tokens of a template's text as they follow another text."""
    start, found = _plain(tokenizer, context), _plain(tokenizer, context + text)
    return found[len(start) :] if found[: len(start)] == start else _plain(tokenizer, text)


def _encode_words(
    tokenizer: PreTrainedTokenizerBase, pieces: list[str | int], words: str
) -> list[int]:
    try:
        return _encode_with(
            tokenizer,
            literal_template(pieces),
            [{"role": "assistant", "content": words}],
            reply=False,
        )
    except ValueError as error:
        raise ModelError(
            f"The tokenizer can't write a control token as text: {error}",
            received=words,
            fix="take it out of the text",
        ) from error


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Returns the token ids of a text by itself, in which control tokens stay text too.

    Raises:
        ModelError: The tokenizer has no way to write a control token as text.
    """
    tokens: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    if found := set(tokens) & control_tokens(tokenizer) - {tokenizer.unk_token_id}:
        raise ModelError(
            f"The tokenizer can't write {tokenizer.convert_ids_to_tokens(min(found))} as text",
            received=text,
            fix="take it out of the text",
        )
    return list(tokens)


def decode_answer(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """Returns what a model wrote as text, without control tokens other than those around
    reasoning.
    """
    names = {
        token: str(tokenizer.convert_ids_to_tokens(token))
        for token in set(tokens) & control_tokens(tokenizer)
    }
    has_channels = "<|channel|>" in names.values() or answer_form(tokenizer).header.endswith(
        "<|message|>"
    )
    markers = {
        token
        for token, name in names.items()
        if is_marker(name) and (has_channels or not is_channel_marker(name))
    }
    kept = [token for token in tokens if token not in names or token in markers]
    return str(tokenizer.decode(kept, skip_special_tokens=False))


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Returns the ids of the control tokens: ends of turns, roles, padding."""
    declared = {
        token for token, content in tokenizer.added_tokens_decoder.items() if content.special
    }
    return declared | set(tokenizer.all_special_ids)


def template_tokens(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Returns the control tokens and the added tokens in the chat template.

    Fine-tunes often add the token that ends a turn without marking it as special.
    """
    template = str(tokenizer.chat_template)
    added = tokenizer.added_tokens_decoder.items()
    written = {
        token for token, content in added if content.content.strip() and content.content in template
    }
    return control_tokens(tokenizer) | written


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int:
    """Returns the token that ends an answer: the template's, else the tokenizer's end token."""
    return answer_form(tokenizer).end
