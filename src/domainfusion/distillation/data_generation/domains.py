"""The domains that a generator is given: a name and a one-line description each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domainfusion.errors import ConfigurationError


def check_domains(domains: Mapping[str, str]) -> dict[str, str]:
    """Returns the domains as a dict.

    Raises:
        ConfigurationError: There are none, one has no name or no description, or two have the same
            name.
    """
    check_names(domains)
    for name, description in domains.items():
        if not isinstance(description, str) or not description.strip():
            raise ConfigurationError(
                f"The domain {name!r} has no description",
                received=description,
                fix="describe it in one line",
            )
    return dict(domains)


def check_names(domains: Mapping[str, Any]) -> None:
    """Raises a `ConfigurationError` where there are no domains, one has no name, or two differ in
    case and white space alone.
    """
    if not isinstance(domains, Mapping):
        raise ConfigurationError(
            "The domains are not a mapping", received=domains, fix='give {"name": ...}'
        )
    if not domains:
        raise ConfigurationError("There are no domains", received=domains, fix='give {"name": ...}')
    seen: dict[str, str] = {}
    for name in domains:
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError("A domain has no name", received=name, allowed="a text")
        other = seen.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            raise ConfigurationError(
                "Two domains have the same name",
                received=[other, name],
                fix="name each domain once",
            )
