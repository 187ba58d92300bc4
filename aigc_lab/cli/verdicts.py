"""Verdicts: on any samples and histories, on a sweep, and again."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from aigc_lab.cli.options import AsJson, Commands, Home, TokenizerOption, TrustCode, app, complete_sweep
from aigc_lab.cli.output import print_json, print_table
from aigc_lab.errors import Failure

judge = Commands(help="Say whether training went well, and why.", no_args_is_help=True)
app.add_typer(judge, name="judge")


@judge.command("stability")
def judge_stability(
    history: Annotated[
        Path,
        typer.Argument(help="A table with a header (CSV, also with ; or tabs), or JSON objects.", metavar="FILE"),
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
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only rows of which a column has a value, such as metric=score/fid.", metavar="COLUMN=VALUE"),
    ] = None,
    nan: Annotated[
        Literal["missing", "diverged"] | None,
        typer.Option(help="What NaN means.  [default: diverged, unless most rows hold it at regular steps]"),
    ] = None,
    json: AsJson = False,
) -> None:
    """Judge the history of a score: STABLE, OSCILLATING, REGRESSED, NEVER-LEARNED, DIVERGED, or WITHHELD."""
    from aigc_lab.commands.judge import stability_of_file
    from aigc_lab.verdicts import wording

    verdict = stability_of_file(
        history, value, step, se, baseline, better, floor=floor, diverged_at=diverged_at, where=where or (), nan=nan
    )
    print_json(verdict) if json else print(wording.of_stability(verdict))


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
        typer.Option(help="inception, classifier, lite0, random, ./mine.py, …  [default: the best]", metavar="NAME"),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="The file of Inception's weights.", metavar="FILE")] = None,
    size: Annotated[
        int | None, typer.Option(help="Bring all images to SIZE×SIZE pixels first.", min=1, max=4096)
    ] = None,
    numbers: Annotated[
        Literal["unit", "signed", "byte"] | None,
        typer.Option("--range", help="What the numbers of a float array mean: 0 to 1, -1 to 1, or 0 to 255."),
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out image files that cannot be read.")
    ] = False,
    tokenizer: TokenizerOption = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, or auto.")] = "auto",
    trust_code: TrustCode = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Judge samples: NONE, PARTIAL, SEVERE, TOTAL, INCONCLUSIVE (with what would decide), or UNMEASURABLE."""
    from aigc_lab.commands.judge import collapse_of
    from aigc_lab.host import trust
    from aigc_lab.verdicts import wording

    how: dict[str, Any] = {
        "features": features,
        "weights": weights,
        "size": size,
        "numbers": numbers,
        "skip_broken": skip_broken,
        "tokenizer": tokenizer,
    }
    with trust.accepting(trust_code):
        verdict = collapse_of(generated, reference, labels, device=device, home=home, **how)
    print_json(verdict) if json else print(f"{wording.of_collapse(verdict)}\n{verdict['signature']}")


@judge.command("seeds")
def judge_seeds(
    sweep: Annotated[
        list[str], typer.Argument(help="One sweep or several, by id or name.", autocompletion=complete_sweep)
    ],
    by: Annotated[
        str,
        typer.Option(help="What a row is: trial, system, or a parameter such as lr.", metavar="trial|system|PARAMETER"),
    ] = "trial",
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Judge each configuration by all its seeds, or all runs of a system or of a parameter's value: how likely a run
    goes wrong, when, and how much seeds matter.
    """
    from aigc_lab.commands.judge import seeds_of
    from aigc_lab.display.seeds import seeds_table

    rows = seeds_of(sweep, home, by=by)
    print_json(rows) if json else print_table(seeds_table(rows))


@app.command()
def rejudge(
    sweep: Annotated[str, typer.Argument(help="A sweep.", autocompletion=complete_sweep)],
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, or auto.")] = "auto",
    trust_code: TrustCode = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Judge a sweep's runs again, from their stored weights and histories; nothing is trained."""
    from aigc_lab.commands.rejudge import rejudge_sweep
    from aigc_lab.display.seeds import verdicts_table
    from aigc_lab.host import trust
    from aigc_lab.host.settings import Settings

    with trust.accepting(trust_code):
        rows = rejudge_sweep(sweep, Settings.load(home), device)
    print_json(rows) if json else print_table(verdicts_table(rows))
    failed = [row["run"] for row in rows if row["verdict"] is None]
    if failed:
        raise Failure(f"the samples of {len(failed)} runs cannot be judged again ({', '.join(failed[:3])}); see above")
