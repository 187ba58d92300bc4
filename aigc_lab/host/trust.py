"""Trust in code from elsewhere, which runs only after a user of this home has allowed it.

Code that a user names in an own experiment is trusted thereby. Code that came with an exported sweep, beside a file of
weights or in a model of somebody's MLflow is not: `--trust-code` says that it has been read. Trust is stored in
`<home>/trusted.json` by sha256, never by place, so that a file that changes is no longer trusted.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from aigc_lab.errors import UsageError
from aigc_lab.host.files import locked, replacing

#: told of a file of code and its bytes before they are run; raises `UsageError` where they must not be
Allowed = Callable[[Path, bytes], None]

_FORMAT = 1
# Whether the command under way was given --trust-code.
_accepting = False


def trust_file(home: Path) -> Path:
    """File that stores what a home trusts."""
    return home / "trusted.json"


@contextmanager
def accepting(yes: bool) -> Iterator[None]:
    """Context in which untrusted code becomes trusted if `yes`: the user has given --trust-code."""
    global _accepting
    previous, _accepting = _accepting, yes or _accepting
    try:
        yield
    finally:
        _accepting = previous


def gate(home: Path) -> Allowed:
    """Check that passes code which this home trusts, and raises `UsageError` for all other unless --trust-code was
    given.
    """

    def allowed(path: Path, source: bytes) -> None:
        digest = hashlib.sha256(source).hexdigest()
        if digest in trusted(home):
            return
        if not _accepting:
            raise UsageError(
                f"{path}: this code came from elsewhere, or has changed, and nobody has trusted it in {home}, so it is "
                f"not run (sha256 {digest}); read it, and then give the same command with --trust-code: that is "
                "remembered"
            )
        remember(home, {digest: path.name})
        print(f"trusted from now on: {path.name!r}, sha256 {digest}", file=sys.stderr)

    return allowed


def trusted(home: Path) -> set[str]:
    """sha256 of all code that a home trusts. A file that other users could have written counts as empty."""
    return set(_read(trust_file(home)))


def remember(home: Path, code: Mapping[str, str]) -> None:
    """Trusts code (sha256 -> file name) from now on. Raises `UsageError` where that cannot be stored."""
    path = trust_file(home)
    if code.keys() <= _read(path).keys():
        return
    lock = home / "locks" / "trusted.lock"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.parent.mkdir(exist_ok=True)
        with locked(lock), replacing(path, 0o600) as draft:
            content = {"format": _FORMAT, "sha256": _read(path) | dict(code)}
            draft.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}), so trust cannot be remembered") from None


def _read(path: Path) -> dict[str, str]:
    """File names by sha256; empty where the file is absent or damaged, or could have been written by other users."""
    try:
        facts = path.stat()
        if facts.st_uid not in (os.geteuid(), 0) or facts.st_mode & 0o022:
            return {}
        content = json.loads(path.read_bytes())
        return {str(digest): str(name) for digest, name in content["sha256"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
