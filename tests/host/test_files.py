"""Files that are whole or absent."""

import errno
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from aigc_lab import cli
from aigc_lab.cli.output import as_typed as remedied
from aigc_lab.host import content, settings
from aigc_lab.host.files import denied, locked, share, write_atomically
from aigc_lab.host.settings import Settings, as_typed


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_has_the_mode_that_the_user_wants(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "a" / "b.html", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a" / "b.html").stat().st_mode) == 0o666 & ~mask
    assert (tmp_path / "a" / "b.html").read_bytes() == b"content"


def test_one_file_under_two_names_is_written_by_nobody(tmp_path: Path) -> None:
    """Whoever changed it in place would change both; each name can still be replaced, and the other stays."""
    one, other = tmp_path / "one", tmp_path / "a" / "other"
    write_atomically(one, b"weights")
    share(one, other)
    share(one, other)
    assert one.samefile(other) and stat.S_IMODE(other.stat().st_mode) & 0o222 == 0
    write_atomically(other, b"others")
    assert (one.read_bytes(), other.read_bytes()) == (b"weights", b"others")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["verify"], "lost; aigc-lab reconcile --mlflow mine"),
        (["verify", "--home", "my home"], "lost; aigc-lab reconcile --home 'my home' --mlflow mine"),
        (["verify", "--home=h"], "lost; aigc-lab reconcile --home h --mlflow mine"),
        (["verify", "--home"], "lost; aigc-lab reconcile --mlflow mine"),
    ],
)
def test_a_remedy_names_the_home_that_was_named(words: list[str], told: str) -> None:
    """As it was printed, it acted on another home."""
    assert remedied("lost; aigc-lab reconcile --mlflow mine", words) == told
    named = "aigc-lab promote mine --home there"
    assert remedied(named, words) == named and remedied("aigc-lab's own words", words) == "aigc-lab's own words"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_command_is_told_as_it_must_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "my home"
    monkeypatch.chdir(tmp_path)
    root = Path(settings.__file__).parents[2]
    assert as_typed("aigc-lab ui", Settings.load(), None) == "aigc-lab ui"
    assert as_typed("aigc-lab ui", Settings.load(home), home) == f"aigc-lab ui --home '{home}'"
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert as_typed("aigc-lab ui", Settings.load(), None) == f"uv run --project {shlex.quote(str(root))} aigc-lab ui"
    monkeypatch.chdir(root)
    assert as_typed("aigc-lab ui", Settings.load(), None) == "uv run aigc-lab ui"


def test_a_home_that_another_command_makes_meanwhile_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, true = tmp_path / "home", os.mkdir

    def raced(path: Path, *given: int) -> None:
        if path == home:
            true(path, *given)  # by the other one, after this one has looked
        true(path, *given)

    monkeypatch.setattr(os, "mkdir", raced)
    Settings.load(home).prepare()
    assert Settings.load(home).cache.is_dir()


def test_a_new_home_is_its_owners(tmp_path: Path) -> None:
    Settings.load(tmp_path / "deep" / "home").prepare()
    assert stat.S_IMODE((tmp_path / "deep" / "home").stat().st_mode) == 0o700


def test_a_lock_is_held_by_one_process_and_freed_when_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    code = f"""
import sys, time
from pathlib import Path
from aigc_lab.host.files import locked
with locked(Path({str(path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), locked(path, wait=False):
            pass
        holder.kill()
        with locked(path):
            pass
    finally:
        holder.kill()
        holder.wait()
    with locked(None), locked(path, wait=False):
        pass


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG, errno.ENOTDIR])
def test_what_a_file_system_refuses_is_one_line_with_a_remedy(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever command meets it, and wherever."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number), "/some/where")

    monkeypatch.setattr(content, "copy", refuse)
    monkeypatch.setattr(sys, "argv", ["aigc-lab", "init", "x"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    told = capsys.readouterr().err
    assert left.value.code == (2 if number == errno.ENAMETOOLONG else 1) and told.count("\n") == 1
    assert told.startswith(f"error: /some/where: {os.strerror(number)}; ")


def test_what_is_no_refusal_of_a_file_system_keeps_its_traceback() -> None:
    assert denied(ConnectionResetError(errno.ECONNRESET, "reset")) is None
    assert denied(OSError("no number")) is None
