"""Commands about whole sweeps, the home and MLflow: delete, export, import, ui, doctor, init, spool."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from aigc_lab.cli.options import (
    AsJson,
    Home,
    OfSweep,
    TrustCode,
    app,
    complete_benchmark,
    complete_result,
    complete_sweep,
)
from aigc_lab.cli.output import print_json, print_table
from aigc_lab.errors import Failure, UsageError


@app.command()
def delete(
    target: Annotated[
        str,
        typer.Argument(
            help="A sweep's id or name, or a run's id.", metavar="SWEEP|RUN", autocompletion=complete_result
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and exit.")] = False,
    home: Home = None,
) -> None:
    """Delete a sweep or a run: rows, files, Optuna's study, MLflow's runs. What is promoted stays."""
    from aigc_lab.archive import deletion
    from aigc_lab.host.settings import Settings

    ask = (lambda question: typer.confirm(question)) if sys.stdin.isatty() else None
    deletion.delete(target, Settings.load(home), print, (lambda _: True) if yes else ask, dry_run=dry_run)


@app.command()
def export(
    sweep: Annotated[
        str, typer.Argument(help="A sweep's id, or its name for the newest.", autocompletion=complete_sweep)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write.  [default: SWEEP.tar]", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    home: Home = None,
) -> None:
    """Pack a sweep into one file: rows, pictures, final weights and Optuna's study, for another home to import."""
    from aigc_lab.archive import export
    from aigc_lab.host.settings import Settings, nameable

    if output is not None:
        nameable(output, "-o")
    archive = export.export(sweep, Settings.load(home), output, force=force)
    print(f"{archive.path}  {archive.bytes / 1e6:.1f} MB: {archive.sweep}, {archive.runs} runs, {archive.files} files")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file that 'aigc-lab export' wrote.", metavar="FILE")],
    trust_code: TrustCode = False,
    home: Home = None,
) -> None:
    """Import an exported sweep, to compare, sample, promote and resume it as if it had been run here."""
    from aigc_lab.archive import import_
    from aigc_lab.host import visible
    from aigc_lab.host.settings import Settings

    import_.import_(file, Settings.load(home), lambda said: print(visible.line(said)), trust_code=trust_code)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="The port; if it is in use, the next free one.", min=0, max=65535)] = 5000,
    host: Annotated[str, typer.Option(help="The address to listen on.", metavar="ADDRESS")] = "127.0.0.1",
    browse: Annotated[bool, typer.Option("--open", help="Open the link in a browser, if there is one.")] = False,
    writable: Annotated[
        bool, typer.Option("--writable", help="Let the pages change what is stored.  [default: read-only]")
    ] = False,
    auth: Annotated[
        bool, typer.Option("--auth", help="Ask for a login; the password is made, and kept in the home.")
    ] = False,
    home: Home = None,
) -> None:
    """Serve MLflow's pages: curves, samples by step, comparisons. They are read-only, unless --writable is given."""
    from aigc_lab.commands.ui import serve_pages

    serve_pages(host=host, port=port, browse=browse, home=home, writable=writable, auth=auth)


@app.command()
def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Correct the records of a home that was moved or copied.")
    ] = False,
    adopt: Annotated[
        str | None,
        typer.Option(
            help="Take over a sweep whose home is gone for good.", metavar="SWEEP", autocompletion=complete_sweep
        ),
    ] = None,
    speed: Annotated[
        bool, typer.Option("--speed", help="Time for some seconds which keys of training are faster on this machine.")
    ] = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Check the machine, the home, its stores, data and clock."""
    from aigc_lab.commands.doctor import examine

    if not json and sys.stderr.isatty():
        print(f"looking (importing torch{' and timing' * speed} takes some seconds) …", file=sys.stderr)
    checks = examine(home, repair=repair, adopt=adopt, speeds=speed)
    if json:
        print_json([vars(check) for check in checks])
    else:
        from aigc_lab.display.tables import checks_table

        print_table(checks_table([vars(check) for check in checks]))
    if any(check.state == "problem" for check in checks):
        raise typer.Exit(1)


@app.command()
def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure this alone, such as step. May be given again.  [default: all]",
            metavar="NAME",
            autocompletion=complete_benchmark,
        ),
    ] = None,
    peers: Annotated[
        Path | None,
        typer.Option(
            help="Race the contestants in this folder too: runs the code of its files with NAME and prepare.",
            metavar="DIR",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and shorter rounds: a first look.")] = False,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, or auto.")] = "auto",
    threads: Annotated[
        int, typer.Option(help="CPU threads. With one, CPU time counts, which a busy machine leaves alone.", min=1)
    ] = 1,
    stored: Annotated[bool, typer.Option("--list", help="Show the results of before; nothing is measured.")] = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Measure this machine beside references timed in the same minutes, and what has changed since the last time."""
    from aigc_lab.cli.output import progress
    from aigc_lab.commands import bench
    from aigc_lab.display.bench import history_page, result_page
    from aigc_lab.display.wording import counted
    from aigc_lab.host import environment, signals
    from aigc_lab.host.settings import Settings, nameable

    settings = Settings.load(home)
    if stored:
        results = bench.history(settings)
        print_json(results) if json else print_table(history_page(results))
        return
    if threads > environment.cores():
        raise UsageError(f"--threads {threads}: this process may use {environment.cores()} cores")
    bench.chosen(only, peers if peers is None else nameable(peers, "--peers"))
    print("bench: importing torch, which takes some seconds …", file=sys.stderr, flush=True)
    with signals.handled(), progress() as show:
        result = bench.measure(
            settings,
            only,
            device=device,
            threads=threads,
            size="quick" if quick else "full",
            peers=peers,
            show=show,
            say=lambda text: print(f"bench: {text}", file=sys.stderr, flush=True),
        )
    print_json(result) if json else print_table(result_page(result, bench.busy_line(result["machine"])))
    if result["interrupted"]:
        raise KeyboardInterrupt
    if result["failed"]:
        failed = counted(len(result["failed"]), "measurement")
        raise Failure(f"{failed} failed; see above")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to fill; made if it is not there.", metavar="DIR")],
    force: Annotated[bool, typer.Option("--force", help="Replace files that differ.")] = False,
) -> None:
    """Copy the experiments and protocols that ship into a folder, to be edited."""
    from aigc_lab.host import content
    from aigc_lab.host.settings import nameable

    nameable(folder, "DIR")
    copied = content.copy(folder, force=force)
    for name in copied.written:
        print(f"wrote {folder / name}")
    if copied.unchanged:
        print(f"{len(copied.unchanged)} files were there already")
    if "experiments" in os.listdir(folder):
        print(f"Next: cd {folder}, edit experiments/digits.yaml, then: aigc-lab sweep digits --dry-run")


@app.command()
def spool(
    sweep: OfSweep = None,
    flush: Annotated[bool, typer.Option("--flush", help="Deliver them now.")] = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Show the records that MLflow lacks, and why. They wait on disk until the sweep goes on or --flush is given."""
    from aigc_lab.commands.spool import flush_spools, require_delivered, spool_rows, spool_table
    from aigc_lab.host.settings import Settings

    settings = Settings.load(home)
    rows = flush_spools(sweep, settings) if flush else spool_rows(sweep, settings)
    print_json(rows) if json else print_table(spool_table(rows))
    if flush:
        require_delivered(rows)
