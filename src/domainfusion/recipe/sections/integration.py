"""The integration of the teachers' answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from domainfusion.recipe.sections.models import ModelChoice
from domainfusion.recipe.sections.problems import problem
from domainfusion.recipe.sections.section import Section
from domainfusion.recipe.sections.values import Count, Text


class IntegrationRulesSection(Section):
    """What every integration takes."""

    on_disagreement: Literal["report", "abstain"] = "report"


class MergeSection(IntegrationRulesSection):
    """A `ResponseIntegrator` without a model."""

    type: Literal["merge"] = "merge"


class ModelIntegratorSection(IntegrationRulesSection):
    """A `ResponseIntegrator` that lets a model write."""

    type: Literal["model"]
    model: ModelChoice
    prompt_template: Text | None = None
    verify: bool = True
    verifier: ModelChoice | None = None
    cross_encoder: Text | None = None
    on_unverified: Literal["keep", "merge", "reject"] = "keep"
    max_new_tokens: Count = 1024

    @model_validator(mode="after")
    def _one_verifier(self) -> ModelIntegratorSection:
        if self.verifier is not None and self.cross_encoder is not None:
            raise problem("has two verifiers", fix="remove verifier or cross_encoder")
        if not self.verify and (self.verifier is not None or self.cross_encoder is not None):
            raise problem(
                "has a verifier and verifies nothing",
                fix="write verify: true, or remove the verifier",
            )
        return self


IntegratorSection = Annotated[MergeSection | ModelIntegratorSection, Field(discriminator="type")]
