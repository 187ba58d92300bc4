"""Plain data validated by a pydantic model; an error is one sentence at its key."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from aigc_lab.experiment.yaml_file import KeyPath, shown, unknown_key

if TYPE_CHECKING:
    pass


M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], data: Any, fail: Callable[[KeyPath, str], NoReturn]) -> M:
    """The model of plain data; one error is said in a sentence, at its key."""
    try:
        return model.model_validate(data, strict=True)
    except ValidationError as error:
        # A key that is missing may be one that is misspelt: the misspelling says more.
        first = min(error.errors(), key=lambda each: each["type"] == "missing")
        path = tuple(first["loc"])
        match first["type"]:
            case "extra_forbidden":
                fail(path, unknown_key(str(path[-1]), _fields(model, path[:-1])))
            case "missing":
                fail(path, "this key is missing")
            case "dict_type" | "model_type":
                fail(path, f"it should hold keys and values, not {shown(first['input'])}")
            case "value_error":
                fail(path, first["msg"].removeprefix("Value error, "))
            case _:
                message = first["msg"].replace("Input should be", "it should be")
                fail(path, f"{message}, not {shown(first['input'])}")


def _fields(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    for part in path:
        kind = model.model_fields[part].annotation
        options = [kind, *getattr(kind, "__args__", ())]
        model = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return list(model.model_fields)
