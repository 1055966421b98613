"""Tells files that lie on another machine from those on a disk of this one: SQLite is at home on
the latter alone.
"""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/mounts")
"""Where Linux lists what is mounted: device, folder and kind, a line for each. Other systems have
no such list.
"""

_KINDS = re.compile(
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
    return kind if _KINDS.fullmatch(kind) else None


def _unescape(folder: str) -> str:
    """Undoes the escapes of blanks and backslashes, which are octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), folder)
