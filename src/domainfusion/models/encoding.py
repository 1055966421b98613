"""From words to tokens: the tokenizer, the chat template, and the rule that control tokens inside of a text stay text."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

from jinja2 import TemplateError as JinjaError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from domainfusion.errors import ModelError
from domainfusion.types import Conversation, Message

CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The chat template of a model that has none of its own: ChatML, without a default system message."""


_shared: weakref.WeakValueDictionary[tuple[Path, str | None], PreTrainedTokenizerBase] = weakref.WeakValueDictionary()


def shared_tokenizer(files: Path, chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """Returns what `load_tokenizer` returns, once for all models that have it in common: a large vocabulary outweighs an adapter."""
    key = (files, chat_template)
    tokenizer = _shared.get(key)
    if tokenizer is None:
        tokenizer = _shared[key] = load_tokenizer(files, chat_template)
    return tokenizer


def load_tokenizer(files: Path, chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """Returns the tokenizer in a folder or GGUF file, with a chat template and a padding token, padding on the left.

    Args:
        files: The folder or GGUF file.
        chat_template: A Jinja template in place of the tokenizer's own; a tokenizer that has none speaks `CHATML_TEMPLATE`.

    Raises:
        ModelError: It can't be loaded.
    """
    source, options = (files.parent, {"gguf_file": files.name}) if files.suffix == ".gguf" else (files, {})
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # readers of damaged files raise whatever they stumble over
        raise ModelError(f"The tokenizer can't be loaded: {error}", received=str(files), fix="copy the whole model again") from error
    tokenizer.chat_template = chat_template or tokenizer.chat_template or CHATML_TEMPLATE
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer  # type: ignore[no-any-return]


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase, conversation: Conversation, *, reply: bool = True, name: str = "this model"
) -> list[int]:
    """Returns the token ids of `conversation` as the chat template renders it.

    Control tokens are the template's alone: `<|im_end|>` in somebody's words is spelt out as text, and ends no turn.

    Args:
        tokenizer: The tokenizer, whose template is used.
        conversation: The turns.
        reply: Go on up to where an answer begins.
        name: What an error calls the model.

    Raises:
        ModelError: The template can't render this conversation, or the tokenizer has no way to write a control token as text.
    """
    messages = [{"role": message.role, "content": message.content} for message in conversation]
    try:
        tokens: Any = tokenizer.apply_chat_template(
            messages, add_generation_prompt=reply, tokenize=True, return_dict=False, sanitize_control_tokens=True
        )
    except (JinjaError, ValueError) as error:
        raise ModelError(
            f"The chat template of {name} can't render this conversation: {error}",
            received=[message.role for message in conversation],
            fix="give chat_template=..., or leave out the system prompt where the template knows none",
        ) from error
    return list(tokens)


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Returns the token ids of a text by itself: an answer as a model writes it, in which control tokens stay text too.

    Raises:
        ModelError: The tokenizer has no way to write a control token as text.
    """
    tokens: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if found := set(tokens) & control_tokens(tokenizer) - {tokenizer.unk_token_id}:
        raise ModelError(
            f"The tokenizer can't write {tokenizer.convert_ids_to_tokens(min(found))} as text",
            received=text,
            fix="take it out of the text",
        )
    return list(tokens)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Returns the ids of the tokens that steer a model and are no words: ends of turns, roles, padding."""
    declared = {token for token, content in tokenizer.added_tokens_decoder.items() if content.special}
    return declared | set(tokenizer.all_special_ids)


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int:
    """Returns the token with which the chat template closes an answer; the tokenizer's end token where it closes with none."""
    asked = (Message("user", "a"),)
    opened = encode_conversation(tokenizer, asked)
    closed = encode_conversation(tokenizer, (*asked, Message("assistant", "b")), reply=False)
    control = control_tokens(tokenizer)
    after = [token for token in closed[len(opened) :] if token in control]
    return after[0] if after else int(tokenizer.eos_token_id)
