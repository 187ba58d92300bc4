"""Plugins are files: the file's name is the registry, and there are no lists to update.

`find(System, "dcgan")` imports `aigc_lab/systems/dcgan.py` and returns the one subclass of `System` that it defines.
`find(System, "./mine.py")` does the same with a user's file, and an installed package offers its own under the entry
point group `aigc_lab.systems` (`aigc_lab.data`, `aigc_lab.metrics`, …). Names and descriptions are read without
importing anything, so that listing them needs no torch.
"""

import ast
import hashlib
import importlib
import inspect
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple, TypeVar

from aigc_lab import __version__
from aigc_lab.errors import UsageError
from aigc_lab.host import confined, files
from aigc_lab.host.content import unknown_name
from aigc_lab.host.trust import Allowed

T = TypeVar("T")

# What a user calls the plugins of a folder.
_NOUN = {
    "systems": "system",
    "data": "dataset",
    "metrics": "metric",
    "extractors": "feature extractor",
    "executors": "executor",
    "penalties": "penalty",
    "augmentations": "augmentation",
    "pruners": "pruner",
    "optimizers": "optimizer",
    "modalities": "modality",
}
#: a key of an experiment whose value names a plugin, beside `name` itself -> the folder of these plugins
KEYS = {"penalty": "penalties", "augment": "augmentations", "pruner": "pruners", "optimizer": "optimizers"}
# More is no source code that somebody wrote.
_LARGEST = 16 << 20
# Modules made of users' files: named by content, so that a changed file is another module.
_FILES = "aigc_lab_files"
_SOURCES: dict[str, bytes] = {}
_NAMES: dict[type, str] = {}


class Named(NamedTuple):
    """Marks a field of a `Config` as the name of a plugin of a folder: `Annotated[str, Named("penalties")]`."""

    folder: str

    @property
    def options(self) -> list[str]:
        """Names of the plugins of the folder, "none" first."""
        return sorted(names(self.folder), key=lambda name: (name != "none", name))

    def check(self, name: str) -> str:
        """The name, if it is that of a plugin or of a file. Raises `UsageError` with the nearest names."""
        if not is_file(name) and name not in names(self.folder):
            raise UsageError(unknown_name(_NOUN[self.folder], name, self.options))
        return name


def named(field: Any) -> Named | None:
    """`Named` mark of a field of a `Config`; None if the field names no plugins."""
    return next((mark for mark in field.metadata if isinstance(mark, Named)), None)


def names(folder: str) -> list[str]:
    """Names of the plugins of one folder of the package (`systems`, `data`, `metrics`), sorted; installed ones
    included.
    """
    return sorted({*_own(folder), *_installed(folder)})


def describe(folder: str) -> dict[str, str]:
    """First line of each plugin's docstring by name, without importing the files; for an installed one, its package."""
    place = Path(__file__).parent / folder
    texts = {name: ast.get_docstring(ast.parse((place / f"{name}.py").read_text("utf-8"))) for name in _own(folder)}
    described = {name: (text or "").partition("\n")[0] for name, text in texts.items()}
    for name, point in _installed(folder).items():
        described.setdefault(name, f"from the installed package {point.dist.name if point.dist else point.module}")
    return dict(sorted(described.items()))


def find(base: type[T], name: str, near: Path | None = None, allowed: Allowed | None = None) -> type[T]:
    """The class that the plugin `name` defines for `base` (`System`, `Dataset`, `Metric`).

    A name that ends in `.py` is a file, looked up in the folder `near` and then in the working directory; it runs only
    if `allowed` does not raise. Raises `UsageError` with the nearest names when there is no such plugin, and for a file
    that is no plugin, with the fault in it.
    """
    if is_file(name):
        return _of_file(base, located(name, near), allowed)
    package = base.__module__.rpartition(".")[0]
    folder = package.rpartition(".")[2]
    if name in _own(folder):
        return _the_class(base, importlib.import_module(f"{package}.{name}"))
    point = _installed(folder).get(name)
    if point is None:
        raise UsageError(unknown_name(_NOUN.get(folder, folder), name, names(folder)))
    return _of_package(base, name, point)


def kinds(bases: Sequence[type], name: str, near: Path | None = None) -> list[type]:
    """Bases for which a name gives a plugin; a file may define several. Raises `UsageError` if there is none."""
    if is_file(name):
        path = located(name, near)
        module = _module(path)
        matching = [base for base in bases if _defined(base, module)]
        if not matching:
            nouns = " or ".join(f"{base.__module__}.{base.__name__}" for base in bases)
            raise UsageError(f"{path}: defines no plugin; a plugin file has one subclass of {nouns}")
        return matching
    folders = {base: base.__module__.split(".")[1] for base in bases}
    matching = [base for base, folder in folders.items() if name in names(folder)]
    if not matching:
        plugin_names = [plugin_name for folder in folders.values() for plugin_name in names(folder)]
        raise UsageError(f"{unknown_name('plugin', name, plugin_names)} (a file's name ends in .py)")
    return matching


def file_of(kind: type) -> Path | None:
    """File that defines a class; None if its module has none."""
    path = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return Path(path) if path else None


def is_file(name: str) -> bool:
    """Whether a plugin's name is the path of a user's file."""
    return name.endswith(".py")


def keyed_files(config: Mapping[str, Any]) -> dict[str, str]:
    """Keys of a plugin's configuration that name users' files of other plugins (`penalty: ./mine.py`), with these
    names.
    """
    return {key: name for key, name in config.items() if key in KEYS and isinstance(name, str) and is_file(name)}


def foreign(name: str) -> str | None:
    """Name of a plugin that is a user's file or comes from an installed package; None for one of this package."""
    if is_file(name):
        return str(located(name, None))
    points = [point for folder in _NOUN if name not in _own(folder) and (point := _installed(folder).get(name))]
    return points[0].value if points else None


def read_source(name: str, near: Path | None = None) -> bytes:
    """Source of a plugin file. Raises `UsageError` when there is no such file, or it is too large."""
    path = located(name, near)
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"{path}: is larger than {_LARGEST >> 20} MB; a plugin is a file of source code")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


def name_of(kind: type) -> str:
    """Name of a plugin class in files and tables: the stem of its file, or the name of its entry point."""
    return _NAMES.get(kind) or kind.__module__.rpartition(".")[2]


def source_of(kind: type) -> bytes | None:
    """Source of a class from a user's file, as it was when it was loaded; None for all others."""
    return _SOURCES.get(kind.__module__)


@contextmanager
def blamed(kind: type, *expected: type[Exception]) -> Iterator[None]:
    """Context in which errors of a user's file become a `UsageError` that names its line. All other errors, and
    `expected` ones, pass unchanged.
    """
    path = getattr(sys.modules.get(kind.__module__), "__file__", None)
    try:
        yield
    except BaseException as error:
        passes = isinstance(error, (UsageError, KeyboardInterrupt, GeneratorExit, *expected))
        if passes or source_of(kind) is None or confined.line_of(error, [str(path)]) is None:
            raise
        raise UsageError(f"{_broken(Path(str(path)), error)}; 'aigc-lab check' tests the file") from error


def raised(error: BaseException) -> str | None:
    """Sentence on an error that a line of a user's file raised; None for all others."""
    frames = traceback.extract_tb(error.__traceback__)
    users = {str(getattr(sys.modules.get(name), "__file__", None)) for name in _SOURCES}
    return _broken(Path(frames[-1].filename), error) if frames and frames[-1].filename in users else None


def load(send: object, file: str) -> None:
    """Loads a user's file in a process of its own, before any other does. Raises `UsageError`."""
    _module(Path(file))
    refuse_threads(file)


def load_package(send: object, folder: str, name: str) -> None:
    """Loads an installed package's plugin in a process of its own, before any other does. Raises `UsageError`."""
    point = _installed(folder)[name]
    _loaded(name, point)
    refuse_threads(point.value)


class LeftRunning(UsageError):
    """A loaded file left a thread running that keeps the process alive."""


def refuse_threads(what: str) -> None:
    """Raises `LeftRunning` when threads would keep this process from ending."""
    main = threading.main_thread()
    if running := [thread.name for thread in threading.enumerate() if thread is not main and not thread.daemon]:
        raise LeftRunning(
            f"{what}: leaves a thread running ({running[0]}) that keeps the process alive; make it a daemon, or start "
            "it where it is needed"
        )


def _own(folder: str) -> list[str]:
    files = (Path(__file__).parent / folder).glob("*.py")
    return sorted(path.stem for path in files if path.stem not in ("__init__", "base"))


@cache
def _installed(folder: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"aigc_lab.{folder}")}


def located(name: str, near: Path | None) -> Path:
    """Path of a plugin file. Raises `UsageError` when there is none."""
    path = Path(name).expanduser()
    places = [Path(place, path) for place in (near, Path.cwd()) if place is not None]
    file = next((place for place in places if files.is_file(place)), None)
    if file is None:
        looked = " and ".join(dict.fromkeys(str(place.parent.resolve()) for place in places))
        raise UsageError(f"{name}: no such file in {looked}")
    return file.resolve()


def _of_file(base: type[T], path: Path, allowed: Allowed | None) -> type[T]:
    kind = _the_class(base, _module(path, allowed))
    _complete(base, kind, str(path))
    return kind


def _module(path: Path, allowed: Allowed | None = None) -> ModuleType:
    """Module of a user's file, run once for each content, and only where `allowed` does not raise."""
    source = read_source(str(path))
    if allowed is not None:
        allowed(path, source)
    name = f"{_FILES}.{hashlib.sha256(source).hexdigest()[:16]}.{path.stem}"
    if name not in sys.modules:
        tree = _compiled(path, source)
        _tried(str(path), confined.content_key([source]), "load", file=str(path))
        module = ModuleType(name, None)
        module.__file__ = str(path)
        sys.modules[name] = module  # dataclasses look their module up while it is being made
        _SOURCES[name] = source
        try:
            with confined.contained():
                exec(tree, module.__dict__)  # noqa: S102 -- the user names a file of code to be run
        except BaseException as error:
            del sys.modules[name], _SOURCES[name]
            if isinstance(error, KeyboardInterrupt):
                raise
            raise UsageError(_broken(path, error)) from None
    return sys.modules[name]


def _compiled(path: Path, source: bytes) -> CodeType:
    try:
        return compile(source, str(path), "exec")
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise UsageError(f"{path}{f':{line}' if line else ''}: {getattr(error, 'msg', error)}") from None
    except (RecursionError, MemoryError, OverflowError) as error:
        raise UsageError(f"{path}: Python cannot read it ({type(error).__name__}); it is nested too deeply") from None


def _tried(what: str, passed: str, how: str, **arguments: str) -> None:
    """Loads a user's code in a process of its own before it is loaded here, once for each content."""
    if confined.seconds() and not confined.has_passed(passed):
        for _ in confined.call(f"{__name__}:{how}", arguments, files=[what], doing="it was imported", quiet=True):
            pass
        confined.remember_pass(passed)


def _broken(path: Path, error: BaseException) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{path}:{lines[-1]}" if lines else str(path)
    if isinstance(error, ModuleNotFoundError):
        if (error.name or "").partition(".")[0] == "aigc_lab":
            return f"{where}: {error}: it is no name of aigc-lab {__version__}"
        return f"{where}: {error}; a plugin is one file: install what it imports, or put it into the file"
    return f"{where}: {type(error).__name__}{f': {error}' if str(error) else ''}"


def _of_package(base: type[T], name: str, point: EntryPoint) -> type[T]:
    if point.dist is not None:
        file = Path(str(point.dist.locate_file(point.module.replace(".", "/"))))
        file = next((path for path in (file.with_suffix(".py"), file / "__init__.py") if files.is_file(path)), file)
        passed = confined.content_key(
            [], point.value, point.dist.version, files.is_file(file) and file.stat().st_mtime_ns
        )
        _tried(str(file), passed, "load_package", folder=point.group.rpartition(".")[2], name=name)
    loaded = _loaded(name, point)
    kind: type[T] = loaded if isinstance(loaded, type) else _the_class(base, loaded)
    if not issubclass(kind, base):
        raise UsageError(f"{point.value} of entry point {name} is not a subclass of {base.__name__}")
    _complete(base, kind, point.value)
    _NAMES[kind] = name
    return kind


def _loaded(name: str, point: EntryPoint) -> Any:
    try:
        with confined.contained():
            return point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 -- a foreign package may fail in any way
        raise UsageError(f"{point.value} of entry point {name}: {type(error).__name__}: {error}") from None


def _the_class(base: type[T], module: ModuleType) -> type[T]:
    classes = _defined(base, module)
    if len(classes) == 1:
        return classes[0]
    defines = f"defines {', '.join(kind.__name__ for kind in classes)}" if classes else f"defines no {base.__name__}"
    raise UsageError(
        f"{module.__file__}: {defines}; a plugin file has one subclass of {base.__module__}.{base.__name__}"
        f"{' (others may begin with an underscore)' if classes else ''}"
    )


def _defined(base: type[T], module: ModuleType) -> list[type[T]]:
    return [
        value
        for key, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not key.startswith("_")
    ]


def _complete(base: type, kind: type, where: str) -> None:
    """Raises `UsageError` for a class that lacks methods or class variables of its base."""
    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    declared = [name for name in base.__annotations__ if "ClassVar" in str(base.__annotations__[name])]
    missing += [name for name in declared if not hasattr(kind, name)]
    if missing:
        what = ", ".join(f"{name}{_signature(base, name)}" for name in missing)
        raise UsageError(f"{where}: {kind.__name__} lacks {what}; see {base.__module__}.{base.__name__}")


def _signature(base: type, name: str) -> str:
    member = getattr(base, name, None)
    return f"({', '.join(inspect.signature(member).parameters)})" if inspect.isfunction(member) else ""
