"""Pages from the templates of `dashboards/`, with their style and Plotly's script.

Templates escape all values, control characters and marks of direction too; a name that a template does not know is an
error. Pages load nothing from the network: style and scripts are inlined.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from aigc_lab import __version__
from aigc_lab.display import wording
from aigc_lab.host import content, visible
from aigc_lab.statistics.wording import number

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def render(template: str, **values: Any) -> str:
    """The page of a template in `dashboards/`."""
    return _environment().get_template(template).render(**values)


@cache
def plotly() -> str:
    """Plotly's JavaScript as its package ships it: 4.8 MB, most of a page's size."""
    return (files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(content.folders("dashboards")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible.text(value) if type(value) is str else value,  # markup is ours
    )
    environment.policies["json.dumps_function"] = _dumps
    environment.globals |= {"version": __version__, "plotly": plotly, "style": _style, "script": _script}
    environment.filters |= {
        "number": number,
        "assignments": wording.assignments,
        "duration": wording.duration,
        "inline": inline,
    }
    return environment


def _dumps(value: Any, **options: Any) -> str:
    """JSON for a page's script, with its texts escaped."""
    return json.dumps(_visible(value), **options)


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible.text(value)
    if isinstance(value, Mapping):
        return {_visible(key): _visible(each) for key, each in value.items()}
    return [_visible(each) for each in value] if isinstance(value, list | tuple) else value


def inline(script: str) -> "Markup":
    """A script as the content of a `<script>`: a closing tag inside a string is escaped."""
    from markupsafe import Markup

    return Markup(re.sub(r"</(?=script)", r"<\\/", script, flags=re.IGNORECASE))  # noqa: S704 -- no user's text


def _style() -> "Markup":
    from markupsafe import Markup

    return Markup((content.folder("dashboards") / "style.css").read_text("utf-8"))  # noqa: S704 -- our own file


def _script(name: str) -> "Markup":
    return inline((content.folder("dashboards") / name).read_text("utf-8"))
