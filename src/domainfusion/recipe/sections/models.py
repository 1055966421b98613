"""The models of a recipe: the student, teachers and others, local or behind an API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from domainfusion.errors import ConfigurationError
from domainfusion.models.api.key import check_url
from domainfusion.models.chat_template import with_arguments
from domainfusion.recipe.sections.paths import ModelPath, is_adapter
from domainfusion.recipe.sections.problems import problem
from domainfusion.recipe.sections.section import Section
from domainfusion.recipe.sections.values import Count, Day, Device, Price, Text, within


class StudentSection(Section):
    """A model whose weights are on this machine: whole, or an adapter on a base. A path alone may
    stand for it.
    """

    path: ModelPath
    base_model: ModelPath | None = None
    revision: str | None = None
    name: str | None = None
    system_prompt: str | None = None
    chat_template: str | None = None
    template_arguments: dict[str, Any] | None = None
    date: Day | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Device = "auto"
    quantization: Literal["4bit", "8bit"] | None = None
    batch_size: Count = 32

    @field_validator("template_arguments")
    @classmethod
    def _usable_in_a_template(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            with_arguments("", given or {})
        except ConfigurationError as error:
            allowed = 'variables of the chat template, such as {"enable_thinking": false}'
            raise problem(f"can't be used: {error}".removesuffix("."), allowed=allowed) from error
        return given

    @property
    def called(self) -> str:
        """What reports call the model."""
        return self.name or Path(self.path).name

    @property
    def is_adapter(self) -> bool:
        """Whether the model is an adapter on a base."""
        return is_adapter(self.path)


class ModelSection(StudentSection):
    """Any other model on this machine: it may be spread over several devices."""

    device_map: (
        Literal["auto", "balanced", "balanced_low_0", "sequential"] | dict[str, int | str] | None
    ) = None


class APISection(Section):
    """A model behind an API: an `APIModel`, whose arguments these are."""

    model: Text
    base_url: str | None = None
    api_key_env: str | None = None
    name: str | None = None
    system_prompt: str | None = None
    json_schema: dict[str, Any] | None = None
    include_reasoning: bool = False
    omit: list[Literal["temperature", "top_p", "seed", "stream", "response_format", "system"]] = (
        Field(default=[])
    )
    extra_body: dict[str, Any] | None = None
    require_finish_reason: bool = False
    check_prompt_tokens: bool = True
    max_concurrency: Count = 16
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    timeout_seconds: Annotated[float, within(lambda number: number > 0, "a number above 0")] = 300.0
    max_retries: Annotated[int, within(lambda number: number >= 0, "a whole number from 0")] = 6
    max_failures_in_a_row: Count = 10
    max_wait_seconds: Annotated[float, within(lambda number: number >= 0, "a number from 0")] = (
        120.0
    )
    backoff_seconds: Annotated[float, within(lambda number: number > 0, "a number above 0")] = 0.5
    price_per_million_input_tokens: Price | None = None
    price_per_million_output_tokens: Price | None = None
    price_per_million_cached_tokens: Price | None = None
    max_cost: Annotated[float, within(lambda number: number > 0, "a number above 0")] | None = None
    account: Text | None = None
    allow_insecure_http: bool = False

    @field_validator("api_key_env")
    @classmethod
    def _a_variable(cls, given: str | None) -> str | None:
        if given is not None and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", given) is None:
            # What stands there is not shown: it may be the key.
            raise problem(
                "is not a name of a variable",
                allowed="the name of the environment variable that holds the key, never the key",
            )
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> APISection:
        try:
            check_url(self.base_url or "https://host", allow_insecure_http=self.allow_insecure_http)
        except ConfigurationError as error:
            raise problem(f"can't be asked: {error}".removesuffix("."), key="base_url") from error
        prices = (self.price_per_million_input_tokens, self.price_per_million_output_tokens)
        if None in prices and prices != (None, None):
            raise problem(
                "has one price",
                allowed="the prices of input and output tokens, or none",
                fix="give both; 0 is a price",
            )
        for key in ("max_cost", "price_per_million_cached_tokens"):
            if getattr(self, key) is not None and None in prices:
                fix = "give price_per_million_input_tokens and price_per_million_output_tokens"
                raise problem("needs prices", key=key, received=getattr(self, key), fix=fix)
        return self

    @property
    def called(self) -> str:
        """What reports call the model."""
        return self.name or self.model

    @property
    def is_adapter(self) -> bool:
        """Whether the model is an adapter on a base."""
        return False

    def cost(self, *, read: int, written: int) -> float | None:
        """Returns what so many tokens cost; None without prices."""
        if (
            self.price_per_million_input_tokens is None
            or self.price_per_million_output_tokens is None
        ):
            return None
        return (
            read * self.price_per_million_input_tokens
            + written * self.price_per_million_output_tokens
        ) / 1e6


def _kind_of_model(given: object) -> str:
    if isinstance(given, str):
        return "(name)"
    is_remote = isinstance(given, dict) and ("model" in given or "base_url" in given)
    return "(api)" if is_remote or isinstance(given, APISection) else "(model)"


TeacherChoice = Annotated[
    Annotated[ModelSection, Tag("(model)")] | Annotated[APISection, Tag("(api)")],
    Discriminator(lambda given: _kind_of_model(given).replace("(name)", "(model)")),
]
"""A local model, or one behind an API. A path alone may stand for a local one."""

ModelChoice = Annotated[
    Annotated[str, Tag("(name)")]
    | Annotated[ModelSection, Tag("(model)")]
    | Annotated[APISection, Tag("(api)")],
    Discriminator(_kind_of_model),
]
"""A domain, which stands for its teacher; `student`; or a model of its own."""
