"""What the student learns from: the objectives of training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from domainfusion.recipe.sections.paths import from_recipe
from domainfusion.recipe.sections.problems import problem
from domainfusion.recipe.sections.section import Section
from domainfusion.recipe.sections.values import Count, Positive, Text, within


class SequenceSection(Section):
    """A `SequenceObjective`."""

    type: Literal["sequence"] = "sequence"


class AutoSection(Section):
    """The objective that a trainer chooses by itself."""

    type: Literal["auto"]


TeachersChoice = Annotated[
    Annotated[Literal["routed"], Tag("(name)")] | Annotated[dict[str, Positive], Tag("(weights)")],
    Discriminator(lambda given: "(name)" if isinstance(given, str) else "(weights)"),
]
"""The teacher of a record's domain, or a weight for each of some."""


class TaughtSection(Section):
    """What the objectives that learn from teachers' distributions share."""

    divergence: Literal["forward_kl", "reverse_kl", "skew_kl", "jensen_shannon"]
    beta: Annotated[float, within(lambda number: 0 < number < 1, "a number between 0 and 1")] | None = None
    temperature: Positive = 1.0
    teachers: TeachersChoice = "routed"

    @model_validator(mode="after")
    def _beta_has_a_mixture(self) -> TaughtSection:
        if self.beta is not None and self.divergence in ("forward_kl", "reverse_kl"):
            raise problem(f"has a beta, and {self.divergence} has none", fix="remove it, or write divergence: jensen_shannon")
        if self.teachers == {}:
            raise problem("names no teachers", allowed="routed, or a weight for each of some domains")
        return self


class DistributionSection(TaughtSection):
    """A `DistributionObjective`."""

    type: Literal["distribution"]
    divergence: Literal["forward_kl", "reverse_kl", "skew_kl", "jensen_shannon"] = "forward_kl"
    alpha: Annotated[float, within(lambda number: 0 < number <= 1, "a number above 0, up to 1")] = 0.5
    signals: Literal["hidden", "sampled"] = "hidden"
    draws: Annotated[int, within(lambda number: 1 <= number <= 32_767, "a whole number from 1 to 32,767")] | None = None
    keep_in: Text | None = None

    @field_validator("keep_in")
    @classmethod
    def _from_the_recipe(cls, given: str | None, info: ValidationInfo) -> str | None:
        return None if given is None else from_recipe(given, info)

    @model_validator(mode="after")
    def _draws_of_what_is_drawn(self) -> DistributionSection:
        if self.signals == "sampled" and self.divergence != "forward_kl":
            raise problem(f"draws its signals, from which {self.divergence} can't be learnt", fix="write signals: hidden")
        if self.signals != "sampled" and self.draws is not None:
            raise problem("has draws, and signals that are not drawn", fix="remove draws, or write signals: sampled")
        return self


class OnPolicySection(TaughtSection):
    """An `OnPolicyObjective`."""

    type: Literal["on_policy"]
    divergence: Literal["forward_kl", "reverse_kl", "skew_kl", "jensen_shannon"] = "reverse_kl"
    max_new_tokens: Count = 128
    sampling_temperature: Annotated[float, within(lambda number: number >= 0, "0 (greedy) or a number above it")] = 1.0
    max_initial_kl: Positive = 0.1
    pilot_prompts: Count = 32
    resident: Literal["all", "one"] = "all"


ObjectiveSection = Annotated[SequenceSection | AutoSection | DistributionSection | OnPolicySection, Field(discriminator="type")]
