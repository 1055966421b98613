"""Describes an object by what decides its behavior, so that a run can tell whether its inputs are
the same as last time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from domainfusion.models.base import LanguageModel
from domainfusion.types import fingerprint
from domainfusion.wording import counted

LONGEST_LIST = 20
"""A longer list, such as one of examples, is described by its length and fingerprint."""


def describe(value: object) -> Any:
    """Returns plain JSON data: numbers and texts as they are, models by fingerprint, functions by
    name, other objects by their fields.

    Fields whose names begin with an underscore are left out, and those of a dataclass that don't
    count in a comparison.

    Example:
        >>> describe({"path": Path("a"), "call": len})
        {'path': 'a', 'call': 'builtins.len'}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, LanguageModel):
        return {"model": value.name, "fingerprint": value.fingerprint}
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        # Not asdict(), which copies what the fields hold: a model, its weights included.
        return {
            item.name: describe(getattr(value, item.name))
            for item in fields(value)
            if item.compare and not item.name.startswith("_")
        }
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [describe(item) for item in value]
        items = sorted(items, key=str) if isinstance(value, set | frozenset) else items
        return (
            items
            if len(items) <= LONGEST_LIST
            else {"items": len(items), "fingerprint": fingerprint(items)}
        )
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    settings = {name: describe(item) for name, item in _fields_of(value)}
    return {"class": type(value).__qualname__, **settings}


def _fields_of(value: object) -> Iterator[tuple[str, object]]:
    """Yields the public fields of any object; one whose class has `__slots__` shows none."""
    for name, item in getattr(value, "__dict__", {}).items():
        if not name.startswith("_"):
            yield name, item


def models_in(value: object) -> Iterator[LanguageModel]:
    """Yields the models that an object uses: itself, or those that its fields hold; a model in two
    places comes twice.
    """
    if isinstance(value, LanguageModel):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from models_in(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from models_in(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from models_in(getattr(value, item.name))
    elif not isinstance(value, str | bytes | Path | type):
        for _, item in _fields_of(value):
            yield from models_in(item)


def differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Returns what differs between two descriptions, in words; empty where nothing does.

    Example:
        >>> differences({"seed": 1, "trainer": {"epochs": 3}}, {"seed": 1, "trainer": {"epochs": 2}})
        'trainer: epochs was 3, is 2'
    """
    changed = [
        name
        for name in {**stored, **given}
        if fingerprint(stored.get(name)) != fingerprint(given.get(name))
    ]
    return "; ".join(
        f"{name}: {_difference(stored.get(name), given.get(name))}" for name in changed
    )


def _difference(stored: object, given: object) -> str:
    return ", ".join(_changes(stored, given, ""))[:300]


def _changes(stored: object, given: object, at: str) -> Iterator[str]:
    """Yields the innermost values that differ, each with the keys that lead to it."""
    if fingerprint(stored) == fingerprint(given):
        return
    if isinstance(stored, Mapping) and isinstance(given, Mapping):
        for key in {**stored, **given}:
            place = f"{at}.{key}" if at else str(key)
            yield from _changes(stored.get(key), given.get(key), place)
    elif isinstance(stored, list) and isinstance(given, list) and len(stored) == len(given):
        for index, (before, now) in enumerate(zip(stored, given, strict=True)):
            yield from _changes(before, now, f"{at}[{index}]")
    elif isinstance(stored, list) and isinstance(given, list):
        yield f"{at} had {counted(len(stored), 'entry', 'entries')}, has {len(given)}".strip()
    else:
        yield f"{at} was {stored!r:.150}, is {given!r:.150}".strip()
