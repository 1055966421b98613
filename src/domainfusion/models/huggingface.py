"""Local models: any causal language model that Transformers loads, from the hub, a folder, a GGUF file or a PEFT adapter."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, Self, cast

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from jinja2 import TemplateError as JinjaError
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from domainfusion.errors import CapabilityError, ConfigurationError, ModelError
from domainfusion.models.base import Adaptation, OnResult, sample_seeds
from domainfusion.models.sampling import RowSampler
from domainfusion.models.shared_base import BaseKey, SharedBase, silent_transformers
from domainfusion.types import Conversation, Generation, Message, Sampling, fingerprint

CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The chat template of a model that has none of its own: ChatML, without a default system message."""


class HuggingFaceModel:
    """A causal language model on this machine: a teacher, a generation model, or a student.

    Construction checks that the model is there; its weights are loaded on first use. Models with the same base, data type and
    device share the base's weights in memory.

    Args:
        model_path: A folder, a `.gguf` file, a hub id, or the folder of a PEFT adapter.
        base_model: Where an adapter's base is; by default where the adapter's own configuration says.
        revision: Branch, tag or commit of a hub id.
        name: What reports call it; by default the last part of `model_path`.
        system_prompt: A system message put before every conversation that has none: a prompted model is an expert too.
        chat_template: A Jinja chat template in place of the model's own.
        dtype: `auto`, `float32`, `bfloat16` or `float16`. `auto` is bfloat16 where the device computes in it, else float32.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        batch_size: Rows that are generated together.

    Raises:
        ModelError: There is no model at `model_path`, or it is of a kind that is not loaded.
        ConfigurationError: An argument is outside of what is allowed.

    Example:
        ```python
        model = HuggingFaceModel("HuggingFaceTB/SmolLM2-135M-Instruct")
        print(model.ask("What is the capital of France?"))
        ```
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
        dtype: str = "auto",
        device: str = "auto",
        batch_size: int = 32,
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError("batch_size is not positive", received=batch_size, allowed="a whole number from 1")
        self.model_path = str(model_path)
        self.name = name or Path(self.model_path).name
        self.system_prompt = system_prompt
        self.batch_size = batch_size
        self._chat_template = chat_template
        self._adapter_folder: Path | None = None
        self._base_path = self.model_path
        if (Path(self.model_path) / "adapter_config.json").is_file():
            self._adapter_folder = Path(self.model_path)
            self._base_path = _check_adapter(self._adapter_folder, base_model)
        elif base_model is not None:
            raise ConfigurationError(
                "base_model goes with an adapter, and there is none here",
                received=self.model_path,
                allowed="a folder with adapter_config.json",
                fix="give the adapter's folder, or leave base_model out",
            )
        self._files = _locate(self._base_path, revision)
        resolved_device = _resolve_device(device)
        self._key = BaseKey(
            str(self._files), revision if not self._files.exists() else None, _resolve_dtype(dtype, resolved_device), resolved_device
        )
        self._adapter = "" if self._adapter_folder is None else "adapter_" + _hash_folder(self._adapter_folder)
        self._base: SharedBase | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._trainable = False
        self._fingerprint = ""

    # What it is

    @property
    def fingerprint(self) -> str:
        """Changes with the weights, the adapter, the chat template, the system prompt, the data type and the tokenizer."""
        if self._trainable:
            return self._compute_fingerprint(_hash_tensors(self._trained_state()))
        if not self._fingerprint:
            self._fingerprint = self._compute_fingerprint(self._adapter)
        return self._fingerprint

    def _compute_fingerprint(self, adapter: str) -> str:
        base = _hash_folder(self._files)
        return fingerprint([base, adapter, self.tokenizer.chat_template, self.system_prompt, str(self._key.dtype)])

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, with a chat template and a padding token, padding on the left."""
        if self._tokenizer is None:
            self._tokenizer = _load_tokenizer(self._files, self._chat_template)
        return self._tokenizer

    @property
    def parameter_count(self) -> int:
        """The number of weights, those of the adapter included."""
        base = self._load()
        return sum(p.numel() for n, p in base.module.named_parameters() if "lora_" not in n or self._owns(n))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_path!r})"

    # Generating

    def ask(self, question: str, *, sampling: Sampling = Sampling()) -> str:
        """Returns the answer to one question."""
        return self.generate([(Message("user", question),)], sampling)[0].text

    def encode(self, conversation: Conversation, *, reply: bool = True) -> list[int]:
        """Returns the token ids of `conversation` in the model's chat template; with `reply`, up to where an answer begins."""
        messages = [{"role": m.role, "content": m.content} for m in self._with_system_prompt(conversation)]
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply)
        except JinjaError as error:
            raise ModelError(
                f"The chat template of {self.name} can't render this conversation: {error}",
                received=[m["role"] for m in messages],
                fix="give chat_template=..., or leave out the system prompt where the template knows none",
            ) from error
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _with_system_prompt(self, conversation: Conversation) -> Conversation:
        if self.system_prompt is None or (conversation and conversation[0].role == "system"):
            return conversation
        return (Message("system", self.system_prompt), *conversation)

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        """Answers each conversation; see `LanguageModel.generate`.

        Rows of similar length share a batch. A conversation that is longer than the model's context is an error, never cut.
        """
        prompts = [self.encode(conversation) for conversation in conversations]
        self._refuse_overlong(prompts, sampling)
        seeds = _row_seeds(sampling.seed, conversations)
        results: dict[int, Generation] = {}
        by_length = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
        for start in range(0, len(by_length), self.batch_size):
            batch = by_length[start : start + self.batch_size]
            answers = self._generate_batch([prompts[i] for i in batch], sampling, [seeds[i] for i in batch])
            for index, generation in zip(batch, answers, strict=True):
                results[index] = generation
                if on_result is not None:
                    on_result(index, generation)
        return [results[index] for index in range(len(prompts))]

    def _refuse_overlong(self, prompts: Sequence[list[int]], sampling: Sampling) -> None:
        limit = getattr(self._load().module.config, "max_position_embeddings", None)
        longest = max(map(len, prompts), default=0)
        if limit is not None and longest + sampling.max_new_tokens > limit:
            raise ModelError(
                f"A prompt of {longest:,} tokens and an answer of up to {sampling.max_new_tokens:,} do not fit {self.name}",
                allowed=f"{limit:,} tokens together",
                fix="shorten the prompt or lower max_new_tokens",
            )

    def _generate_batch(self, prompts: Sequence[list[int]], sampling: Sampling, seeds: Sequence[int]) -> list[Generation]:
        ends = self.end_tokens
        padded = self.tokenizer.pad({"input_ids": list(prompts)}, padding_side="left", return_tensors="pt").to(self._key.device)
        config = cast(Any, GenerationConfig)(
            max_new_tokens=sampling.max_new_tokens, do_sample=False, eos_token_id=sorted(ends), pad_token_id=self.tokenizer.pad_token_id
        )
        processors = LogitsProcessorList([RowSampler(sampling, seeds)] if sampling.temperature > 0 else [])
        with torch.inference_mode(), self._load().using(self._adapter or None) as module, _in_evaluation(module):
            output = cast(Any, module).generate(**padded, generation_config=config, logits_processor=processors)
        written = output[:, padded["input_ids"].shape[1] :].tolist()
        return [self._read_answer(row, len(prompt), ends) for row, prompt in zip(written, prompts, strict=True)]

    def _read_answer(self, tokens: list[int], prompt_tokens: int, ends: set[int]) -> Generation:
        length = next((position for position, token in enumerate(tokens) if token in ends), None)
        kept = tokens if length is None else tokens[:length]
        return Generation(
            text=str(self.tokenizer.decode(kept, skip_special_tokens=True)).strip(),
            finish_reason="length" if length is None else "stop",
            prompt_tokens=prompt_tokens,
            completion_tokens=len(kept) + (length is not None),
        )

    @property
    def end_tokens(self) -> set[int]:
        """Every token that ends an answer: the tokenizer's, the generation settings' and the one that closes a turn."""
        declared = self._load().module.generation_config.eos_token_id
        ends = set(declared if isinstance(declared, list) else [declared])
        ends |= {self.tokenizer.eos_token_id, self.turn_end}
        return {token for token in ends if isinstance(token, int)}

    @property
    def turn_end(self) -> int:
        """The token with which the chat template closes an answer, and which the student is trained to write at its end."""
        asked = (Message("user", "a"),)
        opened, closed = self.encode(asked), self.encode((*asked, Message("assistant", "b")), reply=False)
        special = set(self.tokenizer.all_special_ids)
        after = [token for token in closed[len(opened) :] if token in special]
        return after[0] if after else int(self.tokenizer.eos_token_id)

    # Training

    def trainable_copy(self, adaptation: Adaptation | None) -> Self:
        """Returns a model that starts as this one and can be trained, while this one stays as it is.

        Args:
            adaptation: The LoRA adapter to train, on the shared base; None trains a copy of all weights.

        Raises:
            CapabilityError: This model is an adapter or a trained copy itself, or its experts to start from are not adapters on the
                same base.
        """
        if self._trainable:
            raise CapabilityError("A student in training can't be copied", received=self.name, fix="save it, and load what was saved")
        if self._adapter:
            raise CapabilityError(
                "A student can't be an adapter", received=self.model_path, fix="merge it into its base, or give the base as the student"
            )
        student = copy(self)
        student._trainable, student.name, student._fingerprint = True, "student", ""
        owner = uuid.uuid4().hex
        if adaptation is None:
            student._key = BaseKey(self._key.path, self._key.revision, torch.float32, self._key.device, owner)
            student._base = SharedBase.get(student._key)
            student._base.module.requires_grad_(True)
            return student
        student._adapter = "student_" + owner
        student._create_adapter(adaptation)
        return student

    def _create_adapter(self, adaptation: Adaptation) -> None:
        base = self._load()
        if not adaptation.start_from:
            config = LoraConfig(
                r=adaptation.rank,
                lora_alpha=adaptation.alpha,
                lora_dropout=adaptation.dropout,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            )
            base.create_adapter(self._adapter, config)
            return
        experts = [expert for expert in adaptation.start_from if isinstance(expert, HuggingFaceModel) and expert.is_adapter_on(self)]
        strangers = [expert for expert in adaptation.start_from if expert not in experts]
        if strangers:
            raise CapabilityError(
                "Only adapters on the student's own base can be merged into its start",
                received=strangers,
                allowed=f"LoRA adapters on {self._base_path} in the same dtype and on the same device",
                fix="use initialization='base'",
            )
        for expert in experts:
            expert._load()
        names, weights = [expert._adapter for expert in experts], [adaptation.merge_weight] * len(experts)
        base.combine_adapters(self._adapter, names, weights, dropout=adaptation.dropout)

    def is_adapter_on(self, other: HuggingFaceModel) -> bool:
        """Whether this model is a LoRA adapter whose base is `other`'s."""
        return bool(self._adapter) and self._key == other._key

    def trainable_module(self) -> PreTrainedModel:
        """Returns the module to train; only the parameters that are trained require gradients."""
        base = self._load()
        if not self._trainable:
            raise CapabilityError("This model is not for training", received=self, fix="train model.trainable_copy(...)")
        if self._adapter:
            base.activate(self._adapter, merge=False)
            for name, parameter in base.module.named_parameters():
                parameter.requires_grad_(self._owns(name))
        return base.module

    def _trained_state(self) -> dict[str, torch.Tensor]:
        module = self._load().module
        if not self._adapter:
            return module.state_dict()
        return {name.replace(f".{self._adapter}", "", 1): tensor for name, tensor in module.state_dict().items() if self._owns(name)}

    def _owns(self, name: str) -> bool:
        """Whether the weight of this name belongs to the model's own adapter."""
        return bool(self._adapter) and f".{self._adapter}." in f"{name}."

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Returns the trained weights by name, on the CPU: a copy of all of them, or of those of the adapter."""
        return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in self._trained_state().items()}

    def load_trained_state(self, state: dict[str, torch.Tensor]) -> None:
        """Puts back what `trained_state` returned."""
        current = self._trained_state()
        if {name: tensor.shape for name, tensor in current.items()} != {name: tensor.shape for name, tensor in state.items()}:
            raise ModelError("The saved weights are of another model", fix="train it again in a new output_dir")
        if self._adapter:
            self._load().activate(self._adapter, merge=False)  # or the base would go on with the old weights merged in
        with torch.no_grad():
            for name, tensor in state.items():
                current[name].copy_(tensor)

    # Saving

    def save(self, path: str | Path, *, merge: bool = True) -> None:
        """Writes a folder that plain Transformers loads, with tokenizer, chat template and generation settings.

        Args:
            path: The folder; it is made if it is not there.
            merge: Merge an adapter into the base's weights; with False the folder is that of a PEFT adapter.
        """
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        base = self._load()
        if self._adapter and not merge:
            self._save_adapter(folder)
        else:
            settings = cast(Any, GenerationConfig)(eos_token_id=sorted(self.end_tokens), pad_token_id=self.tokenizer.pad_token_id)
            with base.using(self._adapter or None) as module, silent_transformers():
                state = {name.replace(".base_layer", ""): tensor for name, tensor in module.state_dict().items() if "lora_" not in name}
                skeleton = _skeleton_of(module)
                skeleton.generation_config = settings
                skeleton.save_pretrained(folder, state_dict=state)
        self.tokenizer.save_pretrained(folder)

    def _save_adapter(self, folder: Path) -> None:
        config = copy(self._load().adapter_config(self._adapter))
        config.base_model_name_or_path = self._base_path
        if not isinstance(config.target_modules, str):
            config.target_modules = sorted(config.target_modules)  # a set's order would make two equal adapters differ
        config.save_pretrained(folder)
        state = {f"base_model.model.{name}": tensor for name, tensor in self.trained_state().items()}
        save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    def release(self) -> None:
        """Lets go of the weights; they are loaded again on next use. A trained copy is not released, as it would be lost."""
        if not self._trainable:
            self._base = None

    def _load(self) -> SharedBase:
        if self._base is None:
            self._base = SharedBase.get(self._key)
        if self._adapter_folder is not None:
            self._base.load_adapter(self._adapter_folder, self._adapter)
        return self._base


def _skeleton_of(module: PreTrainedModel) -> PreTrainedModel:
    """Returns a model of the same class and settings without weights of its own: what `save_pretrained` needs beside the weights."""
    with torch.device("meta"):
        return cast(PreTrainedModel, cast(Any, type(module)(module.config)).to(module.dtype))


@contextmanager
def _in_evaluation(module: PreTrainedModel) -> Iterator[None]:
    """Switches dropout off for the time of a block: a student that is asked in the midst of its training answers as after it."""
    training = module.training
    module.train(False)
    try:
        yield
    finally:
        module.train(training)


def _locate(path: str, revision: str | None) -> Path:
    """Returns the local folder or file of a model; a hub id is downloaded, weights in safetensors only.

    However a local path is written, the result is the same, so that models with one base find each other.
    """
    local = Path(path)
    if local.exists() and revision is not None:
        raise ConfigurationError("revision goes with a hub id, and this is on the disk", received=path, fix="leave revision out")
    if local.suffix == ".gguf" and local.is_file():
        return local.parent.resolve() / local.name
    if local.is_dir():
        _check_folder(local)
        return local.resolve()
    if local.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1:
        raise ModelError("There is no model here", received=path, allowed="a folder, a .gguf file or a hub id", fix="check the path")
    try:
        patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
        folder = Path(snapshot_download(path, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"There is no folder of this name, and the hub did not give a model: {type(error).__name__}",
            received=path,
            allowed="a folder, a .gguf file or a hub id",
            fix="check the name, the connection and, for a gated model, the token in HF_TOKEN",
        ) from error
    _check_folder(folder)
    return folder


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(
            "The folder is not a model", received=str(folder), allowed="a folder with config.json and *.safetensors", fix="check the path"
        )
    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"config.json can't be read: {error}", received=str(folder)) from error
    if not list(folder.glob("*.safetensors")):
        pickles = [file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in folder.glob(pattern)]
        raise ModelError(
            "The folder holds no safetensors weights" + (f"; {pickles[0]} is a pickle, which can run code" if pickles else ""),
            received=str(folder),
            fix="convert the weights to safetensors with save_pretrained",
        )


def _check_adapter(adapter: Path, base_model: str | Path | None) -> str:
    """Returns where the base of an adapter is, after a look at whether the adapter is one that can share it."""
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"adapter_config.json can't be read: {error}", received=str(adapter)) from error
    if not (adapter / "adapter_model.safetensors").is_file():
        raise ModelError("The adapter holds no adapter_model.safetensors", received=str(adapter), fix="save it as safetensors")
    if config.get("peft_type") != "LORA":
        raise ModelError("The adapter is of a kind that is not loaded", received=config.get("peft_type"), allowed="LORA")
    if beyond := [setting for setting in _BEYOND_LORA if config.get(setting)] + _other_weights(adapter / "adapter_model.safetensors"):
        raise ModelError(
            "The adapter changes more of its base than LoRA matrices, so it can't share one",
            received=beyond[0],
            fix="merge it into its base with PEFT's merge_and_unload, save the result and give that folder",
        )
    base = base_model or config.get("base_model_name_or_path")
    if not base:
        raise ModelError("The adapter does not say what its base is", received=str(adapter), fix="give base_model=...")
    return str(base)


_BEYOND_LORA = ("modules_to_save", "lora_bias", "trainable_token_indices", "target_parameters", "layer_replication")
"""Settings of PEFT's LoraConfig under which an adapter replaces parts of its base, or merging would leave a part of it behind."""


def _other_weights(weights: Path) -> list[str]:
    """Returns the names of what a file of an adapter holds beside LoRA matrices: biases, embeddings, whole layers."""
    try:
        with cast(Any, safe_open)(weights, framework="pt") as file:
            return [name for name in file.keys() if "lora_" not in name]  # noqa: SIM118 - the file is no mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The adapter's weights can't be read: {error}", received=str(weights), fix="save it again") from error


def _load_tokenizer(files: Path, chat_template: str | None) -> PreTrainedTokenizerBase:
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


def _resolve_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdigit())):
        raise ConfigurationError("The device is not known", received=device, allowed="auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            "There is no such device here",
            received=device,
            allowed=", ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]),
        )
    return device


def _resolve_dtype(dtype: str, device: str) -> torch.dtype:
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype in named:
        return named[dtype]
    if dtype != "auto":
        raise ConfigurationError("The dtype is not known", received=dtype, allowed="auto, " + ", ".join(named))
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if _cpu_computes_in_bfloat16() else torch.float32


def _cpu_computes_in_bfloat16() -> bool:
    try:
        return " avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _row_seeds(seed: int, conversations: Sequence[Conversation]) -> list[int]:
    """Returns a seed for each row that depends on its words and on how often they came before, but not on its batch."""
    seeds = sample_seeds(seed, conversations)
    return [int(fingerprint([own, conversation], length=15), 16) for own, conversation in zip(seeds, conversations, strict=True)]


_hashes: dict[tuple[str, int, int], str] = {}


def _hash_folder(path: Path) -> str:
    """Returns a hash of the weights and settings at `path`; a file that did not change is not read twice."""
    wanted = (".safetensors", ".json", ".gguf", ".jinja", ".model", ".txt")
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix in wanted)
    return fingerprint([[file.name, _hash_file(file)] for file in files])


def _hash_file(file: Path) -> str:
    stat = file.stat()
    key = (str(file.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with file.open("rb") as stream:
            _hashes[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _hashes[key]


def _hash_tensors(state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
