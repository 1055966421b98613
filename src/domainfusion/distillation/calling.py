"""Calling what a user wrote with what it takes: an extension names the options that it needs, and
no others.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def options_for(method: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Returns those of the options that `method` has a parameter for; all of them where it takes
    any.

    Example:
        >>> options_for(lambda student, ask: None, ask="how", baselines="what")
        {'ask': 'how'}
    """
    parameters = inspect.signature(method).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return options
    taken = {
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return {name: value for name, value in options.items() if name in taken}
