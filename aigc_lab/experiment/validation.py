"""Plain data validated by a pydantic model; an error is one sentence at its key."""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from aigc_lab.experiment.space import misspelt_hole
from aigc_lab.experiment.yaml_file import KeyPath, shown, unknown_key

M = TypeVar("M", bound=BaseModel)
# Sections whose key `name` is what may be meant by a bare word.
_NAMED: tuple[KeyPath, ...] = (("data",), ("system",))


def validated(model: type[M], data: Any, fail: Callable[[KeyPath, str], NoReturn]) -> M:
    """The model of plain data. The first error is passed to `fail` as its key and a sentence."""
    try:
        return model.model_validate(data, strict=True)
    except ValidationError as error:
        # An unknown key comes first: a key may be missing because it is misspelt.
        first = min(error.errors(), key=lambda each: each["type"] == "missing")
        path = tuple(first["loc"])
        match first["type"]:
            case "extra_forbidden":
                fail(path, unknown_key(str(path[-1]), _fields(model, path[:-1])))
            case "missing":
                fail(path, "this key is missing")
            case "dict_type" | "model_type":
                bare = path in _NAMED and isinstance(first["input"], str)
                remedy = f"; write {{name: {first['input']}}}" if bare else ""
                fail(path, f"it should hold keys and values, not {shown(first['input'])}{remedy}")
            case "value_error":
                fail(path, first["msg"].removeprefix("Value error, "))
            case _:
                message = first["msg"].replace("Input should be", "it should be")
                fail(path, f"{message}, not {shown(first['input'])}{_hint(first)}")


def _hint(error: Mapping[str, Any]) -> str:
    """What a wrong value was meant to be, where that is near."""
    given = error["input"]
    if kind := misspelt_hole(given):
        return f"; did you mean {kind}?"
    options = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
    near = get_close_matches(given, options, n=1, cutoff=0.6) if isinstance(given, str) else []
    return f"; did you mean {near[0]}?" if near else ""


def _fields(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """The keys of the nested model at a path."""
    for part in path:
        if isinstance(part, int):  # an entry of a list
            continue
        kind = model.model_fields[part].annotation
        options = [kind, *getattr(kind, "__args__", ())]
        model = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return list(model.model_fields)
