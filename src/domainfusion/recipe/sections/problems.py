"""How a validator refuses a value, and what it advises."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic_core import PydanticCustomError


def problem(
    what: str, *, key: str = "", received: object = None, allowed: str = "", fix: str = ""
) -> PydanticCustomError:
    """Returns the error with which a validator refuses a value; `key` names the one that is wrong
    inside of it.
    """
    return PydanticCustomError(
        "recipe",
        "{what}",
        {"what": what, "key": key, "received": received, "allowed": allowed, "fix": fix},
    )


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns the advice to write the nearest of the known names; empty where none is near.

    Example:
        >>> suggestion("epoks", ["epochs", "seed"]), suggestion("batch", ["path", "batch_size"]), suggestion("x", ["seed"])
        ('write epochs', 'write batch_size', '')
    """
    names = list(known)
    nearest = [
        other for other in names if name and other.startswith(name)
    ] or difflib.get_close_matches(name, names, n=1)
    return f"write {nearest[0]}" if nearest else ""
