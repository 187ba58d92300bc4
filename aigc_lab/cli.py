"""The commands. Each is one call; what it needs is imported inside it, so that `--help` costs next to nothing."""

import io
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aigc_lab import __version__
from aigc_lab.errors import Failure, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType

    from aigc_lab.registry.states import State
    from aigc_lab.registry.store import Registry
    from aigc_lab.serving.promotion import Promoted
    from aigc_lab.settings import Settings

app = typer.Typer(
    name="aigc-lab",
    help="A laboratory for generative models: sweeps of GANs and VAEs, scores with intervals, and what came of them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _complete_sweep(incomplete: str) -> list[str]:
    from aigc_lab import completion

    return completion.sweeps(incomplete)


def _complete_run(incomplete: str) -> list[str]:
    from aigc_lab import completion

    return completion.runs(incomplete)


def _complete_experiment(incomplete: str) -> list[str]:
    from aigc_lab import completion

    return completion.experiments(incomplete)


def _complete_result(incomplete: str) -> list[str]:
    """Whatever has weights: runs, sweeps, promoted models."""
    from aigc_lab import completion

    return completion.results(incomplete)


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in (*_PLUGINS, *_FILES) if kind.startswith(incomplete)]


Home = Annotated[
    Path | None,
    typer.Option(envvar="AIGC_LAB_HOME", help="The home folder.  [default: .aigc-lab]", metavar="DIR"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
OfSweep = Annotated[
    str | None,
    typer.Argument(help="A sweep's id, or its name for the newest.  [default: all]", autocompletion=_complete_sweep),
]


def main() -> None:
    """The console script. A user's mistake is one line on stderr and exit code 2; work that failed, exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an arrow must not end a command on a terminal without Unicode
    try:
        try:
            app(prog_name="aigc-lab")
        finally:
            sys.stdout.flush()
    except UsageError as error:
        _end(error, 2)
    except Failure as error:
        _end(error, 1)
    except KeyboardInterrupt:
        _end("interrupted", 130)
    except BrokenPipeError:
        # The reader has left. Python would complain once more on its way out, so it gets somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        from aigc_lab.files import refused

        told = refused(error)
        if told is None:
            raise
        _end(told, 1)
    except SystemExit as stop:
        if stop.code == 130:  # typer's word for Ctrl-C
            _end("interrupted", 130)
        raise


def _end(message: object, code: int) -> None:
    line = " ".join(str(message).split())
    print(line if code == 130 else f"error: {line}", file=sys.stderr)
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"aigc-lab {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


# ---- commands that train

Wanted = Annotated[
    str,
    typer.Argument(
        help="An experiment's name, or the path of its YAML file.",
        metavar="EXPERIMENT",
        autocompletion=_complete_experiment,
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
Device = Annotated[str, typer.Option(help="Where to train: cpu, cuda, cuda:1, or auto.")]
Devices = Annotated[
    str,
    typer.Option(
        "--devices", "--device", help="Where to train: cpu, cuda:0,cuda:1, …, or auto for every GPU, else the CPU."
    ),
]


RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Do the runs again that failed. Unchanged, they would fail again.")
]
Workers = Annotated[
    int | None, typer.Option(help="Train so many runs at once.  [default: one a GPU, or one]", min=1, metavar="N")
]
PerGpu = Annotated[int | None, typer.Option(help="Workers that share each GPU.", min=1, metavar="N")]


@app.command()
def sweep(
    experiment: Wanted,
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(help="The total number of trials (search.trials).")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds of every trial (search.seeds).")] = None,
    steps: Steps = None,
    skip_broken: SkipBroken = False,
    workers: Workers = None,
    devices: Devices = "auto",
    trials_per_gpu: PerGpu = None,
    retry_failed: RetryFailed = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the experiment, say what it will cost, and exit.")
    ] = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Search an experiment's variants, confirm the best, and rank them. The same command goes on where it ended."""
    from aigc_lab import interruption

    with interruption.handled():
        from aigc_lab import commands

        options = {"search.trials": trials, "search.seeds": seeds, "training.steps": steps}
        rows = commands.sweep(
            experiment,
            _changes(overrides, options, skip_broken),
            device=devices,
            workers=workers,
            trials_per_gpu=trials_per_gpu,
            retry_failed=retry_failed,
            dry_run=dry_run,
            json=json,
            home=home,
        )
    if json:
        _print_json(rows)


@app.command()
def train(
    experiment: Wanted,
    overrides: Overrides = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="The seed of the run. Given again, the runs are trained together.  [default: 0]", min=0),
    ] = None,
    steps: Steps = None,
    skip_broken: SkipBroken = False,
    device: Device = "auto",
    retry_failed: RetryFailed = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Train one run of an experiment, or one for each seed. Open choices, if it has any, are decided by --set."""
    from aigc_lab import interruption

    with interruption.handled():
        from aigc_lab import commands

        rows = commands.train_seeds(
            experiment,
            _changes(overrides, {"training.steps": steps}, skip_broken),
            seeds=seed or [0],
            device=device,
            retry_failed=retry_failed,
            home=home,
        )
    if json:
        _print_json(rows[0] if len(rows) == 1 else rows)
    else:
        from aigc_lab.tables import runs_table, show_page

        _print(show_page(rows[0]) if len(rows) == 1 else runs_table(rows))


# ---- commands about sweeps that were begun

ASweep = Annotated[
    str, typer.Argument(help="A sweep's id, or its name for the newest.", autocompletion=_complete_sweep)
]


@app.command()
def resume(
    sweep: ASweep,
    workers: Workers = None,
    devices: Devices = "auto",
    trials_per_gpu: PerGpu = None,
    retry_failed: RetryFailed = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Go on with a sweep that was stopped or lost, from its last checkpoints. Nothing that ended is done again."""
    from aigc_lab import interruption

    with interruption.handled():
        from aigc_lab import commands

        rows = commands.resume(
            sweep,
            device=devices,
            workers=workers,
            trials_per_gpu=trials_per_gpu,
            retry_failed=retry_failed,
            json=json,
            home=home,
        )
    if json:
        _print_json(rows)


@app.command()
def stop(
    sweep: ASweep,
    finish: Annotated[
        bool, typer.Option("--finish", help="Let the runs under way end first, and begin no others.")
    ] = False,
    home: Home = None,
) -> None:
    """Stop a sweep that is being run, from another terminal. Its runs are stored where they are, to be resumed."""
    from aigc_lab import stopping

    with _registry(home) as registry:
        print(stopping.stop(registry, sweep, finish=finish, home=home))


@app.command()
def reconcile(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Bring in order what processes that died left behind. Every sweep, train and resume begins with this."""
    from aigc_lab.reconciling import reconcile
    from aigc_lab.settings import Settings

    with _registry(home) as registry:
        found = reconcile(registry, Settings.load(home), dry_run=dry_run)
    if json:
        _print_json([vars(finding) for finding in found])
    else:
        print("\n".join(map(str, found)) or "nothing was left behind")


@app.command()
def verify(sweep: OfSweep = None, json: AsJson = False, home: Home = None) -> None:
    """Check that registry, files, MLflow and Optuna agree about every run that ended."""
    from aigc_lab import verification
    from aigc_lab.settings import Settings

    with _registry(home) as registry:
        result = verification.verify(registry, Settings.load(home), sweep)
    if json:
        _print_json(result.as_json())
    else:
        print(result)
    if result.problems:
        raise typer.Exit(1)


def _changes(
    overrides: list[str] | None, options: dict[str, int | None], skip_broken: bool = False
) -> list[tuple[str, str, str]]:
    """Key, YAML text, and the words of the command line that say so, for error messages."""
    changes = []
    for item in overrides or []:
        key, equals, text = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item}: write --set KEY=VALUE, like --set training.steps=500")
        changes.append((key, text, f"--set {item}"))
    for key, value in options.items():
        if value is not None:
            changes.append((key, str(value), f"--{key.rpartition('.')[2]} {value}"))
    if skip_broken:
        changes.append(("data.skip_broken", "true", "--skip-broken"))
    return changes


# ---- commands about models

Checkpoint = Annotated[
    Literal["last", "selected"], typer.Option(help="The weights after the last step, or the best on the way.")
]


@app.command()
def promote(
    wanted: Annotated[
        str,
        typer.Argument(
            help="A run's id, or a sweep (id or name), whose best run is meant.",
            metavar="SWEEP|RUN",
            autocompletion=_complete_result,
        ),
    ],
    name: Annotated[str | None, typer.Option(help="The model's name.  [default: the sweep's name]")] = None,
    alias: Annotated[str, typer.Option(help="The alias to point at it.")] = "champion",
    no_alias: Annotated[bool, typer.Option("--no-alias", help="Register the version and leave the aliases.")] = False,
    checkpoint: Checkpoint = "last",
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Make a run's weights a version of a model. The same weights are the same version, here and in MLflow."""
    from aigc_lab.serving.promotion import promote
    from aigc_lab.settings import Settings

    settings = Settings.load(home)
    done = promote(wanted, settings, name=name, alias=None if no_alias else alias, checkpoint=checkpoint)
    if json:
        _print_json(done.as_json())
    else:
        from aigc_lab.tables import promotion_page

        _print(promotion_page(done.as_json(), _uses(done, settings, home)))


def _uses(done: "Promoted", settings: "Settings", home: Path | None) -> list[str]:
    import shlex

    from aigc_lab.settings import as_typed, masked

    name, version = done.row["model"], done.row["version"]
    where = f"models:/{name}@{done.alias}" if done.alias else f"models:/{name}/{version}"
    store = f"MLFLOW_TRACKING_URI={shlex.quote(masked(settings.tracking_uri))}"
    serve = as_typed(f"mlflow models serve -m {where} --env-manager local", settings, None)
    return [as_typed(f"aigc-lab sample {where}", settings, home), f"{store} {serve}"]


@app.command()
def sample(
    model: Annotated[
        str,
        typer.Argument(
            help="A promoted model (NAME, NAME@ALIAS, models:/NAME/VERSION), a run, a sweep, or a .safetensors file.",
            metavar="MODEL|RUN",
            autocompletion=_complete_result,
        ),
    ],
    n: Annotated[int, typer.Option("-n", help="How many samples.", min=1)] = 64,
    seed: Annotated[int, typer.Option(help="The same seed gives the same samples.")] = 0,
    labels: Annotated[
        str | None,
        typer.Option(help="Classes of a conditional system, taken in turn: 3,7 or all.", metavar="LABELS"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="A folder, or a file that ends in .npz, or .txt for text.  [default: samples-MODEL]",
            metavar="DIR",
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of text: below 1 the likelier words more often; 0 for the likeliest.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Of text: draw among the K likeliest words.", min=1)] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Of text: among the fewest words that hold this probability (nucleus).")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="Of text: what every sentence begins with.")] = None,
    checkpoint: Checkpoint = "last",
    device: Annotated[str, typer.Option(help="Where to draw them: cpu, cuda, cuda:1, or auto.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace other samples at the same place.")] = False,
    home: Home = None,
) -> None:
    """Draw samples of a model or a run. Pictures come with a grid, points with a scatter plot, text as lines."""
    from aigc_lab.serving.output import sample
    from aigc_lab.settings import Settings

    said, shown = sample(
        model,
        Settings.load(home),
        n=n,
        seed=seed,
        labels=labels,
        place=output,
        checkpoint=checkpoint,
        device=device,
        force=force,
        drawing={"temperature": temperature, "top_k": top_k, "top_p": top_p, "prefix": prefix},
    )
    print(said, file=sys.stderr)
    print(shown)


@app.command()
def models(json: AsJson = False, home: Home = None) -> None:
    """List the promoted models. Each version has its aliases, the run that it came from, and its score."""
    from aigc_lab.registry import queries
    from aigc_lab.tables import models_table

    with _registry(home) as registry:
        rows = queries.models(registry)
    _print_json(rows) if json else _print(models_table(rows))


# ---- scores without a sweep


@app.command()
def evaluate(
    generated: Annotated[
        str,
        typer.Option(help="A folder of images, a .npy, .npz or text file, a run, a sweep or a model.", metavar="WHAT"),
    ],
    reference: Annotated[
        str | None,
        typer.Option(
            help="Real samples: a folder, a file, or DATASET[:split].  [default of a run: its dataset's holdout]",
            metavar="WHAT",
        ),
    ] = None,
    train: Annotated[
        str | None, typer.Option(help="What the generator was trained on, for memorisation.", metavar="WHAT")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Measure what a protocol names: a name or a YAML file.", metavar="PROTOCOL")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Measure these: fid,kid,prdc.  [default: what the samples allow]", metavar="A,B")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="inception, classifier, random, ./mine.py, …  [default: the best there is]", metavar="NAME"),
    ] = None,
    tokenizer: Annotated[
        Literal["words", "none", "characters"],
        typer.Option(help="How lines of text become words: none takes what white space parts."),
    ] = "words",
    samples: Annotated[int | None, typer.Option(help="Score so many of the generated samples.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of the samples that a run or a model is asked for.")] = 0,
    size: Annotated[int | None, typer.Option(help="Bring all images to SIZE×SIZE pixels first.")] = None,
    numbers: Annotated[
        Literal["unit", "signed", "byte"] | None,
        typer.Option("--range", help="What the numbers of a float array mean: 0 to 1, -1 to 1, or 0 to 255."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="The file of Inception's weights.", metavar="FILE")] = None,
    allow_unverified_weights: Annotated[
        bool, typer.Option("--allow-unverified-weights", help="Take weights of an unknown hash; the signature says so.")
    ] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out image files that cannot be read.")
    ] = False,
    neighbours: Annotated[
        Path | None,
        typer.Option(help="Draw what is closest to copies, beside its nearest training images.", metavar="FILE.png"),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, or auto.")] = "auto",
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Score samples against real ones. Folders, arrays, text files, runs, models; no sweep and no home are needed."""
    from aigc_lab import text_scoring
    from aigc_lab.tables import scores_table

    wanted = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
    if text_scoring.concerns(generated, reference):
        images = {"--features": features, "--size": size, "--range": numbers, "--neighbours": neighbours}
        images |= {"--weights": weights, "--allow-unverified-weights": allow_unverified_weights or None}
        images |= {"--skip-broken": skip_broken or None}
        if unfit := [option for option, value in images.items() if value is not None]:
            raise UsageError(f"{unfit[0]}: is for images, and these are files of sentences")
        text: dict[str, Any] = {"metrics": wanted, "protocol": protocol, "tokenizer": tokenizer, "samples": samples}
        rows = text_scoring.rows(generated, reference, train, seed=seed, device=device, home=home, **text)
        _print_json(rows) if json else _print(scores_table(rows))
        return
    from aigc_lab.scoring import scores

    rows = scores(
        generated,
        reference,
        train=train,
        metrics=wanted,
        protocol=protocol,
        features=features,
        samples=samples,
        seed=seed,
        size=size,
        numbers=numbers,
        weights=weights,
        allow_unverified_weights=allow_unverified_weights,
        skip_broken=skip_broken,
        neighbours=neighbours,
        device=device,
        home=home,
    )
    _print_json(rows) if json else _print(scores_table(rows))


cache = typer.Typer(
    help="What is kept of real samples' features, and the classifiers that judge.", no_args_is_help=True
)
app.add_typer(cache, name="cache")


@cache.command("list")
def cache_list(json: AsJson = False, home: Home = None) -> None:
    """List what is kept, the largest first."""
    from aigc_lab.features import cached
    from aigc_lab.settings import Settings
    from aigc_lab.tables import cache_table

    rows = cached(Settings.load(home).shared_cache)
    _print_json(rows) if json else _print(cache_table(rows))


@cache.command("verify")
def cache_verify(json: AsJson = False, home: Home = None) -> None:
    """Read every file, and name those that are not what was written. They are made again when they are needed."""
    from aigc_lab.features import cached, damaged
    from aigc_lab.settings import Settings

    place = Settings.load(home).shared_cache
    found = damaged(place)
    if json:
        _print_json([{"file": str(path), "problem": why} for path, why in found])
    else:
        print("\n".join(f"{path}: {why}" for path, why in found) or f"{len(cached(place))} files are whole")
    if found:
        raise Failure(f"{len(found)} files of the cache are damaged; they are made again when they are needed")


@cache.command("clear")
def cache_clear(
    classifiers: Annotated[
        bool, typer.Option("--classifiers", help="The classifiers too: later scores cannot be compared with theirs.")
    ] = False,
    home: Home = None,
) -> None:
    """Remove the features of real samples and what verdicts rest on; they are computed again when they are needed."""
    from aigc_lab.features import clear
    from aigc_lab.settings import Settings

    count, size = clear(Settings.load(home).shared_cache, classifiers=classifiers)
    print(f"{count} files removed, {size / 1e6:.1f} MB")


judge = typer.Typer(help="Say whether training went well, and why.", no_args_is_help=True)
app.add_typer(judge, name="judge")


@judge.command("stability")
def judge_stability(
    history: Annotated[
        Path, typer.Argument(help="A table with a header (CSV, also with ; or tabs) or JSON lines.", metavar="FILE")
    ],
    value: Annotated[str, typer.Option(help="The column of the score.", metavar="COLUMN")],
    step: Annotated[str, typer.Option(help="The column of the steps.", metavar="COLUMN")] = "step",
    se: Annotated[str | None, typer.Option(help="The column of standard errors.", metavar="COLUMN")] = None,
    baseline: Annotated[
        float | None, typer.Option(help="What a trivial sampler scores; without it, whether it learned stays unknown.")
    ] = None,
    floor: Annotated[
        float | None, typer.Option(help="What real samples score.  [default: 0 where lower is better]")
    ] = None,
    better: Annotated[Literal["lower", "higher"], typer.Option(help="Which scores are better.")] = "lower",
    diverged_at: Annotated[
        float | None, typer.Option(help="A step at which a loss, gradient or parameter was not finite.", metavar="STEP")
    ] = None,
    json: AsJson = False,
) -> None:
    """Judge the history of a score: STABLE, OSCILLATING, REGRESSED, NEVER-LEARNED, DIVERGED, or WITHHELD."""
    from aigc_lab import judging

    found = judging.stability_of_file(history, value, step, se, baseline, better, floor=floor, diverged_at=diverged_at)
    _print_json(found) if json else print(judging.story(found))


@judge.command("collapse")
def judge_collapse(
    generated: Annotated[
        str, typer.Option(help="A folder of images, a .npy, .npz or text file, a run or a model.", metavar="WHAT")
    ],
    reference: Annotated[
        str,
        typer.Option(help="Real samples, twice as many: a folder, a file, or DATASET[:split].", metavar="WHAT"),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(help="A class for each reference sample: .npy, or text with one a line.", metavar="FILE"),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="inception, classifier, random, ./mine.py, …  [default: the best there is]", metavar="NAME"),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Bring all images to SIZE×SIZE pixels first.")] = None,
    numbers: Annotated[
        Literal["unit", "signed", "byte"] | None,
        typer.Option("--range", help="What the numbers of a float array mean: 0 to 1, -1 to 1, or 0 to 255."),
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out image files that cannot be read.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, or auto.")] = "auto",
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Judge samples: NONE, PARTIAL, SEVERE, TOTAL, INCONCLUSIVE (with what would decide), or UNMEASURABLE."""
    from aigc_lab import judging

    how: dict[str, Any] = {"features": features, "size": size, "numbers": numbers, "skip_broken": skip_broken}
    found = judging.collapse_of(generated, reference, labels, device=device, home=home, **how)
    _print_json(found) if json else print(judging.story_of_collapse(found))


@judge.command("seeds")
def judge_seeds(
    sweep: Annotated[str, typer.Argument(help="A sweep.", autocompletion=_complete_sweep)],
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Judge each configuration of a sweep by all its seeds: how likely a run of it goes wrong, when, and how much
    seeds matter.
    """
    from aigc_lab import judging
    from aigc_lab.tables import seeds_table

    rows = judging.seeds_of(sweep, home)
    _print_json(rows) if json else _print(seeds_table(rows))


@app.command()
def rejudge(
    sweep: Annotated[str, typer.Argument(help="A sweep.", autocompletion=_complete_sweep)],
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, or auto.")] = "auto",
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Judge a sweep's runs again, from their stored weights and histories; nothing is trained."""
    from aigc_lab.rejudging import rejudge as again
    from aigc_lab.settings import Settings
    from aigc_lab.tables import verdicts_table

    rows = again(sweep, Settings.load(home), device)
    _print_json(rows) if json else _print(verdicts_table(rows))


# ---- commands that read


@app.command()
def status(
    sweep: OfSweep = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again, until it has ended or Ctrl-C.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Every sweep, not the newest 20 only.")] = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Show how far the sweeps are, who runs them, and what comes next."""
    from aigc_lab import status as state

    with _registry(home) as registry:
        look = state.Look(registry, sweep, most=None if every else 20, home=home)
        if json:
            _print_json(look.rows() if sweep is None else look.rows()[0])
        elif watch:
            state.watch(look)
        else:
            _print(look.page())


Limit = Annotated[int, typer.Option(help="How many at most; 0 for all.", min=0, metavar="N")]


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
    from aigc_lab.registry import queries
    from aigc_lab.tables import more, runs_table

    with _registry(home) as registry:
        found = queries.newest_runs(registry, sweep, state=_state(state), most=limit or None)
        if json:
            _print_rows(found.parts)
            print(more(found.shown, found.total), end="\n" if found.shown < found.total else "", file=sys.stderr)
        else:
            _print(runs_table([row for part in found.parts for row in part], found.total))


def _state(wanted: str | None) -> "State | None":
    from aigc_lab.content import unknown
    from aigc_lab.registry.states import State

    if wanted is not None and wanted.upper() not in State.__members__:
        raise UsageError(f"--state: {unknown('state', wanted.upper(), list(State.__members__))}")
    return None if wanted is None else State(wanted.upper())


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run's id: SWEEP.TRIAL.SEED", autocompletion=_complete_run)],
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Show one run: its configuration, scores, attempts and files."""
    from aigc_lab.registry import queries
    from aigc_lab.tables import show_page

    with _registry(home) as registry:
        row = queries.show(registry, run)
    _print_json(row) if json else _print(show_page(row))


@app.command()
def compare(
    sweep: OfSweep = None,
    score: Annotated[
        str | None, typer.Option(help="The score to rank by.  [default: each sweep's objective]", metavar="NAME")
    ] = None,
    checkpoint: Annotated[
        Literal["last", "selected"], typer.Option(help="Which checkpoint's scores to rank.")
    ] = "last",
    limit: Limit = 50,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Rank the trials by the median over their seeds, and show the best."""
    from aigc_lab.registry import queries
    from aigc_lab.tables import compare_table, more

    with _registry(home) as registry, _uncollected():
        comparison = queries.compare(registry, sweep, score=score, checkpoint=checkpoint, most=limit or None)
    if json:
        _print_rows([comparison.rows])
        for note in filter(None, (comparison.note, more(len(comparison.rows), comparison.total))):
            print(note, file=sys.stderr)
    else:
        _print(compare_table(comparison))


@app.command()
def check(
    plugin: Annotated[
        str,
        typer.Argument(
            help="A file with a system, dataset, metric or features; the name of one; or an experiment's YAML file.",
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
    """Check your own system, dataset, metric or features: contracts run on real data, what is broken is explained."""
    from aigc_lab import checks

    rows = checks.check(plugin, data, _changes(overrides, {}), json=json, home=home)
    if json:
        _print_json(rows)
    checks.conclude(rows)


@app.command()
def report(
    sweep: Annotated[
        str, typer.Argument(help="A sweep's id, or its name for the newest.", autocompletion=_complete_sweep)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write; - for stdout.  [default: SWEEP.html]", metavar="FILE"),
    ] = None,
    runs: Annotated[
        int, typer.Option(help="Embed the pictures and curves of this many runs, the best first.", min=0)
    ] = 12,
    home: Home = None,
) -> None:
    """Write one page about a sweep. Ranking, curves, samples and configuration; it needs no network and no server."""
    from aigc_lab.web.report import report as make

    with _registry(home) as registry:
        made = make(registry, sweep, detailed=runs)
    content = made.html.encode()
    if output == Path("-"):
        sys.stdout.buffer.write(content)
        return
    path = output or Path(f"{made.sweep}.html")
    _write(path, content)
    print(f"{path}  {len(content) / 1e6:.1f} MB, {made.pictures} pictures")


def _write(path: Path, content: bytes) -> None:
    """A file that the user named: its folder must exist, and what it replaces must be a file."""
    from aigc_lab.files import write_atomically

    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file that can be replaced; name another with -o, or - for stdout")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; create it or name another file with -o")
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); name another file with -o") from None


@app.command("list")
def list_(
    kind: Annotated[
        str,
        typer.Argument(metavar="systems|datasets|metrics|experiments|protocols", autocompletion=_complete_kind),
    ],
    verbose: Annotated[
        bool, typer.Option("--verbose", help="The paper, the knobs and the defaults of each system, dataset or metric.")
    ] = False,
    json: AsJson = False,
) -> None:
    """List what there is to choose from."""
    if verbose and kind in _PLUGINS:
        from aigc_lab.catalogue import catalogue
        from aigc_lab.tables import catalogue_page

        found = catalogue(_PLUGINS[kind])
        _print_json(found) if json else _print(catalogue_page(found))
        return
    rows = [{"name": name, "description": text} for name, text in _described(kind).items()]
    if verbose:
        raise UsageError(f"--verbose tells of {', '.join(_PLUGINS)}; of {kind}, open the file that is meant")
    if json:
        _print_json(rows)
    else:
        from aigc_lab.tables import names_table

        _print(names_table(rows))


# Kind -> the package's folder of plugins, or the content folder of YAML files.
_PLUGINS = {"systems": "systems", "datasets": "data", "metrics": "metrics"}
_FILES: dict[str, Literal["experiments", "evaluation"]] = {"experiments": "experiments", "protocols": "evaluation"}


def _described(kind: str) -> dict[str, str]:
    """Name -> what it is: the first line of a plugin's docstring, or of the comment that a YAML file opens with."""
    from aigc_lab import content, plugins

    if kind in _PLUGINS:
        return plugins.describe(_PLUGINS[kind])
    if kind not in _FILES:
        raise UsageError(content.unknown("kind", kind, [*_PLUGINS, *_FILES]))
    folder = _FILES[kind]
    described = {}
    for name in content.names(folder):
        first = content.find(folder, name).read_text("utf-8").lstrip().partition("\n")[0]
        origin = content.origin(folder, name)
        texts = (first.lstrip("# ").strip() if first.startswith("#") else "", f"({origin})" if origin else "")
        described[name] = "  ".join(filter(None, texts))
    return described


# ---- commands about a sweep as a whole


@app.command()
def delete(
    wanted: Annotated[
        str,
        typer.Argument(
            help="A sweep's id or name, or a run's id.", metavar="SWEEP|RUN", autocompletion=_complete_result
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and exit.")] = False,
    home: Home = None,
) -> None:
    """Delete a sweep or a run: rows, files, Optuna's study, MLflow's runs. What is promoted stays."""
    from aigc_lab.archive import deletion
    from aigc_lab.settings import Settings

    ask = (lambda question: typer.confirm(question)) if sys.stdin.isatty() else None
    deletion.delete(wanted, Settings.load(home), print, (lambda _: True) if yes else ask, dry_run=dry_run)


@app.command()
def export(
    sweep: Annotated[
        str, typer.Argument(help="A sweep's id, or its name for the newest.", autocompletion=_complete_sweep)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write.  [default: SWEEP.tar]", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    home: Home = None,
) -> None:
    """Pack a sweep into one file: rows, pictures, final weights and Optuna's study, for another home to import."""
    from aigc_lab.archive.packing import export as pack
    from aigc_lab.settings import Settings

    packed = pack(sweep, Settings.load(home), output, force=force)
    print(f"{packed.path}  {packed.bytes / 1e6:.1f} MB: {packed.sweep}, {packed.runs} runs, {packed.files} files")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file that 'aigc-lab export' wrote.", metavar="FILE")],
    home: Home = None,
) -> None:
    """Take in an exported sweep: to compare, sample, promote and go on with, as if it had been run here."""
    from aigc_lab.archive.unpacking import import_ as unpack
    from aigc_lab.settings import Settings

    unpack(file, Settings.load(home), print)


# ---- commands that look after the place


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="The port; if it is in use, the next free one.", min=0, max=65535)] = 5000,
    host: Annotated[str, typer.Option(help="The address to listen on.", metavar="ADDRESS")] = "127.0.0.1",
    browse: Annotated[bool, typer.Option("--open", help="Open the link in a browser, if there is one.")] = False,
    home: Home = None,
) -> None:
    """Serve MLflow's pages: curves, samples by step, comparisons."""
    from aigc_lab import ui as pages

    pages.ui(host=host, port=port, browse=browse, home=home)


@app.command()
def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Correct MLflow's records of a home that was moved.")
    ] = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Check the machine, the home, its stores, data and clock."""
    from aigc_lab import doctor as checks

    if not json and sys.stderr.isatty():
        print("looking (importing torch takes some seconds) …", file=sys.stderr)
    found = checks.examine(home, repair=repair)
    if json:
        _print_json([vars(check) for check in found])
    else:
        from aigc_lab.tables import checks_table

        _print(checks_table([vars(check) for check in found]))
    if any(check.state == "problem" for check in found):
        raise typer.Exit(1)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to fill; made if it is not there.", metavar="DIR")],
    force: Annotated[bool, typer.Option("--force", help="Replace files that differ.")] = False,
) -> None:
    """Copy the experiments and protocols, to be edited."""
    from aigc_lab import content

    copied = content.copy(folder, force=force)
    for name in copied.written:
        print(f"wrote {folder / name}")
    if copied.unchanged:
        print(f"{len(copied.unchanged)} files were there already")
    if "experiments" in os.listdir(folder):
        print(f"Next: cd {folder}, edit experiments/digits.yaml, then: aigc-lab sweep digits --dry-run")


# ---- commands about what MLflow lacks


@app.command()
def spool(
    sweep: OfSweep = None,
    flush: Annotated[bool, typer.Option("--flush", help="Deliver it now.")] = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Show what MLflow lacks, and why. It waits on disk until the sweep goes on, or --flush delivers it."""
    from aigc_lab import delivery
    from aigc_lab.settings import Settings

    settings = Settings.load(home)
    rows = delivery.flush(sweep, settings) if flush else delivery.spool(sweep, settings)
    _print_json(rows) if json else _print(delivery.spool_table(rows))
    if flush:
        delivery.conclude(rows)


# ---- output


def _registry(home: Path | None) -> "Registry":
    from aigc_lab.registry.store import Registry
    from aigc_lab.settings import Settings

    settings = Settings.load(home)
    return Registry.open(settings.registry_url, home=settings.home, create=False)


@contextmanager
def _uncollected() -> "Iterator[None]":
    """Rows by the hundred thousand refer to nothing that refers to them: looking for such garbage among them takes a
    tenth of the time.
    """
    import gc

    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=2, allow_nan=False))


def _print_rows(parts: "Iterable[list[dict[str, Any]]]") -> None:
    """A list in JSON as `_print_json` would print it, part after part: all of it may be more than memory holds."""
    import json

    start = "["
    for part in parts:
        for row in part:
            text = json.dumps(row, indent=2, allow_nan=False).replace("\n", "\n  ")
            sys.stdout.write(f"{start}\n  {text}")
            start = ","
    print("\n]" if start == "," else "[]")


def _print(renderable: "RenderableType") -> None:
    from aigc_lab.tables import console

    out = console()
    if out.is_terminal:
        out.print(renderable, crop=False)
        return
    # A file and a pipe have no right margin to fill.
    with out.capture() as capture:
        out.print(renderable, crop=False)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))
