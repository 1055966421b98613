"""Distill several domain experts into one model, and measure what was retained."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from domainfusion.lazy import lazy_names

if TYPE_CHECKING:
    from domainfusion.distillation import (
        AdversarialDataGenerator,
        BenchmarkEvaluator,
        CuratedDataGenerator,
        Distiller,
        DomainRetentionEvaluator,
        IntegrationTrainer,
        MultiTaskTrainer,
        ResponseIntegrator,
        SequentialTrainer,
        SyntheticDataGenerator,
    )
    from domainfusion.models import APIModel, HuggingFaceModel, LlamaModel
    from domainfusion.types import Example, Part, Sampling

__all__ = [
    "APIModel",
    "AdversarialDataGenerator",
    "BenchmarkEvaluator",
    "CuratedDataGenerator",
    "Distiller",
    "DomainRetentionEvaluator",
    "Example",
    "HuggingFaceModel",
    "IntegrationTrainer",
    "LlamaModel",
    "MultiTaskTrainer",
    "Part",
    "ResponseIntegrator",
    "Sampling",
    "SequentialTrainer",
    "SyntheticDataGenerator",
    "__version__",
]

__version__ = version("domainfusion")
__getattr__, __dir__ = lazy_names(__name__)
