"""`aigc-lab evaluate` and `judge collapse`: the named samples are found and scored, with a progress bar."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aigc_lab import plugins
from aigc_lab.display import terminal
from aigc_lab.errors import UsageError
from aigc_lab.evaluate import evaluate, judge
from aigc_lab.experiment.stored import stored_experiment
from aigc_lab.host import environment, visible
from aigc_lab.host.settings import Settings
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.modalities.base import modality_of
from aigc_lab.modalities.shared.inputs import Range
from aigc_lab.registry.home import OpenedHome
from aigc_lab.registry.sweeps import show_sweep
from aigc_lab.scoring.inputs import read_input
from aigc_lab.serving import lookup
from aigc_lab.statistics.score import Scores
from aigc_lab.verdicts.conclusion import CollapseVerdict

# The number of samples that are drawn of a run, unless another is given or its reference has fewer.
_MOST = 5000


def scores(
    generated: Any,
    reference: Any,
    *,
    train: Any = None,
    metrics: Sequence[str] | None = None,
    protocol: str | None = None,
    features: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    size: int | None = None,
    numbers: Range | None = None,
    weights: Path | None = None,
    allow_unverified_weights: bool = False,
    skip_broken: bool = False,
    neighbours: Path | None = None,
    device: str = "auto",
    home: Path | None = None,
) -> Scores:
    """The scores of what was given or named: `generated` may be a run, a sweep or a model, and else both are what
    `aigc_lab.evaluate.evaluate` takes. Messages and a bar go to standard error.
    """
    settings, device = Settings.load(home), environment.device(device)
    policy = WeightsPolicy(settings.weights_dir, weights, allow_unverified_weights)
    fake: Any = generated
    real: Any = reference
    system = None
    if _names_model(generated):
        with OpenedHome(settings) as opened:
            model, dataset = _model(generated, opened, policy, device)
        system = model.system
        real, count = _reference_of_model(generated, reference, dataset, samples)
        fake = system.generate(count, seed, "evaluate")
    elif real is None:
        what = generated if isinstance(generated, str | Path) else "these samples"
        raise UsageError(f"--reference: what shall {what} be compared with? Name a folder, a file or a dataset")
    with _bar() as watch:
        return evaluate(
            fake,
            real,
            train=train,
            metrics=metrics,
            protocol=protocol,
            features=features,
            size=size,
            samples=samples,
            numbers=numbers,
            weights=policy,
            device=device,
            cache=settings.shared_cache,
            data_dir=settings.data_dir,
            skip_broken=skip_broken,
            system=system,
            neighbours=neighbours,
            say=lambda text: print(text, file=sys.stderr),
            watch=watch,
        )


def collapse(
    generated: Any,
    reference: Any,
    labels: Sequence[int] | Sequence[str] | None,
    *,
    device: str,
    home: Path | None,
    weights: Path | None = None,
    **options: Any,
) -> CollapseVerdict:
    """The verdict on what was named: a folder, an array, a dataset's split, a run or a model."""
    settings, device = Settings.load(home), environment.device(device)
    policy = WeightsPolicy(settings.weights_dir, weights)
    fake: Any = generated
    if _names_model(generated):
        with OpenedHome(settings) as opened:
            model, _ = _model(generated, opened, policy, device)
        fake = model.system.generate(_MOST, 0, "evaluate")
    return judge(
        fake,
        reference,
        labels=labels,
        weights=policy,
        device=device,
        cache=settings.shared_cache,
        data_dir=settings.data_dir,
        say=lambda text: print(text, file=sys.stderr),
        **options,
    )


def sentences_of(source: str, count: int | None, opened: OpenedHome, *, seed: int, device: str) -> list[str]:
    """The sentences of a dataset's split, or `count` sentences of a run or a model."""
    settings = opened.settings
    if source.partition(":")[0] in plugins.names("data"):
        samples = read_input(source, data_dir=settings.data_dir).load(0, None)
    else:
        policy = WeightsPolicy(settings.weights_dir)
        model, _ = _model(source, opened, policy, environment.device(device))
        samples = model.system.generate(count or _MOST, seed, "evaluate")
    lines: list[str] | None = modality_of(samples).lines(samples)
    if lines is None:
        raise UsageError(f"{source} is of {samples.modality}, and the other set of text: there is nothing to compare")
    return lines


def _names_model(source: object) -> bool:
    """Whether this is a name, and neither a file or folder nor a dataset."""
    return isinstance(source, str) and not (
        Path(source).expanduser().exists() or source.partition(":")[0] in plugins.names("data")
    )


def _reference_of_model(name: str, reference: Any, dataset: Any, samples: int | None) -> tuple[Any, int]:
    """What samples of a model are compared with, and how many are drawn: by default the holdout of the `dataset` that
    it was trained on, and at most as many. Raises `UsageError` where neither is known.
    """
    if reference is not None:
        return reference, samples or _MOST
    if dataset is None:
        raise UsageError(f"--reference: what shall {name} be compared with? Name a folder or a dataset")
    return (dataset, "holdout"), samples or min(_MOST, len(dataset.load("holdout")))


def _model(name: str, opened: OpenedHome, policy: WeightsPolicy, device: str) -> tuple[Any, Any]:
    """The model of a run, a sweep or a promoted model, and the dataset that it was trained on (None: not recorded)."""
    try:
        weights = lookup.weights_in(opened, name)
    except UsageError as error:
        raise UsageError(f"{name}: no such file, folder or dataset, and no run or model: {error}") from None
    run = weights.origin.get("run")
    dataset = None
    if run is not None:
        row = show_sweep(opened.registry, run.rpartition(".")[0].rpartition(".")[0])
        dataset = stored_experiment(row, opened.settings, policy).dataset
    for line in weights.notes:
        print(line, file=sys.stderr)
    return weights.load(device), dataset


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error for each pass over a set, where that is a terminal."""
    console = terminal.console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        if console.is_terminal:
            visible.guard()
        tasks: dict[str, Any] = {}

        def watch(what: str, done: int, total: int) -> None:
            if what not in tasks or progress.tasks[tasks[what]].finished:
                tasks[what] = progress.add_task(visible.line(what), total=total)
            progress.update(tasks[what], completed=done)

        yield watch
