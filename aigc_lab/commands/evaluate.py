"""`aigc-lab evaluate` and `judge collapse`: the named samples are found and scored, with a progress bar."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.data.shared import sample_note
from aigc_lab.data.shared.class_shares import generate_like
from aigc_lab.display import terminal
from aigc_lab.errors import Failure, UsageError
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
        _say_if_other(str(generated), dataset, reference, "leave --reference out to compare with its own")
        real, count = _reference_of_model(generated, reference, dataset, samples)
        fake = generate_like(system, dataset, count, seed, "evaluate")
    elif real is None:
        what = generated if isinstance(generated, str | Path) else "these samples"
        raise UsageError(f"--reference: what shall {what} be compared with? Name a folder, a file or a dataset")
    else:
        _say_if_folder_of_other(generated, reference, settings, policy)
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
            model, dataset = _model(generated, opened, policy, device)
        _say_if_other(str(generated), dataset, reference)
        fake = generate_like(model.system, dataset, _MOST, 0, "evaluate")
    else:
        _say_if_folder_of_other(generated, reference, settings, policy)
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
        model, dataset = _model(source, opened, policy, environment.device(device))
        samples = generate_like(model.system, dataset, count or _MOST, seed, "evaluate")
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
    dataset = None if run is None else _dataset_of(run, opened, policy)
    for line in weights.notes:
        print(line, file=sys.stderr)
    return weights.load(device), dataset


def _dataset_of(run: str, opened: OpenedHome, policy: WeightsPolicy) -> Dataset:
    """The dataset of the sweep of a run. Raises `UsageError` where that is not in the registry."""
    row = show_sweep(opened.registry, run.rpartition(".")[0].rpartition(".")[0])
    return stored_experiment(row, opened.settings, policy).dataset


def _say_if_folder_of_other(generated: Any, reference: Any, settings: Settings, policy: WeightsPolicy) -> None:
    """Says on standard error if a folder that `sample` wrote is compared with a dataset that its run did not learn."""
    if not isinstance(generated, str) or not isinstance(reference, str):
        return
    note = sample_note.read_note(Path(generated).expanduser() / sample_note.NAME).get("note")
    run = note.get("run") if isinstance(note, dict) and sample_note.is_of_sample(note) else None
    if not isinstance(run, str):
        return
    try:
        with OpenedHome(settings) as opened:
            dataset = _dataset_of(run, opened, policy)
    except (UsageError, Failure):  # samples of another home
        return
    _say_if_other(f"{run}, of which {generated} are samples,", dataset, reference)


def _say_if_other(name: str, dataset: Dataset | None, reference: Any, remedy: str | None = None) -> None:
    """Says on standard error if what is called `name` was trained on another dataset than the one that is named as its
    reference.
    """
    other = reference.partition(":")[0] if isinstance(reference, str) and not Path(reference).exists() else None
    if dataset is None or other is None or other not in plugins.names("data") or other == dataset.name:
        return
    keys = ", ".join(f"{key} {value}" for key, value in dataset.config.model_dump(exclude_defaults=True).items())
    trained = f"{dataset.name} ({keys})" if keys else dataset.name
    remedy = remedy or f"--reference {dataset.name} compares with its own"
    print(f"{name} was trained on {trained}, and is compared with {other}: {remedy}", file=sys.stderr)


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
