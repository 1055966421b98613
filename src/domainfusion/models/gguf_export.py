"""A saved model as one GGUF file, for llama.cpp and Ollama: weights, tokenizer and chat template.

Written are the architectures and tokenizers of `ARCHITECTURES` and `_PRE_TOKENIZERS`, whose answers
the tests compare with those of Transformers; any other one is refused, as a file that loads and
answers a little differently would be worse than none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
import torch
from gguf import (
    GGML_QUANT_SIZES,
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    RopeScalingType,
    TokenType,
    get_tensor_name_map,
)
from gguf.quants import quantize
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

from domainfusion.checks import check_word
from domainfusion.errors import CapabilityError, ConfigurationError, ModelError
from domainfusion.files import replacing
from domainfusion.models.adapter_settings import SETTINGS_FILE
from domainfusion.models.chat_template import within_time
from domainfusion.records import from_json

GGUFType = Literal["auto", "f32", "f16", "bf16", "q8_0"]
"""The numbers in a GGUF file; `auto` are those of the saved model. llama.cpp's own `llama-quantize`
makes smaller ones of an f16 or f32 file.
"""

ARCHITECTURES: Mapping[str, MODEL_ARCH] = {
    "LlamaForCausalLM": MODEL_ARCH.LLAMA,
    "MistralForCausalLM": MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": MODEL_ARCH.QWEN3,
}

_AS_SAVED = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}

_TYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}

_OTHERWISE = (
    "convert the saved folder with llama.cpp's convert_hf_to_gguf.py, which knows more models"
)


def write_gguf(
    folder: str | Path, file: str | Path, *, dtype: GGUFType = "auto", name: str | None = None
) -> Path:
    """Writes a saved model as a GGUF file, and returns the file's path.

    One tensor is in memory at a time. Vectors stay in float32, as llama.cpp computes with them.

    Args:
        folder: A folder that `save()` wrote, with the whole weights.
        file: The file to write.
        dtype: The numbers of the matrices. `q8_0` has blocks of 32 numbers of eight bits with a
            scale each; a matrix whose rows are not a multiple of 32 is kept in f16.
        name: What llama.cpp calls the model; by default the folder's name.

    Raises:
        ConfigurationError: The type is not known, or the folder holds an adapter alone.
        ModelError: There is no model in the folder.
        CapabilityError: The architecture or the tokenizer is not among those that are tested.
    """
    folder, file = Path(folder), Path(file)
    check_word("dtype", dtype, get_args(GGUFType))
    if (folder / SETTINGS_FILE).is_file():
        raise ConfigurationError(
            "The folder holds an adapter, and a GGUF file the whole weights",
            received=str(folder),
            fix="save the model with merge=True",
        )
    if not (folder / "config.json").is_file():
        raise ModelError("There is no saved model here", received=str(folder))
    config = cast(Any, AutoConfig).from_pretrained(folder)
    arch = _architecture(config)
    saved = _AS_SAVED.get(str(config.dtype).removeprefix("torch."), "f32")
    wanted, file_type = _TYPES[saved if dtype == "auto" else dtype]
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as unfinished:
        writer = GGUFWriter(unfinished, MODEL_ARCH_NAMES[arch])
        try:
            writer.add_name(name or folder.name)
            writer.add_file_type(file_type)
            _write_settings(writer, config)
            _write_tokenizer(writer, folder, config.vocab_size)
            _write_weights(writer, folder, config, arch, wanted)
        finally:
            writer.close()
    return file


# The model


def _architecture(config: Any) -> MODEL_ARCH:
    # Settings with a default here are those of some architectures: Llama has no window, GPT-NeoX
    # names its activation otherwise.
    name = next(iter(config.architectures or ["none"]))
    arch = ARCHITECTURES.get(name)
    activation = getattr(config, "hidden_act", None)
    reasons = {
        f"its layers are {name}": arch is None,
        f"its activation is {activation}": activation != "silu",
        "it looks back over a sliding window": bool(
            getattr(config, "sliding_window", None)
            # Qwen's files name a window that is switched off.
            and getattr(config, "use_sliding_window", True)
        ),
        f"its positions are scaled by {_rope(config)['rope_type']}": _rope(config)["rope_type"]
        not in ("default", "linear", "llama3"),
        "its layers have biases where llama.cpp reads none": bool(
            getattr(config, "mlp_bias", False)
        ),
    }
    reason = next((why for why, holds in reasons.items() if holds), "")
    if reason or arch is None:
        raise CapabilityError(
            f"This model is not among those that are tested as GGUF: {reason}",
            received=name,
            allowed=", ".join(ARCHITECTURES),
            fix=_OTHERWISE,
        )
    return arch


def _rope(config: Any) -> dict[str, Any]:
    """Returns how positions turn into angles, in the words of Transformers from 5 on and before."""
    found = getattr(config, "rope_parameters", None)
    if found is None:
        scaling = getattr(config, "rope_scaling", None) or {}
        found = {"rope_theta": getattr(config, "rope_theta", 10_000.0), **scaling}
    return {**found, "rope_type": found.get("rope_type") or found.get("type") or "default"}


def _head_size(config: Any) -> int:
    # Only where heads are not the hidden size divided among them do files have to name their size.
    size = getattr(config, "head_dim", None)
    return int(size or config.hidden_size // config.num_attention_heads)


def _write_settings(writer: GGUFWriter, config: Any) -> None:
    rope, head = _rope(config), _head_size(config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


class _Tensor(NamedTuple):
    """A tensor of the file: its numbers are read when they are written."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]


def _write_weights(
    writer: GGUFWriter, folder: Path, config: Any, arch: MODEL_ARCH, wanted: GGMLQuantizationType
) -> None:
    tensors = list(_tensors(folder, config, arch))
    if not tensors:
        raise ModelError("There are no safetensors files here", received=str(folder))
    kinds = [_kind(tensor, wanted) for tensor in tensors]
    for tensor, kind in zip(tensors, kinds, strict=True):
        block, block_bytes = GGML_QUANT_SIZES[kind]
        writer.add_tensor_info(
            tensor.name,
            tensor.shape,
            np.dtype(np.float32),
            math.prod(tensor.shape) // block * block_bytes,
            raw_dtype=kind,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, kind in zip(tensors, kinds, strict=True):
        writer.write_tensor_data(quantize(tensor.read().float().numpy(), kind))


def _kind(tensor: _Tensor, wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    if len(tensor.shape) == 1:
        return GGMLQuantizationType.F32
    if tensor.shape[-1] % GGML_QUANT_SIZES[wanted][0]:
        return GGMLQuantizationType.F16
    return wanted


def _tensors(folder: Path, config: Any, arch: MODEL_ARCH) -> Iterator[_Tensor]:
    names = get_tensor_name_map(arch, config.num_hidden_layers)
    for file in sorted(folder.glob("*.safetensors")):
        with cast(Any, safe_open)(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - the file is not a mapping
                if name == "lm_head.weight" and config.tie_word_embeddings:
                    continue  # llama.cpp takes the embedding where there is no head
                known = names.get_name(name, try_suffixes=(".weight", ".bias"))
                if known is None:
                    raise CapabilityError(
                        "A weight of this model has no place in its GGUF architecture",
                        received=name,
                        fix=_OTHERWISE,
                    )
                shape = tuple(weights.get_slice(name).get_shape())
                yield _Tensor(known, shape, _reader(file, name, config, arch))
    if _rope(config)["rope_type"] == "llama3":
        factors = _llama3_factors(_rope(config), _head_size(config))
        yield _Tensor("rope_freqs.weight", tuple(factors.shape), lambda: factors)


def _reader(file: Path, name: str, config: Any, arch: MODEL_ARCH) -> Callable[[], torch.Tensor]:
    def read() -> torch.Tensor:
        with cast(Any, safe_open)(file, framework="pt") as weights:
            tensor: torch.Tensor = weights.get_tensor(name)
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        count = heads.get(name.split(".")[-2])
        return _paired(tensor, count) if count and arch is MODEL_ARCH.LLAMA else tensor

    return read


def _paired(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Returns the rows of a query or key projection in llama.cpp's order.

    Rotary positions turn pairs of numbers. Transformers pairs the i-th of a head with the one half
    a head later, llama.cpp's `llama` architecture with the next one.
    """
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape).contiguous()


def _llama3_factors(rope: Mapping[str, Any], head: int) -> torch.Tensor:
    """Returns what each frequency is divided by: Llama 3.1's scaling, as Transformers computes it
    in `_compute_llama3_parameters`.

    Waves longer than the old context are stretched by `factor`, those much shorter are left, and
    between the two a linear mixture of both is taken.
    """
    places = torch.arange(0, head, 2, dtype=torch.float32)
    waves = 2 * math.pi * rope["rope_theta"] ** (places / head)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    old = rope["original_max_position_embeddings"]
    smooth: torch.Tensor = ((old / waves - low) / (high - low)).clamp(0, 1)
    return torch.reciprocal((1 - smooth) / factor + smooth)


# The tokenizer

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_WORDS = {**_BYTES, "use_regex": True}

# How Llama 3 and Qwen 2 split text before merging: contractions, words with one sign before them,
# digits (up to three together, or each alone), signs, line breaks, other white space.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _splitting(digits: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": _SPLIT.replace("DIGITS", digits)},
        "behavior": "Isolated",
        "invert": False,
    }


class _PreTokenizer(NamedTuple):
    """How text is split before tokens are merged.

    Attributes:
        name: llama.cpp's name for it.
        steps: The same in a tokenizer.json.
        ignores_merges: Whether a word that is a token is taken whole.
    """

    name: str
    steps: Sequence[Mapping[str, Any]]
    ignores_merges: bool = False


_PRE_TOKENIZERS = (
    _PreTokenizer("gpt-2", [_WORDS]),
    _PreTokenizer("smollm", [{"type": "Digits", "individual_digits": True}, _WORDS]),
    _PreTokenizer("llama-bpe", [_splitting("{1,3}"), _BYTES], ignores_merges=True),
    _PreTokenizer("qwen2", [_splitting(""), _BYTES]),
)


def _pre_tokenizer(tokenizer: Mapping[str, Any]) -> str:
    """Returns llama.cpp's name for how a tokenizer splits text.

    Raises:
        CapabilityError: It is not one of those that are known to split alike.
    """
    model, first = tokenizer["model"], tokenizer["pre_tokenizer"] or {"type": "none"}
    steps = first["pretokenizers"] if first["type"] == "Sequence" else [first]
    # An offset's trimming changes no token.
    found = [{k: v for k, v in step.items() if k != "trim_offsets"} for step in steps]
    normalizer = tokenizer.get("normalizer") or {"type": "none"}
    for known in _PRE_TOKENIZERS:
        # Qwen composes accents first; llama.cpp does not, so that decomposed text may differ.
        normalizers = ("none", "NFC") if known.name == "qwen2" else ("none",)
        if (
            model["type"] == "BPE"
            and not model.get("byte_fallback")
            and found == [dict(step) for step in known.steps]
            and bool(model.get("ignore_merges")) == known.ignores_merges
            and normalizer["type"] in normalizers
        ):
            return known.name
    raise CapabilityError(
        "This tokenizer is not among those that are tested as GGUF",
        received=f"{model['type']} after {', '.join(step['type'] for step in steps)}",
        allowed=", ".join(known.name for known in _PRE_TOKENIZERS),
        fix=_OTHERWISE,
    )


def _write_tokenizer(writer: GGUFWriter, folder: Path, vocabulary_size: int) -> None:
    tokenizer = cast(Any, AutoTokenizer).from_pretrained(folder)
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(described))
    names = [f"[PAD{number}]" for number in range(vocabulary_size)]
    kinds = [int(TokenType.UNUSED)] * vocabulary_size
    for token, number in tokenizer.get_vocab().items():
        names[number], kinds[number] = token, int(TokenType.NORMAL)
    for added in described["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        kinds[added["id"]] = int(kind)
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    merges = described["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    bos = tokenizer.bos_token_id
    writer.add_add_bos_token(_begins_texts(tokenizer))
    if bos is not None:
        writer.add_bos_token_id(bos)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    # llama.cpp ends an answer at any of three tokens that a file names.
    places = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for add, number in zip(places, _end_tokens(folder, tokenizer), strict=False):
        add(number)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _begins_texts(tokenizer: Any) -> bool:
    """Returns whether every text is encoded with the token of a beginning before it."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("")["input_ids"][:1] == [bos]


def _end_tokens(folder: Path, tokenizer: Any) -> list[int]:
    """Returns the tokens that end an answer, that of the tokenizer first."""
    file = folder / "generation_config.json"
    settings = from_json(file.read_bytes()) if file.is_file() else {}
    named = settings.get("eos_token_id")
    ends = named if isinstance(named, list) else [] if named is None else [named]
    own = tokenizer.eos_token_id
    return ([own] if own in ends or (own is not None and not ends) else []) + [
        one for one in ends if one != own
    ]


# Ollama

_SYSTEM, _ANSWER = "SYSTEMWORDS", "ANSWERWORDS"
_QUESTIONS = ("FIRSTWORDS", "SECONDWORDS")


def write_modelfile(
    folder: str | Path, gguf_file: str | Path, *, system_prompt: str | None = None
) -> Path:
    """Writes an Ollama `Modelfile` beside a GGUF file, and returns its path.

    It has the chat template in Ollama's language where that says the same for every dialogue of
    user and assistant, the tokens that end an answer, and greedy decoding without a penalty on
    repetition, as the student was measured.

    Args:
        folder: The folder of the saved model that the GGUF file was made of.
        gguf_file: The GGUF file.
        system_prompt: The system prompt that it learned with.
    """
    folder, gguf_file = Path(folder), Path(gguf_file)
    tokenizer = cast(Any, AutoTokenizer).from_pretrained(folder)
    config = cast(Any, AutoConfig).from_pretrained(folder)
    lines = [f"FROM ./{gguf_file.name}"]
    template = _ollama_template(tokenizer)
    if template is None:
        lines.append("# Its chat template can't be said in Ollama's: Ollama guesses one.")
    else:
        lines.append(f"TEMPLATE {_quoted(template)}")
    if system_prompt:
        lines.append(f"SYSTEM {_quoted(system_prompt)}")
    for number in _end_tokens(folder, tokenizer):
        lines.append(f"PARAMETER stop {json.dumps(tokenizer.convert_ids_to_tokens(number))}")
    lines += [
        f"PARAMETER num_ctx {min(8192, config.max_position_embeddings)}",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    ]
    file = gguf_file.with_name("Modelfile")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def _quoted(text: str) -> str:
    if '"""' in text:
        raise CapabilityError(
            'A Modelfile can\'t hold three quotation marks in a row, """', received=text[:80]
        )
    return f'"""{text}"""'


class _Pieces(NamedTuple):
    """What a chat template writes around the words of a dialogue."""

    before_system: str
    after_system: str
    without_system: str
    to_answer: str
    to_question: str
    at_end: str

    def written(self, words: Sequence[str], system: str | None) -> str:
        """Returns a dialogue; `words` are in turn the user's and the assistant's."""
        text = (
            self.without_system
            if system is None
            else self.before_system + system + self.after_system
        )
        for place, one in enumerate(words):
            is_last = place == len(words) - 1
            between = self.to_question if place % 2 else self.to_answer
            text += one + (self.at_end if is_last else between)
        return text


def _ollama_template(tokenizer: Any) -> str | None:
    """Returns the chat template in Ollama's language (Go's text/template), or None.

    What stands around the words is read from rendered dialogues, and longer ones have to come out
    the same.
    """
    if not tokenizer.chat_template:
        return None

    def render(words: Sequence[str], system: str | None) -> str:
        dialogue = [{"role": "system", "content": system}] if system is not None else []
        for place, one in enumerate(words):
            role = "assistant" if place % 2 else "user"
            dialogue.append({"role": role, "content": one})
        text: str = within_time(
            lambda: tokenizer.apply_chat_template(
                dialogue, tokenize=False, add_generation_prompt=True
            ),
            "the model",
        )
        # Ollama writes the token of a beginning by itself.
        return text.removeprefix(tokenizer.bos_token) if _begins_texts(tokenizer) else text

    first, second = _QUESTIONS
    try:
        whole = render([first, _ANSWER, second], _SYSTEM)
        before_system, rest = whole.split(_SYSTEM)
        after_system, rest = rest.split(first)
        to_answer, rest = rest.split(_ANSWER)
        to_question, at_end = rest.split(second)
        without_system = render([first], None).split(first)[0]
        pieces = _Pieces(
            before_system, after_system, without_system, to_answer, to_question, at_end
        )
        dialogues = [(list("abc"), "s"), (list("abcde"), None), (["a"], None), (["a"], "s")]
        if any(pieces.written(words, one) != render(words, one) for words, one in dialogues):
            return None
    except Exception:  # a template may raise whatever it likes
        return None
    if '"""' in whole + without_system:
        return None
    system, nothing, answer, question, end = (_in_go(piece) for piece in pieces[1:])
    return (
        f"{{{{ if .System }}}}{_in_go(before_system)}{{{{ .System }}}}{system}"
        f"{{{{ else }}}}{nothing}{{{{ end }}}}"
        "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{{{{ if eq .Role "user" }}}}{{{{ .Content }}}}'
        f"{{{{ if $last }}}}{end}{{{{ else }}}}{answer}{{{{ end }}}}"
        f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}'
        f"{{{{ if not $last }}}}{question}{{{{ end }}}}{{{{ end }}}}{{{{ end }}}}"
    )


def _in_go(text: str) -> str:
    """Returns a literal text in Go's template language."""
    return text.replace("{{", '{{ "{{" }}')
