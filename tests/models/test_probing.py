"""A model that does not read from left to right, or that reads padding, says so when it is loaded;
one may lie on several devices.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, RwkvConfig, T5Config

from domainfusion.errors import CapabilityError, ConfigurationError, ModelError
from domainfusion.models import Adaptation, HuggingFaceModel
from domainfusion.types import Sampling, user

ROWS = [list(range(5, 25)), list(range(40, 52))]
ASKED = [user("Why?"), user("What is the capital of France?")]
SHORT = Sampling(max_new_tokens=4)


def load(path: Path, **options: Any) -> HuggingFaceModel:
    return HuggingFaceModel(path, **{"dtype": "float32", **options})


def write_model(config: Any, like: Path, folder: Path) -> Path:
    shutil.copytree(like, folder)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    model.save_pretrained(folder)
    return folder


def test_a_model_that_looks_ahead_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    vocabulary = load(tiny_llama).vocabulary_size
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    with pytest.raises(ModelError, match="tokens that come later"):
        load(write_model(config, tiny_llama, tmp_path / "bert")).generate(ASKED, SHORT)


def test_a_kind_of_model_that_writes_no_text_is_refused_at_once(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "t5")
    T5Config().save_pretrained(folder)
    with pytest.raises(ModelError, match="kind t5 does not write text from left to right"):
        load(folder)


def test_a_model_that_reads_padding_is_asked_row_by_row_or_not_at_all(
    tiny_llama: Path, tmp_path: Path
) -> None:
    config = RwkvConfig(
        vocab_size=load(tiny_llama).vocabulary_size, hidden_size=64, num_hidden_layers=2
    )
    folder = write_model(config, tiny_llama, tmp_path / "rwkv")
    for _ in range(2):
        with pytest.raises(ModelError, match=r"reads padding.*batch_size=1"):
            load(folder).generate(ASKED, SHORT)
    one_by_one = load(folder, batch_size=1)
    assert one_by_one.generate(ASKED, SHORT)[0] == one_by_one.generate(ASKED[:1], SHORT)[0]


# Several devices

PARTS = (
    "model.embed_tokens",
    "model.layers.0",
    "model.layers.1",
    "model.norm",
    "model.rotary_emb",
    "lm_head",
)


@pytest.mark.parametrize("on_disk", [(), ("model.layers.1",), ("model.layers.0", "lm_head")])
def test_a_model_that_is_spread_answers_and_scores_as_on_one_device(
    make_llama: Callable[..., Path], on_disk: tuple[str, ...]
) -> None:
    folder = make_llama("spread")
    whole, spread = (
        load(folder),
        load(folder, device_map={part: "disk" if part in on_disk else "cpu" for part in PARTS}),
    )
    for found, expected in zip(spread.hidden_states(ROWS), whole.hidden_states(ROWS), strict=True):
        torch.testing.assert_close(spread.project(found), whole.project(expected))
    assert spread.generate(ASKED, SHORT) == whole.generate(ASKED, SHORT)
    with pytest.raises(CapabilityError, match="one device"):
        spread.check_start(Adaptation())


def test_an_adapter_stands_on_a_spread_base_that_is_all_there(
    tiny_llama: Path, make_adapter: Callable[..., Path]
) -> None:
    expert = load(make_adapter("one", 1))
    spread = load(make_adapter("one", 1), device_map="auto")
    torch.testing.assert_close(
        torch.cat(spread.hidden_states(ROWS)), torch.cat(expert.hidden_states(ROWS))
    )
    with pytest.raises(ModelError, match="merge it into its base"):
        load(
            make_adapter("one", 1),
            device_map={part: "disk" if "layers.1" in part else "cpu" for part in PARTS},
        ).generate(ASKED, SHORT)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"device_map": "everywhere"}, "balanced_low_0"),
        ({"device_map": {}}, "empty"),
        ({"device_map": "auto", "device": "cpu"}, "leave device out"),
    ],
)
def test_a_device_map_that_can_not_be_right_is_refused_at_once(
    tiny_llama: Path, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        load(tiny_llama, **options)


def test_a_first_layer_that_is_on_no_device_is_refused(tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match="first layer"):
        load(tiny_llama, device_map=dict.fromkeys(PARTS, "disk")).generate(ASKED, SHORT)
