"""Contestants of `aigc-lab bench --peers DIR`: files of a user's folder, each of which trains the same GANs its way.

A contestant is a file `*.py` that has, at its top level,

    NAME = "what tables call it"

    def prepare(network, batch_size, device, threads):
        ...

`prepare` is called once for each network, `"mlp"` and `"dcgan"` (`usual_gans` says what they are, and
`usual_gans.networks(network)` builds them), and gives what takes one training step at each call, or an iterator of
which each item is a step: the critic's and the generator's update on `batch_size` pictures of 1×32×32. It gives None
for a network that it does not train. Data are its own; what it prints is not shown.

Other files of the folder are read, and not run, unless a contestant imports them. A contestant's code runs in this
process, with all that the user may do.
"""

import ast
import contextlib
import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from aigc_lab.errors import UsageError
from aigc_lab.host import confined

_FORM = "a contestant has NAME = '…' and def prepare(network, batch_size, device, threads)"


@dataclass(frozen=True)
class Contestant:
    """A loaded file: its name in tables, and what prepares a network."""

    name: str
    path: Path
    prepare: Callable[[str, int, str, int], object]

    def step(self, network: str, batch_size: int, device: str, threads: int) -> Callable[[], object] | None:
        """What takes one step; None for a network that it does not train. Raises `UsageError`, with the line, for a
        file that fails.
        """
        with _quiet(self.path), _beside(self.path.parent):
            prepared = self.prepare(network, batch_size, device, threads)
        if prepared is None:
            return None
        if isinstance(prepared, Iterator):
            return self._guarded(lambda: next(prepared))
        if callable(prepared):
            return self._guarded(prepared)
        kind = type(prepared).__name__
        raise UsageError(f"{self.path}: prepare gives {kind}; it gives a function that takes a step, or an iterator")

    def _guarded(self, step: Callable[[], object]) -> Callable[[], object]:
        def guarded() -> None:
            with _quiet(self.path):
                step()

        return guarded


def found(folder: Path) -> list[Path]:
    """Contestants of a folder, by the names at the top level of its files; nothing is run. Raises `UsageError` for a
    folder that is not there or has none, and for a file that Python cannot read.
    """
    if not folder.is_dir():
        raise UsageError(f"--peers {folder}: is no folder; name one whose files are contestants ({_FORM})")
    files = sorted(folder.glob("*.py"))
    contestants = [path for path in files if {"NAME", "prepare"} <= _top_level(path)]
    if not contestants:
        raise UsageError(f"--peers {folder}: none of its {len(files)} Python files is a contestant; {_FORM}")
    return contestants


def load(folder: Path) -> list[Contestant]:
    """All contestants of a folder. Raises `UsageError` for the first file that is broken, naming its line."""
    contestants = [_loaded(path) for path in found(folder)]
    by_name: dict[str, Path] = {}
    for each in contestants:
        if each.name in by_name:
            raise UsageError(
                f"{each.path}: NAME {each.name!r:.60} is that of {by_name[each.name].name} too; change one"
            )
        by_name[each.name] = each.path
    return contestants


def _loaded(path: Path) -> Contestant:
    source = path.read_bytes()
    name = f"aigc_lab_peers.{hashlib.sha256(str(path.resolve()).encode() + source).hexdigest()[:16]}.{path.stem}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module  # dataclasses look their module up while it is being made
        try:
            with _quiet(path), _beside(path.parent):
                exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 -- --peers names code to be run
        except BaseException:
            del sys.modules[name]
            raise
    module = sys.modules[name]
    called: Any = module.__dict__.get("NAME")
    if not isinstance(called, str) or not called.strip():
        raise UsageError(f"{path}: NAME is {called!r:.60}; {_FORM}")
    prepare: Any = module.__dict__.get("prepare")
    if not callable(prepare):
        raise UsageError(f"{path}: prepare is no function; {_FORM}")
    return Contestant(" ".join(called.split()), path, prepare)


def _top_level(path: Path) -> set[str]:
    """Names that a file's top level defines by `def` and `=`."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise UsageError(f"{path}{f':{line}' if line else ''}: {getattr(error, 'msg', error)}") from None
    except (OSError, RecursionError, MemoryError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from None
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


@contextlib.contextmanager
def _quiet(path: Path) -> Iterator[None]:
    """Context in which a contestant's prints go nowhere and its errors become a `UsageError` that names the line."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (KeyboardInterrupt, UsageError):
        raise
    except BaseException as error:
        where = confined.line_of(error, [str(path)]) or str(path)
        text = f"{type(error).__name__}{f': {error}' if str(error) else ''}"
        raise UsageError(f"{where}: {text}") from error


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Context in which modules of a folder can be imported."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
