"""Trainers: what the student sees, and when. A trainer is a list of phases over one loop."""

from domainfusion.distillation.trainer.integration import IntegrationTrainer
from domainfusion.distillation.trainer.multi_task import MultiTaskTrainer
from domainfusion.distillation.trainer.phase import Phase
from domainfusion.distillation.trainer.sequential import SequentialTrainer
from domainfusion.distillation.trainer.trainer import Trainer

__all__ = [
    "IntegrationTrainer",
    "MultiTaskTrainer",
    "Phase",
    "SequentialTrainer",
    "Trainer",
]
