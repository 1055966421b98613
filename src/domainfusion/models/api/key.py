"""An API key that is read where it is used and shown nowhere."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from base64 import b64encode
from typing import Any
from urllib.parse import urlsplit

from domainfusion.errors import ConfigurationError

_SHORTEST_SECRET = 16
"""Shorter keys are placeholders such as `ollama` or `EMPTY`, which may stand in an answer."""
_HIDDEN = "***"


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
                received=(
                    variable if variable.isidentifier() and variable.isupper() else None
                ),  # else it may be the key itself
                allowed="the name of a variable, or None for a server without keys",
                fix=(
                    "set it with `export NAME=...` in the shell that runs this, and name it, never"
                    " write the key itself"
                ),
                field="api_key_env",
            )
        if not (self._value.isascii() and self._value.isprintable()):
            raise ConfigurationError(
                f"The key in {variable} holds characters that no header can carry",
                allowed="printable ASCII",
                fix="copy the key once more",
                field="api_key_env",
            )
        self._pattern = _pattern(self._value)

    def __repr__(self) -> str:
        return "Key(***)"

    @property
    def header(self) -> str | None:
        """The value of the header `Authorization`."""
        return f"Bearer {self._value}" if self._value else None

    def hide(self, text: str) -> str:
        """Returns a text with the key in it replaced, in whatever spelling it stands there."""
        return text if self._pattern is None else self._pattern.sub(_HIDDEN, text)

    def hide_in_log(self, record: logging.LogRecord) -> bool:
        """Hides the key in a log record: a filter for a logger."""
        record.msg, record.args = self.hide(record.getMessage()), None
        return True

    def hide_in_answer(self, value: Any) -> Any:
        """Returns what a server sent, decoded, with the key replaced in every text of it.

        So a server that echoes the key does not bring it into a file. A placeholder for a key
        stays.
        """
        if len(self._value) < _SHORTEST_SECRET:
            return value
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, list):
            return [self.hide_in_answer(item) for item in value]
        if isinstance(value, dict):
            return {self.hide(name): self.hide_in_answer(item) for name, item in value.items()}
        return value


def _pattern(key: str) -> re.Pattern[str] | None:
    """Returns a pattern of the key as itself, escaped, in hexadecimal digits and in base64."""
    if not key:
        return None
    forms = ["".join(map(_spellings, key))]
    if len(key) >= _SHORTEST_SECRET:
        # The characters around hold a part of the first and the last byte of the key.
        around = "[A-Za-z0-9+/_=-]{0,4}"
        forms += [
            key.encode().hex(),
            *(around + re.escape(form) + around for form in _in_base64(key)),
        ]
    return re.compile("|".join(forms), re.IGNORECASE)


def _spellings(character: str) -> str:
    r"""Returns a pattern of one character in JSON (`\/`, `\u002f`), in a URL (`%2F`) and in HTML
    (`&#47;`).

    What is escaped twice has several backslashes. Their number is bounded, so that no text makes
    this slow.
    """
    code = ord(character)
    plain = re.escape(character)
    return rf"(?:\\{{0,9}}{plain}|\\{{1,9}}(?:u00|x){code:02x}|%(?:25){{0,3}}{code:02x}|&\#0{{0,6}}{code};|&\#x0{{0,6}}{code:x};)"


def _in_base64(key: str) -> list[str]:
    """Returns what base64 of any text with the key in it contains.

    Three bytes become four characters, so that there are three cases, by how many bytes stand
    before the key. The characters at the ends, which depend on its neighbors too, are left out.
    """
    found = []
    for before in range(3):
        encoded = b64encode(b"\0" * before + key.encode()).decode()
        whole = (
            (before + len(key)) // 3 * 4
        )  # characters of groups in which the key's bytes are all known
        inner = encoded[(4 if before else 0) : whole]
        found += [inner, inner.replace("+", "-").replace("/", "_")]
    return found


OPENAI_URL = "https://api.openai.com/v1"


def check_url(base_url: str, *, allow_insecure_http: bool = False) -> str:
    """Returns the address without a final slash.

    Raises:
        ConfigurationError: It is not an address, holds a secret, or would carry the key in clear
            text over a network.
    """
    try:
        parts = urlsplit(base_url)
        host, secret = (
            parts.hostname,
            parts.username or parts.password or parts.query or parts.fragment,
        )
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        host, secret, port_is_right = None, None, False
    if secret:
        # The address is not shown: what stands there may be a key.
        raise ConfigurationError(
            "base_url holds more than an address",
            allowed="such as https://host/v1",
            fix="give a key by api_key_env",
        )
    if host is None or not port_is_right or parts.scheme not in ("http", "https"):
        raise ConfigurationError(
            "base_url is not an address", received=base_url, allowed="such as https://host/v1"
        )
    if parts.path.rstrip("/").endswith("/completions"):
        raise ConfigurationError(
            "base_url names one call", received=base_url, fix="leave out what follows /v1"
        )
    if parts.scheme == "http" and not is_loopback(host) and not allow_insecure_http:
        raise ConfigurationError(
            "Plain http would carry the key and every text readably over the network",
            received=base_url,
            allowed="https, or http to this machine",
            fix="use https, or say allow_insecure_http=True where the network is yours",
            field="base_url",
        )
    return base_url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
