"""Trainers: what the student sees, and when. A trainer is a list of phases over one loop."""

from domainfusion.distillation.trainer.merging import MergeSettings
from domainfusion.distillation.trainer.trainer import (
    ExecutionSettings,
    IntegrationTrainer,
    MultiTaskTrainer,
    SequentialTrainer,
    Trainer,
)
from domainfusion.distillation.trainer.training import Phase
from domainfusion.training.distribution import DistributionObjective
from domainfusion.training.likelihood import LikelihoodObjective
from domainfusion.training.objectives import Objective, SequenceObjective

__all__ = [
    "DistributionObjective",
    "ExecutionSettings",
    "IntegrationTrainer",
    "LikelihoodObjective",
    "MergeSettings",
    "MultiTaskTrainer",
    "Objective",
    "Phase",
    "SequenceObjective",
    "SequentialTrainer",
    "Trainer",
]
