"""Language models: teachers, students and whatever else a run asks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from domainfusion.lazy import lazy_names
from domainfusion.models.base import (
    Adaptation,
    LanguageModel,
    LocalWeights,
    SchemaModel,
    TokenScorer,
    TokenScores,
    TrainableModel,
)
from domainfusion.models.engine import Engine
from domainfusion.models.scripted import ScriptedModel
from domainfusion.models.store import Ask, ResponseStore, ask_directly

if TYPE_CHECKING:
    from domainfusion.models.answering import generate_with
    from domainfusion.models.api import APIModel, Dialect, Limits, Prices, Retries
    from domainfusion.models.gguf_export import write_gguf, write_modelfile
    from domainfusion.models.huggingface import HuggingFaceModel, LlamaModel
    from domainfusion.models.publishing import push_to_hub, write_vllm_adapter
    from domainfusion.models.ray_pool import RayPool
    from domainfusion.models.tokenizer import TokenMatch, compare_tokenizers

__all__ = [
    "APIModel",
    "Adaptation",
    "Ask",
    "Dialect",
    "Engine",
    "HuggingFaceModel",
    "LanguageModel",
    "Limits",
    "LlamaModel",
    "LocalWeights",
    "Prices",
    "RayPool",
    "ResponseStore",
    "Retries",
    "SchemaModel",
    "ScriptedModel",
    "TokenMatch",
    "TokenScorer",
    "TokenScores",
    "TrainableModel",
    "ask_directly",
    "compare_tokenizers",
    "generate_with",
    "push_to_hub",
    "write_gguf",
    "write_modelfile",
    "write_vllm_adapter",
]

# PEFT imports bitsandbytes wherever it is installed, and that warns on stderr about kernels that it
# did not find and numbers it converts.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__getattr__, __dir__ = lazy_names(__name__)
