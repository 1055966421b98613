"""Generators of training examples: written by a model, adversarial at the borders of domains, or
curated by people.
"""

from domainfusion.distillation.data_generation.curated import CuratedDataGenerator
from domainfusion.distillation.data_generation.generator import (
    DataGenerator,
    Focus,
    Generated,
    Variety,
)
from domainfusion.distillation.data_generation.synthetic import (
    AdversarialDataGenerator,
    Classifier,
    SyntheticDataGenerator,
)
from domainfusion.distillation.data_generation.writing import Check, ReplyFormat, WritingSettings

__all__ = [
    "AdversarialDataGenerator",
    "Check",
    "Classifier",
    "CuratedDataGenerator",
    "DataGenerator",
    "Focus",
    "Generated",
    "ReplyFormat",
    "SyntheticDataGenerator",
    "Variety",
    "WritingSettings",
]
