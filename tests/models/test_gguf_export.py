"""A saved model as GGUF: llama.cpp reads the same tokens and gives the same answers."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from domainfusion.errors import CapabilityError, ConfigurationError, ModelError
from domainfusion.models import HuggingFaceModel
from domainfusion.models.gguf_export import write_gguf, write_modelfile
from domainfusion.types import Sampling, user

xllamacpp = pytest.importorskip("xllamacpp")

QUESTIONS = ["What is the capital of France?", "How do muscles recover?", "12 and 3456: 7.5 %"]
TEXTS = [
    *QUESTIONS,
    "It's 1234567 o'clock; WE'LL see — don't   stop.\n\n  Näh, 東京の天気は 🙂?\r\n\tend  ",
    "a\n\n\nb   c\n  d 12.50 €",
]


@contextmanager
def serving(file: Path) -> Iterator[Callable[..., Any]]:
    """Has llama.cpp serve a file, and gives a function of path and fields that asks it."""
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx, settings.n_parallel, settings.cpuparams.n_threads = 512, 1, 1
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    settings.use_jinja = True
    # By default its cache holds rounded keys and values, which turns near ties.
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(settings)

    def ask(path: str, **fields: Any) -> Any:
        body = json.dumps(fields).encode()
        request = urllib.request.Request(
            f"{server.listening_address}/{path}", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    yield ask  # the server ends with the last reference to it


def written_by_llamacpp(file: Path, prompt: list[int], count: int = 24) -> list[int]:
    with serving(file) as ask:
        reply = ask(
            "completion",
            prompt=prompt,
            n_predict=count,
            temperature=0,
            return_tokens=True,
            ignore_eos=True,
        )
    tokens: list[int] = reply["tokens"]
    return tokens


def shortfalls(folder: Path, prompt: list[int], written: list[int], ban: int) -> list[float]:
    """How far below the most probable token's logit each written one is, says Transformers."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).float()
    with torch.no_grad():
        logits = model(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1]
    logits[:, ban] = -torch.inf
    return (logits.amax(1) - logits[range(len(written)), written]).tolist()


def remade(folder: Path, to: Path, kind: str, **settings: Any) -> Path:
    """Writes a model of another architecture with the tokenizer of `folder` and random weights."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = getattr(transformers, f"{kind}Config")(
        **{
            "vocab_size": len(tokenizer) + 3,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 128,
            "max_position_embeddings": 512,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
            "pad_token_id": tokenizer.pad_token_id,
            "initializer_range": 0.2,
            **settings,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)
    return to


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Llama", {}),
        ("Llama", {"tie_word_embeddings": True}),
        ("Llama", {"head_dim": 32, "attention_bias": True}),
        ("Llama", {"rope_parameters": LLAMA3}),
        (
            "Llama",
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
        ),
        ("Mistral", {"sliding_window": None}),
        ("Qwen2", {"tie_word_embeddings": True}),
        ("Qwen3", {"head_dim": 16}),
    ],
    ids=str,
)
def test_the_same_tokens_as_transformers(
    tiny_llama: Path, tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    folder = remade(tiny_llama, tmp_path / "model", kind, **settings)
    file = write_gguf(folder, tmp_path / "model.gguf")
    prompt = [5 + (7 * place) % 300 for place in range(150)]
    end = HuggingFaceModel(folder).turn_end
    below = shortfalls(folder, prompt, written_by_llamacpp(file, prompt), end)
    # Logits differ by thousandths, as attention is computed in another order there: a near tie of
    # two tokens may turn. A wrong weight, angle or scale leaves no token right.
    assert max(below) < 0.01
    assert sum(gap == 0 for gap in below) >= 22


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
def test_smaller_numbers_are_those_of_the_model(
    tiny_llama: Path, tmp_path: Path, dtype: Any
) -> None:
    """What is written, read back by the gguf package, is within its type's rounding."""
    from gguf import GGUFReader, dequantize
    from safetensors.torch import load_file

    folder = remade(tiny_llama, tmp_path / "model", "Llama", intermediate_size=96)
    file = write_gguf(folder, tmp_path / "model.gguf", dtype=dtype)
    weights = load_file(folder / "model.safetensors")
    rounding = {"f32": 0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 0.5 / 127 + 2**-11}[dtype]
    tensors = {one.name: one for one in GGUFReader(file).tensors}
    for ours, theirs in [
        ("embed_tokens", "token_embd"),
        ("layers.1.mlp.down_proj", "blk.1.ffn_down"),
    ]:
        matrix = weights[f"model.{ours}.weight"]
        found = tensors[f"{theirs}.weight"]
        read = torch.tensor(dequantize(found.data, found.tensor_type)).reshape(matrix.shape)
        # of the largest number in a block of 32
        limit = matrix.reshape(-1, 32).abs().amax(1, keepdim=True) * rounding * 1.01
        assert ((read - matrix).reshape(-1, 32).abs() <= limit).all()
    assert str(tensors["output_norm.weight"].tensor_type.name) == "F32"
    assert len(written_by_llamacpp(file, [5, 6, 7])) == 24


def test_a_matrix_whose_rows_fill_no_block_is_kept_in_f16(tiny_llama: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    folder = remade(tiny_llama, tmp_path / "model", "Llama", intermediate_size=100)
    file = write_gguf(folder, tmp_path / "model.gguf", dtype="q8_0")
    kinds = {one.name: one.tensor_type.name for one in GGUFReader(file).tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F16"
    assert kinds["blk.0.ffn_up.weight"] == "Q8_0"


def split_like(name: str) -> Any:
    """Returns a tokenizer that splits text as one of the families does, with merges of its own."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    # As their tokenizer.json files have it.
    llama = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    splits = {
        "gpt-2": words,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words]),
        "llama-bpe": pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(llama), "isolated"), byte_level]
        ),
        "qwen2": pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(llama.replace("{1,3}", "")), "isolated"), byte_level]
        ),
    }
    raw = Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    raw.pre_tokenizer, raw.decoder = splits[name], decoders.ByteLevel()
    if name == "qwen2":
        raw.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([*TEXTS, "1234 5678 1212 3456"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", pad_token="<|end|>")


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_text_is_split_into_the_same_tokens(tiny_llama: Path, tmp_path: Path, name: str) -> None:
    split_like(name).save_pretrained(tmp_path / "tokenizer")
    folder = remade(tmp_path / "tokenizer", tmp_path / "model", "Llama")
    tokenizer = HuggingFaceModel(folder).tokenizer
    with serving(write_gguf(folder, tmp_path / "model.gguf")) as ask:
        for text in TEXTS:
            assert ask("tokenize", content=text)["tokens"] == tokenizer(text)["input_ids"], text
        together = ask("tokenize", content="a<|end|>b", parse_special=True)["tokens"]
        assert together == tokenizer("a<|end|>b")["input_ids"]


def whole(text: str) -> str:
    return text.replace("\N{REPLACEMENT CHARACTER}", "")


def test_a_whole_answer_through_the_chat_template(tiny_llama: Path, tmp_path: Path) -> None:
    """Template, tokenizer, weights and end token together: an answer is that of the model."""
    model = HuggingFaceModel(tiny_llama, dtype="float32")
    with serving(write_gguf(tiny_llama, tmp_path / "model.gguf")) as ask:
        for question in QUESTIONS:
            [here] = model.generate([user(question)], Sampling(max_new_tokens=24))
            prompt = model.encode(user(question))
            messages = [{"role": "user", "content": question}]
            rendered = ask("apply-template", messages=messages)["prompt"]
            assert ask("tokenize", content=rendered, parse_special=True)["tokens"] == prompt
            reply = ask("chat/completions", messages=messages, max_tokens=24, temperature=0)
            assert reply["usage"]["prompt_tokens"] == len(prompt)
            # Halves of characters are dropped there and marked here.
            assert whole(reply["choices"][0]["message"]["content"]) == whole(here.text)
            assert reply["choices"][0]["finish_reason"] == here.finish_reason


def test_what_is_not_tested_is_refused_with_a_way_on(tiny_llama: Path, tmp_path: Path) -> None:
    gpt = remade(tiny_llama, tmp_path / "gpt", "GPTNeoX")
    window = remade(tiny_llama, tmp_path / "window", "Mistral", sliding_window=64)
    for folder, words in [(gpt, "GPTNeoX"), (window, "sliding window")]:
        with pytest.raises(CapabilityError, match=words) as caught:
            write_gguf(folder, tmp_path / "model.gguf")
        assert "convert_hf_to_gguf.py" in str(caught.value)
    with pytest.raises(ConfigurationError, match="q8_0"):
        write_gguf(tiny_llama, tmp_path / "model.gguf", dtype="q4_k")  # type: ignore[arg-type]
    with pytest.raises(ModelError):
        write_gguf(tmp_path, tmp_path / "model.gguf")
    assert list(tmp_path.glob("*.gguf")) == []


def test_another_tokenizer_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    folder = remade(tiny_llama, tmp_path / "model", "Llama")
    file = folder / "tokenizer.json"
    settings = json.loads(file.read_text())
    settings["pre_tokenizer"]["add_prefix_space"] = True
    file.write_text(json.dumps(settings))
    with pytest.raises(CapabilityError, match="tokenizer"):
        write_gguf(folder, tmp_path / "model.gguf")


def test_an_adapter_alone_is_refused(make_adapter: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="adapter"):
        write_gguf(make_adapter("alone", 3), tmp_path / "model.gguf")


def test_a_modelfile_says_template_ends_and_greedy_decoding(
    tiny_llama: Path, tmp_path: Path
) -> None:
    file = write_modelfile(tiny_llama, tmp_path / "model.gguf", system_prompt="Be brief.")
    text = file.read_text()
    assert text.startswith("FROM ./model.gguf\nTEMPLATE ")
    assert (
        '{{ if eq .Role "user" }}{{ .Content }}{{ if $last }}<|im_end|>\n<|im_start|>assist' in text
    )
    assert 'SYSTEM """Be brief."""' in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert "PARAMETER temperature 0\nPARAMETER repeat_penalty 1\n" in text


def test_a_template_that_ollama_can_not_say_is_left_out(
    write_chat_model: Callable[..., Path], tmp_path: Path
) -> None:
    """One that writes how many turns there are, which is not around the words."""
    counting = (
        "{{ messages | length }}{% for message in messages %}<{{ message['content'] }}>{% endfor %}"
    )
    folder = write_chat_model(tmp_path / "model", counting)
    text = write_modelfile(folder, tmp_path / "model.gguf").read_text()
    assert "TEMPLATE" not in text
    assert "Ollama guesses" in text
