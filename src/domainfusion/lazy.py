"""Packages that offer names of several modules and load each when it is first used (PEP 562)."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple


class LazyNames(NamedTuple):
    """What a package's `__init__` defines to offer names that it has not loaded.

    Attributes:
        get: Its `__getattr__`.
        listed: Its `__dir__`.
    """

    get: Callable[[str], Any]
    listed: Callable[[], list[str]]


def lazy_names(package: str) -> LazyNames:
    """Returns `__getattr__` and `__dir__` for a package.

    The names are those that its `__init__` imports under `if TYPE_CHECKING:`. They are read from
    its source, so each stands there once for people, type checkers and the import itself.

    Args:
        package: The package's `__name__`.
    """
    module = sys.modules[package]
    homes = _homes_of(module)

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(homes[name]), name)
        setattr(module, name, found)
        return found

    def listed() -> list[str]:
        return sorted({*vars(module), *homes})

    return LazyNames(get, listed)


def _homes_of(module: ModuleType) -> dict[str, str]:
    """Returns the module of each name that `module` imports for type checkers."""
    spec = module.__spec__
    source = spec.loader.get_source(module.__name__)  # type: ignore[union-attr]
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    nodes = [node for block in blocks for node in block.body]
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: str(node.module) for node in imports for alias in node.names}
