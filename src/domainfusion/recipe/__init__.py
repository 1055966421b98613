"""The recipe: a distillation as a YAML file, checked before anything is loaded, that builds the
objects of a run.
"""

from __future__ import annotations

from domainfusion.recipe.building import build_distiller
from domainfusion.recipe.reading import read_recipe, write_recipe
from domainfusion.recipe.sections import Recipe

__all__ = ["Recipe", "build_distiller", "read_recipe", "write_recipe"]
