"""Chat templates as text: the one that a model uses, its arguments and date, rendered in limited
time.

All that decides how a conversation is rendered is written into the template itself: arguments, the
date, the token that begins a text. So it is part of a model's fingerprint, and a saved student that
plain Transformers asks sees what it was trained on.
"""

from __future__ import annotations

import ctypes
import datetime
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock, Thread
from typing import Any, TypeVar

import psutil
from jinja2 import TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from domainfusion.errors import ConfigurationError, ModelError

CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{"
    " '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The template of a model that has none of its own: ChatML, without a default system message."""

RENDERING_SECONDS = 5.0
"""The time that rendering one conversation may take. A sound template takes a thousandth of it."""

RENDERING_BYTES = 1 << 30
"""The memory that it may take: Linux refuses more, elsewhere it is looked at every
`_GLANCE_SECONDS`.
"""

_GLANCE_SECONDS = 0.05

_RENDERING = Lock()
"""One rendering at a time changes the limit of the process."""

_GIVEN_BY_THE_RENDERER = frozenset(
    {"messages", "add_generation_prompt", "tools", "documents", "strftime_now", "raise_exception"}
)
"""Names that are not arguments: the renderer gives them."""

_LARGEST_FACTOR = 1_000_000

Result = TypeVar("Result")


def choose_template(given: str | None, own: object) -> str | None:
    """Returns the chat template to use: the given one, else the tokenizer's own, else None.

    Args:
        given: A template in place of the tokenizer's own.
        own: The tokenizer's: a text, or several by name, of which `default` is taken.

    Raises:
        ModelError: There are several, and none is the default.
    """
    if given is not None:
        return given
    if isinstance(own, Mapping):
        if "default" not in own:
            names = ", ".join(map(str, own))
            raise ModelError(
                "None of the tokenizer's chat templates is the default",
                received=names,
                fix="give one as chat_template=...",
            )
        own = own["default"]
    return own if isinstance(own, str) and own else None


def with_arguments(template: str, arguments: Mapping[str, Any]) -> str:
    r"""Returns a template that first sets variables, such as `enable_thinking=False`.

    Args:
        template: The template.
        arguments: JSON values by name.

    Raises:
        ConfigurationError: A name is none that a template can use, or a value is not JSON.

    Example:
        >>> with_arguments("{{ enable_thinking }}", {"enable_thinking": False})
        '{%- set enable_thinking = false %}\n{{ enable_thinking }}'
    """
    if not isinstance(arguments, Mapping):
        raise ConfigurationError(
            "template_arguments is not a mapping", received=arguments, allowed="values by name"
        )
    set_first = []
    for name, value in arguments.items():
        if not str(name).isidentifier() or name in _GIVEN_BY_THE_RENDERER:
            raise ConfigurationError(
                "A template argument has a name that can't be used",
                received=name,
                allowed="the name of a variable of the chat template, such as enable_thinking",
            )
        # Chat templates are rendered without the first newline after a block, so this writes
        # nothing, and the template still begins a line: whether white space before its first block
        # counts depends on that.
        set_first.append(f"{{%- set {name} = {_literal(value, name)} %}}\n")
    return "".join(set_first) + template


def _literal(value: object, name: str) -> str:
    """Returns a JSON value as Jinja writes it: as JSON, but for the name of nothing."""
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(
                f"{_literal(str(key), name)}: {_literal(item, name)}" for key, item in value.items()
            )
            + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item, name) for item in value) + "]"
    if value is None:
        return "none"
    if (
        isinstance(value, str | bool | int | float)
        and value == value
        and abs(_size(value)) != float("inf")
    ):
        return json.dumps(value, ensure_ascii=False)
    raise ConfigurationError(
        f"The template argument {name} can't be used", received=value, allowed="a JSON value"
    )


def _size(value: str | bool | int | float) -> float:
    return 0 if isinstance(value, str) else value


_PERCENT = "\0"
"""Stands for a per cent sign while the parts of a date are written."""


def read_date(date: str | datetime.date) -> datetime.date:
    """Returns a date, which may be written as `YYYY-MM-DD`.

    Raises:
        ConfigurationError: It is none.
    """
    if isinstance(date, datetime.date):
        return date
    try:
        return datetime.date.fromisoformat(date)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            "date is not a date", received=date, allowed="YYYY-MM-DD, such as 2026-01-31"
        ) from error


_DIRECTIVES = "aAbBdHIjmMpSUwWyYeGuV"
"""The letters of `strftime` directives; after a dash, the part is written without a leading
zero.
"""


def depends_on_date(template: str) -> bool:
    """Returns whether a template writes the date of the day on which it is rendered."""
    return "strftime_now" in template


def pinned_to(template: str, date: datetime.date) -> str:
    """Returns a template that writes `date` in place of the day on which it is rendered.

    A macro of the same name stands before the function that Transformers gives to templates.

    Example:
        >>> from jinja2 import Environment
        >>> pinned = pinned_to("{{ strftime_now('%d %b %Y, 100%%') }}", datetime.date(2026, 1, 5))
        >>> Environment(trim_blocks=True).from_string(pinned).render()
        '05 Jan 2026, 100%'
    """
    if not depends_on_date(template):
        return template
    moment = datetime.datetime.combine(date, datetime.time())
    directives = [f"%{dash}{letter}" for letter in _DIRECTIVES for dash in ("", "-")]
    written = {
        "%%": _PERCENT,
        **{one: _written(moment, one) for one in directives},
        _PERCENT: "%",
    }
    return (
        "{%- macro strftime_now(format) -%}"
        "{%- set ns = namespace(text=format) -%}"
        f"{{%- for one, text in {_literal(written, 'date')}.items() -%}}"
        "{%- set ns.text = ns.text | replace(one, text) -%}"
        "{%- endfor -%}"
        "{{ ns.text }}"
        "{%- endmacro %}\n" + template
    )


def _written(moment: datetime.datetime, directive: str) -> str:
    """Returns a part of a date. Not every platform knows directives with a dash."""
    if directive[1] != "-":
        return moment.strftime(directive)
    return moment.strftime(directive.replace("-", "")).lstrip("0") or "0"


def check_template(template: str, name: str) -> None:
    """Looks at a template before it is compiled.

    Raises:
        ModelError: It is not Jinja; it renders the same conversation differently from time to time;
            or it would compute for ever while it is compiled.
    """
    try:
        tokens = [
            (kind, value)
            for _, kind, value in ImmutableSandboxedEnvironment().lex(template)
            if kind != "whitespace"
        ]
    except JinjaError as error:
        raise ModelError(
            f"The chat template of {name} is not valid Jinja: {error}", fix="give chat_template=..."
        ) from error
    for (kind, value), (_, following) in itertools.pairwise([*tokens, ("", "")]):
        is_random = (kind, value, following) == ("operator", "|", "random") or (kind, value) == (
            "name",
            "lipsum",
        )
        is_endless = kind == "operator" and value == "**"
        factor = (
            following if kind == "operator" and value == "*" else value if following == "*" else ""
        )
        if is_random or is_endless or (factor.isdecimal() and int(factor) > _LARGEST_FACTOR):
            what = (
                "renders a conversation differently each time"
                if is_random
                else "computes with powers or huge products"
            )
            raise ModelError(
                f"The chat template of {name} {what}",
                received=value if is_random else f"{value} {following}",
            )


def check_length(text: str, words: int, name: str) -> None:
    """Refuses a rendered text that is out of all proportion to the words of its conversation.

    Args:
        text: The rendered text.
        words: The characters of the conversation.
        name: What an error calls the model.

    Raises:
        ModelError: It is longer than a million characters and ten for each that was said.
    """
    if len(text) > 1_000_000 + 10 * words:
        raise ModelError(
            f"The chat template of {name} writes {len(text):,} characters for a conversation of"
            f" {words:,}",
            fix="give chat_template=...",
        )


_TOO_MUCH_MEMORY = f"took more than {RENDERING_BYTES / 2**30:g} GB of memory for one conversation"


class _Ended(BaseException):
    """Ends a rendering that takes too much; not an Exception, so that no handler stops it."""


def within_time(call: Callable[[], Result], name: str, seconds: float | None = None) -> Result:
    """Returns what `call` returns, or gives up: nested loops in a template could run for days, and a
    text that is doubled again and again fills any memory.

    The call runs in a thread of its own, in which an exception is raised when its time is over, or
    the process has grown too much.

    Args:
        call: What to call.
        name: What an error calls the model.
        seconds: The time that it may take; `RENDERING_SECONDS` by default.

    Raises:
        ModelError: It took longer, or more than `RENDERING_BYTES`.
    """
    limit = RENDERING_SECONDS if seconds is None else seconds
    found: list[Result] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            found.append(call())
        except BaseException as error:  # raised again below, in the thread of the caller
            raised.append(error)

    too_much = ""
    thread = Thread(target=work, name="chat-template", daemon=True)
    with _RENDERING, _limited_memory():
        thread.start()
        thread.join(_GLANCE_SECONDS)
        if thread.is_alive():
            too_much = _watch(thread, limit - _GLANCE_SECONDS)
        if too_much:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Ended)
            )
            thread.join(1)
    if raised and isinstance(raised[0], MemoryError):
        too_much = _TOO_MUCH_MEMORY
    if too_much:
        raise ModelError(
            f"The chat template of {name} {too_much}",
            fix="give chat_template=..., or shorten the conversation",
        )
    if raised:
        raise raised[0]
    return found[0]


@contextmanager
def _limited_memory() -> Iterator[None]:
    """Lets this process take `RENDERING_BYTES` more than it has; Linux alone knows such a limit.

    One operation of a template can ask for any memory, before any watcher sees it. The limit is
    that of private memory that can be written (`RLIMIT_DATA`), so files that another thread maps
    do not count.
    """
    if not psutil.LINUX:
        yield
        return
    process = psutil.Process()
    soft, hard = process.rlimit(psutil.RLIMIT_DATA)
    allowed = process.memory_info().data + RENDERING_BYTES
    given = [limit for limit in (soft, hard) if limit != psutil.RLIM_INFINITY]
    process.rlimit(psutil.RLIMIT_DATA, (min([allowed, *given]), hard))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_DATA, (soft, hard))


def _watch(thread: Thread, seconds: float) -> str:
    """Waits for a rendering; returns what it took too much of, or nothing where it ended."""
    process, until = psutil.Process(), time.monotonic() + seconds
    before = process.memory_info().rss
    while thread.is_alive():
        if process.memory_info().rss - before > RENDERING_BYTES:
            return _TOO_MUCH_MEMORY
        if time.monotonic() > until:
            limit = seconds + _GLANCE_SECONDS
            return f"was not done with one conversation after {limit:g} s"
        thread.join(_GLANCE_SECONDS)
    return ""


def literal_template(pieces: list[str | int]) -> str:
    """Returns a template that writes given texts and the words of messages, whatever is in either.

    Args:
        pieces: Texts as they are, and the places of messages for their words.

    Example:
        >>> literal_template(["<user>", 0, "</user>"])
        '{{ "<user>" }}{{ messages[0]["content"] }}{{ "</user>" }}'
    """
    written = [
        (
            f'messages[{piece}]["content"]'
            if isinstance(piece, int)
            else json.dumps(piece, ensure_ascii=False)
        )
        for piece in pieces
    ]
    return "".join(f"{{{{ {one} }}}}" for one in written)
