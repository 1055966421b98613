"""The keys of a recipe: what each may hold, and what it is where it is left out."""

from __future__ import annotations

from domainfusion.recipe.sections.evaluation import HOLDOUT, JUDGE, Benchmarks, EvaluationSection
from domainfusion.recipe.sections.generators import (
    AdversarialSection,
    CuratedSection,
    SyntheticSection,
    WritingSection,
)
from domainfusion.recipe.sections.hygiene import HygieneSection
from domainfusion.recipe.sections.integration import ModelIntegratorSection
from domainfusion.recipe.sections.models import APISection, ModelSection, StudentSection
from domainfusion.recipe.sections.objectives import (
    AutoSection,
    DistributionSection,
    SequenceSection,
)
from domainfusion.recipe.sections.paths import base_of, is_adapter, is_hub_id
from domainfusion.recipe.sections.problems import suggestion
from domainfusion.recipe.sections.recipe import Recipe
from domainfusion.recipe.sections.sampling import QuestionSamplingSection, SamplingSection
from domainfusion.recipe.sections.training import (
    IntegrationSection,
    MultiTaskSection,
    SequentialSection,
    TrainerSection,
)

__all__ = [  # noqa: RUF022 - in plain order, as in every package; ruff would put constants first
    "APISection",
    "AdversarialSection",
    "AutoSection",
    "Benchmarks",
    "CuratedSection",
    "DistributionSection",
    "EvaluationSection",
    "HOLDOUT",
    "HygieneSection",
    "IntegrationSection",
    "JUDGE",
    "ModelIntegratorSection",
    "ModelSection",
    "MultiTaskSection",
    "QuestionSamplingSection",
    "Recipe",
    "SamplingSection",
    "SequenceSection",
    "SequentialSection",
    "StudentSection",
    "SyntheticSection",
    "TrainerSection",
    "WritingSection",
    "base_of",
    "is_adapter",
    "is_hub_id",
    "suggestion",
]
