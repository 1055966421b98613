"""Evaluators: what the student kept of each expert, whether domains combine, and whether the
answers hold together.
"""

from domainfusion.distillation.duplicates import OnOverlap, hold_apart
from domainfusion.distillation.evaluator.agreement import AgreementSettings, consistency
from domainfusion.distillation.evaluator.benchmark import BenchmarkEvaluator
from domainfusion.distillation.evaluator.ensemble import Ensemble
from domainfusion.distillation.evaluator.evaluator import Evaluator, check_examples
from domainfusion.distillation.evaluator.harness import HarnessTask
from domainfusion.distillation.evaluator.retention import DomainRetentionEvaluator

__all__ = [
    "AgreementSettings",
    "BenchmarkEvaluator",
    "DomainRetentionEvaluator",
    "Ensemble",
    "Evaluator",
    "HarnessTask",
    "OnOverlap",
    "check_examples",
    "consistency",
    "hold_apart",
]
