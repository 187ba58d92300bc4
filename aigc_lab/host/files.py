"""Files that are whole or absent, whatever happens while they are written."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

# `.name.`, what `tempfile` adds, and an end that says what it is.
_UNFINISHED = ".unfinished"
# What a disk says that takes nothing, whoever asks: it is full, may not be written, or is broken.
_REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


def refused(error: OSError) -> str | None:
    """Path and reason of an error with which the disk itself refuses (full, read-only, broken);
    None for other errors.
    """
    if error.errno not in _REFUSALS:
        return None
    return f"{error.filename or 'the disk'}: {error.strerror}"


# What a file system says of a path that somebody gave, and what helps.
_DENIALS = {
    errno.EACCES: "allow it, or name another place",
    errno.EPERM: "allow it, or name another place",
    errno.EROFS: "name another place",
    errno.ENOSPC: "make room, and give the command again",
    errno.EDQUOT: "make room, and give the command again",
    errno.ENAMETOOLONG: "each part of a path has 255 bytes at most: choose a shorter name",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EISDIR: "name a file",
    errno.EEXIST: "name another place",
    errno.ENOTEMPTY: "name another place",
    errno.ENOENT: "make it, or name another place",
    errno.ELOOP: "it is a link that leads to itself",
    errno.EIO: "the disk is broken",
    errno.EMFILE: "this process may open more files: ulimit -n",
}


def denied(error: OSError) -> str | None:
    """Path, reason and remedy of an error with which a file system refuses; None for other errors."""
    if error.errno not in _DENIALS:
        return None
    return f"{error.filename or 'the disk'}: {error.strerror}; {_DENIALS[error.errno]}"


def write_atomically(path: Path, content: bytes) -> None:
    """Writes beside the target, syncs, and renames: a reader sees the old file or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """Context with a temporary file beside `path` to write to. It is then synced and replaces `path`, with `mode` less
    the umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file name has 255 bytes at most, and `tempfile` adds to it.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=_UNFINISHED)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(mode & ~umask())  # a temporary file is its owner's alone; this one is to be read
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)  # the name survives a power cut only with the folder
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a write that fails does not say where
        raise


def share(source: Path, target: Path) -> None:
    """Makes `target` the file at `source`, whole or not at all: a hard link where the disk can link, else a copy.

    A shared file may only be replaced, as `write_atomically` does, and never be changed in place. It is therefore
    read-only, so that a program that would change it (MLflow's upload of an artifact) is refused.
    """
    if target.exists() and target.samefile(source):
        return
    with replacing(target, 0o444) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except FileNotFoundError:
            raise
        except OSError:  # another disk, one that knows no links, or a file that has as many as it may
            shutil.copyfile(source, temporary)


def clear_unfinished(folder: Path) -> None:
    """Removes, at any depth, the temporary files of `replacing` whose process died."""
    for path in folder.rglob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def umask() -> int:
    """Umask of this process. Linux reports it; elsewhere it can only be read by setting it."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
        return int(status.partition("Umask:")[2].split()[0], 8)
    except (OSError, IndexError):
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


@contextmanager
def locked(path: Path | None, *, wait: bool = True) -> Iterator[None]:
    """Context that holds a lock file among processes; the kernel releases the lock of a process that died. None locks
    nothing.

    Raises `BlockingIOError` when another process holds it and `wait` is false.
    """
    if path is None:
        yield
        return
    with ExitStack() as stack:
        while not _lock(file := stack.enter_context(path.open("a")), path, wait):
            file.close()
        yield


def _lock(file: IO[str], path: Path, wait: bool) -> bool:
    """Whether the locked file is the one at `path`: the previous holder may have deleted it."""
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def beside(path: Path | None) -> Path | None:
    """Lock file of a database file; None for a server, which locks by itself."""
    return None if path is None else path.with_name(f"{path.name}.lock")


def sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_file(path: Path) -> bool:
    """Whether there is a file; no file has a name that is too long for one."""
    try:
        return path.is_file()
    except OSError:
        return False
