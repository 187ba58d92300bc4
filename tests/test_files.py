"""Files that are whole or absent."""

import os
import stat
from pathlib import Path

import pytest

from aigc_lab.files import write_atomically
from aigc_lab.settings import Settings


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_has_the_mode_that_the_user_wants(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "a" / "b.html", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a" / "b.html").stat().st_mode) == 0o666 & ~mask
    assert (tmp_path / "a" / "b.html").read_bytes() == b"content"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_new_home_is_its_owners(tmp_path: Path) -> None:
    Settings.load(tmp_path / "deep" / "home").prepare()
    assert stat.S_IMODE((tmp_path / "deep" / "home").stat().st_mode) == 0o700
