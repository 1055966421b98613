"""What the student learns from: the objectives of training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from domainfusion.recipe.sections.paths import from_recipe
from domainfusion.recipe.sections.problems import problem
from domainfusion.recipe.sections.section import Section
from domainfusion.recipe.sections.values import Positive, Text, within


class SequenceSection(Section):
    """A `SequenceObjective`."""

    type: Literal["sequence"] = "sequence"


class AutoSection(Section):
    """The objective that a trainer chooses by itself."""

    type: Literal["auto"]


class DistributionSection(Section):
    """A `DistributionObjective`."""

    type: Literal["distribution"]
    divergence: Literal["forward_kl", "reverse_kl", "skew_kl", "jensen_shannon"] = "forward_kl"
    beta: (
        Annotated[float, within(lambda number: 0 < number < 1, "a number between 0 and 1")] | None
    ) = None
    temperature: Positive = 1.0
    alpha: Annotated[float, within(lambda number: 0 < number <= 1, "a number above 0, up to 1")] = (
        0.5
    )
    keep_in: Text | None = None

    @model_validator(mode="after")
    def _beta_has_a_mixture(self) -> DistributionSection:
        if self.beta is not None and self.divergence in ("forward_kl", "reverse_kl"):
            raise problem(
                f"has a beta, and {self.divergence} has none",
                fix="remove it, or write divergence: jensen_shannon",
            )
        return self

    @field_validator("keep_in")
    @classmethod
    def _from_the_recipe(cls, given: str | None, info: ValidationInfo) -> str | None:
        return None if given is None else from_recipe(given, info)


ObjectiveSection = Annotated[
    SequenceSection | AutoSection | DistributionSection,
    Field(discriminator="type"),
]
