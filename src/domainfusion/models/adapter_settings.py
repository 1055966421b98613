"""The settings of a LoRA adapter, as its adapter_config.json says them: where its base is, and
whether it can stand on a shared one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domainfusion.errors import ModelError
from domainfusion.records import from_json

SETTINGS_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

EXACT_INITIALIZATIONS = ("pissa", "olora")
"""Initializations that move a part of the base into the adapter which follows from the base alone,
so that it can be moved back.
"""

_HARMLESS_INITIALIZATIONS = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
"""Initializations that leave the base as it is."""

_MERGE_IT = (
    "merge it into its base with PEFT's merge_and_unload, save the result with its tokenizer and"
    " give that folder"
)

_BEYOND_LORA = {
    "modules_to_save": _MERGE_IT,
    "lora_bias": _MERGE_IT,
    "trainable_token_indices": _MERGE_IT,
    "layer_replication": _MERGE_IT,
    "kasa_config": _MERGE_IT,
    "alora_invocation_tokens": (
        "serve it with PEFT and use APIModel: it acts from certain tokens on, and can't be merged"
    ),
    "use_qalora": "train it again without use_qalora",
    "use_bdlora": "train it again without use_bdlora",
    "arrow_config": "give the experts that it routes between as models of their own",
    "monteclora_config": "train it again without monteclora_config",
    "megatron_config": "train it again without megatron_config",
}
"""Settings of PEFT's LoraConfig under which an adapter is more than the product of two matrices,
each with what to do about it.
"""


def read_settings(adapter: Path) -> dict[str, Any]:
    """Returns the settings in the folder of an adapter.

    Raises:
        ModelError: They can't be read.
    """
    try:
        settings = from_json((adapter / SETTINGS_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{SETTINGS_FILE} can't be read: {error}", received=str(adapter)
        ) from error
    if not isinstance(settings, dict):
        raise ModelError(
            f"{SETTINGS_FILE} can't be read: it holds no settings", received=str(adapter)
        )
    return settings


def base_of(adapter: Path) -> str:
    """Returns where an adapter says its base is: the path of a folder or file that is there, else
    what it says, which may be a hub id.

    A relative path is looked for from the working directory, as PEFT does, and then from the
    adapter's own folder.

    Raises:
        ModelError: The settings can't be read.
    """
    said = read_settings(adapter).get("base_model_name_or_path")
    if not isinstance(said, str) or not said:
        return ""
    if not os.path.exists(said) and os.path.exists(adapter / said):
        return str((adapter / said).resolve())
    return said


def check_kind(settings: Mapping[str, Any]) -> None:
    """Refuses an adapter that is not a LoRA adapter.

    Raises:
        ModelError: It is of another kind.
    """
    if settings.get("peft_type") != "LORA":
        raise ModelError(
            "The adapter is of a kind that is not loaded",
            received=settings.get("peft_type"),
            allowed="LORA",
        )


def check_settings(settings: Mapping[str, Any], adapter: Path, *, untie: bool) -> None:
    """Refuses an adapter whose effect is not a product of two matrices on each layer of its base.

    Args:
        settings: The adapter's settings.
        adapter: Its folder, for the message.
        untie: Whether it stands on one of two tied embeddings, which merging has to tear apart
            first.

    Raises:
        ModelError: It does more than that, or its initialization changed the base in a way that its
            files don't say.
    """
    if beyond := [name for name in _BEYOND_LORA if settings.get(name)]:
        raise beyond_lora(beyond[0], adapter, untie=untie, fix=_BEYOND_LORA[beyond[0]])
    initialization = settings.get("init_lora_weights", True)
    if initialization not in (*_HARMLESS_INITIALIZATIONS, *EXACT_INITIALIZATIONS):
        raise ModelError(
            f"The adapter's initialization, {initialization}, changed the base in a way that the"
            " adapter's files don't hold",
            received=str(adapter),
            allowed="plain LoRA, PiSSA (with the exact decomposition) or OLoRA",
            fix=(
                "where it was trained, save it with path_initial_model_for_weight_conversion=...,"
                " which makes it a plain LoRA adapter, or merge it there with merge_and_unload, and"
                " save the result"
            ),
        )
    if initialization in EXACT_INITIALIZATIONS and settings.get("use_dora"):
        raise ModelError(
            f"A DoRA adapter with the initialization {initialization} is not loaded",
            received=str(adapter),
            fix=_MERGE_IT,
        )


def beyond_lora(what: str, adapter: Path, *, untie: bool, fix: str = _MERGE_IT) -> ModelError:
    """Returns the error that refuses an adapter which changes more of its base than LoRA matrices
    do.
    """
    if untie and fix == _MERGE_IT:
        # merge_and_unload would write what belongs to the head alone into the input embedding too,
        # and the other way round.
        fix = (
            "load its base with tie_word_embeddings=False, copy the input embedding's weights into"
            " the head, put the adapter on it, merge it with PEFT's merge_and_unload, save the"
            " result with its tokenizer and give that folder"
        )
    return ModelError(
        f"The adapter changes more of its base than LoRA matrices ({what}), so it can't share one",
        received=str(adapter),
        fix=fix,
    )
