"""Generators of training examples: written by a model, adversarial at the borders of domains, or curated by people."""

from domainfusion.distillation.data_generation.adversarial import AdversarialDataGenerator
from domainfusion.distillation.data_generation.curated import CuratedDataGenerator
from domainfusion.distillation.data_generation.domains import check_domains, check_names
from domainfusion.distillation.data_generation.generator import DataGenerator, Generated
from domainfusion.distillation.data_generation.replies import find_question
from domainfusion.distillation.data_generation.synthetic import SyntheticDataGenerator
from domainfusion.distillation.data_generation.writing import Check

__all__ = [
    "AdversarialDataGenerator",
    "Check",
    "CuratedDataGenerator",
    "DataGenerator",
    "Generated",
    "SyntheticDataGenerator",
    "check_domains",
    "check_names",
    "find_question",
]
