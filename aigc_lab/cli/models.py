"""Commands about models."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aigc_lab.cli.options import MOST, AsJson, Home, TrustCode, app, complete_labels, complete_result
from aigc_lab.cli.output import opened, print_json, print_table

if TYPE_CHECKING:
    from aigc_lab.host.settings import Settings
    from aigc_lab.serving.promotion import PromotionResult


Checkpoint = Annotated[
    Literal["last", "selected"],
    typer.Option(
        help="last: after the last step, or with patience the best on the way; selected: the best on the way."
    ),
]


@app.command()
def promote(
    source: Annotated[
        str,
        typer.Argument(
            help="A run's id, or a sweep (id or name): its best run that neither collapsed nor was unstable;"
            " NAME@VERSION points the alias at a version that exists, which rolls a model back.",
            metavar="SWEEP|RUN",
            autocompletion=complete_result,
        ),
    ],
    name: Annotated[str | None, typer.Option(help="The model's name.  [default: the sweep's name]")] = None,
    alias: Annotated[str, typer.Option(help="The alias to point at it.")] = "champion",
    no_alias: Annotated[bool, typer.Option("--no-alias", help="Register the version and leave the aliases.")] = False,
    checkpoint: Checkpoint = "last",
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Promote it though a verdict speaks against it, or it is worse than what it replaces; with --reason.",
        ),
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why, kept with the version.", metavar="WHY")] = None,
    trust_code: TrustCode = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Make a run's weights a version of a model. The same weights are the same version, here and in MLflow.

    It is compared with the version that it replaces. What is collapsed, unstable or worse is refused without --force.
    """
    from aigc_lab.errors import UsageError
    from aigc_lab.host import trust
    from aigc_lab.host.settings import Settings
    from aigc_lab.serving.promotion import promote

    if force != (reason is not None):
        raise UsageError("--force: say why, with --reason" if force else "--reason: is for --force; give both or none")
    settings = Settings.load(home)
    with trust.accepting(trust_code):
        pointed = None if no_alias else alias
        done = promote(source, settings, name=name, alias=pointed, checkpoint=checkpoint, reason=reason)
    if json:
        print_json(done.as_json())
    else:
        from aigc_lab.display.tables import promotion_page

        print_table(promotion_page(done.as_json(), _uses(done, settings, home)))


def _uses(done: "PromotionResult", settings: "Settings", home: Path | None) -> list[str]:
    import shlex

    from aigc_lab.host.settings import as_typed, masked

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
            autocompletion=complete_result,
        ),
    ],
    n: Annotated[int, typer.Option("-n", help="How many samples.", min=1, max=10**12, metavar="N")] = 64,
    seed: Annotated[
        int, typer.Option(help="The same seed gives the same samples.", min=-(2**63), max=2**63 - 1, metavar="N")
    ] = 0,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Classes of a conditional system by name or number, taken in turn: cat,dog, 3,7 or all.",
            metavar="LABELS",
            autocompletion=complete_labels,
        ),
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
    top_k: Annotated[
        int | None, typer.Option(help="Of text: draw among the K likeliest words.", min=1, max=MOST)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Of text: among the fewest words that hold this probability (nucleus).")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="Of text: what every sentence begins with.")] = None,
    checkpoint: Checkpoint = "last",
    device: Annotated[str, typer.Option(help="Where to draw them: cpu, cuda, cuda:1, or auto.")] = "cpu",
    force: Annotated[
        bool, typer.Option("--force", help="Replace files there that sample did not write, or that were changed since.")
    ] = False,
    trust_code: TrustCode = False,
    home: Home = None,
) -> None:
    """Draw samples of a model or a run. Pictures come with a grid, points with a scatter plot, text as lines."""
    from aigc_lab.host import signals, trust
    from aigc_lab.host.settings import Settings, nameable
    from aigc_lab.serving.sample_files import sample

    if output is not None:
        nameable(output, "-o")
    with signals.handled(exits=False), trust.accepting(trust_code):  # SIGTERM, too, leaves nothing half-written
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
    """List the promoted models. Each version has its aliases, its run, its score and its verdicts; below stands why one
    was forced, what was passed over, and how the aliases moved.
    """
    from aigc_lab.display.tables import models_table
    from aigc_lab.registry.models import list_models

    with opened(home) as registry:
        rows = list_models(registry)
    print_json(rows) if json else print_table(models_table(rows))
