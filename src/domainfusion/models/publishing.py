"""Saved models for others: adapters as vLLM serves them, and repositories of the hub."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils._validators import validate_repo_id
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from domainfusion.errors import CapabilityError, ConfigurationError, ModelError, RunError
from domainfusion.files import make_readable
from domainfusion.models.adapters import scaling_of


class ServedAdapter(NamedTuple):
    """An adapter that vLLM loads.

    Attributes:
        folder: Its folder.
        rank: Its rank, for `--max-lora-rank`.
        base: The model that it stands on.
    """

    folder: Path
    rank: int
    base: str

    def command(self, name: str) -> str:
        """Returns the words that serve it beside its base."""
        # The sizes that vLLM reserves room for.
        room = next(size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= self.rank)
        return (
            f"vllm serve {shlex.quote(self.base)} --enable-lora --max-lora-rank {room}"
            f" --lora-modules {shlex.quote(f'{name}={self.folder}')}"
        )


LARGEST_SERVED_RANK = 512
"""vLLM's largest `--max-lora-rank`."""


def write_vllm_adapter(adapter: str | Path, folder: str | Path) -> ServedAdapter:
    """Writes a PEFT adapter as one that vLLM serves: one rank and one scale for all layers.

    A sum of experts may have another rank on each layer, which vLLM does not read. Smaller factors
    are filled up with zeros, and every scale is multiplied into the second factor: the change that
    the adapter makes stays the same.

    Args:
        adapter: The folder of the adapter, as `save(merge=False)` writes it.
        folder: The folder to write.

    Raises:
        ModelError: There is no adapter in the folder.
        CapabilityError: It is one that vLLM can't serve: DoRA, on fused or on other weights than
            linear layers, or of a rank above 512.
    """
    source, folder = Path(adapter), Path(folder)
    if not (source / "adapter_config.json").is_file():
        raise ModelError("There is no adapter here", received=str(source))
    config = cast(LoraConfig, cast(Any, LoraConfig).from_pretrained(str(source)))
    state = load_file(source / "adapter_model.safetensors")
    kinds = {name.rpartition(".lora_")[2] for name in state if ".lora_" in name}
    others = [name for name in state if ".lora_" not in name]
    if (
        config.use_dora
        or config.target_parameters
        or others
        or not kinds <= {"A.weight", "B.weight"}
    ):
        raise CapabilityError(
            "vLLM serves plain LoRA on linear layers alone",
            received=next(iter(others), "DoRA" if config.use_dora else sorted(kinds)),
            fix="save the model with merge=True, and serve that",
        )
    layers = sorted({name.rpartition(".lora_")[0] for name in state})
    largest = max(state[f"{layer}.lora_A.weight"].shape[0] for layer in layers)
    if largest > LARGEST_SERVED_RANK:
        raise CapabilityError(
            "vLLM serves no adapter of this rank",
            received=largest,
            allowed=f"up to {LARGEST_SERVED_RANK}",
            fix="save the model with merge=True, and serve that",
        )
    written = {}
    for layer in layers:
        first, second = state[f"{layer}.lora_A.weight"], state[f"{layer}.lora_B.weight"]
        scale = scaling_of(config, layer.removeprefix("base_model.model."))
        missing = largest - first.shape[0]
        written[f"{layer}.lora_A.weight"] = torch.nn.functional.pad(first, (0, 0, 0, missing))
        written[f"{layer}.lora_B.weight"] = torch.nn.functional.pad(second * scale, (0, missing))
    folder.mkdir(parents=True, exist_ok=True)
    cast(Any, LoraConfig)(
        r=largest,
        lora_alpha=largest,
        target_modules=sorted({layer.rpartition(".")[2] for layer in layers}),
        task_type="CAUSAL_LM",
        base_model_name_or_path=config.base_model_name_or_path,
        inference_mode=True,
    ).save_pretrained(str(folder))
    save_file(written, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    # Tokenizer and chat template: vLLM takes them from there where they differ from the base's.
    for file in source.iterdir():
        if file.is_file() and not file.name.startswith("adapter_"):
            shutil.copy(file, folder / file.name)
    make_readable(folder)
    return ServedAdapter(folder, largest, str(config.base_model_name_or_path))


def check_hub_name(repository: str) -> None:
    """Raises a `ConfigurationError` where this is not `owner/name`, before anything is written."""
    try:
        validate_repo_id(repository)
        is_whole = "/" in repository
    except HFValidationError:
        is_whole = False
    if not is_whole:
        raise ConfigurationError(
            "This is not the name of a repository on the hub",
            received=repository,
            allowed="owner/name, of letters, digits, dots, dashes and underscores",
        )


def push_to_hub(
    folder: str | Path, repository: str, *, public: bool = False, token: str | None = None
) -> str:
    """Uploads a folder to a model repository of the Hugging Face hub, which is made if it is not
    there, and returns its address.

    Args:
        folder: The folder: a saved model, an adapter, or GGUF files.
        repository: `owner/name`.
        public: Whether a repository that is made can be read by everybody.
        token: The token; by default that of `HF_TOKEN` or of `hf auth login`. It is sent to the
            hub and written nowhere.

    Raises:
        ConfigurationError: The name is not `owner/name`, or Hugging Face's libraries are told to
            stay offline.
        RunError: The hub refused it, or can't be reached.
    """
    check_hub_name(repository)
    api = HfApi(token=token, library_name="domainfusion")
    was_silent = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        made = api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Upload by domainfusion"
        )
    except OfflineModeIsEnabled as error:
        raise ConfigurationError("HF_HUB_OFFLINE is set", fix="unset HF_HUB_OFFLINE") from error
    except Exception as error:  # of the hub's client, of what it sends by, or of the disk
        raise RunError(
            f"The hub rejected the upload: {_without(token, str(error))}",
            received=repository,
            fix="log in with `hf auth login` or set HF_TOKEN to a token that may write",
        ) from None  # the whole error would repeat the request
    finally:
        if not was_silent:
            enable_progress_bars()
    return str(made)


def _without(token: str | None, text: str) -> str:
    """Returns `text` without the token, wherever it came from."""
    for secret in (token, os.environ.get("HF_TOKEN")):
        text = text.replace(secret, "(token)") if secret else text
    return text
