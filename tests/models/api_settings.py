"""The settings of an `APIModel` as tests write them: flat, as the keys of a recipe are."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from domainfusion.models import APIModel, Dialect, Limits, Prices, Retries

GROUPS = {"dialect": Dialect, "limits": Limits, "retries": Retries, "prices": Prices}


def grouped(**flat: Any) -> dict[str, Any]:
    """Returns the arguments of an `APIModel` with each setting in the group that it belongs to."""
    for name, group in GROUPS.items():
        own = {each.name for each in fields(group)} & flat.keys()
        if own:
            flat[name] = group(**{setting: flat.pop(setting) for setting in own})
    return flat


def api_model(model: str, **flat: Any) -> APIModel:
    """Returns a model with these settings."""
    return APIModel(model, **grouped(**flat))
