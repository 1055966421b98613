"""Where requests may go: an address without secrets, over https or to this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from domainfusion.errors import ConfigurationError

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
