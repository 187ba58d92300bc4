"""What `aigc-lab plot` does: a figure of one sweep or several, drawn from the registry and written to a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_lab.errors import UsageError
from aigc_lab.host.content import unknown_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aigc_lab.registry.seed_runs import SeedRun

# Kind -> what one row or curve is unless --by says otherwise; None where there is no choice.
KINDS: dict[str, str | None] = {
    "seeds": "trial",
    "profile": "system",
    "survival": "system",
    "budget": None,
    "pareto": "trial",
    "importance": None,
    "verdicts": "trial",
}
SUFFIXES = (".png", ".pdf", ".svg", ".html")


def plot_sweeps(
    sweeps: str | Sequence[str],
    kind: str,
    *,
    by: str | None = None,
    x: str | None = None,
    y: str | None = None,
    path: Path | None = None,
    home: Path | None = None,
) -> "Figure":
    """The figure of a kind, written to `path` where that is given. What is wrong with the path is said before anything
    is read, and the file is replaced as a whole or not at all.

    Raises `UsageError` for an unknown sweep, kind, suffix, parameter or score, for a path that cannot be written, and
    for a kind that these runs cannot give, with what would.
    """
    from aigc_lab.host.settings import Settings
    from aigc_lab.pictures.style import typeset
    from aigc_lab.registry.home import open_registry
    from aigc_lab.registry.seed_runs import read_seed_runs

    _refuse_options(kind, by, x, y)
    if path is not None:
        refuse_path(path)
    named = [sweeps] if isinstance(sweeps, str) else list(sweeps)
    if not named:
        raise UsageError("name a sweep to plot, or several")
    with open_registry(Settings.load(home)) as registry:
        runs = read_seed_runs(registry, named)
    with typeset():
        figure = figure_of(runs, kind, by=by, x=x, y=y)
    if path is not None:
        write_figure(path, figure, title=f"{', '.join(named)}: {kind}")
    return figure


def figure_of(
    runs: "Sequence[SeedRun]", kind: str, *, by: str | None = None, x: str | None = None, y: str | None = None
) -> "Figure":
    """The figure of a kind of these runs."""
    from aigc_lab.registry.seed_runs import group_runs

    if not runs:
        raise UsageError(f"--kind {kind}: the sweep has no runs yet")
    if kind == "importance":
        from aigc_lab.pictures.importance import importance
        from aigc_lab.sweeps.importance import importances

        return importance(importances(runs), runs)
    if kind == "budget":
        from aigc_lab.pictures.budget import budget

        return budget(runs)
    groups = group_runs(runs, by or KINDS[kind] or "trial")
    if kind == "pareto":
        from aigc_lab.pictures.pareto import pareto

        return pareto(groups, x, y)
    from aigc_lab.pictures.profile import profile
    from aigc_lab.pictures.seed_dots import seed_dots
    from aigc_lab.pictures.survival import survival
    from aigc_lab.pictures.verdict_matrix import verdict_matrix

    drawn: dict[str, Any] = {
        "seeds": seed_dots,
        "profile": profile,
        "survival": survival,
        "verdicts": verdict_matrix,
    }
    figure: Figure = drawn[kind](groups)
    return figure


def _refuse_options(kind: str, by: str | None, x: str | None, y: str | None) -> None:
    """Raises `UsageError` for an unknown kind, and for options that it does not take."""
    if kind not in KINDS:
        raise UsageError(f"--kind {kind}: {unknown_name('kind', kind, list(KINDS))}")
    if by is not None and KINDS[kind] is None:
        raise UsageError(f"--by {by}: {kind} draws a part for each system; leave --by out")
    if kind != "pareto" and (x is not None or y is not None):
        name = "--x" if x is not None else "--y"
        raise UsageError(f"{name}: {kind} draws the objective; only --kind pareto takes {name}")


# ---- files


def refuse_path(path: Path) -> None:
    """Raises `UsageError` for a path that no figure can be written to."""
    from aigc_lab.host.settings import nameable

    nameable(path, "-o")
    if path.suffix.lower() not in SUFFIXES:
        said = f"is no figure's suffix ({path.suffix})" if path.suffix else "has no suffix"
        raise UsageError(f"-o {path}: {said}; name a file that ends in {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise UsageError(f"-o {path}: is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise UsageError(f"-o {path}: is not a file that can be replaced; name another")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"-o {path}: there is no folder {path.parent}; create it or name another")


def write_figure(path: Path, figure: "Figure", title: str) -> int:
    """Writes a figure, as its suffix says, and returns the number of bytes."""
    from aigc_lab.host.files import write_atomically
    from aigc_lab.pictures.style import written

    form = path.suffix.lower()[1:]
    content = _page(figure, title) if form == "html" else written(figure, form)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UsageError(f"-o {path}: it cannot be written ({error.strerror}); name another file") from None
    return len(content)


def _page(figure: "Figure", title: str) -> bytes:
    """A self-contained page with the figure as SVG."""
    from markupsafe import Markup

    from aigc_lab.pictures.style import written
    from aigc_lab.web import pages

    svg = written(figure, "svg").decode()
    drawing = Markup(svg[svg.index("<svg") :])  # noqa: S704 -- of matplotlib, which escapes all texts
    return pages.render("figure.html", title=title, drawing=drawing).encode()
