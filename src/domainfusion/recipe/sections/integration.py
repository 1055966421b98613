"""The integration of the teachers' answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from domainfusion.recipe.sections.models import ModelChoice
from domainfusion.recipe.sections.section import Section
from domainfusion.recipe.sections.values import Count, Text, within


class IntegrationRulesSection(Section):
    """What every integration takes."""

    on_disagreement: Literal["report", "abstain"] = "report"
    discussion_rounds: Annotated[int, within(lambda number: number >= 0, "a whole number from 0")] = 0


class MergeSection(IntegrationRulesSection):
    """A `ResponseIntegrator` without a model."""

    type: Literal["merge"] = "merge"


class ModelIntegratorSection(IntegrationRulesSection):
    """A `ResponseIntegrator` that lets a model write."""

    type: Literal["model"]
    model: ModelChoice
    prompt_template: Text | None = None
    check_claims: bool = True
    max_new_tokens: Count = 512


IntegratorSection = Annotated[MergeSection | ModelIntegratorSection, Field(discriminator="type")]
