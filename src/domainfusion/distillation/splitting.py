"""Examples in groups, and the split into training, validation and test that no group crosses."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from domainfusion.distillation.examples import ExampleSource, query_key, read_examples
from domainfusion.errors import ConfigurationError, DataError
from domainfusion.types import Example

logger = logging.getLogger("domainfusion")

GroupBy = str | Callable[[Example], str]
"""What puts examples into one group: `group`, their own field; `query`, the question itself; any
other name, such as `fact` or `template`, is a key of their metadata; or a function that names an
example's group.
"""


class Split(NamedTuple):
    """Three parts of the examples: what is trained on, what checkpoints are chosen by, and what is
    evaluated on.
    """

    train: list[Example]
    validation: list[Example]
    test: list[Example]


def grouped(examples: Sequence[Example], group_by: GroupBy) -> list[Example]:
    """Returns the examples with the group that `group_by` puts them into; it is the one that is
    split by and that intervals resample.

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
            allowed=(
                "group, query, a function, or a key of the metadata:"
                f" {', '.join(known) or 'there is none'}"
            ),
        )
    if missing:
        logger.info(
            "%d of %d examples have no %s: each is a group by itself.",
            missing,
            len(names),
            group_by,
        )
    return [
        replace(example, group=name or query_key(example))
        for example, name in zip(examples, names, strict=True)
    ]


def _group_of(example: Example, group_by: GroupBy) -> str | None:
    if callable(group_by):
        name = group_by(example)
        if not isinstance(name, str) or not name:
            raise DataError(
                "group_by names no group",
                received=name,
                allowed="a text",
                fix=f"look at what it does with {example.query!r}",
            )
        return name
    if group_by == "query":
        return query_key(example)
    found = example.metadata.get(group_by)
    return None if found is None else str(found)


def split(
    examples: Sequence[Example], *, test: float = 0.0, validation: float = 0.0, seed: int = 0
) -> Split:
    """Splits examples by group.

    Each combination of domains gives its share of groups to the test set, and then to the
    validation set: one group at least of each, unless nothing would be left to train on.

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


class HeldApart(NamedTuple):
    """Examples by whether they are about something that is held out."""

    kept: list[Example]
    held_out: list[Example]
    mixed: list[Example]


def hold_out(
    examples: ExampleSource,
    *,
    by: str | Callable[[Example], str | Collection[str]],
    share: float = 0.2,
    slice_name: str = "unasked",
    seed: int = 0,
) -> HeldApart:
    """Keeps a share of all facts (or documents, or cases) out of the examples that are trained on.

    Unlike a split by group, it looks at everything that an example is about: a pair of two facts is
    trained on only where neither of them is held out.

    Args:
        examples: The examples, as objects, dicts or a file.
        by: What an example is about: a key of its metadata with a name or several, or a function.
        share: Share of the names that is held out in each domain, or combination of domains where a
            name has no example in one alone; at least one of several.
        slice_name: The slice of the test set in which the held-out examples are reported.
        seed: Seed of the choice.

    Returns:
        `kept`, the examples of which nothing is held out; `held_out`, those that are about nothing
        else, in their slice; and `mixed`, the others, which fit neither training nor that slice.

    Raises:
        ConfigurationError: The share is not between 0 and 1.
        DataError: An example does not say what it is about.

    Example:
        >>> asked = [{"query": f"Who is {name}?", "domains": ["people"], "metadata": {"facts": name}} for name in "ABCDE"]
        >>> apart = hold_out(asked, by="facts", share=0.2)
        >>> len(apart.kept), len(apart.held_out), apart.held_out[0].metadata["slice"]
        (4, 1, 'unasked')
    """
    if not 0 < share < 1:
        raise ConfigurationError(
            "share is out of range", received=share, allowed="a number between 0 and 1"
        )
    found = list(read_examples(examples))
    names = [_names_of(example, by) for example in found]
    strata: dict[tuple[str, ...], list[str]] = {}
    seen: set[str] = set()
    for example, own in sorted(
        zip(found, names, strict=True), key=lambda pair: len(pair[0].domains)
    ):
        strata.setdefault(tuple(sorted(example.domains)), []).extend(sorted(own - seen))
        seen |= own
    apart: set[str] = set()
    for domains, listed in strata.items():
        drawn = random.Random(f"{seed}/{domains}").sample(listed, len(listed))
        apart.update(drawn[: _count(len(drawn), len(drawn), share)])
    outcome = HeldApart([], [], [])
    for example, own in zip(found, names, strict=True):
        if not own & apart:
            outcome.kept.append(example)
        elif own <= apart:
            outcome.held_out.append(
                replace(example, metadata={**example.metadata, "slice": slice_name})
            )
        else:
            outcome.mixed.append(example)
    return outcome


def _names_of(example: Example, by: str | Callable[[Example], str | Collection[str]]) -> set[str]:
    given: Any = by(example) if callable(by) else example.metadata.get(by)
    several = given if isinstance(given, list | tuple | set | frozenset) else [given]
    names = {str(name) for name in several if name is not None and str(name)}
    if not names:
        source = "the function" if callable(by) else f"metadata[{by!r}]"
        raise DataError(
            f"An example does not say what it is about: {source} names nothing",
            received=example.query,
            allowed="a name, or a list of names",
        )
    return names


def _count(total: int, left: int, share: float) -> int:
    """Returns how many of the groups that are left make a share of the total."""
    fewest = int(share > 0 and left > 1)
    return min(left, max(fewest, round(total * share)))
