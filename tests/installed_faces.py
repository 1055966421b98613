"""Looks up every public name of an installed package: `python tests/installed_faces.py`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import domainfusion
from domainfusion.errors import MissingDependencyError


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
            try:
                getattr(module, name)
            except MissingDependencyError as error:
                # What an extra brings is not installed here; its error has to say so.
                if "pip install" not in str(error):
                    sys.exit(f"{face}.{name} does not say what to install: {error}")


if __name__ == "__main__":
    main()
