"""Commands that read."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aigc_lab.cli.options import (
    MOST,
    AsJson,
    Home,
    Limit,
    OfSweep,
    OfSweeps,
    app,
    changed,
    complete_run,
    complete_sweep,
)
from aigc_lab.cli.output import opened, print_json, print_rows, print_table, uncollected
from aigc_lab.errors import UsageError

if TYPE_CHECKING:
    from aigc_lab.registry.ranking import Comparison

# Kind -> the package's folder of plugins, or the content folder of YAML files.
_PLUGINS = {
    "systems": "systems",
    "datasets": "data",
    "metrics": "metrics",
    "penalties": "penalties",
    "augmentations": "augmentations",
    "pruners": "pruners",
    "optimizers": "optimizers",
    "executors": "executors",
    "modalities": "modalities",
}
_FILES: dict[str, Literal["experiments", "evaluation"]] = {"experiments": "experiments", "protocols": "evaluation"}


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in (*_PLUGINS, *_FILES) if kind.startswith(incomplete)]


@app.command()
def status(
    sweep: OfSweep = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it every two seconds, until no sweep is running or Ctrl-C.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Every sweep, not the newest 20 only.")] = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Show the progress of sweeps, the processes that run them, and the commands that come next."""
    from aigc_lab.commands.status import StatusView, watch_sweeps
    from aigc_lab.host.settings import Settings

    settings = Settings.load(home)
    with opened(settings) as registry:
        view = StatusView(registry, settings, sweep, most=None if every else 20, home=home)
        if json:
            print_json(view.rows() if sweep is None else view.rows()[0])
        elif watch:
            watch_sweeps(view)
        else:
            print_table(view.page())


@app.command()
def runs(
    sweep: OfSweep = None,
    state: Annotated[
        str | None, typer.Option(help="Only the runs in this state: FAILED, RUNNING, …", metavar="STATE")
    ] = None,
    limit: Limit = 50,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """List the newest runs, with the score that each sweep optimises."""
    from aigc_lab.display.run_page import runs_table
    from aigc_lab.display.wording import omitted
    from aigc_lab.registry.runs import newest_runs
    from aigc_lab.registry.states import named_state

    with opened(home) as registry:
        newest = newest_runs(registry, sweep, state=named_state(state), most=limit or None)
        if json:
            print_rows(newest.parts)
            print(omitted(newest.shown, newest.total), end="\n" if newest.shown < newest.total else "", file=sys.stderr)
        else:
            print_table(runs_table([row for part in newest.parts for row in part], newest.total))


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run's id: SWEEP.TRIAL.SEED", autocompletion=complete_run)],
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Show one run: its configuration, scores, attempts and files."""
    from aigc_lab.display.run_page import show_page
    from aigc_lab.registry.runs import show_run

    with opened(home) as registry:
        row = show_run(registry, run)
    print_json(row) if json else print_table(show_page(row))


@app.command()
def compare(
    sweep: OfSweeps = None,
    by: Annotated[
        str,
        typer.Option(
            help="What a row is: a trial; or all trials of a system, of a sweep, or with one value of a parameter.",
            metavar="trial|system|sweep|PARAMETER",
        ),
    ] = "trial",
    where: Annotated[
        str | None,
        typer.Option(
            help='Only trials of which this is true: "lr < 1e-3 and system in (dcgan, vae) and not collapse = TOTAL".',
            metavar="CONDITION",
        ),
    ] = None,
    score: Annotated[
        str | None, typer.Option(help="The score to rank by.  [default: each sweep's objective]", metavar="NAME")
    ] = None,
    checkpoint: Annotated[
        Literal["last", "selected"], typer.Option(help="Which checkpoint's scores to rank.")
    ] = "last",
    limit: Limit = 50,
    json: AsJson = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the rows as CSV, with every number in full.")] = False,
    md: Annotated[bool, typer.Option("--md", help="Print a table as GitHub shows it.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print a table for a paper; it needs booktabs.")] = False,
    home: Home = None,
) -> None:
    """Rank trials by the median over their seeds on the reference split, and show their values on the holdout."""
    from aigc_lab.host.settings import Settings
    from aigc_lab.registry.comparison import compare_trials

    forms = {"--json": json, "--csv": csv, "--md": md, "--latex": latex}
    chosen = [name for name, given in forms.items() if given]
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]} are two forms of the same; give one of them")
    settings = Settings.load(home)
    with opened(settings) as registry, uncollected():
        comparison = compare_trials(
            registry, sweep, score=score, checkpoint=checkpoint, most=limit or None, by=by, where=where
        )
        if not chosen:
            from aigc_lab.commands.explain import explained
            from aigc_lab.display.ranking import comparison_page

            promotes = score is None and by == "trial" and where is None
            told = explained(registry, comparison, settings, home, checkpoint=checkpoint, by_objective=promotes)
            print_table(comparison_page(comparison, told))
            return
        if json:
            from aigc_lab.display.beside_likelihood import add_contests

            add_contests(registry, comparison)
        if csv or (json and by != "trial"):  # as CSV has room for; reading it takes as long as ranking
            from aigc_lab.commands.compare import add_statistics

            add_statistics(registry, comparison, score, checkpoint)
    _print_comparison(comparison, chosen[0])


def _print_comparison(comparison: "Comparison", form: str) -> None:
    """Prints a comparison in a form that programs read, and what holds of all of it to standard error."""
    from aigc_lab.display.ranking import notes

    if form == "--json":
        print_rows([comparison.rows])
    elif form == "--csv":
        from aigc_lab.commands.compare import comparison_table

        print(comparison_table(comparison).csv, end="")
    elif form == "--md":
        from aigc_lab.display.markdown import comparison_markdown

        print(comparison_markdown(comparison), end="")
    else:
        from aigc_lab.display.latex import comparison_latex

        print(comparison_latex(comparison), end="")
    for note in notes(comparison) if form != "--md" else []:
        print(note, file=sys.stderr)


@app.command()
def check(
    plugin: Annotated[
        str,
        typer.Argument(
            help="A file with a system, dataset, metric, executor, …; the name of one; or an experiment's YAML file.",
            metavar="FILE|NAME",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(help="The dataset to try it on: a name or a file.  [default: digits or ring]", metavar="DATASET"),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Set a key of its Config: --set width=8. May be given again.", metavar="KEY=VALUE"),
    ] = None,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Check your own system, dataset, metric, executor, … Its contracts are run on it; each failure is explained."""
    from aigc_lab.commands.check import check_file, conclude

    rows = check_file(plugin, data, changed(overrides, {}), json=json, home=home)
    if json:
        print_json(rows)
    conclude(rows)


@app.command()
def report(
    sweep: Annotated[
        str, typer.Argument(help="A sweep's id, or its name for the newest.", autocompletion=complete_sweep)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write; - for stdout.  [default: SWEEP.html]", metavar="FILE"),
    ] = None,
    runs: Annotated[
        int,
        typer.Option(
            help="Embed the pictures and curves of this many ranked trials, the best first, with all seeds of each.",
            min=0,
            max=MOST,
        ),
    ] = 12,
    files: Annotated[
        Path | None,
        typer.Option(help="Write every table as CSV and every figure as PNG too, into this new folder.", metavar="DIR"),
    ] = None,
    real: Annotated[
        bool, typer.Option("--real/--no-real", help="Show real samples of the dataset beside the generated ones.")
    ] = True,
    home: Home = None,
) -> None:
    """Write one page about a sweep. What it means, ranking, every seed's samples beside real ones, curves, a glossary;
    it needs no network and no server.
    """
    from aigc_lab.commands.report import refuse_folder, sweep_report
    from aigc_lab.host.settings import Settings

    if output is not None and output != Path("-"):
        _refuse_target(output)
    if files is not None:
        refuse_folder(files)
    settings = Settings.load(home)
    with opened(settings) as registry:
        page = sweep_report(registry, sweep, settings, trials=runs, real=real)
    if page.real is not None and page.real.cause:
        print(f"no real samples in the report: {page.real.cause}", file=sys.stderr)
    if files is not None:
        from aigc_lab.web.exported import write_files

        print(f"{files}  {write_files(files, page)} files", file=sys.stderr)
    content = page.html.encode()
    if output == Path("-"):
        sys.stdout.buffer.write(content)
        return
    path = output or Path(f"{page.sweep}.html")
    _refuse_target(path)
    _write(path, content)
    print(f"{path}  {len(content) / 1e6:.1f} MB, {page.pictures} pictures")


def _refuse_target(path: Path) -> None:
    """A file that the user named: its folder must exist, and what it replaces must be a file."""
    from aigc_lab.host.settings import nameable

    nameable(path, "-o")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file that can be replaced; name another with -o, or - for stdout")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; create it or name another file with -o")


def _write(path: Path, content: bytes) -> None:
    from aigc_lab.host.files import write_atomically

    try:
        write_atomically(path, content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); name another file with -o") from None


@app.command("list")
def list_(
    kind: Annotated[
        str,
        typer.Argument(metavar="|".join([*_PLUGINS, *_FILES]), autocompletion=_complete_kind),
    ],
    verbose: Annotated[
        bool, typer.Option("--verbose", help="The paper, the knobs and the defaults of each plugin: all but files.")
    ] = False,
    json: AsJson = False,
) -> None:
    """List the systems, datasets, metrics, … or files of one kind that can be named."""
    if verbose and kind in _PLUGINS:
        from aigc_lab.commands.list_plugins import catalogue
        from aigc_lab.display.tables import catalogue_page

        plugins = catalogue(_PLUGINS[kind])
        print_json(plugins) if json else print_table(catalogue_page(plugins))
        return
    rows = [{"name": name, "description": text} for name, text in _described(kind).items()]
    if verbose:
        raise UsageError(f"--verbose tells of {', '.join(_PLUGINS)}; of {kind}, open the file that is meant")
    if json:
        print_json(rows)
    else:
        from aigc_lab.display.tables import names_table

        print_table(names_table(rows))


def _described(kind: str) -> dict[str, str]:
    """Name -> what it is: the first line of a plugin's docstring, or of the comment that a YAML file opens with."""
    from aigc_lab import plugins
    from aigc_lab.host import content

    if kind in _PLUGINS:
        return plugins.describe(_PLUGINS[kind])
    if kind not in _FILES:
        raise UsageError(content.unknown_name("kind", kind, [*_PLUGINS, *_FILES]))
    folder = _FILES[kind]
    described = {}
    for name in content.names(folder):
        first = content.find_file(folder, name).read_text("utf-8").lstrip().partition("\n")[0]
        origin = content.origin(folder, name)
        texts = (first.lstrip("# ").strip() if first.startswith("#") else "", f"({origin})" if origin else "")
        described[name] = "  ".join(filter(None, texts))
    return described
