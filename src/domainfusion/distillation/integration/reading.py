"""What integration is about: the claims that experts make, and how two of them stand to each other;
who finds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

from domainfusion.errors import DataError
from domainfusion.models.store import Ask
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


Kind = Literal["same", "agrees", "contradicts", "other scope"]
"""How two claims stand to each other: one can stand for both (`same`); they are about the same
point, agree, and each adds something (`agrees`); both can't be right (`contradicts`); or they
differ because they hold for different things (`other scope`).
"""

FoundBy = Literal["", "rules", "model"]
"""Who read the responses: the rules, which compare values and negations alone, or a model."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that an expert says.

    Attributes:
        id: Unique in a task, such as `2.3`: the third claim of the second expert, by the alphabet.
            It ranks nothing.
        domain: The expert's domain.
        quote: The expert's own words: the response from `start` to `end`.
        start: Where the quote begins in the response, in characters.
        end: Where it ends, exclusive.
        scope: What it holds for, where the expert limits it, such as "in children"; empty for a
            general claim.
        hedged: Whether the expert says that it may be so. A hedged claim contradicts nothing.
        unsure: Whether the expert says that it does not know.
    """

    id: str
    domain: str
    quote: str
    start: int
    end: int
    scope: str = ""
    hedged: bool = False
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class Relation:
    """How two claims of different experts stand to each other.

    Attributes:
        first: The id of a claim.
        second: The id of another expert's claim.
        kind: How they stand to each other.
        sure: Whether that is certain enough to change the answer. A possible conflict is recorded
            and changes nothing.
        point: What both are about, in a few words.
        owner: The domain that the point belongs to; empty where that is not known.
        found_by: Who found it.
    """

    first: str
    second: str
    kind: Kind
    sure: bool = True
    point: str = ""
    owner: str = ""
    found_by: FoundBy = "rules"


class Reader(Protocol):
    """Takes responses apart into claims."""

    def read(self, tasks: Sequence[Task], *, ask: Ask) -> Sequence[tuple[Claim, ...] | None]:
        """Returns the claims of each task, expert by expert in alphabetical order, each expert's in
        the order of its response.

        None stands for a task that this reader can't read.
        """
        ...


class Relater(Protocol):
    """Finds out how the claims of different experts stand to each other."""

    def relate(
        self, tasks: Sequence[Task], claims: Sequence[Sequence[Claim]], *, ask: Ask
    ) -> Sequence[tuple[Relation, ...] | None]:
        """Returns the relations among the claims of each task; two claims without one have nothing
        to do with each other.

        None stands for a task whose claims this relater can't relate.
        """
        ...
