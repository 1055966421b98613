"""Trainers: what the student sees, and when. A trainer is a list of phases over one loop."""

from domainfusion.distillation.trainer.curricula import (
    IntegrationTrainer,
    MultiTaskTrainer,
    SequentialTrainer,
)
from domainfusion.distillation.trainer.phase import Phase
from domainfusion.distillation.trainer.trainer import Trainer
from domainfusion.training.distribution import DistributionObjective
from domainfusion.training.objectives import Objective, SequenceObjective

__all__ = [
    "DistributionObjective",
    "IntegrationTrainer",
    "MultiTaskTrainer",
    "Objective",
    "Phase",
    "SequenceObjective",
    "SequentialTrainer",
    "Trainer",
]
