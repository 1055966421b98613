"""The recipe as a whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ValidationInfo, field_validator

from domainfusion.recipe.sections.evaluation import EvaluationSection
from domainfusion.recipe.sections.generators import GeneratorSection
from domainfusion.recipe.sections.hygiene import HygieneSection
from domainfusion.recipe.sections.integration import IntegratorSection, MergeSection
from domainfusion.recipe.sections.models import StudentSection, TeacherChoice
from domainfusion.recipe.sections.paths import from_recipe
from domainfusion.recipe.sections.sampling import SamplingSection
from domainfusion.recipe.sections.section import Section
from domainfusion.recipe.sections.training import IntegrationSection, TrainerChoice
from domainfusion.recipe.sections.values import Text, within


class Recipe(Section):
    """A distillation, in the words of its recipe."""

    title: Text = "Distillation"
    seed: int = 0
    output_dir: Text | None = None
    domains: dict[str, Text]
    student: StudentSection
    teachers: dict[str, TeacherChoice]
    generators: list[GeneratorSection]
    hygiene: HygieneSection = HygieneSection()
    responses: SamplingSection = SamplingSection()
    on_teacher_failure: Literal["stop", "continue"] = "stop"
    integrator: IntegratorSection = MergeSection()
    trainer: TrainerChoice = IntegrationSection()
    refinement_rounds: Annotated[
        int, within(lambda number: number >= 0, "a whole number from 0")
    ] = 0
    evaluation: EvaluationSection | None = EvaluationSection()

    @field_validator("output_dir")
    @classmethod
    def _from_the_recipe(cls, given: str | None, info: ValidationInfo) -> str | None:
        return None if given is None else from_recipe(given, info)

    @field_validator("evaluation", mode="before")
    @classmethod
    def _switched_off(cls, given: Any) -> Any:
        if given is False or given in ("off", "no"):
            return None
        return {} if given is None else given
