"""What `aigc-lab check` does: finds out what a file is, runs its contracts on real data, and explains each failure."""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from rich.console import Console

from aigc_lab import plugins
from aigc_lab.augmentations.base import Augmentation
from aigc_lab.contracts import (
    augmentations,
    datasets,
    executors,
    extractors,
    metrics,
    modalities,
    optimizers,
    penalties,
    pruners,
    system_case,
    systems,
)
from aigc_lab.contracts.base import Begin, ContractResult, Where, examine
from aigc_lab.data.base import Dataset
from aigc_lab.display import terminal
from aigc_lab.display.terminal import BAD, GOOD, Text
from aigc_lab.errors import Failure, UsageError
from aigc_lab.executors.base import Executor
from aigc_lab.experiment import validation
from aigc_lab.experiment.checks import check_data, check_experiment
from aigc_lab.experiment.experiment import load_experiment
from aigc_lab.experiment.yaml_file import dotted, parse
from aigc_lab.extractors.base import Extractor
from aigc_lab.extractors.shared import lookup
from aigc_lab.host import confined
from aigc_lab.host.settings import Settings
from aigc_lab.metrics.base import Metric
from aigc_lab.modalities.base import ModalityKind, modality_of
from aigc_lab.optimizers.base import Optimizer
from aigc_lab.penalties.base import Penalty
from aigc_lab.pruners.base import Pruner
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.sweeps.execution import Asked, choose_executor
from aigc_lab.sweeps.feature_choice import chosen_features
from aigc_lab.sweeps.fitting import fitted
from aigc_lab.sweeps.rehearsal import rehearse
from aigc_lab.systems.base import System, says_conditional

Change = tuple[str, str, str]
Row = dict[str, Any]

BASES: tuple[type, ...] = (ModalityKind, System, Dataset, Metric, Extractor)
# What keys of an experiment and options name. `wgan_gp` means the system, which has the penalty of this name.
KEYED: tuple[type, ...] = (Penalty, Augmentation, Pruner, Optimizer, Executor)
# Samples to train on, of a system; samples to score, of a metric.
_TRAIN, _SCORED = 300, 400
# A check that takes longer says how it could be shorter.
_SLOW = 20.0


def check_file(name: str, data: str | None, changes: list[Change], *, json: bool, home: Path | None) -> list[Row]:
    """Checks every plugin that the file or name stands for, and prints a line for each contract as it is known.

    Raises `UsageError` for what is no plugin at all, or an impossible option. `conclude` says how it ended.
    """
    settings = Settings.load(home)
    torch.set_num_threads(1)  # batches this small lose more to the threads' meeting than they gain
    # What a plugin prints must not end up in the middle of the JSON.
    console = terminal.console(stderr=json)
    console.file = console.file  # the stream of now: while contracts run, what is printed goes elsewhere
    if name.endswith((".yaml", ".yml")):
        return [_experiment(name, changes, settings, console)]
    own = plugins.foreign(name) if confined.seconds() else None
    begun, trains = time.monotonic(), False
    rows: list[Row] = []
    results = _here(name, data, changes, settings) if own is None else _apart(own, name, data, changes, home)
    for each in _shown(results, console):
        rows.append({"plugin": each.plugin} | _row(each.result))
        trains |= each.trains
    if trains and time.monotonic() - begun > _SLOW:
        console.print(Text("slow? smaller networks show the same: --set width=8, or whatever yours calls it"))
    return rows


class _Checked(NamedTuple):
    """What became of one contract of a plugin, and whether it is one that trains."""

    plugin: str
    trains: bool
    result: ContractResult


def _here(
    name: str, data: str | None, changes: list[Change], settings: Settings, begin: Begin = lambda contract: None
) -> Iterator[_Checked]:
    """Every contract of every plugin that the name stands for, in this process."""
    exported = lookup.is_file(name) and not plugins.is_file(name)
    bases = [Extractor] if exported else plugins.kinds([*BASES, *KEYED], name)
    if not plugins.is_file(name):
        bases = [base for base in bases if base in BASES] or bases
    for base in bases:
        kind: type[Any] = lookup.find_extractor(name) if base is Extractor else plugins.find(base, name)
        for result in _examined(kind, data, changes, settings, begin):
            yield _Checked(plugins.name_of(kind), issubclass(kind, System), result)


def _apart(own: str, name: str, data: str | None, changes: list[Change], home: Path | None) -> Iterator[_Checked]:
    """The same in a process of its own: somebody's code may never return, or end it."""
    given = {"name": name, "data": data, "changes": changes, "home": home and str(home)}
    for message in confined.call(f"{__name__}:perform", given, files=[own], doing="it was imported"):
        if "say" in message:
            _say(message["say"])
            continue
        row = message["result"]
        where = row.pop("where")
        yield _Checked(message["plugin"], message["trains"], ContractResult(**row, where=where and Where(**where)))


def perform(send: Any, name: str, data: str | None, changes: list[Change], home: str | None) -> None:
    """The checks themselves, in the process of its own."""
    torch.set_num_threads(1)

    def begin(contract: str) -> None:
        send(phase=f'"{contract}" was checked', limit="work")

    for each in _here(name, data, changes, Settings.load(Path(home) if home else None), begin):
        send(plugin=each.plugin, trains=each.trains, result=_row(each.result))


def conclude(rows: list[Row]) -> None:
    """The last line on standard error. Raises `Failure` when a contract is broken."""
    states = [row["state"] for row in rows]
    if "broken" in states:
        unchecked = states.count("not checked")
        rest = f", and {unchecked} could not be checked" if unchecked else ""
        raise Failure(f"{states.count('broken')} of {len(rows)} contracts are broken{rest}")
    print(f"all {len(rows)} contracts are kept", file=sys.stderr)


def _examined(
    kind: type, data: str | None, changes: list[Change], settings: Settings, begin: Begin
) -> Iterator[ContractResult]:
    """The contracts of a plugin class, each examined when it is asked for. Raises `UsageError` for an option that its
    kind does not have.
    """
    run = partial(examine, file=plugins.file_of(kind), begin=begin)
    if issubclass(kind, Extractor):
        if changes:
            raise UsageError(f"{changes[0][2]}: features have no options; what differs is another file")
        with _cache(settings) as cache:
            yield from run(extractors.EXTRACTOR, {"": _extractor_case(kind, data, settings, cache)})
    elif issubclass(kind, ModalityKind):
        if changes:
            raise UsageError(f"{changes[0][2]}: a modality has no options; what differs is another file")
        yield from run(modalities.MODALITY, {"": modalities.Case(kind, _dataset_of(kind, data, settings))})
    elif issubclass(kind, Executor):
        if data:
            raise UsageError("--data: an executor is checked on runs of four steps, of points")
        with executors.case_of(kind, _options(kind, changes)) as here:
            yield from run(executors.EXECUTOR, {"": here})
    elif issubclass(kind, KEYED):
        for option in [*(option for _, _, option in changes), *(["--data"] if data else [])]:
            raise UsageError(f"{option}: it is checked on what ships, without options; what differs is another file")
        yield from _examined_key(kind, run)
    elif issubclass(kind, System):
        yield from run(systems.SYSTEM, _system_cases(kind, data, _options(kind, changes), settings))
    elif issubclass(kind, Dataset):
        case = datasets.Case(kind, settings.data_dir, _options(kind, changes))
        yield from run(datasets.DATASET, {"": case})
    else:
        assert issubclass(kind, Metric)
        metric = kind(kind.Config(**_options(kind, changes)))
        with _cache(settings) as cache:
            dataset = _measurable(metric, data, settings)
            store = FeatureStore(dataset, cache=cache, weights=settings.weights, device="cpu", say=_say)
            yield from run(metrics.METRIC, {"": metrics.Case.of(metric, dataset, store, _SCORED)})


def _dataset_of(kind: type[ModalityKind], data: str | None, settings: Settings) -> Dataset:
    """The dataset that was named, else that of the modality's own file, else the one that ships. Raises `UsageError`
    where there is none, or it is of another modality.
    """
    file = plugins.file_of(kind)
    name = data or kind.example
    if data is None and file is not None and plugins.source_of(kind) is not None:
        with suppress(UsageError):
            plugins.kinds([Dataset], str(file))
            name = str(file)
    if name is None:
        raise UsageError(f"{kind.__name__}: no dataset of its samples is known; name one with --data")
    dataset = _dataset(name, settings)
    if dataset.shape.modality != kind.samples.modality:
        raise UsageError(
            f"{kind.__name__} is of {kind.samples.modality}, and dataset {dataset.name} holds {dataset.shape.modality}"
        )
    return dataset


def _extractor_case(kind: type[Extractor], data: str | None, settings: Settings, cache: Path) -> extractors.Case:
    dataset = _served(kind.__name__, partial(kind.check, weights=settings.weights), data, settings)
    kind.fetch(settings.weights, _say)  # what cannot be had here is no fault of the file
    return extractors.Case(kind, dataset, cache, settings.weights, say=_say)


def _examined_key(kind: type, run: Callable[..., Iterator[ContractResult]]) -> Iterator[ContractResult]:
    """Of what a key of an experiment names."""
    if issubclass(kind, Augmentation):
        yield from run(augmentations.AUGMENTATION, augmentations.cases(kind))
    elif issubclass(kind, Optimizer):
        yield from run(optimizers.OPTIMIZER, {"": optimizers.Case(kind)})
    elif issubclass(kind, Pruner):
        yield from run(pruners.PRUNER, {"": pruners.Case(kind)})
    elif issubclass(kind, Penalty):
        yield from run(penalties.PENALTY, {"": penalties.Case(kind)})


def _system_cases(
    kind: type[System], data: str | None, options: dict[str, Any], settings: Settings
) -> dict[str, system_case.Case]:
    """A system with real samples, once for each variant that `options` leave open. Raises `UsageError` for a dataset of
    another modality.
    """
    example = modality_of(kind).example
    if data is None and example is None:
        raise UsageError(f"{kind.__name__} makes {kind.modality}, of which no dataset ships; name one with --data")
    dataset = _dataset(data or example or "", settings)
    if dataset.shape.modality != kind.modality:
        raise UsageError(
            f"{kind.__name__} makes {kind.modality}, and dataset {dataset.name} holds {dataset.shape.modality}"
            + ("" if example is None else f"; try --data {example}")
        )
    samples, shape = dataset.load("train").take(slice(0, _TRAIN)), dataset.shape
    if data is None and shape.classes is None and _is_conditional(kind, options):
        # No sentences with classes ship; what labels must do can be tried with any.
        samples, shape = replace(samples, labels=torch.arange(len(samples)) % 2), replace(shape, classes=2)
    return {
        " ".join(f"{key}={value}" for key, value in choice.items()): system_case.Case(
            kind, shape, samples, options | choice
        )
        for choice in system_case.variants(kind, shape)
        if not choice.keys() & options.keys()
    }


def _is_conditional(kind: type[System], options: Mapping[str, Any]) -> bool:
    """Whether a system with these options needs labels, by its class or by its key `conditional`."""
    field = getattr(kind.Config, "model_fields", {}).get("conditional")
    return kind.conditional or says_conditional(options.get("conditional", field.default if field else None))


def _options(kind: type[Any], changes: list[Change]) -> dict[str, Any]:
    """The keys of --set, checked by the plugin's Config; keys that it lacks are the contracts' business."""
    options: dict[str, Any] = {}
    words = {key: option for key, _, option in changes}
    for key, text, option in changes:
        options[key] = parse(text, option)

    def fail(path: tuple[Any, ...], message: str) -> NoReturn:
        raise UsageError(f"{words[str(path[0])]}: {dotted(path)}: {message}")

    if options:
        with suppress(KeyError):  # a required key that is not among them
            validation.validated(kind.Config, options, fail)
    return options


def _dataset(name: str, settings: Settings) -> Dataset:
    kind = plugins.find(Dataset, name)  # type: ignore[type-abstract]
    return kind(kind.Config(), settings.data_dir)


def _measurable(metric: Metric, data: str | None, settings: Settings) -> Dataset:
    """The dataset that was named, or the first of those that ship which the metric accepts."""

    def check(dataset: Dataset) -> None:
        metric.check(dataset, 1000)
        if metric.extractor:
            lookup.find_extractor(metric.extractor).check(dataset, settings.weights)

    return _served(type(metric).__name__, check, data, settings)


def _served(what: str, check: Callable[[Dataset], None], data: str | None, settings: Settings) -> Dataset:
    """The dataset that was named, or the first of those that ship which `check` lets through."""
    refusals = []
    for dataset in [_dataset(name, settings) for name in ([data] if data else ["digits", "ring", "pydoc"])]:
        try:
            check(dataset)
            return dataset
        except ValueError as error:
            refusals.append(f"{dataset.name}: {error}")
    raise UsageError(f"{what} can measure none of these: {'; '.join(refusals)}; name one with --data")


@contextmanager
def _cache(settings: Settings) -> Iterator[Path]:
    """The home's, where there is a home; a check makes none."""
    if settings.home.is_dir():
        yield settings.cache
    else:
        with tempfile.TemporaryDirectory(prefix="aigc-lab-check-") as folder:
            yield Path(folder)


def _experiment(source: str, changes: list[Change], settings: Settings, console: Console) -> Row:
    experiment = load_experiment(source, changes, data_dir=settings.data_dir, weights=settings.weights)
    choose_executor(experiment, Asked())
    rehearse(experiment, "cpu", _say)
    with _cache(settings) as cache:
        experiment, choice = chosen_features(experiment, cache, "cpu", _say)
    experiment, notes = fitted(experiment)
    for note in choice + notes:
        _say(note)
    check_experiment(experiment)
    check_data(experiment)
    why = "A typo or an impossible combination must fail before any training."
    result = ContractResult("both ends of every hole can be run", "kept", why)
    _print(result, console)
    return {"plugin": experiment.name} | _row(result)


# ---- output

_MARK = {"kept": ("✓", GOOD), "broken": ("✗", BAD)}


def _shown(results: Iterator[_Checked], console: Console) -> Iterator[_Checked]:
    """The same results, each printed as it comes, with a spinner on a terminal while the next is worked on."""
    status = terminal.console(stderr=True).status("checking …")
    with status, redirect_stdout(sys.stderr):
        unchecked = Counter[str]()
        for each in results:
            if each.result.state == "not checked":
                unchecked[each.result.message] += 1
            else:
                _print(each.result, console)
            yield each
        for message, count in unchecked.items():
            contracts = "1 contract is" if count == 1 else f"{count} contracts are"
            console.print(Text(f"· {contracts} not checked; {message}", style="dim"), soft_wrap=True)


def _print(result: ContractResult, console: Console) -> None:
    mark, style = _MARK[result.state]
    line = Text.assemble((mark, style), " ", result.contract)
    if result.state == "broken":
        line.append(f" — {result.message}" + (f" (with {result.case})" if result.case else ""))
    console.print(line, soft_wrap=True)
    if result.state == "broken":
        if result.where:
            console.print(Text(f"    {result.where.file}:{result.where.line}: {result.where.code}"), soft_wrap=True)
        console.print(Text(f"    {result.why}", style="dim"), soft_wrap=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _row(result: ContractResult) -> Row:
    row: Mapping[str, Any] = asdict(result)
    return {**row, "where": result.where._asdict() if result.where else None}
