"""Scores without a sweep, and the cache of what they compare with."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aigc_lab.cli.options import AsJson, Commands, Home, TokenizerOption, TrustCode, app
from aigc_lab.cli.output import print_json, print_table
from aigc_lab.errors import Failure, UsageError


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
        typer.Option(
            help="inception, classifier, lite0, random, of sentences minilm, ./mine.py, …  [default: the best]",
            metavar="NAME",
        ),
    ] = None,
    tokenizer: TokenizerOption = None,
    samples: Annotated[int | None, typer.Option(help="Score so many of the generated samples.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of the samples that a run or a model is asked for.")] = 0,
    size: Annotated[
        int | None, typer.Option(help="Bring all images to SIZE×SIZE pixels first.", min=1, max=4096)
    ] = None,
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
    trust_code: TrustCode = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Score samples against real ones. Folders, arrays, text files, runs, models; no sweep and no home are needed."""
    from aigc_lab.commands.given import scores
    from aigc_lab.display.tables import scores_table
    from aigc_lab.host import trust
    from aigc_lab.host.settings import nameable
    from aigc_lab.statistics.score import unscored_row

    if neighbours is not None:
        nameable(neighbours, "--neighbours")
    names = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
    with trust.accepting(trust_code):
        scored = scores(
            generated,
            reference,
            train=train,
            metrics=names,
            protocol=protocol,
            features=features,
            tokenizer=tokenizer,
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
    rows = [vars(score) for score in scored]
    if json:  # what is left out has been said on standard error; scripts read it here
        rows += map(unscored_row, scored.left_out.items())
    print_json(rows) if json else print_table(scores_table(rows, scored.describing))


cache = Commands(help="What is kept of real samples' features, and the classifiers that judge.", no_args_is_help=True)
app.add_typer(cache, name="cache")


def _place(home: Path | None) -> Path:
    """The cache of the home that was named; without a home, the user's."""
    from aigc_lab.host import shared_files
    from aigc_lab.host.settings import Settings

    settings = Settings.load(home)
    if home is not None and not settings.home.is_dir():
        raise UsageError(f"--home {home}: there is no such home; leave it out for the cache of commands without one")
    shared_files.of(settings)
    return settings.shared_cache


@cache.command("list")
def cache_list(json: AsJson = False, home: Home = None) -> None:
    """List the cached files, the largest first."""
    from aigc_lab.display.tables import cache_table
    from aigc_lab.scoring.feature_store import cached

    rows = cached(_place(home))
    print_json(rows) if json else print_table(cache_table(rows))


@cache.command("verify")
def cache_verify(json: AsJson = False, home: Home = None) -> None:
    """Read every cached file, and name the damaged ones. They are computed again when they are needed."""
    from aigc_lab.scoring.feature_store import cached, damaged

    place = _place(home)
    broken = damaged(place)
    if json:
        print_json([{"file": str(path), "problem": why} for path, why in broken])
    else:
        print("\n".join(f"{path}: {why}" for path, why in broken) or f"{len(cached(place))} files are whole")
    if broken:
        raise Failure(f"{len(broken)} files of the cache are damaged; they are made again when they are needed")


@cache.command("clear")
def cache_clear(
    classifiers: Annotated[
        bool, typer.Option("--classifiers", help="The classifiers too: later scores cannot be compared with theirs.")
    ] = False,
    home: Home = None,
) -> None:
    """Remove the features of real samples and what verdicts rest on; they are computed again when they are needed."""
    from aigc_lab.scoring.feature_store import clear

    count, size = clear(_place(home), classifiers=classifiers)
    print(f"{count} files removed, {size / 1e6:.1f} MB")
