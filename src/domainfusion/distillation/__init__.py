"""Distillation of several domain experts into one student."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from domainfusion.distillation.data_generation import (
        AdversarialDataGenerator,
        CuratedDataGenerator,
        DataGenerator,
        Focus,
        Generated,
        SyntheticDataGenerator,
        Variety,
    )
    from domainfusion.distillation.dataset import Hygiene, hold_out
    from domainfusion.distillation.distiller import Distiller
    from domainfusion.distillation.evaluator import (
        BenchmarkEvaluator,
        DomainRetentionEvaluator,
        Evaluator,
        HarnessTask,
    )
    from domainfusion.distillation.export import export_messages
    from domainfusion.distillation.integration import CrossEncoderVerifier, ResponseIntegrator
    from domainfusion.distillation.results import EvaluationReport
    from domainfusion.distillation.trainer import (
        DistributionObjective,
        IntegrationTrainer,
        MultiTaskTrainer,
        Objective,
        OnPolicyObjective,
        Phase,
        SequenceObjective,
        SequentialTrainer,
        Trainer,
    )

__all__ = [
    "AdversarialDataGenerator",
    "BenchmarkEvaluator",
    "CrossEncoderVerifier",
    "CuratedDataGenerator",
    "DataGenerator",
    "Distiller",
    "DistributionObjective",
    "DomainRetentionEvaluator",
    "EvaluationReport",
    "Evaluator",
    "Focus",
    "Generated",
    "HarnessTask",
    "Hygiene",
    "IntegrationTrainer",
    "MultiTaskTrainer",
    "Objective",
    "OnPolicyObjective",
    "Phase",
    "ResponseIntegrator",
    "SequenceObjective",
    "SequentialTrainer",
    "SyntheticDataGenerator",
    "Trainer",
    "Variety",
    "export_messages",
    "hold_out",
]

_HOMES = {
    "AdversarialDataGenerator": "data_generation",
    "BenchmarkEvaluator": "evaluator",
    "CrossEncoderVerifier": "integration",
    "CuratedDataGenerator": "data_generation",
    "DataGenerator": "data_generation",
    "Distiller": "distiller",
    "DistributionObjective": "trainer",
    "DomainRetentionEvaluator": "evaluator",
    "EvaluationReport": "results",
    "Evaluator": "evaluator",
    "Focus": "data_generation",
    "Generated": "data_generation",
    "HarnessTask": "evaluator",
    "Hygiene": "dataset",
    "IntegrationTrainer": "trainer",
    "MultiTaskTrainer": "trainer",
    "Objective": "trainer",
    "OnPolicyObjective": "trainer",
    "Phase": "trainer",
    "ResponseIntegrator": "integration",
    "SequenceObjective": "trainer",
    "SequentialTrainer": "trainer",
    "SyntheticDataGenerator": "data_generation",
    "Trainer": "trainer",
    "Variety": "data_generation",
    "export_messages": "export",
    "hold_out": "dataset",
}


def __getattr__(name: str) -> Any:
    """Loads a name's module when it is first asked for, so that `import domainfusion` loads no
    torch.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
