"""What a test set shares with what was trained on, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from domainfusion.distillation.contamination import EvaluationSets
from domainfusion.distillation.examples import ExampleLike, query_key, read_examples
from domainfusion.distillation.results import Overlap
from domainfusion.errors import DataError
from domainfusion.types import Example

OnOverlap = Literal["refuse", "report"]
"""What to do with test queries that were trained on: refuse to evaluate, or leave them out and report them."""

METHOD = "a training query contains 70 % of the test query's eight-word sequences, or a shorter one as a whole, and all its content words"


class HeldApart(NamedTuple):
    """The examples that nothing was trained on, and what was found among the others; None where nobody said what was trained on."""

    examples: list[Example]
    overlap: Overlap | None


def hold_apart(
    examples: Sequence[Example], trained_on: str | Path | Sequence[ExampleLike] | None, on_overlap: OnOverlap = "refuse"
) -> HeldApart:
    """Holds examples against what was trained on, so that none of these is ever evaluated on.

    Args:
        examples: The examples to evaluate on.
        trained_on: What was trained on, as objects, dicts or a file, such as the `examples.jsonl` of a run; None where that is not known.
        on_overlap: What to do with queries that were trained on, as they are or nearly (see `EvaluationSets`).

    Raises:
        DataError: Queries were trained on, and that is to be refused; or no others are left.
    """
    if trained_on is None:
        return HeldApart(list(examples), None)
    trained = list(read_examples(trained_on))
    keys = {query_key(example) for example in trained}
    same = tuple(example.id for example in examples if query_key(example) in keys)
    near = _contained([example for example in examples if example.id not in set(same)], trained)
    overlap = Overlap(trained=len(trained), same=same, near=near, method=METHOD)
    found = {*same, *near}
    first = next((example.query for example in examples if example.id in found), "")
    if found and on_overlap == "refuse":
        raise DataError(
            f"{len(found)} of {len(examples)} test queries were trained on, {len(same)} as they are and {len(near)} nearly",
            received=first,
            fix='evaluate on held-out examples, or set on_overlap="report", which leaves them out',
        )
    kept = [example for example in examples if example.id not in found]
    if found and not kept:
        raise DataError("All test queries were trained on", received=first, fix="evaluate on held-out examples")
    return HeldApart(kept, overlap)


def _contained(examples: Sequence[Example], trained: Sequence[Example]) -> tuple[str, ...]:
    """Returns the ids of the examples whose query stands in one that was trained on. One search finds one in each training query."""
    left, found = list(examples), set[str]()
    while left:
        index = EvaluationSets({"test": left})
        queries = {leak.query for example in trained if (leak := index.find(example)) is not None}
        if not queries:
            break
        found |= {example.id for example in left if example.query in queries}
        left = [example for example in left if example.query not in queries]
    return tuple(example.id for example in examples if example.id in found)
