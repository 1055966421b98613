"""Laws of finding out where a file lies: the innermost mount decides, and who does not know says
nothing.
"""

import warnings
from pathlib import Path

import pytest

from domainfusion import files
from domainfusion.files import network_file_system
from domainfusion.models import ResponseStore

MOUNTS = r"""
/dev/sda1 / ext4 rw,relatime 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
tmpfs /home/local tmpfs rw 0 0
//nas/share /mnt/my\040share cifs rw 0 0
user@host:/x /mnt/ssh fuse.sshfs rw 0 0
/dev/sdb1 /mnt/usb fuseblk rw 0 0
server:/a /over nfs rw 0 0
/dev/sdc1 /over xfs rw 0 0
/dev/sdd1 /under btrfs rw 0 0
mds:/ /under lustre rw 0 0
C:\134 /mnt/c 9p rw 0 0
broken line
"""


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "mounts"
    file.write_text(MOUNTS)
    monkeypatch.setattr(files, "MOUNTS", file)
    return file


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/run/s.sqlite", None),
        ("/home/me/run/s.sqlite", "nfs4"),
        ("/home", "nfs4"),
        ("/homestead/s.sqlite", None),
        ("/home/local/run/s.sqlite", None),
        ("/home/local/../me/s.sqlite", "nfs4"),
        ("/mnt/my share/s.sqlite", "cifs"),
        ("/mnt/ssh/s.sqlite", "fuse.sshfs"),
        ("/mnt/usb/s.sqlite", None),
        ("/over/s.sqlite", None),
        ("/under/s.sqlite", "lustre"),
        ("/mnt/c/s.sqlite", "9p"),
    ],
)
def test_the_innermost_and_latest_mount_decides(
    mounts: Path, path: str, expected: str | None
) -> None:
    assert network_file_system(Path(path)) == expected


def test_where_nothing_lists_what_is_mounted_nothing_is_said(mounts: Path) -> None:
    mounts.unlink()
    assert network_file_system(Path("/home/me")) is None
    mounts.write_bytes(b"")
    assert network_file_system(Path("/home/me")) is None


def test_a_path_is_looked_at_where_it_really_is(mounts: Path, tmp_path: Path) -> None:
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path / 'far'} nfs rw 0 0\n")
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    assert network_file_system(tmp_path / "near" / "s.sqlite") == "nfs"
    assert network_file_system(tmp_path / "s.sqlite") is None


def test_a_store_on_a_network_file_system_is_opened_with_a_warning_that_says_what_to_do(
    mounts: Path, tmp_path: Path
) -> None:
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path / 'far'} nfs4 rw 0 0\n")
    with (
        pytest.warns(UserWarning, match=r"network file system \(nfs4\).*local disk") as caught,
        ResponseStore(tmp_path / "far" / "s.sqlite"),
    ):
        pass
    assert Path(caught[0].filename) == Path(
        __file__
    )  # the warning points at whoever opened the store
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ResponseStore(tmp_path / "near.sqlite").close()
