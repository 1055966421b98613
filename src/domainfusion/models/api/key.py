"""An API key that is read where it is used and shown nowhere."""

from __future__ import annotations

import logging
import os

from domainfusion.errors import ConfigurationError

_SHORTEST_SECRET = 16
"""Shorter keys are placeholders such as `ollama` or `EMPTY`, which may stand in an answer."""


class Key:
    """An API key, which never shows itself.

    Args:
        variable: The environment variable that holds it; None for no key.

    Raises:
        ConfigurationError: The variable is not set, or holds what a header can't carry.
    """

    def __init__(self, variable: str | None) -> None:
        self._value = "" if variable is None else os.environ.get(variable, "").strip()
        if variable is not None and not self._value:
            raise ConfigurationError(
                "The environment variable with the API key is not set",
                received=variable if variable.isidentifier() and variable.isupper() else None,  # else it may be the key itself
                allowed="the name of a variable, or None for a server without keys",
                fix="set it with `export NAME=...` in the shell that runs this, and name it, never write the key itself",
            )
        if not (self._value.isascii() and self._value.isprintable()):
            raise ConfigurationError(
                f"The key in {variable} holds characters that no header can carry", allowed="printable ASCII", fix="copy the key once more"
            )

    def __repr__(self) -> str:
        return "Key(***)"

    @property
    def header(self) -> str | None:
        """The value of the header `Authorization`."""
        return f"Bearer {self._value}" if self._value else None

    def hide(self, text: str) -> str:
        """Returns a text with the key in it replaced."""
        return text.replace(self._value, "***") if self._value else text

    def hide_in_log(self, record: logging.LogRecord) -> bool:
        """Hides the key in a log record: a filter for a logger."""
        record.msg, record.args = self.hide(record.getMessage()), None
        return True

    def hide_in_answer(self, text: str) -> str:
        """Returns an answer with the key in it replaced, so that a server that echoes it does not bring it into a file."""
        return self.hide(text) if len(self._value) >= _SHORTEST_SECRET else text
