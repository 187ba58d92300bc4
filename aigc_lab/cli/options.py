"""The program, and the options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aigc_lab.errors import UsageError

app = typer.Typer(
    name="aigc-lab",
    help="A laboratory for generative models: sweeps of GANs and VAEs, scores with intervals, and what came of them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def complete_sweep(incomplete: str) -> list[str]:
    from aigc_lab import completion

    return completion.sweeps(incomplete)


def complete_run(incomplete: str) -> list[str]:
    from aigc_lab import completion

    return completion.runs(incomplete)


def complete_experiment(incomplete: str) -> list[str]:
    from aigc_lab import completion

    return completion.experiments(incomplete)


def complete_result(incomplete: str) -> list[str]:
    """Whatever has weights: runs, sweeps, promoted models."""
    from aigc_lab import completion

    return completion.results(incomplete)


Home = Annotated[
    Path | None,
    typer.Option(envvar="AIGC_LAB_HOME", help="The home folder.  [default: .aigc-lab]", metavar="DIR"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
OfSweep = Annotated[
    str | None,
    typer.Argument(help="A sweep's id, or its name for the newest.  [default: all]", autocompletion=complete_sweep),
]
Limit = Annotated[int, typer.Option(help="How many at most; 0 for all.", min=0, metavar="N")]


def changed(
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


TokenizerOption = Annotated[
    Literal["words", "none", "characters", "nltk"] | None,
    typer.Option(
        "--tokenizer",
        help="How lines of text become words: none: at spaces, nltk: word_tokenize.  [default: words]",
    ),
]
