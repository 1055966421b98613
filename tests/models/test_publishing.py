"""Saved models for others: adapters as vLLM serves them, and names of repositories."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from domainfusion.errors import CapabilityError, ConfigurationError, ModelError
from domainfusion.models.publishing import push_to_hub, write_vllm_adapter


def test_an_adapter_for_vllm_makes_the_same_change(
    make_adapter: Callable[..., Path], tiny_llama: Path, tmp_path: Path
) -> None:
    """Ranks and scales that differ by layer become one of each, and no logit moves."""
    source = make_adapter(
        "uneven", 5, rank_pattern={"q_proj": 2, "down_proj": 7}, alpha_pattern={"v_proj": 3}
    )
    served = write_vllm_adapter(source, tmp_path / "served")
    settings = json.loads((served.folder / "adapter_config.json").read_text())
    assert (served.rank, settings["r"], settings["lora_alpha"]) == (7, 7, 7)
    assert settings["rank_pattern"] == settings["alpha_pattern"] == {}
    assert "--max-lora-rank 8 " in served.command("law")
    logits = []
    for folder in (source, served.folder):
        base = AutoModelForCausalLM.from_pretrained(tiny_llama)
        model = PeftModel.from_pretrained(base, str(folder))
        logits.append(model(torch.arange(5, 40).unsqueeze(0)).logits)
    assert torch.allclose(logits[0], logits[1], atol=1e-4)
    assert served.folder.joinpath("adapter_model.safetensors").stat().st_mode & 0o777 == 0o644


def test_what_vllm_can_not_serve_is_refused(
    make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    for adapter, word in [
        (make_adapter("dora", 6, use_dora=True), "DoRA|magnitude"),
        (make_adapter("large", 6, r=600), "600"),
    ]:
        with pytest.raises(CapabilityError, match=word):
            write_vllm_adapter(adapter, tmp_path / "served")
    with pytest.raises(ModelError):
        write_vllm_adapter(tmp_path, tmp_path / "served")


@pytest.mark.parametrize("name", ["model", "me/", "/model", "a/b/c"])
def test_a_name_that_is_not_a_repository_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="owner/name"):
        push_to_hub(tmp_path, name)
