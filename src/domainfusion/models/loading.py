"""A local model before it is asked: where its files are, which tokens it speaks in, and its
weights in memory, which models on one base share.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple, Self
from weakref import WeakSet

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from domainfusion.checks import check_count
from domainfusion.errors import ModelError
from domainfusion.models.adapters import (
    check_adapter,
    read_weights,
    skeleton_of,
)
from domainfusion.models.base import AnswersForModels
from domainfusion.models.chat_template import depends_on_date, read_date, with_arguments
from domainfusion.models.encoding import AnswerForm, answer_form, encode_answer, encode_conversation
from domainfusion.models.engine import (
    BASE_NAME,
    Engine,
    EngineClient,
    EngineName,
    Served,
    Server,
    check_engine,
    engine_of,
    server_for,
)
from domainfusion.models.locate import (
    find_model,
    hash_files,
    hash_tensors,
    read_config,
    read_whole_config,
)
from domainfusion.models.placement import (
    DataType,
    DeviceMap,
    Quantization,
    check_quantization,
    resolve_device,
    resolve_device_map,
    resolve_dtype,
)
from domainfusion.models.shared_base import (
    Adapter,
    BaseKey,
    SharedBase,
    give_memory_back,
)
from domainfusion.models.tokenizer import has_own_template, shared_tokenizer, tokenizer_of
from domainfusion.types import Conversation, Message, fingerprint
from domainfusion.wording import counted

FEWEST_ROWS = 32
"""Rows in a batch where `batch_size` is open, if it holds no more: fewer waste the products."""

_SHOWN_OF_HASH = 12
"""Characters of an adapter's hash that tell it from others on its server."""

_FROM_FILES = "adapter_"
"""How the name of an adapter begins that lies in a folder; its hash follows."""


class LocalModel:
    """A model whose weights are on this machine, with its tokenizer; see `HuggingFaceModel` for the
    arguments.
    """

    def __init__(
        self,
        model_path: str | Path,
        *,
        base_model: str | Path | None = None,
        revision: str | None = None,
        name: str | None = None,
        system_prompt: str | None = None,
        chat_template: str | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        date: str | datetime.date | None = None,
        dtype: DataType = "auto",
        device: str = "auto",
        quantization: Quantization | None = None,
        device_map: DeviceMap | Mapping[str, int | str] | None = None,
        batch_size: int | None = None,
        engine: EngineName | Engine | None = None,
    ) -> None:
        check_count("batch_size", batch_size, optional=True)
        self.model_path = str(model_path)
        self.name = name or Path(self.model_path).name
        self.system_prompt = system_prompt
        self.batch_size = batch_size
        self._chat_template = chat_template
        with_arguments("", template_arguments or {})  # refuses what can't be given to a template
        self._template_arguments = dict(template_arguments or {})
        self._has_given_date = date is not None
        self._date = datetime.date.today() if date is None else read_date(date)
        self._files = find_model(self.model_path, base_model, revision)
        placed = resolve_device(device)
        check_quantization(quantization, self._files.base)
        self._key = BaseKey(
            str(self._files.base),
            resolve_dtype(dtype, placed, self._files.base),
            placed,
            quantization,
            device_map=resolve_device_map(device_map, device),
        )
        self.engine = engine_of(engine)
        if self.engine is not None:
            check_engine(
                self.engine,
                self._files.base,
                is_adapter=self._files.adapter is not None,
                quantization=quantization,
            )
            _on_engines.add(self)
        self._adapter = ""
        if self._files.adapter is not None:
            adapter_hash = hash_files(self._files.adapter)
            check_adapter(self._files.adapter, self._files.base, adapter_hash)
            self._adapter = _FROM_FILES + adapter_hash
        self._config: Any = None
        self._base: SharedBase | None = None
        self._held: Adapter | None = None
        self._pool: AnswersForModels | None = None
        self._kept_ranks: dict[str, int] = {}
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._trainable = False
        self._frozen_share = 0.0
        self.merged_as: tuple[str, float] | None = None
        self._start = ""
        self._fingerprint = ""
        self._weights_hash = ""
        self._tokenizer_files = tokenizer_of(self._files.base, self._files.adapter)
        self._projection_checked = False

    # What it is

    @property
    def fingerprint(self) -> str:
        """Changes with the weights, the adapter, the chat template, the system prompt, the data
        type and the tokenizer.
        """
        if self._trainable:
            return self._compute_fingerprint(hash_tensors(self._trained_state()) + self._start)
        if not self._fingerprint:
            self._fingerprint = self._compute_fingerprint(self._adapter)
        return self._fingerprint

    def _compute_fingerprint(self, adapter: str) -> str:
        base = self._weights_hash = hash_files(self._files.base)
        self._answer_form()  # what is wrong with a template is said here, before anything is asked
        numbers = [
            str(self._key.dtype),
            *([self._key.quantization] if self._key.quantization else []),
            *([] if self.engine is None else [self.engine.kind, *self.engine.options]),
        ]
        return fingerprint(
            [base, adapter, self.tokenizer.chat_template, self.system_prompt, *numbers]
        )

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, with a chat template and a padding token, padding on the left."""
        if self._tokenizer is None:
            files = self._tokenizer_files
            self._tokenizer = shared_tokenizer(
                files.folder,
                self._chat_template or files.chat_template,
                arguments=self._template_arguments,
                date=self._date,
                vocabulary_size=self.vocabulary_size,
            )
        return self._tokenizer

    @property
    def has_template(self) -> bool:
        """Whether a chat template was given, or came with the model; else it speaks ChatML, which
        it may never have read.
        """
        files = self._tokenizer_files
        return bool(self._chat_template or files.chat_template) or has_own_template(files.folder)

    def speaking_as(self, other: LocalModel) -> Self:
        """Returns this model with the tokenizer and the chat template of another one on the same
        base; its weights are shared.
        """
        changed = copy(self)
        changed._chat_template, changed._tokenizer_files = (
            other._chat_template,
            other._tokenizer_files,
        )
        changed._template_arguments, changed._date = other._template_arguments, other._date
        changed._tokenizer, changed._fingerprint = None, ""
        return changed

    def pin_date(self, date: datetime.date) -> bool:
        """Has the chat template write this date, if it writes one and no other was given; see
        `DatedModel`.
        """
        if self._has_given_date or not depends_on_date(str(self.tokenizer.chat_template)):
            return False
        if date != self._date:
            self._date, self._tokenizer, self._fingerprint = date, None, ""
        return True

    @property
    def vocabulary_size(self) -> int:
        """The width of the model's distributions, padding included; no weights are loaded to
        tell.
        """
        return int(self._read_config().vocab_size)

    @property
    def context_length(self) -> int | None:
        """The tokens that question and answer may have together; None where the model sets no
        limit.
        """
        # BLOOM, MPT and others whose positions are relative name no limit.
        limit = getattr(self._read_config(), "max_position_embeddings", None)
        return None if limit is None else int(limit)

    def _read_config(self) -> Any:
        if self._config is None:
            self._config = read_config(self._files.base)
        return self._config

    @property
    def parameter_count(self) -> int:
        """The number of weights, those of the adapter included; none are loaded to tell."""
        skeleton = skeleton_of(read_whole_config(self._files.base))
        own = self._trained_state() if self._trainable and self._adapter else {}
        if self._files.adapter is not None and not self._trainable:
            own = read_weights(self._files.adapter).factors
        return sum(weight.numel() for weight in (*skeleton.parameters(), *own.values()))

    @property
    def quantization(self) -> Quantization | None:
        """How its weights are shrunk; None where they are not."""
        return self._key.quantization

    def weights(self) -> list[torch.Tensor]:
        """Returns every weight it computes with, each once: those of the base, which models on it
        share, and those of its adapter.
        """
        # or copies with an adapter merged into them would stand in for weights of the base
        self._load().restore()
        return [
            weight
            for name, weight in self._load().module.named_parameters()
            if "lora_" not in name or self._owns(name)
        ]

    @property
    def weights_id(self) -> str:
        """Names the weights alone: two models that differ in their prompts have the same."""
        return self._adapter or self._key.path

    @property
    def is_whole(self) -> bool:
        """Whether it is a model of its own, and not an adapter on a base."""
        return not self._adapter

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self._key.device)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Also in another process, where all on one base are one server too.
        self.__dict__.update(state)
        if self.engine is not None:
            _on_engines.add(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_path!r})"

    # Its tokens

    def encode(self, conversation: Conversation, *, reply: bool = True) -> list[int]:
        """Returns the token ids of `conversation` in the model's chat template; with `reply`, up to
        where an answer begins.

        Raises:
            ModelError: The template can't render the conversation, or writes tokens that the model
                does not have.
        """
        tokens = encode_conversation(
            self.tokenizer, self._with_system_prompt(conversation), reply=reply, name=self.name
        )
        self._refuse_unknown(tokens)
        return tokens

    def encode_answer(self, text: str, *, finished: bool = True) -> list[int]:
        """Returns the token ids of an answer as the model writes it; see
        `TrainableModel.encode_answer`.
        """
        tokens = encode_answer(self.tokenizer, text, self.name).row(finished=finished)
        self._refuse_unknown(tokens)
        return tokens

    def _answer_form(self) -> AnswerForm:
        """Returns what the chat template writes around an answer, once it is known that the model
        has its tokens.
        """
        form = answer_form(self.tokenizer, self.name)
        self._refuse_unknown(form.closing)
        return form

    def _refuse_unknown(self, tokens: Sequence[int]) -> None:
        size = self.vocabulary_size
        if tokens and max(tokens) >= size:
            unknown = sorted({token for token in tokens if token >= size})
            raise ModelError(
                f"The tokenizer of {self.name} writes tokens for which the model has no embedding",
                received=[
                    f"{self.tokenizer.convert_ids_to_tokens(token)} is {token}"
                    for token in unknown[:3]
                ],
                allowed=counted(size, "token"),
                fix=(
                    "give a chat_template without them, or resize the model's embedding and"
                    " train it"
                ),
            )

    def _with_system_prompt(self, conversation: Conversation) -> Conversation:
        if self.system_prompt is None or (conversation and conversation[0].role == "system"):
            return conversation
        return (Message("system", self.system_prompt), *conversation)

    @property
    def end_tokens(self) -> set[int]:
        """Every token that ends an answer: the tokenizer's, the generation settings' and the one
        that closes a turn.
        """
        declared = self._load().module.generation_config.eos_token_id
        ends = set(declared if isinstance(declared, list) else [declared])
        ends |= {self.tokenizer.eos_token_id, self.turn_end}
        return {token for token in ends if isinstance(token, int) and token < self.vocabulary_size}

    @property
    def turn_end(self) -> int:
        """The token with which the chat template closes an answer, and which the student is trained
        to write at its end.
        """
        return self._answer_form().end

    # Its weights in memory

    def release(self) -> None:
        """Lets go of the weights; they are loaded again on next use. A trained copy is not
        released, as it would be lost.

        An adapter leaves its base at once; the base goes with the last model that has used it and
        was not released.
        """
        if self.engine is not None and not self._trainable:
            self._server().stop()
        if self._trainable or self._base is None:
            return
        if self._adapter:
            self._base.remove_adapter(self._adapter)
        self._base = None
        give_memory_back()

    def check_command(self) -> None:
        """Looks at whether the command of its engine can be run on this machine; without an engine,
        or with one in the actors of a pool, it needs none.

        Raises:
            ModelError: It can't.
            MissingDependencyError: The client that asks the engine is not installed.
        """
        if self.engine is not None and self._pool is None and not self._trainable:
            self.engine.check()

    def _server(self) -> Server:
        """Returns the server that its engine answers from."""
        assert self.engine is not None
        return server_for(
            Served(
                engine=self.engine,
                base=self._files.base,
                dtype=str(self._key.dtype).removeprefix("torch."),
                chat_template=str(self.tokenizer.chat_template),
            )
        )

    def _name_on_server(self) -> str:
        """Returns what the server of its engine calls it."""
        if self._files.adapter is None:
            return BASE_NAME
        return self._adapter[: len(_FROM_FILES) + _SHOWN_OF_HASH]

    def _client(self) -> EngineClient:
        """Returns what asks the model on its server, once all models on the base are known there:
        so it is started once.
        """
        self._refuse_replaced_files()
        server, adapters = self._server(), {}
        for model in (self, *_on_engines):
            if model.engine == self.engine and model._key == self._key:
                adapter = model._files.adapter
                if adapter is not None and model._server() is server:
                    adapters[model._name_on_server()] = adapter
        server.serve(adapters)
        return EngineClient(
            server=server,
            name=self._name_on_server(),
            shown_as=self.name,
            system_prompt=self.system_prompt,
            end_tokens=tuple(sorted(self._declared_ends())),
        )

    def _declared_ends(self) -> set[int]:
        """Returns every token that ends an answer, without a look at the weights."""
        settings = self._files.base / "generation_config.json"
        declared = None
        if settings.is_file():
            declared = GenerationConfig.from_pretrained(self._files.base).eos_token_id
        ends = set(declared if isinstance(declared, list) else [declared])
        ends |= {self.tokenizer.eos_token_id, self.turn_end}
        return {token for token in ends if isinstance(token, int) and token < self.vocabulary_size}

    @property
    def is_loaded(self) -> bool:
        """Whether its weights are in memory, as far as it knows."""
        return self._base is not None

    @property
    def rows_read_at_once(self) -> int:
        """How many rows are scored together."""
        return self.batch_size or FEWEST_ROWS

    def _load(self) -> SharedBase:
        if self._base is None:
            self._refuse_replaced_files()
            base = SharedBase.get(self._key)
            if self.rows_read_at_once > 1 and not base.masks_padding:
                raise ModelError(
                    "The model reads padding as it reads words, so rows of different lengths can't"
                    " be in one batch",
                    received=type(base.module).__name__,
                    fix="set batch_size=1",
                )
            self._base = base
        if self._files.adapter is not None and not self._trainable:
            self._base.load_adapter(self._files.adapter, self._adapter)
        return self._base

    def _refuse_replaced_files(self) -> None:
        """Raises where the files are no longer those whose fingerprint this model goes by: answers
        would be kept under the name of other weights.

        Raises:
            ModelError: They were replaced.
        """
        adapter = self._files.adapter
        is_other_base = self._weights_hash and hash_files(self._files.base) != self._weights_hash
        is_other_adapter = (
            adapter is not None
            and self._adapter.startswith(_FROM_FILES)
            and self._adapter != _FROM_FILES + hash_files(adapter)
        )
        if is_other_base or is_other_adapter:
            raise ModelError(
                "The files of the model were replaced after it was set up",
                received=str(adapter if is_other_adapter else self._files.base),
                fix="leave them alone while they are in use, and run again",
            )

    def _trained_state(self) -> dict[str, torch.Tensor]:
        module = self._load().module
        if not self._adapter:
            return module.state_dict()
        return {
            name.replace(f".{self._adapter}", "", 1): tensor
            for name, tensor in module.named_parameters()
            if self._owns(name)
        }

    def _owns(self, name: str) -> bool:
        """Whether the weight of this name belongs to the model's own adapter."""
        return bool(self._adapter) and f".{self._adapter}." in f"{name}."


_on_engines: WeakSet[LocalModel] = WeakSet()
"""The models that an engine answers for, so that all on one base can be one server."""


class Speech(NamedTuple):
    """Which chat template a student speaks.

    Attributes:
        student: The student, with the template.
        source: Where the template is from, in words; empty where it is the student's own or was
            given.
    """

    student: Any
    source: str


def choose_speech(student: object, experts: Mapping[str, object]) -> Speech:
    """Returns a student with the chat template that it is to speak.

    A base often has none, while its adapters and fine-tunes, which learned from conversations,
    bring one. Then the student speaks as most of those with its vocabulary do, the first where they
    are even: none of them has read ChatML.

    Args:
        student: The student; one that is not a local model, or has a template, stays as it is.
        experts: The experts by domain.
    """
    if not isinstance(student, LocalModel) or student.has_template:
        return Speech(student, "")
    local = {name: one for name, one in experts.items() if isinstance(one, LocalModel)}
    words = student.tokenizer.get_vocab()
    on_its_base = {
        name: one
        for name, one in local.items()
        if one.has_template and one.tokenizer.get_vocab() == words
    }
    if not on_its_base:
        return Speech(student, "ChatML, as its tokenizer has no chat template")
    templates = Counter(str(one.tokenizer.chat_template) for one in on_its_base.values())
    commonest = templates.most_common(1)[0][0]
    name, chosen = next(
        item for item in on_its_base.items() if item[1].tokenizer.chat_template == commonest
    )
    others = [
        other for other, one in on_its_base.items() if one.tokenizer.chat_template != commonest
    ]
    spoken_otherwise = f"; {', '.join(others)} speak otherwise" if others else ""
    return Speech(student.speaking_as(chosen), f"that of the expert of {name}{spoken_otherwise}")
