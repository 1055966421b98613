"""The slices of a test set, and the places of the examples in each."""

from __future__ import annotations

from collections.abc import Sequence

from domainfusion.distillation.examples import CROSS_DOMAIN, slice_of
from domainfusion.distillation.results import EdgeCase
from domainfusion.types import Example


def by_slice(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Returns the places of the examples in each slice: domains first, then cross-domain, then the others."""
    places: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        places.setdefault(slice_of(example), []).append(place)
    singles = sorted(places, key=lambda name: (name == CROSS_DOMAIN) + 2 * (name not in _single_domains(examples) | {CROSS_DOMAIN}))
    return {name: places[name] for name in singles}


def _single_domains(examples: Sequence[Example]) -> set[str]:
    return {domain for example in examples for domain in example.domains}


def by_pair(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Returns the places of the cross-domain examples by combination of domains, as in `aviation + chemistry`."""
    places: dict[str, list[int]] = {}
    for place in by_slice(examples).get(CROSS_DOMAIN, []):
        places.setdefault(_joined(examples[place]), []).append(place)
    return dict(sorted(places.items()))


def by_border(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Returns the places of the adversarial examples by what they look like and need, as in `aviation → chemistry`."""
    places: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        if example.apparent_domain:
            places.setdefault(f"{example.apparent_domain} → {_joined(example)}", []).append(place)
    return dict(sorted(places.items()))


def edge_cases(examples: Sequence[Example], student: Sequence[bool | None], experts: Sequence[bool | None]) -> tuple[EdgeCase, ...]:
    """Returns the adversarial examples that the student does not get right, those that the experts know first.

    Args:
        examples: The examples.
        student: Whether the student gets each right; None where that could not be graded.
        experts: Whether the experts that it needs do, between them.
    """
    found = [
        EdgeCase(example_id=example.id, apparent=example.apparent_domain, needed=_joined(example), experts_know=known)
        for example, right, known in zip(examples, student, experts, strict=True)
        if example.apparent_domain and right is False
    ]
    return tuple(sorted(found, key=lambda case: case.experts_know is not True))


def _joined(example: Example) -> str:
    return " + ".join(sorted(example.domains))
