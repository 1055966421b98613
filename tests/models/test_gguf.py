"""Models that are read from GGUF files."""

import json
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file

from domainfusion.errors import ModelError
from domainfusion.models import (
    Adaptation,
)

from .local_models import (
    CONVERSATIONS,
    MERGING_TOLERANCE,
    SHORT,
    MakeAdapter,
    _assert_plain_transformers_gives,
    load,
    logits_of,
    perturb,
)

# GGUF files


def _write_gguf(folder: Path, target: Path, *, quantized: bool = False) -> Path:
    """Writes a Llama as llama.cpp's converter does, its matrices in float32 or in blocks of 8-bit
    numbers.
    """
    import gguf

    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    weights = {
        name: tensor.numpy() for name, tensor in load_file(folder / "model.safetensors").items()
    }
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])

    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    vocabulary = {**tokenizer["model"]["vocab"], **special}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    )
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(special["<|im_end|>"])
    writer.add_bos_token_id(special["<|im_end|>"])
    writer.add_pad_token_id(special["<|endoftext|>"])
    writer.add_chat_template((folder / "chat_template.jinja").read_text())

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in weights.items():
        if ".q_proj." in name or ".k_proj." in name:
            heads = config["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"]
            # llama.cpp rotates neighbors where Transformers rotates halves.
            tensor = (
                tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
            )
        kind = (
            gguf.GGMLQuantizationType.Q8_0
            if quantized and tensor.ndim == 2
            else gguf.GGMLQuantizationType.F32
        )
        writer.add_tensor(
            cast(str, names.get_name(name, try_suffixes=(".weight",))),
            gguf.quantize(tensor, kind),
            raw_dtype=kind,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.fixture(scope="module")
def tiny_gguf(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_gguf(tiny_llama, tmp_path_factory.mktemp("gguf") / "tiny-llama.gguf")


def test_a_gguf_file_is_the_model_that_it_was_made_from(tiny_llama: Path, tiny_gguf: Path) -> None:
    model, original = load(tiny_gguf), load(tiny_llama)
    assert list(map(model.encode, CONVERSATIONS)) == list(map(original.encode, CONVERSATIONS))
    torch.testing.assert_close(logits_of(model), logits_of(original), rtol=0, atol=1e-5)
    assert model.generate(CONVERSATIONS, SHORT) == original.generate(CONVERSATIONS, SHORT)
    assert model.end_tokens == original.end_tokens
    assert model.name == "tiny-llama.gguf"


@pytest.mark.parametrize("adaptation", [None, Adaptation(rank=2)], ids=["all weights", "adapter"])
def test_a_model_from_a_gguf_file_is_trained_and_saved_as_any_other(
    tiny_gguf: Path, tmp_path: Path, adaptation: Adaptation | None
) -> None:
    student = load(tiny_gguf).trainable_copy(adaptation)
    perturb(student)
    student.save(tmp_path / "saved")
    _assert_plain_transformers_gives(tmp_path / "saved", logits_of(student))
    assert load(tmp_path / "saved").generate(CONVERSATIONS, SHORT) == student.generate(
        CONVERSATIONS, SHORT
    )


def test_a_quantized_gguf_file_is_read_as_the_numbers_that_it_holds(
    tiny_llama: Path, tmp_path: Path
) -> None:
    import gguf

    kind = gguf.GGMLQuantizationType.Q8_0
    model = load(_write_gguf(tiny_llama, tmp_path / "small.gguf", quantized=True))
    model.save(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    for name, tensor in load_file(tiny_llama / "model.safetensors").items():
        held = (
            torch.tensor(gguf.dequantize(gguf.quantize(tensor.numpy(), kind), kind))
            if tensor.ndim == 2
            else tensor
        )
        assert torch.equal(saved[name], held), name
    _assert_plain_transformers_gives(tmp_path / "saved", logits_of(model))
    perturb(model.trainable_copy(None))


def test_experts_can_stand_on_a_gguf_file(tiny_gguf: Path, make_adapter: MakeAdapter) -> None:
    expert = load(make_adapter("one", 1), base_model=tiny_gguf)
    assert expert._load().module is load(tiny_gguf)._load().module
    torch.testing.assert_close(
        logits_of(expert), logits_of(load(make_adapter("one", 1))), rtol=0, atol=MERGING_TOLERANCE
    )


@pytest.mark.parametrize("kept", [0.0, 0.003, 0.5, 0.999])
def test_a_gguf_file_that_ends_too_early_is_a_model_error(
    tiny_gguf: Path, tmp_path: Path, kept: float
) -> None:
    content = tiny_gguf.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ModelError, match=r"cut\.gguf"):
        load(tmp_path / "cut.gguf").ask("Why?")
