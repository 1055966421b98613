"""Results as tables of pandas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from domainfusion.errors import MissingDependencyError
from domainfusion.types import Example, TrainingRecord


def to_pandas(items: Iterable[Example | TrainingRecord]) -> Any:
    """Returns examples or records as a `pandas.DataFrame`, a row each.

    A record has the columns of its example, and then its target and how that came about.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    return frame([_row(item) for item in items])


def _row(item: Example | TrainingRecord) -> dict[str, Any]:
    example = item.example if isinstance(item, TrainingRecord) else item
    row: dict[str, Any] = {
        "id": example.id,
        "query": example.query,
        "domains": list(example.domains),
        "source": example.source,
        "reference": example.reference,
        "parts": {part.domain: list(part.answers) for part in example.parts},
        "group": example.group,
    }
    if isinstance(item, TrainingRecord):
        row |= {
            "target": item.target,
            "method": item.integration.method,
            "verification": item.verification,
            "reason": item.reason,
            "responses": {response.domain: response.text for response in item.responses},
            "conflicts": len(item.integration.ledger.conflicts),
        }
    return row


def frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Returns rows as a `pandas.DataFrame`.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingDependencyError(
            "A DataFrame needs pandas", fix="run: pip install 'domainfusion[data]'"
        ) from error
    return pandas.DataFrame(rows)
