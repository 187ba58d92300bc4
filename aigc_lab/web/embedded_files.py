"""The files of a run, as a page can hold them: pictures as data URIs, sentences and curves as plain lists."""

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aigc_lab.host import shared_files
from aigc_lab.pictures.view_captions import CAPTIONS
from aigc_lab.registry.temperature_curves import read_curve
from aigc_lab.statistics.planes import SCORES

_Item = TypeVar("_Item")
_PNG = b"\x89PNG\r\n\x1a\n"

# A page stays readable, and opens at once: as many pictures of a run, as many points of a curve.
STEPS, POINTS = 12, 400


@dataclass(frozen=True)
class Picture:
    """Samples at a step, None for the finished model: a picture and its size in pixels, or `lines` of text. Where there
    is neither, `missing` says why.
    """

    step: int | None
    uri: str
    missing: str = ""
    width: int = 0
    height: int = 0
    lines: tuple[str, ...] = ()

    @property
    def there(self) -> bool:
        return bool(self.uri or self.lines)


def pictures(files: Sequence[Mapping[str, str]], most: int = STEPS) -> tuple[list[Picture], int]:
    """At most so many pictures of a run by step, the last among them, and the number left out. The final picture is
    there only where there are none on the way: it repeats the last of those.
    """
    by_step = {int(file["name"].partition("/")[2]): file for file in files if file["name"].startswith("samples/")}
    if not by_step:
        return [_picture(None, file) for file in files if file["name"] == "samples"], 0
    steps = sorted(by_step)
    steps_shown = thinned(steps, most)
    return [_picture(step, by_step[step]) for step in steps_shown], len(steps) - len(steps_shown)


def views(files: Sequence[Mapping[str, str]]) -> dict[str, Picture]:
    """The newest picture of each view of a run by its name, in the order of `CAPTIONS`; older steps stay files."""
    newest: dict[str, Picture] = {}
    for name in CAPTIONS:
        of_view = {int(step): file for file in files if (step := file["name"].removeprefix(f"{name}/")).isdecimal()}
        if of_view:
            newest[name] = _picture(max(of_view), of_view[max(of_view)])
    return newest


def missing(files: Sequence[Mapping[str, str]]) -> Picture | None:
    """Real pictures of the bins that the run's samples lack; None where no bin is missing."""
    return next((_picture(None, file) for file in files if file["name"] == "missing"), None)


def curves(files: Sequence[Mapping[str, str]], most: int | None = POINTS) -> tuple[dict[str, Any], str]:
    """Name -> {"step": [...], "value": [...]}, thinned to `most` points, or whole; and the reason where there are
    none.
    """
    path = next((Path(file["path"]) for file in files if file["name"] == "curves"), None)
    if path is None:
        return {}, ""
    try:
        content = json.loads(shared_files.newest(path).read_bytes())
        return {
            name: {key: thinned(curve[key], most or len(curve[key])) for key in ("step", "value")}
            for name, curve in content.items()
        }, ""
    except OSError as error:
        return {}, f"{path}: {error.strerror}"
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}, f"{path}: not a file of curves"


def temperature(files: Sequence[Mapping[str, str]]) -> dict[str, Any] | None:
    """A language model's curve over temperatures, {"n", "real", "points"}; None where the run has none."""
    path = next((Path(file["path"]) for file in files if file["name"] == "temperature"), None)
    if path is None:
        return None
    curve = read_curve(shared_files.newest(path))
    if curve is None:
        return None  # without its file the run has no curve; its scores are in the registry
    columns = {key: [point[key] for point in curve["points"]] for key in ("temperature", *SCORES)}
    return {"n": curve["n"], "real": {key: curve["real"][key] for key in SCORES}, "points": columns}


def thinned(items: Sequence[_Item], most: int) -> list[_Item]:
    """At most so many items, evenly spaced, with the first and the last; of one alone, the last."""
    if len(items) <= most:
        return list(items)
    if most == 1:
        return [items[-1]]
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def _picture(step: int | None, file: Mapping[str, str]) -> Picture:
    path = Path(file["path"])
    try:
        content = shared_files.newest(path).read_bytes()
    except OSError as error:
        return Picture(step, "", f"{path}: {error.strerror}")
    if path.suffix == ".txt":
        return Picture(step, "", lines=tuple(content.decode("utf-8", "replace").split("\n")[:-1]))
    if not content.startswith(_PNG) or len(content) < 24:
        return Picture(step, "", f"{path}: not a PNG picture")
    return of_png(step, content)


def of_png(step: int | None, content: bytes) -> Picture:
    """The picture of a PNG file's bytes."""
    # The header (PNG, section 11.2.2): a page that knows the sizes does not jump while it loads.
    width, height = struct.unpack(">II", content[16:24])
    return Picture(step, f"data:image/png;base64,{base64.b64encode(content).decode()}", "", width, height)
