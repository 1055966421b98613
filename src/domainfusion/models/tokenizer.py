"""The tokenizer of a model: where it is, and which chat template it speaks."""

from __future__ import annotations

import datetime
import json
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from domainfusion.errors import ModelError
from domainfusion.models.chat_template import (
    CHATML_TEMPLATE,
    choose_template,
    pinned_to,
    with_arguments,
)

_shared: weakref.WeakValueDictionary[object, PreTrainedTokenizerBase] = (
    weakref.WeakValueDictionary()
)


def shared_tokenizer(
    files: Path,
    chat_template: str | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    date: datetime.date | None = None,
    vocabulary_size: int | None = None,
) -> PreTrainedTokenizerBase:
    """Returns what `load_tokenizer` returns, loaded once for all models that use it.

    A large vocabulary takes more memory than an adapter.
    """
    key = (files, chat_template, with_arguments("", arguments or {}), date, vocabulary_size)
    tokenizer = _shared.get(key)
    if tokenizer is None:
        tokenizer = load_tokenizer(
            files, chat_template, arguments=arguments, date=date, vocabulary_size=vocabulary_size
        )
        _shared[key] = tokenizer
    return tokenizer


def load_tokenizer(
    files: Path,
    chat_template: str | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    date: datetime.date | None = None,
    vocabulary_size: int | None = None,
) -> PreTrainedTokenizerBase:
    """Returns a tokenizer with a chat template and a padding token, padding on the left.

    Args:
        files: The folder or GGUF file.
        chat_template: A Jinja template in place of the tokenizer's own. A tokenizer that has none
            speaks `CHATML_TEMPLATE`, after the token with which it begins every text, if it does.
        arguments: Values of variables of the template, such as `{"enable_thinking": False}`.
        date: The date that the template writes, if it writes one; None for that of the day.
        vocabulary_size: How many tokens the model has embeddings for; None where that is not known.
            A padding token beyond is replaced.

    Raises:
        ModelError: It can't be loaded, or none of several templates is the default.
        ConfigurationError: An argument can't be given to a template.
    """
    source, options = (
        (files.parent, {"gguf_file": files.name}) if files.suffix == ".gguf" else (files, {})
    )
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # readers of damaged files raise whatever they stumble over
        raise ModelError(
            f"The tokenizer can't be loaded: {error}",
            received=str(files),
            fix="copy the whole model again",
        ) from error
    template = choose_template(chat_template, tokenizer.chat_template)
    if template is None:
        template = _default_template(tokenizer)
    if date is not None:
        template = pinned_to(template, date)
    tokenizer.chat_template = with_arguments(template, arguments or {})
    tokenizer.padding_side = "left"
    has_padding = tokenizer.pad_token_id is not None and (
        vocabulary_size is None or tokenizer.pad_token_id < vocabulary_size
    )
    if not has_padding:
        # Nothing looks at padding, so any token that the model knows will do. The first one is
        # there always.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer  # type: ignore[no-any-return]


class TokenizerFiles(NamedTuple):
    """Where the tokenizer of a model is.

    Attributes:
        folder: The folder or GGUF file.
        chat_template: The chat template of an adapter that has no tokenizer of its own; None for
            the one that is with the tokenizer.
    """

    folder: Path
    chat_template: str | None = None


def tokenizer_of(base: Path, adapter: Path | None) -> TokenizerFiles:
    """Returns where a model's tokenizer is: in the adapter's folder, if it brings one, else the
    base's.

    The commonest adapter is made by instruction tuning on a base without a chat template, and the
    base's tokenizer knows nothing of it.

    Raises:
        ModelError: The adapter's settings of its tokenizer can't be read.
    """
    if adapter is None:
        return TokenizerFiles(base)
    template = _template_in(adapter)
    if not (adapter / "tokenizer.json").is_file() and not (adapter / "tokenizer.model").is_file():
        return TokenizerFiles(base, template)
    if template is None or _same_file(adapter / "tokenizer.json", base / "tokenizer.json"):
        # An adapter without a template speaks its base's; one with its base's words shares them in
        # memory.
        if template is not None and _same_file(
            adapter / "tokenizer_config.json", base / "tokenizer_config.json"
        ):
            return TokenizerFiles(base, template)
        return TokenizerFiles(adapter, template or _template_in(base))
    return TokenizerFiles(adapter, template)


def has_own_template(files: Path) -> bool:
    """Returns whether a tokenizer brings a chat template; a GGUF file is taken to bring one."""
    return not files.is_dir() or _template_in(files) is not None


def _template_in(folder: Path) -> str | None:
    """Returns the chat template in a folder, beside the tokenizer or among its settings."""
    if not folder.is_dir():
        return None
    beside, settings = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    try:
        if beside.is_file():
            return beside.read_text(encoding="utf-8")
        own = (
            json.loads(settings.read_text(encoding="utf-8")).get("chat_template")
            if settings.is_file()
            else None
        )
        if isinstance(own, list):
            own = {entry["name"]: entry["template"] for entry in own}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ModelError(
            f"The settings of the tokenizer can't be read: {error}",
            received=str(folder),
            fix="copy them again",
        ) from error
    return choose_template(None, own)


def _same_file(first: Path, second: Path) -> bool:
    return first.is_file() and second.is_file() and first.read_bytes() == second.read_bytes()


def _default_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns ChatML, after the token with which the tokenizer begins every text, if it has one."""
    begins: list[int] = tokenizer("a")["input_ids"]
    if tokenizer.bos_token_id is not None and begins[:1] == [tokenizer.bos_token_id]:
        return "{{ bos_token }}" + CHATML_TEMPLATE
    return CHATML_TEMPLATE
