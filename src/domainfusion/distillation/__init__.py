"""Distillation of several domain experts into one student."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domainfusion.lazy import lazy_names

if TYPE_CHECKING:
    from domainfusion.distillation.data_generation import (
        AdversarialDataGenerator,
        CuratedDataGenerator,
        DataGenerator,
        Focus,
        Generated,
        SyntheticDataGenerator,
        Variety,
        WritingSettings,
    )
    from domainfusion.distillation.dataset import Hygiene, hold_out
    from domainfusion.distillation.distiller import Distiller
    from domainfusion.distillation.evaluation_report import EvaluationReport
    from domainfusion.distillation.evaluator import (
        AgreementSettings,
        BenchmarkEvaluator,
        DomainRetentionEvaluator,
        Evaluator,
        HarnessTask,
        check_examples,
        hold_apart,
    )
    from domainfusion.distillation.examples import ExampleLike, slice_of
    from domainfusion.distillation.export import export_messages, to_pandas
    from domainfusion.distillation.integration import CrossEncoderVerifier, ResponseIntegrator
    from domainfusion.distillation.requirements import Requirement, check_requirements
    from domainfusion.distillation.results import Estimate, ModelResult, SliceScore
    from domainfusion.distillation.run import Publisher
    from domainfusion.distillation.settings import DataSettings, RunSettings
    from domainfusion.distillation.text.refusals import Screening
    from domainfusion.distillation.trainer import (
        DistributionObjective,
        ExecutionSettings,
        IntegrationTrainer,
        LikelihoodObjective,
        MergeSettings,
        MultiTaskTrainer,
        Objective,
        Phase,
        SequenceObjective,
        SequentialTrainer,
        Trainer,
    )

__all__ = [
    "AdversarialDataGenerator",
    "AgreementSettings",
    "BenchmarkEvaluator",
    "CrossEncoderVerifier",
    "CuratedDataGenerator",
    "DataGenerator",
    "DataSettings",
    "Distiller",
    "DistributionObjective",
    "DomainRetentionEvaluator",
    "Estimate",
    "EvaluationReport",
    "Evaluator",
    "ExampleLike",
    "ExecutionSettings",
    "Focus",
    "Generated",
    "HarnessTask",
    "Hygiene",
    "IntegrationTrainer",
    "LikelihoodObjective",
    "MergeSettings",
    "ModelResult",
    "MultiTaskTrainer",
    "Objective",
    "Phase",
    "Publisher",
    "Requirement",
    "ResponseIntegrator",
    "RunSettings",
    "Screening",
    "SequenceObjective",
    "SequentialTrainer",
    "SliceScore",
    "SyntheticDataGenerator",
    "Trainer",
    "Variety",
    "WritingSettings",
    "check_examples",
    "check_requirements",
    "export_messages",
    "hold_apart",
    "hold_out",
    "slice_of",
    "to_pandas",
]

__getattr__, __dir__ = lazy_names(__name__)
