"""One request to an OpenAI-compatible endpoint: what is sent, what may come back, and how a failure
is told without the key.
"""

from __future__ import annotations

import asyncio
import html
import ipaddress
import logging
import os
import re
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from domainfusion.errors import ConfigurationError, MissingDependencyError
from domainfusion.models.api.answers import (
    CHECK_URL,
    Reply,
    UnreadableAnswer,
    brief,
    parse_body,
    read_reply,
)
from domainfusion.models.api.failures import (
    AttemptFailed,
    ServerError,
    error_in,
    error_of_body,
    from_error,
)
from domainfusion.models.costs import TokenCount
from domainfusion.types import Generation

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
            *(around + _WRAP.join(map(re.escape, form)) + around for form in _in_base64(key)),
        ]
    return re.compile("|".join(forms), re.IGNORECASE)


# Base64 in mails and certificates has a line break after 64 or 76 characters, which JSON escapes.
_WRAP = r"(?:[\r\n]|\\{1,9}[rn]){0,2}"


def _spellings(character: str) -> str:
    r"""Returns a pattern of one character in JSON (`\/`, `\u002f`) and languages like it (`\u{2f}`,
    `\057`), in a URL (`%2F`), in HTML (`&#47;`, `&amp;`) and in quoted-printable (`=2F`).

    What is escaped twice has several backslashes. Their number is bounded, so that no text makes
    this slow.
    """
    code = ord(character)
    plain = re.escape(character)
    named = html.escape(character)
    spellings = (
        rf"\\{{0,9}}{plain}",
        rf"\\{{1,9}}(?:u00|x|U000000){code:02x}",
        rf"\\{{1,9}}u\{{0{{0,4}}{code:x}\}}",
        rf"\\{{1,9}}{code:03o}",
        rf"%(?:25){{0,3}}{code:02x}",
        rf"={code:02x}",
        rf"&\#0{{0,6}}{code};",
        rf"&\#x0{{0,6}}{code:x};",
        *([re.escape(named)] if named != character else []),
    )
    return f"(?:{'|'.join(spellings)})"


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


try:
    import httpx2
    from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI
except ImportError as error:
    raise MissingDependencyError(
        "Models behind an API need the package openai",
        received=str(error),
        fix='run: pip install "domainfusion[api]"',
    ) from error

MAX_BODY_BYTES = 10_000_000
"""No answer is longer; what is, is not an answer."""

MAX_SCORES_BYTES = 200_000_000
"""Nor is what another call returns: twenty scores are some 2 KB for each token of a row."""

_OPENAI_HOST = "api.openai.com"
_KEPT_HEADERS = {
    "host",
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "user-agent",
}
_NEVER_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    ssl.SSLError,
)
_CREDENTIALS = re.compile(r"\b(Basic|Bearer)\s+[\w+/=.~-]{8,}", re.IGNORECASE)
"""Credentials in a header that is echoed: those for a proxy are not known here."""
_HELD_BACK = {400, 403, 422, 451}
"""Statuses with which a content filter refuses a question."""
_LOGS = (
    "httpcore2.connection",
    "httpcore2.http11",
    "httpcore2.proxy",
    "httpx2",
    "openai._base_client",
)
"""What the client logs goes through here; in its most talkative mode it writes down headers that a
server may echo the key in.
"""
_FIXES = {
    402: "top up the account's credit",
    404: "check the model's name, and base_url, which mostly ends in /v1",
    405: CHECK_URL,
    413: "ask less in one question",
    429: "check the account's quota, or set requests_per_minute and tokens_per_minute",
}


Read = TypeVar("Read")


class Endpoint:
    """Sends requests; open it with `async with`.

    Args:
        base_url: Where.
        key: The key.
        key_variable: The environment variable that it came from, for what an error says.
        timeout_seconds: The longest that a request may take.
        max_concurrency: Connections that are kept.
    """

    def __init__(
        self,
        base_url: str,
        key: Key,
        *,
        key_variable: str | None,
        timeout_seconds: float,
        max_concurrency: int,
    ) -> None:
        self._key = key
        self._key_variable = key_variable
        self._timeout_seconds = timeout_seconds
        self._host = urlsplit(base_url).hostname or ""
        # What is not OpenAI's API stands beside it.
        self._root = base_url.removesuffix("/v1")
        try:
            connections = httpx2.AsyncClient(
                timeout=timeout_seconds,
                follow_redirects=False,
                limits=httpx2.Limits(
                    max_connections=max_concurrency, max_keepalive_connections=max_concurrency
                ),
                trust_env=not is_loopback(self._host),  # a proxy does not lead to this machine
                event_hooks={"request": [self._strip], "response": [_bound]},
            )
        except (ValueError, httpx2.InvalidURL):
            # The address is not shown, nor is the client's error: a proxy's password stands in it.
            raise ConfigurationError(
                "The address of a proxy in the environment can't be used",
                allowed="such as HTTPS_PROXY=http://host:3128",
                fix="correct HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or unset them",
            ) from None
        # The key is written into the header by `_strip`; whatever else the client finds in the
        # environment goes to OpenAI alone.
        self._client = AsyncOpenAI(
            api_key="set by the endpoint", base_url=base_url, max_retries=0, http_client=connections
        )

    async def __aenter__(self) -> Self:
        for name in _LOGS:
            logging.getLogger(name).addFilter(self._key.hide_in_log)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.close()
        for name in _LOGS:
            logging.getLogger(name).removeFilter(self._key.hide_in_log)

    async def _strip(self, request: httpx2.Request) -> None:
        """Leaves in the header what the request needs, and no description of this machine or other
        accounts.
        """
        for name in list(request.headers):
            if name not in _KEPT_HEADERS and self._host != _OPENAI_HOST:
                del request.headers[name]
        request.headers["accept-encoding"] = "identity"  # so that what is counted is what arrives
        request.headers.pop("authorization", None)
        if self._key.header is not None:
            request.headers["authorization"] = self._key.header

    async def ask(
        self,
        body: Mapping[str, Any],
        *,
        include_reasoning: bool = False,
        max_new_tokens: int | None = None,
        require_finish_reason: bool = False,
        accept_empty: bool = False,
    ) -> Reply:
        """Sends one request and reads its answer; see `read_reply` for what decides how.

        Raises:
            AttemptFailed: There is no answer.
        """
        outcome = await self._send("/chat/completions", body)
        if isinstance(outcome, httpx2.Response):
            outcome = self._read(
                outcome,
                lambda payload: self._hidden(
                    read_reply(
                        payload,
                        include_reasoning=include_reasoning,
                        max_new_tokens=max_new_tokens,
                        require_finish_reason=require_finish_reason,
                        accept_empty=accept_empty,
                    )
                ),
            )
        if isinstance(outcome, AttemptFailed):
            # Raised here, outside of every handler: the client's own errors hold the request, and
            # with it the key.
            raise outcome
        return outcome

    async def post(
        self, path: str, body: Mapping[str, Any], *, from_root: bool = False
    ) -> dict[str, Any]:
        """Sends another call, and returns what it answers, decoded.

        Args:
            path: Which call.
            body: What is sent.
            from_root: Whether it stands beside `/v1`, not under it.

        Raises:
            AttemptFailed: There is no answer.
        """
        outcome = await self._send(f"{self._root}{path}" if from_root else path, body)
        found = (
            self._read(outcome, dict[str, Any]) if isinstance(outcome, httpx2.Response) else outcome
        )
        if isinstance(found, AttemptFailed):
            raise found
        if isinstance(found, Reply):
            raise AttemptFailed("a content filter held it back", "request")
        return found

    async def _send(
        self, path: str, body: Mapping[str, Any]
    ) -> httpx2.Response | Reply | AttemptFailed:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._client.post(path, cast_to=httpx2.Response, body=body)
        except (TimeoutError, APITimeoutError) as error:
            lost = not isinstance(error.__cause__, _NEVER_SENT)
            return AttemptFailed(
                f"no answer within {self._timeout_seconds:g} s",
                lost=lost,
                fix="raise timeout_seconds",
            )
        except APIStatusError as error:
            return self._from_status(error.response)
        except APIConnectionError as error:
            cause = error.__cause__ or error
            reason = f"the connection failed ({type(cause).__name__}: {self._brief(str(cause))})"
            return AttemptFailed(
                reason,
                lost=not isinstance(cause, _NEVER_SENT),
                fix="check base_url, and that the server runs",
            )
        except AttemptFailed as failure:
            return failure

    def _read(
        self, response: httpx2.Response, take: Callable[[dict[str, Any]], Read]
    ) -> Read | Reply | AttemptFailed:
        """Reads a response whose status is one of success, whatever it says of its content type."""
        kind = response.headers.get("content-type", "none")
        try:
            payload = self._key.hide_in_answer(parse_body(response.content.decode("utf-8-sig")))
            error = error_in(payload)
            if error is not None:
                reason = f"the server answered with an error: {self._brief(error.message)}"
                return self._failed(error.meant_status, error, reason, response.headers)
            return take(payload)
        except UnicodeDecodeError:
            return AttemptFailed("the answer is not UTF-8", lost=True, fix=CHECK_URL)
        except RecursionError:
            return AttemptFailed("the answer is nested too deeply", lost=True, fix=CHECK_URL)
        except UnreadableAnswer as error:
            what = (
                error.what
                if "json" in kind.lower()
                else f"{error.what}, content type {self._brief(kind)}"
            )
            return AttemptFailed(
                f"{what}: {self._brief(error.seen)}",
                lost=error.tokens is None,
                tokens=error.tokens,
                answered=error.answered,
                fix=error.fix,
            )

    def _hidden(self, reply: Reply) -> Reply:
        """Returns a reply without the key, also where its text was joined from pieces."""
        text, reasoning = map(
            self._key.hide_in_answer, (reply.generation.text, reply.generation.reasoning)
        )
        return Reply(replace(reply.generation, text=text, reasoning=reasoning), reply.tokens)

    def _from_status(self, response: httpx2.Response) -> Reply | AttemptFailed:
        status = response.status_code
        error = error_of_body(response.text)
        if response.has_redirect_location:
            error = ServerError(
                f"a redirect to {response.headers['location']}, which is not followed"
            )
        return self._failed(
            status, error, f"HTTP {status}: {self._brief(error.message)}", response.headers
        )

    def _failed(
        self, status: int, error: ServerError, reason: str, headers: Mapping[str, str]
    ) -> Reply | AttemptFailed:
        """Returns what an error of the server means: a question that a filter held back is
        answered, and others are asked.
        """
        if status in _HELD_BACK and error.is_moderation:
            return Reply(
                Generation(text="", finish_reason="filtered"), TokenCount(prompt=0, completion=0)
            )
        hidden = replace(
            error, message=self._key.hide(error.message), details=self._key.hide(error.details)
        )
        return from_error(status, hidden, reason, headers, fix=self._fix(status))

    def _brief(self, text: str) -> str:
        """Returns the beginning of what a server sent; the key is hidden first, as half a key is a
        secret too.
        """
        return brief(_CREDENTIALS.sub(r"\1 ***", self._key.hide(text)))

    def _fix(self, status: int) -> str:
        if status in (401, 403):
            return (
                f"give a valid key in {self._key_variable}"
                if self._key_variable
                else "name the variable with the key: api_key_env=..."
            )
        return _FIXES.get(status, CHECK_URL if 300 <= status < 400 else "")


_REST_SECONDS, _LONGEST_REST_SECONDS = 1.0, 60.0
"""How long an address that failed is left alone: it doubles with each failure that follows."""


@dataclass
class _Address:
    """One of several addresses.

    Attributes:
        endpoint: What asks there.
        in_flight: Requests that are on their way.
        failures: Failures since the last answer.
        rests_until: When it is asked again, by the event loop's clock.
        left: What it failed with, where no request will be answered there.
    """

    endpoint: Endpoint
    in_flight: int = 0
    failures: int = 0
    rests_until: float = 0.0
    left: AttemptFailed | None = None

    def failed(self, failure: AttemptFailed, now: float) -> None:
        """Leaves the address alone for a while, or for good."""
        if failure.scope == "endpoint":
            self.left = failure
        rest = min(_LONGEST_REST_SECONDS, _REST_SECONDS * 2.0 ** min(self.failures, 10))
        self.failures += 1
        self.rests_until = now + (failure.retry_after_seconds or rest)


class Endpoints:
    """Spreads requests over several addresses that serve one model; open it with `async with`.

    A request goes to the address with the fewest on their way. One that an address did not take is
    asked elsewhere at once; an address that fails rests, and one that refuses the key or the model
    is left.

    Args:
        endpoints: The addresses.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._places = [_Address(endpoint) for endpoint in endpoints]
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for place in self._places:
            await self._open.enter_async_context(place.endpoint)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def ask(self, body: Mapping[str, Any], **options: Any) -> Reply:
        """Sends one request; see `Endpoint.ask`.

        Raises:
            AttemptFailed: There is no answer at any address; or one may have been written, and was
                lost.
        """
        return await self._somewhere(lambda endpoint: endpoint.ask(body, **options))

    async def post(
        self, path: str, body: Mapping[str, Any], *, from_root: bool = False
    ) -> dict[str, Any]:
        """Sends another call; see `Endpoint.post`.

        Raises:
            AttemptFailed: As for `ask`.
        """
        return await self._somewhere(
            lambda endpoint: endpoint.post(path, body, from_root=from_root)
        )

    async def _somewhere(self, call: Callable[[Endpoint], Awaitable[Read]]) -> Read:
        tried: list[_Address] = []
        while True:
            place = self._next(tried)
            tried.append(place)
            place.in_flight += 1
            try:
                reply = await call(place.endpoint)
            except AttemptFailed as failure:
                if failure.scope == "request" or failure.answered:
                    raise  # it is the question's
                place.failed(failure, asyncio.get_running_loop().time())
                others = [each for each in self._places if each not in tried and each.left is None]
                if others and not failure.lost:
                    continue
                if failure.scope == "endpoint" and any(each.left is None for each in self._places):
                    failure.scope = "attempt"  # another address may answer the next attempt
                raise
            else:
                place.failures = 0
                return reply
            finally:
                place.in_flight -= 1

    def _next(self, tried: Sequence[_Address]) -> _Address:
        """Returns the address to ask: one that does not rest, with the fewest on their way."""
        now = asyncio.get_running_loop().time()
        left = [place for place in self._places if place not in tried and place.left is None]
        return min(
            left or self._places,
            key=lambda place: (max(0.0, place.rests_until - now), place.in_flight),
        )


async def _bound(response: httpx2.Response) -> None:
    """Lets no more of a body in than an answer can be."""
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise AttemptFailed(
            f"the body is encoded ({brief(encoding)}), which was not asked for",
            "endpoint",
            fix=CHECK_URL,
        )
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    is_chat = response.request.url.path.endswith("/chat/completions")
    response.stream = _BoundedStream(
        response.stream, MAX_BODY_BYTES if is_chat else MAX_SCORES_BYTES
    )


class _BoundedStream(httpx2.AsyncByteStream):
    """Reads another stream, and stops where it gets too long."""

    def __init__(self, stream: httpx2.AsyncByteStream, most_bytes: int) -> None:
        self._stream = stream
        self._most_bytes = most_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._most_bytes:
                raise AttemptFailed(
                    f"the answer is longer than {self._most_bytes:,} bytes",
                    "request",
                    lost=True,
                    fix="lower max_new_tokens",
                )
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
