"""What there is to integrate: one example and its experts' responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from domainfusion.errors import DataError
from domainfusion.types import Example, Response

ResponseLike = str | Response | Mapping[str, Any]

_FIELDS = {item.name for item in fields(Response)}


@dataclass(frozen=True)
class Task:
    """One example's responses, to be integrated.

    Attributes:
        example: The example.
        responses: The experts' responses by domain.
    """

    example: Example
    responses: Mapping[str, Response]


def primary_first(task: Task) -> dict[str, Response]:
    """Returns the responses in the order in which they count: that of the primary domain, then the
    others as they are.
    """
    primary = task.example.primary_domain
    return dict(sorted(task.responses.items(), key=lambda item: item[0] != primary))


def as_response(domain: str, given: ResponseLike) -> Response:
    """Returns a `Response` for a text, a dict with a `text`, or a response."""
    if isinstance(given, Response):
        return given
    if isinstance(given, str):
        return Response(domain=domain, text=given)
    if (
        isinstance(given, Mapping)
        and isinstance(given.get("text"), str)
        and given.keys() <= _FIELDS
    ):
        return Response(**{"domain": domain, **given})
    raise DataError(
        f"The response of {domain!r} can't be read",
        received=given,
        allowed='a text, a Response, or {"text": "..."}',
    )
