"""One request to an OpenAI-compatible endpoint: what is sent, what may come back, and how a failure
is told without the key.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self
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
from domainfusion.models.api.costs import TokenCount
from domainfusion.models.api.failures import (
    AttemptFailed,
    ServerError,
    error_in,
    error_of_body,
    from_error,
)
from domainfusion.models.api.key import Key, is_loopback
from domainfusion.types import Generation

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
    ) -> Reply:
        """Sends one request and reads its answer; see `read_reply` for what decides how.

        Raises:
            AttemptFailed: There is no answer.
        """
        outcome = await self._send(body)
        if isinstance(outcome, httpx2.Response):
            outcome = self._read(
                outcome,
                include_reasoning=include_reasoning,
                max_new_tokens=max_new_tokens,
                require_finish_reason=require_finish_reason,
            )
        if isinstance(outcome, AttemptFailed):
            # Raised here, outside of every handler: the client's own errors hold the request, and
            # with it the key.
            raise outcome
        return outcome

    async def _send(self, body: Mapping[str, Any]) -> httpx2.Response | Reply | AttemptFailed:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._client.post(
                    "/chat/completions", cast_to=httpx2.Response, body=body
                )
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

    def _read(self, response: httpx2.Response, **options: Any) -> Reply | AttemptFailed:
        """Reads a response whose status is one of success, whatever it says of its content type."""
        kind = response.headers.get("content-type", "none")
        try:
            payload = self._key.hide_in_answer(parse_body(response.content.decode("utf-8-sig")))
            error = error_in(payload)
            if error is not None:
                reason = f"the server answered with an error: {self._brief(error.message)}"
                return self._failed(error.meant_status, error, reason, response.headers)
            return self._hidden(read_reply(payload, **options))
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
    response.stream = _BoundedStream(response.stream)


class _BoundedStream(httpx2.AsyncByteStream):
    """Reads another stream, and stops where it gets too long."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise AttemptFailed(
                    f"the answer is longer than {MAX_BODY_BYTES:,} bytes",
                    "request",
                    lost=True,
                    fix="lower max_new_tokens",
                )
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
