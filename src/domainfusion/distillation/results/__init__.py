"""What an evaluation found: typed, printable, and the same in memory and in `evaluation.json`."""

from domainfusion.distillation.results.agreement import Agreement
from domainfusion.distillation.results.benchmarks import Benchmark, Regression
from domainfusion.distillation.results.coherence import Coherence
from domainfusion.distillation.results.estimate import Estimate
from domainfusion.distillation.results.model_result import Answer, EdgeCase, ModelResult, Role, SliceScore
from domainfusion.distillation.results.overall import Component, OverallScore
from domainfusion.distillation.results.overlap import Overlap
from domainfusion.distillation.results.refinement import Refinement, RefinementRound, Shortfall
from domainfusion.distillation.results.report import EvaluationReport
from domainfusion.distillation.results.retention import DomainRetention, NonInferiority
from domainfusion.distillation.results.validation import CoherenceValidation

__all__ = [
    "Agreement",
    "Answer",
    "Benchmark",
    "Coherence",
    "CoherenceValidation",
    "Component",
    "DomainRetention",
    "EdgeCase",
    "Estimate",
    "EvaluationReport",
    "ModelResult",
    "NonInferiority",
    "OverallScore",
    "Overlap",
    "Refinement",
    "RefinementRound",
    "Regression",
    "Role",
    "Shortfall",
    "SliceScore",
]
