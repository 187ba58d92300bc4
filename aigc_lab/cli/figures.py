"""Figures of sweeps as files."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aigc_lab.cli.options import Home, app, complete_sweep


@app.command()
def plot(
    sweep: Annotated[
        list[str], typer.Argument(help="One sweep or several, by id or name.", autocompletion=complete_sweep)
    ],
    kind: Annotated[
        Literal["seeds", "profile", "survival", "budget", "pareto", "importance", "verdicts"],
        typer.Option(help="What is drawn."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file: .png, .pdf, .svg or .html.  [default: SWEEP-KIND.pdf]", metavar="FILE"
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="What a row or curve is: trial, system, or a parameter.", metavar="trial|system|PARAMETER"),
    ] = None,
    x: Annotated[
        str | None, typer.Option(help="Score across, of pareto.  [default: one of diversity]", metavar="NAME")
    ] = None,
    y: Annotated[
        str | None, typer.Option(help="Score up, of pareto.  [default: the objective]", metavar="NAME")
    ] = None,
    home: Home = None,
) -> None:
    """Draw sweeps for a paper: every seed with its median, performance profiles, survival, best of a budget, quality
    against diversity, importance of parameters, or the verdicts as a matrix. A footnote says n, interval and signature.
    """
    from aigc_lab.commands.plot import plot_sweeps

    path = output or Path(f"{'+'.join(sweep)[:100].replace('/', '-')}-{kind}.pdf")
    plot_sweeps(sweep, kind, by=by, x=x, y=y, path=path, home=home)
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")
