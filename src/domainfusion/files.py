"""Files and folders that are whole or not there: written beside their place, flushed to the disk,
then renamed; and on which kind of disk a path lies.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_UNFINISHED = ".unfinished-"


@contextmanager
def replacing(path: Path, *, apart: bool = False) -> Iterator[Path]:
    """Gives a temporary path to write to, and puts what was written in the place of `path`.

    After a crash or a power cut, a reader finds the old file or the new one, never a part. Where
    the block raises, the old file stays and the temporary one is removed.

    Args:
        path: The file to write, or a folder that is not there yet; its parent has to be there.
        apart: Whether the temporary path is in a folder of its own, for writers that make further
            files beside it.
    """
    temporary = whole = unfinished(path)
    _discard(temporary)  # of a process that was killed, and had the id that this one has
    try:
        if apart:
            temporary.mkdir()
            whole = temporary / path.name
        yield whole
        flush_to_disk(whole)
        whole.replace(path)
        flush_names(path.parent)
    finally:
        _discard(temporary)


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def unfinished(path: Path) -> Path:
    """Returns where this process writes a file or folder until all of it is there."""
    return path.with_name(f".{path.name}{_UNFINISHED}{os.getpid()}")


def remove_unfinished(folder: Path, names: Collection[str] | None = None) -> None:
    """Removes what processes that have ended had begun to write, and nothing that has another name.

    Args:
        folder: Where.
        names: The files that are looked for, in the folder itself; None looks for all, in the
            folders within it too.
    """
    for path in list(folder.rglob("*") if names is None else folder.iterdir()):
        process = writer_of_unfinished(path, names)
        if process is not None and not _is_alive(process):
            _discard(path)


def _is_alive(process: int) -> bool:
    """Whether another process has this id. In containers, ids are often reused, by this process
    too.
    """
    try:
        return process != os.getpid() and psutil.pid_exists(process)
    except OverflowError:
        return False


def writer_of_unfinished(path: Path, names: Collection[str] | None = None) -> int | None:
    """Returns the process that had begun to write `path`; None unless it is an unfinished file, of
    one of these names if given.

    Example:
        >>> writer_of_unfinished(Path(".run.json.unfinished-17"), ["run.json"])
        17
        >>> writer_of_unfinished(Path(".venv-3.11"), ["run.json"]) is None
        True
    """
    name, mark, process = path.name.removeprefix(".").rpartition(_UNFINISHED)
    is_ours = mark and path.name.startswith(".") and name and (names is None or name in names)
    return int(process) if is_ours and process.isascii() and process.isdecimal() else None


def flush_to_disk(path: Path) -> None:
    """Waits until the bytes of a file, or all that is in a folder, are on the disk."""
    if not path.is_dir():
        _fsync(path)
        return
    for inner in path.iterdir():
        if not inner.is_symlink():
            flush_to_disk(inner)
    flush_names(path)


def flush_names(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, as after a file in it is renamed."""
    if os.name != "nt":  # Windows flushes them by itself, and can't open a folder
        _fsync(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # which, unlike that of opening it, does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def checksum_of(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def make_readable(folder: Path) -> None:
    """Gives the files of a folder the permissions that any new file has: some writers make theirs
    for their owner alone.
    """
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~mask)


MOUNTS = Path("/proc/mounts")
"""Where Linux lists what is mounted: device, folder and kind, a line for each. Other systems have
no such list.
"""

# The kinds of network file systems, as Linux names them.
_NETWORK_KINDS = re.compile(
    r"nfs\d?|cifs|smbfs|smb3|9p|afs|ceph|lustre|gpfs|beegfs|pvfs2|orangefs|ocfs2|gfs2|fuse\.(sshfs|s3fs|gcsfuse|rclone|\w*gluster\w*|\w*ceph\w*)"
)


def network_file_system(path: Path) -> str | None:
    """Returns the kind of the network file system on which `path` is, or would be; None on a local
    disk or where nobody knows.

    Example:
        >>> network_file_system(Path("/proc/self")) is None
        True
    """
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    mounted = [
        (Path(_unescape(fields[1])), fields[2])
        for fields in map(str.split, lines)
        if len(fields) > 2
    ]
    wanted = path.resolve()
    # What was mounted last over a folder hides what was there.
    over = [
        (len(folder.parts), place, kind)
        for place, (folder, kind) in enumerate(mounted)
        if wanted.is_relative_to(folder)
    ]
    kind = max(over, default=(0, 0, ""))[2]
    return kind if _NETWORK_KINDS.fullmatch(kind) else None


def _unescape(folder: str) -> str:
    """Undoes the escapes of blanks and backslashes, which are octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), folder)
