"""Published weights of pretrained networks: located on this machine or downloaded, and verified before use."""

import hashlib
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from aigc_lab.errors import UsageError
from aigc_lab.host import visible
from aigc_lab.host.files import replacing, sha256

Say = Callable[[str], None]
# Seconds without a byte after which a server is given up.
_PATIENCE = 20.0
_BLOCK = 2**20


@dataclass(frozen=True)
class WeightsPolicy:
    """Places and requirements of weights. A given `file` is the only candidate; else `folder` (AIGC_LAB_WEIGHTS_DIR)
    and then torch's hub folder are searched.

    Files that are not the published ones are refused unless `allow_unverified`; every score's signature then says so.
    """

    folder: Path | None = None
    file: Path | None = None
    allow_unverified: bool = False


#: the published files, wherever torch keeps them
PUBLISHED = WeightsPolicy()


@dataclass(frozen=True)
class Published:
    """File of weights as its authors publish it. `others` are further names under which the same
    bytes are published.
    """

    what: str
    file: str
    sha256: str
    address: str
    others: tuple[str, ...] = ()

    def found(self, policy: WeightsPolicy) -> Path | None:
        """File that would be used, or None; its content is checked by `verified`. Raises `UsageError` where the
        policy's file does not exist.
        """
        if policy.file is not None:
            if not policy.file.is_file():
                raise UsageError(f"{policy.file}: there is no such file of {self.what}'s weights")
            return policy.file
        places = [folder / name for folder in _folders(policy) for name in (self.file, *self.others)]
        return next((place for place in places if place.is_file()), None)

    def verified(self, path: Path, policy: WeightsPolicy) -> str:
        """Name of the weights in an identity: the first eight digits of their sha256, after `unverified:` where it is
        not the published one. Raises `UsageError` where that is not allowed.
        """
        try:
            digest = sha256(path)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
        if digest == self.sha256:
            return digest[:8]
        if policy.allow_unverified:
            return f"unverified:{digest[:8]}"
        raise UsageError(
            f"{path}: its sha256 begins with {digest[:8]} and not with {self.sha256[:8]}: it is damaged or not the "
            f"published file; take it from {self.address}, or allow it with --allow-unverified-weights"
        )

    def fetched(self, policy: WeightsPolicy, say: Say) -> Path:
        """File of the weights: an existing one, or one downloaded into the first folder, verified and whole. Raises
        `UsageError` where neither is possible.
        """
        path = self.found(policy)
        if path is not None:
            return path
        target = _folders(policy)[0] / self.file
        say(f"downloading {self.what}'s weights, once: {self.address}")
        try:
            with urllib.request.urlopen(self.address, timeout=_PATIENCE) as source, replacing(target) as temporary:
                with temporary.open("wb") as sink:
                    digest = _copied(source, sink, int(source.headers.get("Content-Length") or 0), say)
                if digest != self.sha256:
                    raise UsageError(
                        f"what came from {self.address} is not {self.file}: its sha256 begins with {digest[:8]} and "
                        f"not with {self.sha256[:8]}; nothing was kept; download it by hand and name it with --weights"
                    )
        except OSError as error:  # urllib's errors, time-outs, a full disk
            reason = getattr(error, "reason", None) or error.strerror or error
            raise UsageError(
                f"{self.what}'s weights: {self.file} is neither in AIGC_LAB_WEIGHTS_DIR nor in torch's hub folder and "
                f"cannot be downloaded ({reason}); fetch {self.address} elsewhere and name it with --weights or put "
                f"it into {target.parent}"
            ) from None
        return target


def _folders(policy: WeightsPolicy) -> list[Path]:
    import torch.hub  # seconds: this module is read where no network is made

    hub = Path(torch.hub.get_dir()) / "checkpoints"
    return [policy.folder, hub] if policy.folder else [hub]


def _copied(source: IO[bytes], sink: IO[bytes], total: int, say: Say) -> str:
    """sha256 of the copied bytes. Progress goes to a terminal continuously, and to `say` at each quarter.

    Raises `OSError` where fewer bytes came than were announced: a proxy may close the connection without an error.
    """
    digest, copied, reported_quarter = hashlib.sha256(), 0, 0
    while block := source.read(_BLOCK):
        sink.write(block)
        digest.update(block)
        copied += len(block)
        if total and sys.stderr.isatty():
            progress = f"\r{copied / 2**20:.0f} of {total / 2**20:.0f} MiB"
            print(progress, end="", file=visible.unguarded(sys.stderr), flush=True)
        elif total and 4 * copied // total > reported_quarter:
            reported_quarter = 4 * copied // total
            say(f"{copied / 2**20:.0f} of {total / 2**20:.0f} MiB")
    if total and sys.stderr.isatty():
        print(file=sys.stderr)
    if copied < total:
        raise urllib.error.URLError(f"it ended after {copied} of {total} bytes")
    return digest.hexdigest()
