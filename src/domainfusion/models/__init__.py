"""Language models: teachers, students and whatever else a run asks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from domainfusion.models.base import (
    Adaptation,
    LanguageModel,
    LocalWeights,
    SchemaModel,
    TokenScorer,
    TokenScores,
    TrainableModel,
)
from domainfusion.models.scripted import ScriptedModel
from domainfusion.models.store import Ask, ResponseStore, ask_directly

if TYPE_CHECKING:
    from domainfusion.models.api import APIModel
    from domainfusion.models.huggingface import HuggingFaceModel, LlamaModel
    from domainfusion.models.mixing import generate_with
    from domainfusion.models.tokenizer import TokenMatch, compare_tokenizers

__all__ = [
    "APIModel",
    "Adaptation",
    "Ask",
    "HuggingFaceModel",
    "LanguageModel",
    "LlamaModel",
    "LocalWeights",
    "ResponseStore",
    "SchemaModel",
    "ScriptedModel",
    "TokenMatch",
    "TokenScorer",
    "TokenScores",
    "TrainableModel",
    "ask_directly",
    "compare_tokenizers",
    "generate_with",
]

# PEFT imports bitsandbytes wherever it is installed, and that warns on stderr about kernels that it
# did not find and numbers it converts.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

_ON_DEMAND = {
    "APIModel": "api",
    "HuggingFaceModel": "huggingface",
    "LlamaModel": "huggingface",
    "TokenMatch": "tokenizer",
    "compare_tokenizers": "tokenizer",
    "generate_with": "mixing",
}


def __getattr__(name: str) -> Any:
    """Loads the models that need torch, or the client of an API, when they are first asked for."""
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_ON_DEMAND[name]}"), name)
