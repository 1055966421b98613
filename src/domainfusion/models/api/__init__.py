"""Models behind an OpenAI-compatible endpoint: hosted services, vLLM, Ollama, llama.cpp, LM
Studio.
"""

from __future__ import annotations

from domainfusion.models.api.dialect import Dialect
from domainfusion.models.api.limits import Limits, Retries
from domainfusion.models.api.model import APIModel
from domainfusion.models.costs import CostEstimate, Prices, Usage

__all__ = ["APIModel", "CostEstimate", "Dialect", "Limits", "Prices", "Retries", "Usage"]
