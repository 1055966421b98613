"""Looks up every public name of an installed package: `python tests/installed_faces.py`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import domainfusion


def main() -> None:
    place = Path(domainfusion.__file__).parent
    if "site-packages" not in place.parts:
        sys.exit(f"domainfusion is not installed but imported from {place}")
    if not (place / "py.typed").is_file():
        sys.exit(f"the type marker py.typed is missing in {place}")
    faces = ["domainfusion"]
    for found in pkgutil.iter_modules(domainfusion.__path__):
        if found.ispkg:
            faces.append(f"domainfusion.{found.name}")
    for face in faces:
        module = importlib.import_module(face)
        for name in getattr(module, "__all__", ()):
            getattr(module, name)


if __name__ == "__main__":
    main()
