"""What every mapping of a recipe shares."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from domainfusion.recipe.sections.problems import problem, suggestion


class Section(BaseModel):
    """A mapping of the recipe: it has the keys named here and no others, each of its exact type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, given: Any) -> Any:
        if isinstance(given, str) and "path" in cls.model_fields:
            return {"path": given}
        unknown = (
            next((key for key in given if key not in cls.model_fields), None)
            if isinstance(given, dict)
            else None
        )
        if unknown is None:
            return given
        known = list(cls.model_fields)
        raise problem(
            "is not a key of a recipe",
            key=unknown,
            allowed=", ".join(known),
            fix=suggestion(str(unknown), known),
        )
