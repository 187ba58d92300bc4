"""Commands that train, and those about sweeps that were begun."""

import sys
from typing import Annotated

import typer

from aigc_lab.cli.options import (
    MOST,
    AsJson,
    Home,
    OfSweep,
    TrustCode,
    app,
    changed,
    complete_executor,
    complete_experiment,
    complete_sweep,
    duration,
    executor_options,
    per_gpu,
    replicas_of,
)
from aigc_lab.cli.output import as_typed, opened, print_json, print_table, progress
from aigc_lab.host import visible

Wanted = Annotated[
    str,
    typer.Argument(
        help="An experiment's name, or the path of its YAML file.",
        metavar="EXPERIMENT",
        autocompletion=complete_experiment,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key: --set training.steps=500. May be given again.", metavar="KEY=VALUE"),
]
Steps = Annotated[int | None, typer.Option(help="Train every run for this many steps (training.steps).")]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Leave out image files that cannot be read (data.skip_broken).")
]
Device = Annotated[
    str | None, typer.Option(help="Where to train: cpu, cuda, cuda:1, or auto.  [default: auto]", metavar="DEVICE")
]
Devices = Annotated[
    str | None,
    typer.Option(
        "--devices",
        "--device",
        help="Where to train: cpu, cuda:0,cuda:1, …, or auto for every GPU, else the CPU.  [default: auto]",
        metavar="DEVICES",
    ),
]


RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Train the runs that failed again. Without a change, they fail again.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Train so many runs at once.  [default: one a GPU; on the CPU as many as its cores and memory hold]",
        min=1,
        max=1024,
        metavar="N",
    ),
]
PerGpu = Annotated[
    str | None,
    typer.Option(help="Workers that share each GPU; auto: as many as its memory holds, measured.", metavar="N|auto"),
]
ReplicasOption = Annotated[
    str | None,
    typer.Option(
        "--replicas",
        help="Train so many alike runs (other seeds, rates of the optimisers) as one program; auto: as many as are "
        "faster so, measured.  [default: off]",
        metavar="N|auto|off",
    ),
]
ExecutorOption = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="Who does the runs: a name of 'aigc-lab list executors', or a file.  [default: inline; local for several "
        "workers]",
        metavar="NAME|FILE",
        autocompletion=complete_executor,
    ),
]
ExecutorOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--executor-option",
        help="An option of the executor, as 'aigc-lab list executors --verbose' names them. May be given again.",
        metavar="KEY=VALUE",
    ),
]


def _announce(activity: str) -> None:
    """Says what begins, before torch is imported: that takes seconds, and on a busy machine half a minute."""
    line = visible.line(f"{activity}: importing torch, which takes some seconds …")
    print(line, file=sys.stderr, flush=True)


@app.command()
def sweep(
    experiment: Wanted,
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(help="The total number of trials (search.trials).")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds of every trial (search.seeds).")] = None,
    steps: Steps = None,
    skip_broken: SkipBroken = False,
    workers: Workers = None,
    devices: Devices = None,
    trials_per_gpu: PerGpu = None,
    replicas: ReplicasOption = None,
    executor: ExecutorOption = None,
    executor_option: ExecutorOptions = None,
    retry_failed: RetryFailed = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the experiment, say what it will cost, and exit.")
    ] = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Search an experiment's variants, confirm the best, and rank them. The same command goes on where it ended."""
    from aigc_lab.host import imports, signals

    with signals.handled():
        _announce(f"sweep {experiment}")
        with imports.uncollected():
            from aigc_lab.commands.sweep import sweep_experiment

        options = {"search.trials": trials, "search.seeds": seeds, "training.steps": steps}
        rows = sweep_experiment(
            experiment,
            changed(overrides, options, skip_broken),
            device=devices,
            workers=workers,
            trials_per_gpu=per_gpu(trials_per_gpu),
            replicas=replicas_of(replicas),
            executor=executor,
            options=executor_options(executor_option),
            retry_failed=retry_failed,
            dry_run=dry_run,
            json=json,
            home=home,
        )
    if json:
        print_json(rows)


@app.command()
def train(
    experiment: Wanted,
    overrides: Overrides = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            help="The seed of the run. Given again, the runs are trained together.  [default: 0]", min=0, max=MOST
        ),
    ] = None,
    steps: Steps = None,
    skip_broken: SkipBroken = False,
    device: Device = None,
    executor: ExecutorOption = None,
    executor_option: ExecutorOptions = None,
    retry_failed: RetryFailed = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Train one run of an experiment, or one for each seed. If it has open choices, decide them with --set."""
    from aigc_lab.host import imports, signals

    with signals.handled():
        _announce(f"train {experiment}")
        with imports.uncollected():
            from aigc_lab.commands.sweep import train_seeds

        rows = train_seeds(
            experiment,
            changed(overrides, {"training.steps": steps}, skip_broken),
            seeds=seed or [0],
            device=device,
            executor=executor,
            options=executor_options(executor_option),
            retry_failed=retry_failed,
            home=home,
        )
    if json:
        print_json(rows[0] if len(rows) == 1 else rows)
    else:
        from aigc_lab.display.run_page import runs_table, show_page

        print_table(show_page(rows[0]) if len(rows) == 1 else runs_table(rows))


# ---- commands about sweeps that were begun

ASweep = Annotated[str, typer.Argument(help="A sweep's id, or its name for the newest.", autocompletion=complete_sweep)]


@app.command()
def resume(
    sweep: ASweep,
    workers: Workers = None,
    devices: Devices = None,
    trials_per_gpu: PerGpu = None,
    replicas: ReplicasOption = None,
    executor: ExecutorOption = None,
    executor_option: ExecutorOptions = None,
    retry_failed: RetryFailed = False,
    standby: Annotated[
        bool, typer.Option("--standby", help="Wait while another process runs it, and take over if that is lost.")
    ] = False,
    trust_code: TrustCode = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Go on with a sweep that was stopped or lost, from its last checkpoints. Nothing that ended is done again."""
    from aigc_lab.host import signals

    with signals.handled():
        _announce(f"resume {sweep}")
        from aigc_lab.commands.sweep import resume_sweep
        from aigc_lab.host import trust

        with trust.accepting(trust_code):
            rows = resume_sweep(
                sweep,
                device=devices,
                workers=workers,
                trials_per_gpu=per_gpu(trials_per_gpu),
                replicas=replicas_of(replicas),
                executor=executor,
                options=executor_options(executor_option),
                retry_failed=retry_failed,
                standby=standby,
                json=json,
                home=home,
            )
    if json:
        print_json(rows)


@app.command()
def worker(
    sweep: ASweep,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda:0, …")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.  [default: all cores]")] = None,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when no run waits, and do not wait for further ones.")
    ] = False,
    leave_after: Annotated[
        str | None,
        typer.Option(
            "--leave-after",
            help="Store the run and leave after so long: minutes, or H:MM:SS. Another worker goes on with it.",
            metavar="TIME",
        ),
    ] = None,
    trust_code: TrustCode = False,
    home: Home = None,
) -> None:
    """Do runs of a sweep that another process runs, on any machine that sees its stores. Ctrl-C leaves it in order."""
    from aigc_lab.host import signals

    with signals.handled():
        _announce(f"worker {sweep}")
        from aigc_lab.commands.worker import join
        from aigc_lab.host import trust
        from aigc_lab.host.settings import Settings

        with trust.accepting(trust_code):
            join(
                Settings.load(home),
                sweep,
                device=device,
                threads=threads,
                until_empty=until_empty,
                leave_after=None if leave_after is None else duration(leave_after, "--leave-after"),
            )


@app.command()
def stop(
    sweep: ASweep,
    finish: Annotated[
        bool, typer.Option("--finish", help="Let the runs under way end first, and start no others.")
    ] = False,
    home: Home = None,
) -> None:
    """Stop a sweep that is being run, from another terminal. Its runs are stored where they are, to be resumed."""
    from aigc_lab.commands.stop import stop_sweep
    from aigc_lab.host.settings import Settings

    settings = Settings.load(home)
    with opened(settings) as registry:
        print(stop_sweep(registry, settings, sweep, finish=finish, home=home))


@app.command()
def reconcile(
    sweep: Annotated[
        str | None,
        typer.Argument(
            help="With --mlflow: a sweep's id, or its name for the newest.  [default: all]",
            autocompletion=complete_sweep,
        ),
    ] = None,
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Show again what MLflow has lost or lacks: runs, curves, files, models.")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="With --mlflow: fetch and read the files that it keeps on another machine.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    trust_code: TrustCode = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Mark the runs of dead processes, and clean up what they left. Every sweep, train and resume does this first."""
    from aigc_lab.errors import Failure, UsageError
    from aigc_lab.host import trust
    from aigc_lab.host.settings import Settings
    from aigc_lab.sweeps.reconcile import reconcile

    if sweep is not None and not mlflow:
        raise UsageError("reconcile looks at every sweep; to show one again in MLflow, say --mlflow")
    if deep and not mlflow:
        raise UsageError("--deep reads MLflow's files; say --mlflow")
    settings = Settings.load(home)
    with opened(settings) as registry:
        findings = reconcile(registry, settings, dry_run=dry_run)
        if not json and (findings or not mlflow):
            print("\n".join(map(str, findings)) or "nothing was left behind")
        if mlflow:
            from aigc_lab.commands.rebuild import rebuild

            with progress() as report, trust.accepting(trust_code):
                for finding in rebuild(registry, settings, sweep, dry_run=dry_run, deep=deep, report=report):
                    findings.append(finding)
                    if not json:
                        print(as_typed(str(finding)))
            if not findings and not json:
                print("nothing was left behind, and MLflow lacks nothing")
    if json:
        print_json([vars(finding) for finding in findings])
    if any(finding.lost for finding in findings):
        raise Failure("not everything could be shown again; 'aigc-lab verify' says what is damaged, and what helps")


@app.command()
def verify(
    sweep: OfSweep = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Fetch and read the files that MLflow keeps on another machine.")
    ] = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Check that registry, files, MLflow and Optuna agree about every run that ended, and say what to do if not."""
    from aigc_lab.commands.verify import verify_sweeps
    from aigc_lab.host.settings import Settings
    from aigc_lab.registry.read_only import readable

    unread = Settings.load(home)
    with opened(unread) as registry, readable(unread) as settings, progress() as report:
        result = verify_sweeps(registry, settings, sweep, deep=deep, report=report)
    if json:
        print_json(result.as_json())
    else:
        print(as_typed(str(result)))
    if result.problems:
        raise typer.Exit(1)
