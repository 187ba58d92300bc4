"""The program, and the options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from typer.core import TyperCommand

from aigc_lab.errors import UsageError
from aigc_lab.host.durations import seconds_of

# Options and arguments whose value may be an empty text: a sentence may begin with no word.
_MAY_BE_EMPTY = frozenset({"prefix"})


class _Command(TyperCommand):
    """A command that refuses empty values: `-o ''` is an unset variable of a shell, and would mean a folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell asks what could follow
            return super().parse_args(ctx, args)
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in self.get_params(ctx):
            values = given.get(parameter.name)
            every = values if isinstance(values, list | tuple) else [values]
            if parameter.name not in _MAY_BE_EMPTY and any(isinstance(one, str) and not one.strip() for one in every):
                option = parameter.opts[0].startswith("-")
                name = max(parameter.opts, key=len) if option else parameter.metavar or str(parameter.name).upper()
                raise UsageError(f"{name} '': is empty; give a value, or leave it out")
        return super().parse_args(ctx, args)


_Function = TypeVar("_Function", bound=Callable[..., Any])


class Commands(typer.Typer):
    """A program, or a group of its commands."""

    def command(self, *words: Any, **options: Any) -> Callable[[_Function], _Function]:
        return super().command(*words, **{"cls": _Command, **options})


app = Commands(
    name="aigc-lab",
    help="A laboratory for generative models: sweeps of GANs and VAEs, scores with intervals, verdicts and models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def complete_sweep(incomplete: str) -> list[str]:
    from aigc_lab.cli import completion

    return completion.sweeps(incomplete)


def complete_run(incomplete: str) -> list[str]:
    from aigc_lab.cli import completion

    return completion.runs(incomplete)


def complete_experiment(incomplete: str) -> list[str]:
    from aigc_lab.cli import completion

    return completion.experiments(incomplete)


def complete_executor(incomplete: str) -> list[str]:
    from aigc_lab.cli import completion

    return completion.executors(incomplete)


def complete_benchmark(incomplete: str) -> list[str]:
    from aigc_lab.cli import completion

    return completion.benchmarks(incomplete)


def complete_result(incomplete: str) -> list[str]:
    """Whatever has weights: runs, sweeps, promoted models."""
    from aigc_lab.cli import completion

    return completion.results(incomplete)


def complete_labels(context: typer.Context, incomplete: str) -> list[str]:
    """Classes of the model that was typed before, behind those of the list that are there already."""
    from aigc_lab.cli import completion

    # Behind an option without its value arguments are not told apart yet; the model is the first.
    return completion.labels(context.params.get("model") or next(iter(context.args), ""), incomplete)


# What a store holds: 64 bits. Said here too, for pydantic's types cost more to import than `--help` may take.
MOST = 2**63 - 1

Home = Annotated[
    Path | None,
    typer.Option(envvar="AIGC_LAB_HOME", help="The home folder.  [default: .aigc-lab]", metavar="DIR"),
]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Run code that came from elsewhere: I have read it. This is remembered.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
OfSweep = Annotated[
    str | None,
    typer.Argument(help="A sweep's id, or its name for the newest.  [default: all]", autocompletion=complete_sweep),
]
OfSweeps = Annotated[
    list[str] | None,
    typer.Argument(
        help="The sweeps: ids, or names for the newest.  [default: all]",
        autocompletion=complete_sweep,
    ),
]
Limit = Annotated[int, typer.Option(help="How many at most; 0 for all.", min=0, max=MOST - 1, metavar="N")]


def changed(
    overrides: list[str] | None, options: dict[str, int | None], skip_broken: bool = False
) -> list[tuple[str, str, str]]:
    """Pairs of key and YAML text, each with the option to quote in error messages."""
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


def per_gpu(text: str | None) -> 'int | Literal["auto"] | None':
    """The value of --trials-per-gpu: a number or auto."""
    if text is None or text == "auto":
        return None if text is None else "auto"
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise UsageError(f"--trials-per-gpu {text}: give a whole number from 1 to 1024, or auto")
    return int(text)


def replicas_of(text: str | None) -> 'int | Literal["auto", "off"] | None':
    """The value of --replicas: a number, auto or off."""
    if text is None:
        return None
    if text in ("auto", "off"):
        return "auto" if text == "auto" else "off"
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise UsageError(f"--replicas {text}: give a whole number from 1 to 256, auto or off")
    return int(text)


def duration(text: str, option: str) -> int:
    """Seconds of a length of time that an option gives."""
    try:
        return seconds_of(text)
    except ValueError as error:
        raise UsageError(f"{option} {error}") from None


def executor_options(given: list[str] | None) -> list[tuple[str, str, str]]:
    """The options of an executor: key, YAML text, and the option to quote in error messages."""
    triples = []
    for item in given or []:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise UsageError(f"--executor-option {item}: write --executor-option KEY=VALUE")
        triples.append((key, text, f"--executor-option {item}"))
    return triples


TokenizerOption = Annotated[
    Literal["words", "none", "characters", "nltk"] | None,
    typer.Option(
        "--tokenizer",
        help="How lines of text become words: none: at spaces, nltk: word_tokenize.  [default: words]",
    ),
]
