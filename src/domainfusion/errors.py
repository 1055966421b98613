"""Every error that domainfusion raises on purpose, with the standard class that each also inherits.

The tree:

    DomainFusionError
    ├── ConfigurationError (ValueError)     an argument, a recipe or a combination that can't be right
    ├── CapabilityError (TypeError)         a model is asked for something that it can't do
    ├── MissingDependencyError (ImportError) an optional package is not installed
    ├── DataError (ValueError)              a file, a record or an example that can't be read
    ├── TemplateError (ValueError)          a prompt template that can't be filled
    ├── ModelError (RuntimeError)           a model that can't be loaded, or that failed to answer
    ├── StoreError (RuntimeError)           the store of answers is damaged or of another version
    ├── RunError (RuntimeError)             a run directory that is in use, or belongs to other inputs
    └── TrainingError (RuntimeError)        training that can't continue
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

__all__ = [
    "CapabilityError",
    "ConfigurationError",
    "DataError",
    "DomainFusionError",
    "MissingDependencyError",
    "ModelError",
    "RunError",
    "StoreError",
    "TemplateError",
    "TrainingError",
]

# Control characters but for tab and line breaks, marks that turn the direction of writing, surrogates.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST_VALUE = 200
_LONGEST_MESSAGE = 8_000
"""Characters; what a server or a file says stands in messages, too."""


def printable(text: str) -> str:
    r"""Returns `text` with what could steer a terminal, turn the reading direction or break UTF-8
    shown as a replacement character.

    Example:
        >>> printable("Oslo\x1b[2J")
        'Oslo�[2J'
    """
    return _UNPRINTABLE.sub("�", text.replace("\r\n", "\n"))


class DomainFusionError(Exception):
    """The root of the tree above.

    Args:
        what: What went wrong, in one sentence without a final stop.
        received: The value received, shown by `repr`; left out where it is None.
        allowed: What is allowed instead.
        fix: What to do about it.
        field: The argument that is wrong, where the sentence does not begin with its name.

    Attributes:
        field: The argument that is wrong; empty where the sentence names it, or where there is not
            one alone.

    Example:
        >>> print(ConfigurationError("num_examples is not positive", received=0, allowed="a whole number from 1", fix="ask for more"))
        num_examples is not positive; received 0; allowed: a whole number from 1. To fix it: ask for more.
    """

    def __init__(
        self,
        what: str,
        *,
        received: object = None,
        allowed: str = "",
        fix: str = "",
        field: str = "",
    ) -> None:
        self.field = field
        message = what
        if received is not None:
            message += f"; received {clipped(repr(received), _LONGEST_VALUE)}"
        if allowed:
            message += f"; allowed: {allowed}"
        if fix:
            message += f". To fix it: {fix}"
        # Unpickling passes the whole message as `what`: it must come out as it went in.
        message = printable(message).removesuffix(".")
        if len(message) > _LONGEST_MESSAGE:
            message = f"{message[: _LONGEST_MESSAGE - 100]}… ({len(message):,} characters)"
        super().__init__(f"{message}.")


def clipped(text: str, limit: int) -> str:
    """Returns `text`, cut at `limit` characters with its true length named."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"


class ConfigurationError(DomainFusionError, ValueError):
    """An argument, a recipe or a combination that can't be right."""


class CapabilityError(DomainFusionError, TypeError):
    """A model is asked for something that it can't do."""


class MissingDependencyError(DomainFusionError, ImportError):
    """An optional package is not installed."""


class DataError(DomainFusionError, ValueError):
    """A file, a record or an example that can't be read."""


class TemplateError(DomainFusionError, ValueError):
    """A prompt template that can't be filled."""


class ModelError(DomainFusionError, RuntimeError):
    """A model that can't be loaded, or that failed to answer.

    Attributes:
        unanswered: The conversations that a model left without an answer, each with the reason,
            where it reported all others; empty where nobody knows.
    """

    unanswered: Mapping[Any, str] = MappingProxyType({})


class StoreError(DomainFusionError, RuntimeError):
    """The store of answers is damaged or of another version."""


class RunError(DomainFusionError, RuntimeError):
    """A run directory that is in use, or belongs to other inputs."""


class TrainingError(DomainFusionError, RuntimeError):
    """Training that can't continue."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns the advice to write the nearest of the known names; empty where none is near.

    Example:
        >>> suggestion("epoks", ["epochs", "seed"]), suggestion("batch", ["path", "batch_size"]), suggestion("x", ["seed"])
        ('write epochs', 'write batch_size', '')
    """
    names = list(known)
    nearest = [other for other in names if name and other.startswith(name)]
    nearest = nearest or difflib.get_close_matches(name, names, n=1)
    return f"write {nearest[0]}" if nearest else ""


def advice_on(error: Exception) -> str:
    """Returns what to do about a file that can't be read or written; each cause has its own.

    Libraries in other languages, such as safetensors, name the cause in words alone.

    Example:
        >>> advice_on(OSError(errno.ENOSPC, "No space left on device"))
        'free disk space and run again; what was finished is kept'
    """
    number = error.errno if isinstance(error, OSError) else None
    named = next(
        (
            code
            for code in _ADVICE
            if f"os error {code}" in str(error) or os.strerror(code) in str(error)
        ),
        0,
    )
    if not (number or named) and "write failed" in str(
        error
    ):  # all that PyTorch's writer says of a full disk
        named = errno.ENOSPC
    return _ADVICE.get(
        number or named, "check the path, its permissions and the space that is left on its disk"
    )


_FREE_SPACE = "free disk space and run again; what was finished is kept"
_ALLOW = "allow this user to read and write there"
_CHECK_DISK = (
    "the disk reports an error: check it (the system's log says more) before anything is deleted"
)
_ADVICE: Mapping[int, str] = MappingProxyType(
    {
        errno.ENOSPC: _FREE_SPACE,
        errno.EDQUOT: (
            "free space within the quota, or have it raised, and run again; what was finished is"
            " kept"
        ),
        errno.EACCES: _ALLOW,
        errno.EPERM: _ALLOW,
        errno.EROFS: "the file system is mounted read-only: mount it for writing",
        errno.EIO: _CHECK_DISK,
        errno.ENAMETOOLONG: "choose a shorter path",
        errno.ELOOP: "check the links in the path: one leads back to itself",
        errno.ENOENT: "check the path",
        errno.EISDIR: "this is a folder: name a file",
        errno.EEXIST: "there is a file of this name: name a folder, or move the file away",
        errno.ENOTDIR: "a part of the path is a file: check the path",
        errno.EMFILE: "allow more open files (ulimit -n 4096), and run again",
    }
)
