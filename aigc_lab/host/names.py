"""Names of metrics, parameters and pictures that MLflow, the registry and file systems accept."""

import posixpath
import re
from collections.abc import Iterable

_LENGTH = 250


def checked(noun: str, name: str) -> str:
    """The name, if every store accepts it. Raises `ValueError` for any other, so that it fails where it is written and
    not after everything under it has been computed.
    """
    allowed = r"[\w./ -]+" if noun in ("image", "artifact") else r"[\w./: -]+"
    unsafe = name.startswith(("/", "..")) or posixpath.normpath(name) != name or name == "."
    if len(name) > _LENGTH or not re.fullmatch(allowed, name, re.ASCII) or unsafe:
        raise ValueError(f"{noun} name {name!r}: use letters, digits, and _-./ as in a relative path")
    return name


def refuse_curves(phases: Iterable[str], scalars: Iterable[str] = ()) -> None:
    """Raises `ValueError` for the first phase or training scalar whose curve no store would accept."""
    for phase in phases:
        checked("phase", phase)
        checked("metric", f"dynamics/grad_norm/{phase}")
    for name in scalars:
        checked("metric", name)


def refuse_scores(names: Iterable[object]) -> None:
    """Raises `ValueError` for the first score's name that no store would accept."""
    for name in names:
        if not isinstance(name, str) or not name or not _is_storable(f"score/{name}_holdout"):
            most = _LENGTH - len("score/_holdout")
            raise ValueError(
                f"no store takes a score called {name!r:.100}: name it with letters, digits and _ . -, {most} at most"
            )


def refuse_parameters(fields: Iterable[str]) -> None:
    """Raises `ValueError` for the first field of a `Config` that could not be a parameter of a run."""
    for field in fields:
        checked("param", f"training.{field}")


def _is_storable(metric: str) -> bool:
    try:
        checked("metric", metric)
    except ValueError:
        return False
    return True
