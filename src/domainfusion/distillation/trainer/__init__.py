"""Trainers: what the student sees, and when. A trainer is a list of phases over one loop."""

from domainfusion.distillation.trainer.trainer import (
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
    "IntegrationTrainer",
    "LikelihoodObjective",
    "MultiTaskTrainer",
    "Objective",
    "Phase",
    "SequenceObjective",
    "SequentialTrainer",
    "Trainer",
]
