"""Files of models and of runs with anything in them: each is read, or named in one error of ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domainfusion.errors import DomainFusionError
from domainfusion.models import LlamaModel
from domainfusion.types import Sampling, user


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 4
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "lost": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a bit, early": lambda path: _flip(path, 0.01),
    "a bit, in the middle": lambda path: _flip(path, 0.5),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
    "deep objects": lambda path: path.write_bytes(b'{"a":' * 100_000),
    "a list": lambda path: path.write_bytes(b"[1]"),
    "null": lambda path: path.write_bytes(b"null"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00\x80" * 50),
    "a folder": _make_folder,
    "a loop": _link_to_itself,
}


def use(folder: Path) -> str:
    """Loads a model and asks it; returns what it says, or the error."""
    try:
        [answer] = LlamaModel(folder, dtype="float32", device="cpu").generate(
            [user("What does a cow eat?")], Sampling(max_new_tokens=2)
        )
    except DomainFusionError as error:
        return str(error)
    return answer.finish_reason


@pytest.mark.timeout(120)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_whatever_becomes_of_a_model_s_files_is_an_answer_or_one_error(
    damage: Callable[[Path], Any],
    tiny_llama: Path,
    make_adapter: Callable[..., Path],
    tmp_path: Path,
) -> None:
    for source in (tiny_llama, make_adapter("expert", 1)):
        for file in source.iterdir():
            folder = tmp_path / file.name
            shutil.copytree(source, folder)
            if source != tiny_llama:
                shutil.copy(tiny_llama / "chat_template.jinja", folder)
            damage(folder / file.name)
            assert use(folder)
            shutil.rmtree(folder)


SETTINGS: list[dict[str, Any]] = [
    {"target_modules": "(a+)+$"},
    {"target_modules": "((((x*)*)*)*)*q_proj"},
    {"target_modules": "("},
    {"target_modules": 7},
    {"target_modules": {"q_proj": 1}},
    {"rank_pattern": {"(a|aa)+$": 4}},
    {"rank_pattern": ["q_proj"]},
    {"rank_pattern": {"q_proj": "many"}},
    {"alpha_pattern": {"^" * 5_000: 1}},
    {"alpha_pattern": "(x+x+)+y"},
    {"layers_pattern": ["(a+)+$"], "layers_to_transform": [0]},
    {"layers_to_transform": list(range(100_000))},
    {"exclude_modules": "(.+)+z"},
    {"modules_to_save": ["(a+)+$"]},
    {"modules_to_save": [1]},
    {"r": 10**9},
    {"r": -1},
    {"r": "many"},
    {"lora_alpha": "large"},
    {"lora_alpha": float("nan")},
    {"peft_type": "OTHER"},
    {"peft_type": ["LORA"]},
    {"task_type": "\x1b[2J" * 1_000},
    {"base_model_name_or_path": ["a"]},
    {"base_model_name_or_path": "x" * 5_000},
    {"base_model_name_or_path": "a\0b"},
    {"auto_mapping": {"base_model_class": "system", "parent_library": "os"}},
    {"bias": "any"},
    {"trainable_token_indices": [10**9]},
    {"target_parameters": ["(a+)+$"]},
    {"loftq_config": [[]]},
    {"eva_config": 1},
    {"init_lora_weights": "loftq"},
    {"revision": "a/../../b"},
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_whatever_an_adapter_s_settings_say_is_an_answer_or_one_error(
    settings: dict[str, Any], make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "expert"
    shutil.copytree(make_adapter("expert", 1), folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    told = use(folder)
    assert "\x1b" not in told and len(told) < 10_000


CONFIGURATIONS: list[dict[str, Any]] = [
    {"hidden_size": 10**9},
    {"hidden_size": -1},
    {"num_hidden_layers": 10**7},
    {"num_hidden_layers": "x"},
    {"vocab_size": 10**10},
    {"vocab_size": 0},
    {"num_attention_heads": 0},
    {"num_key_value_heads": 3},
    {"head_dim": 0},
    {"max_position_embeddings": 0},
    {"max_position_embeddings": 10**12},
    {"rope_parameters": {"rope_type": "other", "rope_theta": 0}},
    {"rms_norm_eps": "x"},
    {"model_type": "other"},
    {"model_type": ["llama"]},
    {"architectures": ["../x"]},
    {"dtype": "float99"},
    {"dtype": 7},
    {"eos_token_id": 10**9},
    {"eos_token_id": "x"},
    {"hidden_act": "other"},
    {"quantization_config": {"quant_method": "other"}},
    {"quantization_config": [1]},
    {"attn_implementation": "someone/kernels"},
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("changes", CONFIGURATIONS, ids=str)
def test_whatever_a_model_s_configuration_says_is_an_answer_or_one_error(
    changes: dict[str, Any], tiny_llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    assert use(folder)
