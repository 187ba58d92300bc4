"""Modules that are functions too: `aigc_lab.runs()` lists runs, and `aigc_lab.runs.run` is a module all the same.

Where a function of a package's face has the name of a module, whichever is bound last would hide the other. Instead the
module itself is called, whatever was imported first.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


class CalledModule(ModuleType):
    """A module that is called as the function `__wrapped__`, whose signature it shows."""

    __wrapped__: Callable[..., Any]

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.__wrapped__(*args, **options)


class _Face(ModuleType):
    """The package. What it calls its modules by stands in `__functions__`."""

    __functions__: Mapping[str, Callable[..., Any]]

    def __getattr__(self, name: str) -> Any:
        if name in self.__functions__:
            return importlib.import_module(f"{self.__name__}.{name}")
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        # Whoever imports a module, the import system binds it here.
        function = self.__functions__.get(name)
        if function is not None and isinstance(value, ModuleType):
            value.__class__ = CalledModule
            value.__dict__["__wrapped__"] = function
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__functions__})


def install(package: str, functions: Mapping[str, Callable[..., Any]]) -> None:
    """Makes the modules of a package that `functions` names callable. None of them is imported before it is used."""
    face = sys.modules[package]
    face.__dict__["__functions__"] = functions
    face.__class__ = _Face
