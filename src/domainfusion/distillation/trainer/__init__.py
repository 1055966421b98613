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
from domainfusion.training.on_policy import OnPolicyObjective

__all__ = [
    "DistributionObjective",
    "IntegrationTrainer",
    "MultiTaskTrainer",
    "Objective",
    "OnPolicyObjective",
    "Phase",
    "SequenceObjective",
    "SequentialTrainer",
    "Trainer",
]
