"""The slices of a test set, and the places of the examples in each."""

from __future__ import annotations

from collections.abc import Sequence

from domainfusion.distillation.examples import CROSS_DOMAIN, slice_of
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
