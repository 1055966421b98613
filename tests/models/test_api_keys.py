"""The key and the address: what is never shown, written or sent elsewhere."""

import base64
import html
import json
import logging
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import models.faulty_server as faulty
from domainfusion.errors import ConfigurationError, ModelError
from domainfusion.models import APIModel, ResponseStore
from domainfusion.models.api.endpoint import Key
from models.api_settings import api_model
from models.faulty_server import FaultyServer, message, raw, status

from .api_calls import (
    model_at,
    no_keys_around,  # noqa: F401
    questions,
    right_texts,
    texts,
)

KEY = "sk-test-0123456789abcdefghijklmnop"


# The key


def everything_about(error: BaseException) -> str:
    """Returns all that a traceback, a log or a debugger would show of an error."""
    shown = ["".join(traceback.format_exception(error)), repr(error), str(vars(error))]
    for chained in (error.__cause__, error.__context__):
        if chained is not None:
            shown.append(everything_about(chained))
    return "\n".join(shown)


ECHOES = {
    "401": faulty.echo_headers(401),
    "400": faulty.echo_headers(400),
    "500": faulty.echo_headers(500),
    "plain text": status(401, text=KEY),
    "at the cut": raw((" ".join("x" * 135) + KEY).encode(), Content_Type="text/html"),
    "bad JSON": raw(b'{"' + KEY.encode()),
    "wrong type": raw(b"{}", Content_Type=KEY),
    "redirect": status(302, Location=f"http://localhost/?key={KEY}"),
    "an error inside": faulty.says({"error": KEY}),
    "an end that is not known": message(KEY, content="a"),
    "escaped, cut JSON": raw(
        b'{"' + "".join(f"\\u{ord(character):04x}" for character in KEY).encode()
    ),
    "escaped, an error": raw(
        b'{"error": "' + "".join(f"\\u{ord(character):04X}" for character in KEY).encode() + b'"}'
    ),
    "base64": status(401, text=base64.b64encode(f"user:{KEY}".encode()).decode()),
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
def test_a_key_that_the_server_echoes_is_not_shown(
    echo: faulty.Behavior,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with FaultyServer(default=echo) as server, ResponseStore(tmp_path / "s.sqlite") as store:
        model = model_at(server, api_key_env="TEACHER_KEY", max_failures_in_a_row=2)
        with pytest.raises(ModelError) as caught:
            store.ask(model, questions(3))
        assert server.exchanges[0].headers["authorization"] == f"Bearer {KEY}"
    shown = (
        everything_about(caught.value)
        + caplog.text
        + repr(model)
        + repr(vars(model))
        + str(caught.value.unanswered)
    )
    assert KEY[:12] not in shown
    assert not [path for path in tmp_path.iterdir() if KEY.encode() in path.read_bytes()]


SLASHED = "sk-test/0123456789+abcdef\\ghijkl"
"""A key whose characters JSON, URLs and HTML escape."""
MARKED = 'sk-"proj"&<test>\'=%3d~.0123456789'
"""A key with the characters that HTML has names for, and some that look like escapes."""


def in_json(text: str, escape: Callable[[str], str]) -> bytes:
    """Returns a completion with this text in it, in which every character is escaped."""
    body = json.dumps(
        faulty.completion(
            {"role": "assistant", "content": "CONTENT", "reasoning_content": "CONTENT"}
        )
    )
    return body.replace("CONTENT", "".join(map(escape, text))).encode()


def in_pieces(text: str) -> bytes:
    chunks = [{"choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in text]
    lines = [
        f"data: {json.dumps(chunk)}\n\n"
        for chunk in (*chunks, {"choices": [{"delta": {}, "finish_reason": "stop"}]})
    ]
    return "".join(lines).encode()


ECHOES_IN_ANSWERS = {
    "plain": lambda key: in_json(key, lambda character: json.dumps(character)[1:-1]),
    "slashes": lambda key: in_json(
        key, lambda character: json.dumps(character)[1:-1].replace("/", "\\/")
    ),
    "code points": lambda key: in_json(key, lambda character: f"\\u{ord(character):04x}"),
    "in parts": lambda key: json.dumps(faulty.completion({"content": list(key)})).encode(),
    "in pieces of a stream": in_pieces,
    "JSON in JSON": (
        lambda key: json.dumps(
            faulty.completion({"content": json.dumps({"key": key}).replace("/", "\\/")})
        ).encode()
    ),
    "in a URL": (
        lambda key: json.dumps(
            faulty.completion({"content": "".join(f"%{ord(c):02X}" for c in key)})
        ).encode()
    ),
    "in HTML": (
        lambda key: json.dumps(
            faulty.completion({"content": "".join(f"&#{ord(c)};" for c in key)})
        ).encode()
    ),
    "hexadecimal": (
        lambda key: json.dumps(faulty.completion({"content": key.encode().hex()})).encode()
    ),
    "base64": (
        lambda key: json.dumps(
            faulty.completion({"content": base64.b64encode(key.encode()).decode()})
        ).encode()
    ),
    "code points in braces": (
        lambda key: json.dumps(
            faulty.completion({"content": "".join(f"\\u{{{ord(c):x}}}" for c in key)})
        ).encode()
    ),
    "octal": (
        lambda key: json.dumps(
            faulty.completion({"content": "".join(f"\\{ord(c):03o}" for c in key)})
        ).encode()
    ),
    "names of HTML": (
        lambda key: json.dumps(faulty.completion({"content": html.escape(key)})).encode()
    ),
    "quoted-printable": (
        lambda key: json.dumps(
            faulty.completion({"content": "".join(f"={ord(c):02X}" for c in key)})
        ).encode()
    ),
    "base64 in lines": (
        lambda key: json.dumps(
            faulty.completion({"content": base64.encodebytes(b"x" * 50 + key.encode()).decode()})
        ).encode()
    ),
    "base64, with a name": lambda key: in_json(
        base64.b64encode(f"me:{key}!".encode()).decode(), str
    ),
}


@pytest.mark.parametrize("key", [KEY, SLASHED, MARKED])
@pytest.mark.parametrize("echo", ECHOES_IN_ANSWERS.values(), ids=ECHOES_IN_ANSWERS.keys())
def test_a_key_in_an_answer_reaches_no_file(
    echo: Callable[[str], bytes], key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEACHER_KEY", key)
    with FaultyServer(default=raw(echo(key))) as server:
        with ResponseStore(tmp_path / "s.sqlite") as store:
            [answer] = store.ask(model_at(server, api_key_env="TEACHER_KEY"), questions(1))
        assert "***" in answer.text
        for path in tmp_path.iterdir():
            held = path.read_bytes()
            secrets = (
                key,
                key.encode().hex(),
                json.dumps(key)[1:-1],
                base64.b64encode(key.encode()).decode()[:20],
            )
            assert not [secret for secret in secrets if secret.encode() in held]


def test_no_text_makes_hiding_a_key_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    started = time.monotonic()
    for text in (
        "\\" * 50_000,
        "%25" * 20_000,
        KEY[:-1] * 2_000,
        "&#0" * 20_000,
        "c2st\n" * 20_000,
    ):
        assert Key("TEACHER_KEY").hide(text) == text
    assert time.monotonic() - started < 5


def test_a_placeholder_for_a_key_does_not_change_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "ollama")
    with FaultyServer(default=message(content="Install ollama.")) as server:
        assert texts(model_at(server, api_key_env="TEACHER_KEY").generate(questions(1))) == [
            "Install ollama."
        ]


def test_the_key_is_held_nowhere_and_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    models = []
    for key in (KEY, KEY[::-1]):
        monkeypatch.setenv("TEACHER_KEY", key)
        models.append(APIModel("m", base_url="https://example.com/v1", api_key_env="TEACHER_KEY"))
        assert key not in repr(vars(models[-1])) + repr(models[-1])
    assert models[0].fingerprint == models[1].fingerprint


def test_a_key_that_is_changed_counts_from_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer() as server:
        monkeypatch.setenv("TEACHER_KEY", "first")
        model = model_at(server, api_key_env="TEACHER_KEY")
        monkeypatch.setenv("TEACHER_KEY", "second")
        model.generate(questions(1))
        assert server.exchanges[0].headers["authorization"] == "Bearer second"


def test_another_host_gets_nothing_that_was_meant_for_openai(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-secret")
    monkeypatch.setenv(
        "OPENAI_CUSTOM_HEADERS", "X-Private: header-secret\nAuthorization: Bearer other-secret"
    )
    with FaultyServer() as server:
        model_at(server).generate(questions(1))
        headers = server.exchanges[0].headers
    assert set(headers) <= {
        "host",
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "user-agent",
    }
    assert "secret" not in str(headers) and KEY not in str(headers)


def test_a_proxy_is_not_a_way_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyServer() as proxy, FaultyServer() as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        assert texts(model_at(server).generate(questions(1))) == right_texts(1)
        assert proxy.exchanges == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_learns_no_key_by_itself_and_its_password_is_not_shown(
    scheme: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with FaultyServer(default=faulty.echo_headers(407)) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(
                name, proxy.url.removesuffix("/v1").replace("//", "//me:a-long-password@")
            )
        settings: dict[str, Any] = {
            "allow_insecure_http": True,
            "api_key_env": "TEACHER_KEY",
            "max_retries": 0,
        }
        model = api_model("m", base_url=f"{scheme}://models.example.com/v1", **settings)
        with pytest.raises(ModelError) as caught:
            model.generate(questions(1))
    shown = everything_about(caught.value) + caplog.text
    assert not [
        secret
        for secret in (KEY, "a-long-password", base64.b64encode(b"me:a-long-password").decode())
        if secret in shown
    ]


@pytest.mark.parametrize(
    "proxy", ["ftp://me:a-long-password@127.0.0.1:9", "http://me:a-long-password@127.0.0.1:port"]
)
def test_a_proxy_that_is_invalid_is_a_clear_error_without_its_password(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as caught:
        APIModel("m", base_url="https://models.example.com/v1").generate(questions(1))
    assert "a-long-password" not in str(caught.value) + repr(caught.value.__cause__)


def test_a_key_that_is_not_set_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        APIModel("gpt-5-mini")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert APIModel("gpt-5-mini").base_url == "https://api.openai.com/v1"


@pytest.mark.parametrize("key", ["schlüssel-0123456789", "one\ntwo: three", "a\x00b"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domainfusion.models.api.endpoint.os.environ", {"TEACHER_KEY": key})
    with pytest.raises(ConfigurationError, match="TEACHER_KEY") as caught:
        APIModel("m", base_url="http://localhost/v1", api_key_env="TEACHER_KEY")
    assert key not in everything_about(caught.value)


def test_a_server_that_wants_a_key_says_how_to_give_one() -> None:
    with (
        FaultyServer(default=status(401)) as server,
        pytest.raises(ModelError, match="api_key_env"),
    ):
        model_at(server).generate(questions(1))


# Where it may go


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1/v1",
        "http://127.0.0.1/v1",
        "http://127.9.9.9/v1",
        "http://[::1]:8080/v1",
        "https://example.com/v1/",
    ],
)
def test_addresses_that_are_safe(url: str) -> None:
    assert APIModel("m", base_url=url).base_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/v1",
        "http://10.0.0.1/v1",
        "http://localhost.example.com/v1",
        "http://0.0.0.0/v1",
    ],
)
def test_plain_http_to_another_machine_needs_a_word(url: str) -> None:
    with pytest.raises(ConfigurationError, match="allow_insecure_http"):
        APIModel("m", base_url=url)
    assert APIModel("m", base_url=url, allow_insecure_http=True).base_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000/v1",
        "ftp://localhost/v1",
        "file:///etc/passwd",
        "https://",
        "https://host:99999/v1",
        "https://[::1/v1",
    ],
)
def test_what_is_not_an_address(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not an address"):
        APIModel("m", base_url=url)


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{KEY}@host/v1",
        f"https://{KEY}@host/v1",
        f"https://host/v1?key={KEY}",
        f"https://host/v1#{KEY}",
    ],
)
def test_a_secret_in_the_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        APIModel("m", base_url=url)
    assert KEY not in everything_about(caught.value)


def test_an_address_of_one_call_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="leave out"):
        APIModel("m", base_url="http://localhost/v1/chat/completions")
