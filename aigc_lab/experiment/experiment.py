"""The types of an experiment file and of a protocol file, and the checks that run before any training.

An experiment is a template: `Experiment.resolve` fills its holes and gives a `Configuration`, which is one trial. The
plugins' own `Config` classes check what is theirs; they are imported only when a file is checked, so that reading the
name of an experiment costs no torch.
"""

import hashlib
import itertools
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from aigc_lab import plugins
from aigc_lab.config import BatchSize, Count, Seed, Steps, Strict, Times, Weight
from aigc_lab.errors import UsageError
from aigc_lab.experiment import code_files, space
from aigc_lab.experiment.overrides import override
from aigc_lab.experiment.yaml_file import Document, KeyPath, dotted, parse, read_yaml, shown, unknown_key
from aigc_lab.host import content, names
from aigc_lab.host.settings import Settings
from aigc_lab.host.trust import Allowed, gate
from aigc_lab.host.weights import PUBLISHED, WeightsPolicy
from aigc_lab.pruners import base as pruners

if TYPE_CHECKING:
    from aigc_lab.data.base import Dataset
    from aigc_lab.metrics.base import Metric
    from aigc_lab.systems.base import System

M = TypeVar("M", bound=BaseModel)

# Of batches and packings: each is tried before anything is trained.
_COMBINATIONS = 10_000

# A curve is kept whole while a run trains.
_POINTS = 10_000_000


class Training(Strict):
    """The budget and the numerics of one run."""

    steps: Steps = Field(description="one step is one pass over all phases")
    batch_size: BatchSize = 64
    log_every: Steps = Field(50, description="steps between two points of a curve")
    evaluate_every: Steps = Field(1000, description="steps between evaluations; the last step is always evaluated")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the moving average that is sampled from; 0 for none")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: networks under autocast; penalties, spectral norms and statistics stay in fp32"
    )
    channels_last: bool = Field(False, description="convolutions with the channels innermost in memory: faster in bf16")
    patience: Count | None = Field(
        None,
        ge=1,
        description="the run ends after so many evaluations without a better objective; the best is its result",
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads; part of what a result depends on to the bit"
    )
    stacked: bool = Field(False, description="train the seeds of one `train` command as one program (vmap)")
    checkpoint_seconds: Weight = Field(30.0, description="a crash loses so much work at most")
    keep_every: Steps | None = Field(None, description="keep the weights of every so many steps, beside the last")

    @model_validator(mode="after")
    def _one_layout(self) -> "Training":
        if self.stacked and self.channels_last:
            raise ValueError("channels_last does nothing for stacked runs, whose weights lie row by row; leave out one")
        return self

    @model_validator(mode="after")
    def _holdable_curves(self) -> "Training":
        if self.steps // self.log_every > _POINTS:
            least = -(-self.steps // _POINTS)
            raise ValueError(
                f"{self.steps:,} steps, logged every {self.log_every}, make curves of more than {_POINTS:,} points; "
                f"set training.log_every to {least:,} or more"
            )
        return self

    @field_validator("evaluate_every", "keep_every")
    @classmethod
    def _whole_intervals(cls, value: int | None, info: ValidationInfo) -> int | None:
        every = info.data.get("log_every") or 1
        if value and value % every:
            raise ValueError(
                f"{value} is not a multiple of log_every ({every}); set training.log_every to a divisor of it"
            )
        return value


class Objective(Strict):
    """The one score that a sweep improves."""

    minimize: str | None = None
    maximize: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "Objective":
        if (self.minimize is None) == (self.maximize is None):
            raise ValueError("give minimize or maximize, and one of them only")
        return self

    @property
    def score(self) -> str:
        return self.minimize or self.maximize or ""

    @property
    def better(self) -> Literal["lower", "higher"]:
        return "lower" if self.minimize else "higher"


class Search(Strict):
    """How configurations are chosen. With `per_system` every system gets the same number of trials."""

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    trials: Times = Field(10, description="the total, over all systems")
    seeds: Times = 1
    per_system: bool = True
    pruner: pruners.Name = Field(
        "none", description="stops the search's runs: median, worse than most of their system; alarm, worse than before"
    )
    seed: Seed = Field(0, description="of the sampler")


class Confirm(Strict):
    """The best configurations again, with fresh seeds and never pruned: the value that a comparison may quote."""

    top: Times = 1
    seeds: Times = 3


class Protocol(Strict):
    """What is measured: the number of generated samples, and metrics as names with their configuration."""

    name: str
    samples: Count
    metrics: list[tuple[str, dict[str, Any]]] = Field(min_length=1, max_length=100)
    fewer: bool = Field(
        False, description="where a scored split has fewer samples, all of it; metrics that need more are left out"
    )
    left_out: dict[str, str] = Field({}, description="metrics that the data were too few for, and why; is written here")
    temperatures: list[float] = Field(
        [],
        max_length=100,
        description="a finished language model is sampled at these too: its curve of quality against diversity",
    )

    @field_validator("temperatures")
    @classmethod
    def _warm(cls, values: list[float]) -> list[float]:
        cold = [value for value in values if not 0 < value < 100]
        if cold:
            raise ValueError(f"a temperature is above 0, like 0.8, not {cold[0]:g}")
        return values

    @field_validator("metrics", mode="before")
    @classmethod
    def _named(cls, items: Any) -> Any:
        if not isinstance(items, list):
            raise ValueError("metrics is a list of names, or of one name with its configuration: fd: {features: …}")
        named: list[tuple[str, dict[str, Any]]] = []
        for item in items:
            if isinstance(item, str):
                named.append((item, {}))
            elif isinstance(item, dict) and len(item) == 1:
                ((name, config),) = item.items()
                named.append((name, config or {}))
            else:
                raise ValueError(f"a metric is a name, or one name with its configuration, not {shown(item)}")
        return named


class _File(Strict):
    """The keys of an experiment file; `data` and `system` are checked by the plugins that they name."""

    data: dict[str, Any]
    system: dict[str, Any]
    training: Training
    evaluation: str | dict[str, Any]
    objective: Objective
    search: Search = Search()
    confirm: Confirm | None = None

    @field_validator("*", mode="after")
    @classmethod
    def _holdable(cls, value: Any) -> Any:
        return value  # every section is looked at by the class that reads it, which knows the key


@dataclass(frozen=True)
class Configuration:
    """One trial: an experiment without holes, every part checked by the class that reads it."""

    system: str
    system_class: "type[System]"
    system_config: Any
    dataset: "Dataset"
    training: Training
    protocol: Protocol
    #: what the search chose, by the short name that people read: {"lr": 0.0002, "training.batch_size": 64}
    chosen: dict[str, Any]
    #: the same by hole, for Optuna: {"system.dcgan.lr": 0.0002}
    values: dict[str, Any]
    #: everything, as plain data
    data: dict[str, Any]
    #: what is said of a run that the search's pruner stops
    pruned: str = ""

    @property
    def named_files(self) -> dict[str, str]:
        """The keys of the system that name users' files, as the experiment names them: wherever these lie now."""
        return plugins.keyed_files(self.data["system"])

    @property
    def parameters(self) -> dict[str, Any]:
        """The value of every knob, defaults included, by the name that MLflow shows: `lr`, `data.name` as `data`,
        `training.steps`. Plain data.
        """
        sections: dict[str, BaseModel] = {"data.": self.dataset.config, "": self.system_config}
        found: dict[str, Any] = {"data": self.dataset.name}
        for prefix, section in (sections | {"training.": self.training}).items():
            found |= {f"{prefix}{key}": value for key, value in section.model_dump(mode="json").items()}
        return found | self.named_files


# What a system's constructor refuses with; what torch, or the system of somebody else, raises for sizes that cannot be.
_UNBUILT = (ValueError, TypeError, ArithmeticError, MemoryError, RuntimeError)

# evaluate_every is a multiple of log_every: the ends of a range cannot show that all of it is.
_TIED: tuple[KeyPath, ...] = (("training", "evaluate_every"), ("training", "log_every"))


@dataclass
class Experiment:
    """An experiment file with its overrides applied. `load` checks it; `resolve` makes trials of it."""

    name: str
    document: Document
    data_dir: Path
    weights: WeightsPolicy = PUBLISHED
    #: what lets files of code pass that the user did not name himself; None where he did
    allowed: Allowed | None = None
    #: sha256 -> name of every file of code that it named so far
    code: dict[str, str] = field(default_factory=dict)
    #: the folder of the copies of the files that it names, where these are not beside it any more
    copies: Path | None = None
    _datasets: dict[str, "Dataset"] = field(default_factory=dict)

    @cached_property
    def file(self) -> _File:
        """The sections that hold no holes, and the others as their first filling has them."""
        return self._check(_File, space.fill(self.document, lambda hole: hole.ends()[0]))

    @cached_property
    def holes(self) -> list[space.Hole]:
        return space.holes(self.document)

    @cached_property
    def digest(self) -> str:
        """sha256 of what the file and its protocol say, without what changes no result: with more trials, a sweep goes
        on, however often its states are stored.
        """
        data = json.loads(json.dumps(self.document.data))
        # A plugin file is a part of the experiment: when it changes, this is another one.
        features = {name for _, config in self.protocol.metrics for _, name in _feature_files(config)}
        sources = {name: plugins.read_source(name, self._folder) for name in sorted(_files(data) | features)}
        data["files"] = {name: hashlib.sha256(source).hexdigest() for name, source in sources.items()}
        if not sources:
            del data["files"]
        if not self._first_dataset.fixed:
            data["content"] = self._first_dataset.digest
        # An absent section says what an empty one says.
        data["search"] = {key: value for key, value in (data.get("search") or {}).items() if key != "trials"}
        data["training"] = {key: value for key, value in data["training"].items() if key != "checkpoint_seconds"}
        data["evaluation"] = self.protocol.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    @property
    def sweep(self) -> str:
        """The id of the sweep that this is: its name and what it says, so that a changed file is another sweep."""
        return f"{self.name}-{self.digest[:8]}"

    @cached_property
    def pruner(self) -> type[pruners.Pruner]:
        """What stops runs of the search."""
        try:
            return plugins.find(pruners.Pruner, self.file.search.pruner, self._folder, self._named_code)  # type: ignore[type-abstract]
        except UsageError as error:
            self.document.fail(("search", "pruner"), str(error))

    @property
    def _first_dataset(self) -> "Dataset":
        return self.resolve(lambda hole: hole.ends()[0]).dataset

    @property
    def _folder(self) -> Path:
        """Where the files that the experiment names are looked for first."""
        return self.copies or Path(self.document.file).parent

    @property
    def path(self) -> str:
        """The experiment's file, or where it would lie beside the copies of the files that it names."""
        return self.document.file if self.copies is None else str(self.copies / Path(self.document.file).name)

    @property
    def own_names(self) -> list[str]:
        """The files of a user's code, as the experiment and its protocol name them."""
        named = _files(self.document.data)
        for metric, config in self.protocol.metrics:
            named |= {name for name in (metric, *config.values()) if isinstance(name, str) and plugins.is_file(name)}
        return sorted(named)

    @property
    def own_files(self) -> list[Path]:
        """The files of a user's code that the experiment and its protocol name. Raises `UsageError` for one that is
        not there.
        """
        return [plugins.located(name, self._folder) for name in self.own_names]

    @property
    def systems(self) -> list[str]:
        """The systems that compete, in the order of the file."""
        node = self.document.data.get("system")
        options = node["choice"] if space.is_hole(node) and "choice" in node else [node]
        return [str(space.label(option)) for option in options]

    def resolve(self, pick: space.Pick) -> Configuration:
        """The trial in which `pick` chose the value of every hole. Raises `UsageError` for what cannot be run."""
        filled = space.fill(self.document, pick)
        file = self._check(_File, filled)
        dataset = self._dataset(filled, file)
        name, system_class, config = self._system(filled, file, dataset)
        return Configuration(
            system=name,
            system_class=system_class,
            system_config=config,
            dataset=dataset,
            training=file.training,
            protocol=self.protocol,
            chosen={
                dotted(path).removeprefix("system."): filled.values[hole]
                for hole, path in filled.paths.items()
                if path != ("system",)
            },
            values=filled.values,
            data=filled.data,
            pruned=self.pruner.reason,
        )

    def defaults(self, system: str) -> dict[str, Any]:
        """The paper's value of every hole of a system that has it in its range, by the name of the hole."""
        from aigc_lab.systems.base import System

        kind = plugins.find(System, system, self._folder, self._named_code)  # type: ignore[type-abstract]
        places: dict[KeyPath, type[BaseModel]] = {("system",): kind.Config, ("training",): Training}
        found = {}
        for hole in self.holes:
            if dict(hole.given).get("system", system) != system or hole.path[:-1] not in places:
                continue
            known = places[hole.path[:-1]].model_fields.get(str(hole.path[-1]))
            if known is not None and not known.is_required() and known.default in hole:
                found[hole.name] = known.default
        return found

    @cached_property
    def protocol(self) -> Protocol:
        """The protocol of `evaluation:`, a name, or a mapping of a name and the keys that it overrides."""
        given = self.file.evaluation
        wanted = {"name": given} if isinstance(given, str) else dict(given)
        name = wanted.pop("name", None)
        if not isinstance(name, str):
            self.document.fail(("evaluation",), "name a protocol, like evaluation: image-small")
        try:
            path = content.find_file("evaluation", name)
        except UsageError as error:
            self.document.fail(("evaluation",), str(error))
        overridden = {key: self.document.where(("evaluation", key)) for key in wanted}
        return load_protocol(path, wanted, overridden)

    @cached_property
    def metrics(self) -> "list[Metric]":
        """The protocol's metrics, ready to score."""
        from aigc_lab.metrics.base import Metric

        made = []
        for index, (name, config) in enumerate(self.protocol.metrics):
            place = f"protocol {self.protocol.name}: metrics[{index}]"

            def fail(at: KeyPath, message: str, place: str = place, name: str = name) -> NoReturn:
                raise UsageError(f"{place}: {dotted((name, *at))}: {message}")

            try:
                kind = plugins.find(Metric, name, self._folder, self._named_code)  # type: ignore[type-abstract]
            except UsageError as error:
                raise UsageError(f"{place}: {error}") from None
            made.append(kind(validated(kind.Config, self._located(config), fail)))
        return made

    def _located(self, config: dict[str, Any]) -> dict[str, Any]:
        """A metric's configuration, with the features' files where they are."""
        files = {key: plugins.located(value, self._folder) for key, value in _feature_files(config)}
        for path in files.values():
            if plugins.is_file(path.name):
                self._named_code(path, plugins.read_source(str(path)))
        return config | {key: str(path) for key, path in files.items()}

    def _named_code(self, path: Path, source: bytes) -> None:
        """Notes a file of code before it is run, if it may be."""
        if self.allowed is not None:
            self.allowed(path, source)
        self.code[hashlib.sha256(source).hexdigest()] = path.name

    def check(self) -> None:
        """Everything that can be known before training: both ends of every hole, the protocol, the objective.

        Networks are built on the meta device, so that an impossible combination shows itself and costs no memory.
        """
        import torch

        file = self.file  # from here on every section has the right type
        for hole in self.holes:
            if hole.path[:1] not in (("system",), ("training",)):
                self.document.fail(
                    hole.source, "a hole may stand in system and in training only; give this one a value"
                )
            if hole.path in _TIED and hole.kind != "choice":
                self.document.fail(hole.source, "its values must fit another key's: give them as a choice")
            if hole.path == ("system", "name"):
                self.document.fail(hole.source, "a choice of systems is a choice of mappings, each with a name")
        kinds: dict[str, type[System]] = {}
        for filled in space.corners(self.document):
            configuration = self.resolve(lambda hole, values=filled.values: values[hole.name])  # type: ignore[misc]
            try:
                with torch.device("meta"), plugins.blamed(configuration.system_class, ValueError):
                    system = configuration.system_class(configuration.system_config, configuration.dataset.shape)
                    phases = system.phases(configuration.training.batch_size)
                    names.refuse_curves(phase.name for phase in phases)
                    names.refuse_parameters(type(configuration.system_config).model_fields)
            except _UNBUILT as error:
                self.document.fail(
                    filled.source(("system",)),
                    f"{configuration.system} cannot be built for dataset {configuration.dataset.name} "
                    f"({configuration.dataset.shape}): {_sentence(error)}",
                )
            kinds[configuration.system] = configuration.system_class
        try:
            names.refuse_parameters(type(configuration.dataset.config).model_fields)
        except ValueError as error:
            self.document.fail(("data", "name"), f"dataset {configuration.dataset.name}: {error}")
        self._check_batches()
        self._check_protocol(configuration.dataset, kinds)
        if file.search.sampler == "grid":
            space.grid(self.document)

    def _check_batches(self) -> None:
        """Every size of a batch with every number of samples that a critic takes together: the ends of both ranges do
        not show what lies between.
        """
        import torch

        free = [hole for hole in self.holes if hole.path[-1] in ("batch_size", "packing")]
        if math.prod(len(hole.all()) for hole in free) > _COMBINATIONS:
            self.document.fail(free[-1].source, f"more than {_COMBINATIONS:,} combinations of batches and packings")
        for chosen in itertools.product(*(hole.all() for hole in free)):
            wanted = dict(zip([hole.name for hole in free], chosen, strict=True))
            for system in self.systems if free else []:
                values = {"system": system} | wanted
                plan = self.resolve(lambda hole, values=values: values.get(hole.name, hole.ends()[0]))  # type: ignore[misc]
                with torch.device("meta"):
                    made = plan.system_class(plan.system_config, plan.dataset.shape)
                try:
                    made.phases(plan.training.batch_size)
                except ValueError as error:
                    self.document.fail(free[-1].source, f"{plan.system}: {error}")

    def check_data(self) -> list[str]:
        """What only the data can say: refuses too few samples, and returns the dataset's notes. Loads it, and
        downloads it and the weights of extractors where that is needed.
        """
        from aigc_lab.extractors.shared import lookup

        for name in {metric.extractor for metric in self.metrics if metric.extractor}:
            lookup.find_extractor(name).fetch(self.weights, lambda text: print(text, file=sys.stderr))
        dataset = self.resolve(lambda hole: hole.ends()[0]).dataset
        splits: tuple[Literal["reference", "holdout"], ...] = ("reference", "holdout")
        for split in splits:
            count = len(dataset.load(split))
            if count < self.protocol.samples:
                for metric in self.metrics:
                    try:
                        metric.check(dataset, count)
                    except ValueError as error:
                        self.document.fail(
                            ("data",),
                            f"the {split} split of {dataset.name} has {count} samples, too few to be scored "
                            f"({error}); the dataset must be larger, or set evaluation.fewer to true, which leaves out "
                            "what cannot be computed",
                        )
                self.document.fail(
                    ("evaluation", "samples"),
                    f"protocol {self.protocol.name} takes {self.protocol.samples} samples, and the {split} split of "
                    f"{dataset.name} has {count}; set evaluation.samples to {count} or less",
                )
        return dataset.notes

    def _check_protocol(self, dataset: "Dataset", kinds: "Mapping[str, type[System]]") -> None:
        from aigc_lab.extractors.shared import lookup

        gives: dict[str, str] = {}
        for metric, (name, _) in zip(self.metrics, self.protocol.metrics, strict=True):
            try:
                names.refuse_scores(metric.gives)
                metric.check(dataset, self.protocol.samples)
                if metric.extractor:
                    lookup.find_extractor(metric.extractor).check(dataset, self.weights)
                _check_needs(metric, dataset, kinds)
            except ValueError as error:
                self.document.fail(("evaluation",), f"protocol {self.protocol.name}: metric {name}: {error}")
            gives |= metric.gives
        objective = self.file.objective
        at: KeyPath = ("objective", "minimize" if objective.minimize else "maximize")
        if objective.score not in gives:
            self.document.fail(
                at, content.unknown_name(f"score of protocol {self.protocol.name}", objective.score, list(gives))
            )
        described = next((metric for metric in self.metrics if objective.score in metric.describing()), None)
        if described is not None:
            self.document.fail(
                at,
                f"{objective.score} describes a system: neither more nor less of it is better; choose another score",
            )
        if gives[objective.score] != objective.better:
            verb = "minimize" if gives[objective.score] == "lower" else "maximize"
            self.document.fail(at, f"{objective.score} is better when it is {gives[objective.score]}; use {verb}")

    def _check(self, model: type[M], filled: space.Filled) -> M:
        return validated(model, filled.data, lambda at, message: self.document.fail(filled.source(at), message))

    def _named(self, filled: space.Filled, section: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        config = dict(given)
        name = config.pop("name", None)
        if not isinstance(name, str):
            self.document.fail(filled.source((section,)), f"it needs a name, like {section}: {{name: …}}")
        return name, config

    def _plugin(
        self, filled: space.Filled, section: str, base: type[Any], given: dict[str, Any]
    ) -> tuple[str, Any, Any]:
        """The name, class and checked configuration of the plugin that a section names."""
        name, config = self._named(filled, section, given)
        try:
            kind = plugins.find(base, name, self._folder, self._named_code)
        except UsageError as error:
            self.document.fail(filled.source((section, "name")), str(error))
        config |= self._knobs(filled, section, config)
        checked = validated(
            kind.Config, config, lambda at, message: self.document.fail(filled.source((section, *at)), message)
        )
        return plugins.name_of(kind), kind, checked

    def _knobs(self, filled: space.Filled, section: str, config: dict[str, Any]) -> dict[str, str]:
        """The keys of a section that name files of code (`penalty: ./mine.py`), with where these are."""
        found = {}
        for key, name in plugins.keyed_files(config).items():
            try:
                path = plugins.located(name, self._folder)
                self._named_code(path, plugins.read_source(str(path)))
            except UsageError as error:
                self.document.fail(filled.source((section, key)), str(error))
            found[key] = str(path)
        return found

    def _dataset(self, filled: space.Filled, file: _File) -> "Dataset":
        from aigc_lab.data.base import Dataset

        key = json.dumps(file.data, sort_keys=True)
        if key not in self._datasets:
            # One object for all trials: its samples are loaded, and its digest is computed, once.
            _, kind, config = self._plugin(filled, "data", Dataset, file.data)
            self._datasets[key] = kind(config, self.data_dir)
        return self._datasets[key]

    def _system(self, filled: space.Filled, file: _File, dataset: "Dataset") -> "tuple[str, type[System], Any]":
        from aigc_lab.systems.base import System

        name, kind, config = self._plugin(filled, "system", System, file.system)
        if kind.modality != dataset.shape.modality:
            self.document.fail(
                filled.source(("system", "name")),
                f"{name} makes {kind.modality}, and dataset {dataset.name} holds {dataset.shape.modality}",
            )
        return name, kind, config


def _sentence(error: BaseException) -> str:
    """What an error says, in a line; the kind of it, where it is no refusal in words of our own."""
    text = (str(error).strip().splitlines() or [""])[0][:300]
    return text if type(error) is ValueError and text else f"{type(error).__name__}{': ' if text else ''}{text}"


def _check_needs(metric: "Metric", dataset: "Dataset", kinds: "Mapping[str, type[System]]") -> None:
    """Raises `ValueError` for the first of the competing systems that cannot give a metric what it needs."""
    from aigc_lab.metrics.base import Autoencoder, Game
    from aigc_lab.text.likelihood import Likelihood

    for system, kind in kinds.items():
        if "encoder" in metric.needs and not issubclass(kind, Autoencoder):
            raise ValueError(
                f"it needs a system with an encoder (encode, decode, log_likelihood), and {system} has none"
            )
        if "likelihood" in metric.needs and not issubclass(kind, Likelihood):
            raise ValueError(f"it needs a system that gives sentences a probability (token_nll), and {system} has none")
        if "game" in metric.needs and not issubclass(kind, Game):
            raise ValueError(f"it needs a game of two numbers, like system dirac, and {system} is none")
        if "labels" in metric.needs and not kind.conditional:
            raise ValueError(f"labels missing: {system} is not conditional, so its samples come without their classes")


# ---- how much there is to do


def total_trials(experiment: Experiment) -> int:
    """The number of trials: as asked for, and no more than there are configurations to try."""
    search = experiment.file.search
    if search.sampler == "grid":
        return min(search.trials, len(space.grid(experiment.document)))
    return search.trials if experiment.holes else 1


def confirmations(experiment: Experiment, trials: int) -> int:
    """The number of runs that confirm the best of so many trials."""
    confirm = experiment.file.confirm
    return min(confirm.top, trials) * confirm.seeds if confirm else 0


def most_runs(experiment: Experiment) -> int:
    """The number of runs of a sweep in which nothing is pruned."""
    trials = total_trials(experiment)
    return trials * experiment.file.search.seeds + confirmations(experiment, trials)


# ---- reading one

#: what names an experiment: a name, a path, or in Python the content of a file with a `name`
Source = str | Path | Mapping[str, Any]


def load(
    wanted: Source,
    changes: Iterable[tuple[str, str, str]] = (),
    *,
    data_dir: Path,
    weights: WeightsPolicy = PUBLISHED,
) -> Experiment:
    """The experiment that is wanted, changed by (key, YAML text, the option that says so)."""
    if isinstance(wanted, Mapping):
        name, document = _given(wanted)
    else:
        path = content.find_file("experiments", str(wanted))
        name, document = path.stem, read_yaml(path)
        _refuse_name(name, f"{path}: rename the file")
    for key, text, option in changes:
        override(document, key, parse(text, option), option, sections=list(_File.model_fields))
    return Experiment(name, document, data_dir, weights)


def stored(row: Mapping[str, Any], settings: Settings, weights: WeightsPolicy | None = None) -> Experiment:
    """The experiment of a sweep, from its row in the registry (`id`, `name`, `source`, `experiment`). Files of code
    that it names are run only where the home trusts them, and their copies where they are gone.
    """
    document = Document(row["source"] or row["name"], row["experiment"])
    found = Experiment(row["name"], document, settings.data_dir, weights or settings.weights, gate(settings.home))
    copies = code_files.folder(settings, row["id"])
    if copies.is_dir() and code_files.needed(found.own_names, Path(document.file).parent, copies):
        found.copies = copies
    return found


def load_protocol(
    path: Path, changes: Mapping[str, Any] | None = None, said: Mapping[str, str] | None = None
) -> Protocol:
    """The protocol of a file, with changed keys and where each was `said`. Raises `UsageError` naming the place."""
    document = read_yaml(path)
    for key, value in (changes or {}).items():
        document.data[key] = value
        document.overridden[(key,)] = (said or {}).get(key, key)
    document.data["name"] = path.stem
    plain = space.Filled(document.data, {}, {}, {})
    return validated(Protocol, document.data, lambda at, message: document.fail(plain.source(at), message))


def _refuse_name(name: object, what: str) -> None:
    """An experiment's name becomes that of folders, of MLflow's runs and of models."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):
        raise UsageError(f"{what}: it needs a name of letters, digits and _ . -, 100 at most, not {name!r:.120}")


def _given(content: Mapping[str, Any]) -> tuple[str, Document]:
    try:
        # As YAML, so that the same bounds hold.
        data = parse(json.dumps(content), "the experiment")
    except UsageError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the experiment holds what YAML cannot: {error}") from None
    name = data.pop("name", None)
    _refuse_name(name, "an experiment given as a mapping")
    return name, Document(name, data)


def _files(node: Any) -> set[str]:
    """The plugin files that an experiment names: the only names that end in .py, of plugins and of their knobs that
    are plugins (`penalty`), those among which a search chooses included.
    """
    if isinstance(node, dict):
        named = [node.get("name"), *(each for key in plugins.KEYS for each in _choices(node.get(key)))]
        own = {name for name in named if isinstance(name, str) and plugins.is_file(name)}
        return own.union(*map(_files, node.values()))
    return set().union(*map(_files, node)) if isinstance(node, list) else set()


def _choices(value: Any) -> list[Any]:
    """What a key's value may be: itself, or the options of a choice."""
    options = value.get("choice") if isinstance(value, dict) else None
    return options if isinstance(options, list) else [value]


def _feature_files(config: dict[str, Any]) -> list[tuple[str, str]]:
    """The keys of a metric's configuration that name files of features, with the names."""
    return [(key, name) for key, name in config.items() if isinstance(name, str) and name.endswith((".py", ".pt2"))]


def validated(model: type[M], data: Any, fail: Callable[[KeyPath, str], NoReturn]) -> M:
    """The model of plain data; one error is said in a sentence, at its key."""
    try:
        return model.model_validate(data, strict=True)
    except ValidationError as error:
        # A key that is missing may be one that is misspelt: the misspelling says more.
        first = min(error.errors(), key=lambda each: each["type"] == "missing")
        path = tuple(first["loc"])
        match first["type"]:
            case "extra_forbidden":
                fail(path, unknown_key(str(path[-1]), _fields(model, path[:-1])))
            case "missing":
                fail(path, "this key is missing")
            case "dict_type" | "model_type":
                fail(path, f"it should hold keys and values, not {shown(first['input'])}")
            case "value_error":
                fail(path, first["msg"].removeprefix("Value error, "))
            case _:
                message = first["msg"].replace("Input should be", "it should be")
                fail(path, f"{message}, not {shown(first['input'])}")


def _fields(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    for part in path:
        kind = model.model_fields[part].annotation
        options = [kind, *getattr(kind, "__args__", ())]
        model = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return list(model.model_fields)
