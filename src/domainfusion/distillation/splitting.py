"""Examples in groups, and the split into training, validation and test that no group crosses."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from domainfusion.distillation.examples import query_key
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.types import Example

logger = logging.getLogger("domainfusion")

GroupBy = str | Callable[[Example], str]
"""What puts examples into one group: `group`, their own field; `query`, the question itself; any other name, such as `fact` or `template`,
is a key of their metadata; or a function that names an example's group."""


class Split(NamedTuple):
    """Three parts of the examples: what is trained on, what checkpoints are chosen by, and what is evaluated on."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]


def grouped(examples: Sequence[Example], group_by: GroupBy) -> list[Example]:
    """Returns the examples with the group that `group_by` puts them into; it is the one that is split by and that intervals resample.

    An example without the metadata that is asked for is a group by itself.

    Raises:
        ConfigurationError: No example has this metadata.
        DataError: The function names no group.
    """
    if group_by == "group":
        return list(examples)
    names = [_group_of(example, group_by) for example in examples]
    missing = sum(name is None for name in names)
    if missing and missing == len(names):
        known = sorted({key for example in examples for key in example.metadata})
        raise ConfigurationError(
            f"No example has metadata[{group_by!r}] to be grouped by",
            received=group_by,
            allowed=f"group, query, a function, or a key of the metadata: {', '.join(known) or 'there is none'}",
        )
    if missing:
        logger.info("%d of %d examples have no %s: each is a group by itself.", missing, len(names), group_by)
    return [replace(example, group=name or query_key(example)) for example, name in zip(examples, names, strict=True)]


def _group_of(example: Example, group_by: GroupBy) -> str | None:
    if callable(group_by):
        name = group_by(example)
        if not isinstance(name, str) or not name:
            raise DataError("group_by names no group", received=name, allowed="a text", fix=f"look at what it does with {example.query!r}")
        return name
    if group_by == "query":
        return query_key(example)
    found = example.metadata.get(group_by)
    return None if found is None else str(found)


def split(examples: Sequence[Example], *, test: float = 0.0, validation: float = 0.0, seed: int = 0) -> Split:
    """Splits examples by group.

    Each combination of domains gives its share of groups to the test set, and then to the validation set: one group at least of each,
    unless nothing would be left to train on.

    Args:
        examples: The examples.
        test: Share of the groups to evaluate on.
        validation: Share of the groups to choose checkpoints by.
        seed: Seed of the choice.
    """
    strata: dict[tuple[str, ...], set[str]] = {}
    for example in examples:
        strata.setdefault(tuple(sorted(example.domains)), set()).add(example.group)
    tested: set[str] = set()
    validated: set[str] = set()
    for domains, groups in strata.items():
        names = sorted(groups)
        random.Random(f"{seed}/{domains}").shuffle(names)
        first = _count(len(names), len(names), test)
        tested.update(names[:first])
        validated.update(names[first : first + _count(len(names), len(names) - first, validation)])
    return Split(
        train=[example for example in examples if example.group not in tested | validated],
        validation=[example for example in examples if example.group in validated - tested],
        test=[example for example in examples if example.group in tested],
    )


def _count(total: int, left: int, share: float) -> int:
    """Returns how many of the groups that are left make a share of the total."""
    fewest = int(share > 0 and left > 1)
    return min(left, max(fewest, round(total * share)))
