"""The trainers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from domainfusion.recipe.sections.objectives import ObjectiveSection, SequenceSection
from domainfusion.recipe.sections.section import Section
from domainfusion.recipe.sections.values import Count, Share, within


class TrainerSection(Section):
    """What every trainer takes."""

    learning_rate: Annotated[
        float, within(lambda number: 0 < number < 1, "a number between 0 and 1")
    ] = 2e-5
    epochs: Count = 3
    batch_size: Count = 16
    evaluation_steps: Count | None = None
    early_stopping_patience: Count | None = None
    adaptation: Literal["auto", "lora", "full"] = "auto"
    lora_rank: Count = 16
    initialization: Literal["auto", "base", "merge"] = "auto"
    merge_method: Literal["auto", "sum", "tsv", "regmean"] = "auto"
    merge_weight: float | Annotated[list[float], Field(min_length=1)] | Literal["auto"] = "auto"
    keep_merge: bool = False
    known_share: Share = 1.0
    device_batch_size: Count | None = None
    checkpoint_steps: Count = 50
    objective: ObjectiveSection = SequenceSection()
    activation_checkpointing: bool = False
    report_to: str | list[str] | None = None

    @field_validator("objective", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        return {"type": given} if isinstance(given, str) else given


class IntegrationSection(TrainerSection):
    """An `IntegrationTrainer`."""

    type: Literal["integration"] = "integration"
    replay: Share = 0.25


class MultiTaskSection(TrainerSection):
    """A `MultiTaskTrainer`."""

    type: Literal["multi_task"]
    shares: (
        dict[str, Annotated[float, within(lambda number: number >= 0, "a number from 0")]] | None
    ) = None


class SequentialSection(TrainerSection):
    """A `SequentialTrainer`."""

    type: Literal["sequential"]
    order: list[str] | None = None
    replay: Share = 0.1


TrainerChoice = Annotated[
    IntegrationSection | MultiTaskSection | SequentialSection, Field(discriminator="type")
]
