"""Published weights of pretrained networks: found on this machine or downloaded, and verified before they are used."""

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
    """Where weights are looked for, and which are good enough: a `file` that was named is the only one that is used;
    else a `folder` (AIGC_LAB_WEIGHTS_DIR) and then torch's hub folder. A file that is not the published one is
    refused, unless unverified ones are allowed: every score's signature then says so.
    """

    folder: Path | None = None
    file: Path | None = None
    allow_unverified: bool = False


#: the published files, wherever torch keeps them
PUBLISHED = WeightsPolicy()


@dataclass(frozen=True)
class Published:
    """A file of weights as its authors publish it. `others` are names under which the same bytes are published too."""

    what: str
    file: str
    sha256: str
    address: str
    others: tuple[str, ...] = ()

    def found(self, policy: WeightsPolicy) -> Path | None:
        """The file that would be used, or None. Nothing is read: `verified` does that.

        Raises `UsageError` where the file that was named is none.
        """
        if policy.file is not None:
            if not policy.file.is_file():
                raise UsageError(f"{policy.file}: there is no such file of {self.what}'s weights")
            return policy.file
        places = [folder / name for folder in _folders(policy) for name in (self.file, *self.others)]
        return next((place for place in places if place.is_file()), None)

    def verified(self, path: Path, policy: WeightsPolicy) -> str:
        """How an identity names the weights: the first eight digits of their sha256, after `unverified:` where that is
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
        """The file that is used: found, or downloaded into the first folder that is looked in, whole and verified or
        not at all. Raises `UsageError` where neither is possible.
        """
        found = self.found(policy)
        if found is not None:
            return found
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
    """The sha256 of all that was copied. A terminal sees the progress, and a log each quarter.

    Raises `OSError` where less came than was announced: a proxy may hang up without a word.
    """
    digest, done, told = hashlib.sha256(), 0, 0
    while block := source.read(_BLOCK):
        sink.write(block)
        digest.update(block)
        done += len(block)
        if total and sys.stderr.isatty():
            shown = f"\r{done / 2**20:.0f} of {total / 2**20:.0f} MiB"
            print(shown, end="", file=visible.beneath(sys.stderr), flush=True)
        elif total and 4 * done // total > told:
            told = 4 * done // total
            say(f"{done / 2**20:.0f} of {total / 2**20:.0f} MiB")
    if total and sys.stderr.isatty():
        print(file=sys.stderr)
    if done < total:
        raise urllib.error.URLError(f"it ended after {done} of {total} bytes")
    return digest.hexdigest()
