"""Language models: teachers, students and whatever else a run asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domainfusion.models.base import Adaptation, LanguageModel, TrainableModel
from domainfusion.models.scripted import ScriptedModel
from domainfusion.models.store import Ask, ResponseStore, ask_directly

if TYPE_CHECKING:
    from domainfusion.models.huggingface import HuggingFaceModel
    from domainfusion.models.llama import LlamaModel

__all__ = [
    "Adaptation",
    "Ask",
    "HuggingFaceModel",
    "LanguageModel",
    "LlamaModel",
    "ResponseStore",
    "ScriptedModel",
    "TrainableModel",
    "ask_directly",
]

_LOCAL = {"HuggingFaceModel": "huggingface", "LlamaModel": "llama"}


def __getattr__(name: str) -> Any:
    """Loads the models that need torch when they are first asked for."""
    if name not in _LOCAL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LOCAL[name]}"), name)
