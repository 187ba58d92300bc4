"""An experiment: a file with holes and its overrides, and the trials that are made of it.

`Experiment.resolve` fills the holes and returns a `Configuration`, which is one trial. The `Config` class of a plugin
validates the section that names the plugin; plugins are imported when they are used, so loading a file costs no torch.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import BaseModel

from aigc_lab import plugins
from aigc_lab.errors import UsageError
from aigc_lab.experiment import space
from aigc_lab.experiment.code_files import feature_files, plugin_files
from aigc_lab.experiment.configuration import Configuration
from aigc_lab.experiment.overrides import override
from aigc_lab.experiment.protocol import Protocol, load_protocol
from aigc_lab.experiment.sections import Sections, Training
from aigc_lab.experiment.validation import M, validated
from aigc_lab.experiment.yaml_file import Document, KeyPath, dotted, parse, read_yaml
from aigc_lab.host import content
from aigc_lab.host.trust import Allowed
from aigc_lab.host.weights import PUBLISHED, WeightsPolicy
from aigc_lab.pruners.base import Pruner

if TYPE_CHECKING:
    from aigc_lab.data.base import Dataset
    from aigc_lab.metrics.base import Metric
    from aigc_lab.systems.base import System


@dataclass
class Experiment:
    """An experiment file with its overrides applied; `checks.check_experiment` checks it."""

    name: str
    document: Document
    data_dir: Path
    weights: WeightsPolicy = PUBLISHED
    #: called with the path and content of a file of code before it is run, and raises for one that is not trusted;
    #: None where the user named every file
    allowed: Allowed | None = None
    #: sha256 -> name of every file of code that was loaded
    code: dict[str, str] = field(default_factory=dict)
    #: the folder of the copies of the files that it names, where these are not beside it any more
    copies: Path | None = None
    _datasets: dict[str, "Dataset"] = field(default_factory=dict)

    @cached_property
    def file(self) -> Sections:
        """The sections, with every hole filled by its first value."""
        return self._check(Sections, space.fill(self.document, lambda hole: hole.ends()[0]))

    @cached_property
    def holes(self) -> list[space.Hole]:
        return space.holes(self.document)

    @cached_property
    def digest(self) -> str:
        """sha256 of the file, its protocol and its files of code, without the keys that change no result: `execution`,
        `search.trials`, `training.checkpoint_seconds` and `evaluation.chosen`.
        """
        data = json.loads(json.dumps(self.recipe))
        # A file of code is a part of the experiment: with a changed file it is another experiment.
        features = {name for _, config in self.protocol.metrics for _, name in feature_files(config)}
        sources = {name: plugins.read_source(name, self._folder) for name in sorted(plugin_files(data) | features)}
        data["files"] = {name: hashlib.sha256(source).hexdigest() for name, source in sources.items()}
        if not sources:
            del data["files"]
        if not self.dataset.fixed:
            data["content"] = self.dataset.digest
        # An absent section means the same as an empty one.
        data["search"] = {key: value for key, value in (data.get("search") or {}).items() if key != "trials"}
        data["training"] = {key: value for key, value in data["training"].items() if key != "checkpoint_seconds"}
        data["evaluation"] = self.protocol.model_dump(mode="json", exclude_defaults=True, exclude={"chosen"})
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    @property
    def recipe(self) -> dict[str, Any]:
        """The sections that say what is trained and measured: all but `execution`, which says where."""
        return {key: value for key, value in self.document.data.items() if key != "execution"}

    @property
    def sweep(self) -> str:
        """The id of the sweep: its name and a part of its digest, so that a changed file is another sweep."""
        return f"{self.name}-{self.digest[:8]}"

    @cached_property
    def pruner(self) -> type[Pruner]:
        """The class of the pruner that stops runs of the search."""
        try:
            return plugins.find(Pruner, self.file.search.pruner, self._folder, self._named_code)  # type: ignore[type-abstract]
        except UsageError as error:
            self.document.fail(("search", "pruner"), str(error))

    @property
    def dataset(self) -> "Dataset":
        """The dataset of all trials: `data` holds no holes."""
        return self.resolve(lambda hole: hole.ends()[0]).dataset

    @property
    def _folder(self) -> Path:
        """The folder in which the files that the experiment names are looked for first."""
        return self.copies or Path(self.document.file).parent

    @property
    def path(self) -> str:
        """The experiment's file, or where it would lie beside the copies of the files that it names."""
        return self.document.file if self.copies is None else str(self.copies / Path(self.document.file).name)

    @property
    def own_names(self) -> list[str]:
        """The files of a user's code, as the experiment and its protocol name them."""
        named = plugin_files(self.recipe)
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
        """The systems that compete, in the order of the file: their names, or what tells variants of one apart."""
        return [str(label) for label in space.labels(self._competing)]

    @property
    def _competing(self) -> list[Any]:
        """The options of a choice of systems; the only system otherwise."""
        node = self.document.data.get("system")
        return list(node["choice"]) if space.is_hole(node) and "choice" in node else [node]

    def _told_apart(self, filled: space.Filled, config: Any) -> dict[str, Any]:
        """What tells the system of a trial from the variants of it that compete: no holes, no null; defaults too."""
        option = dict(zip(self.systems, self._competing, strict=True)).get(filled.values.get("system", ""))
        keys = [] if option is None else space.telling(self._competing, space.label(option))
        values = {key: filled.data["system"].get(key, getattr(config, key, None)) for key in keys}
        holes = [path[1] for path in filled.paths.values() if path[:1] == ("system",) and len(path) == 2]
        return {key: value for key, value in values.items() if value is not None and key not in holes}

    def resolve(self, pick: space.Pick) -> Configuration:
        """The trial in which `pick` chooses the value of every hole. Raises `UsageError` where it cannot be run."""
        filled = space.fill(self.document, pick)
        file = self._check(Sections, filled)
        dataset = self._dataset(filled, file)
        name, system_class, config = self._system(filled, file, dataset)
        told_apart = self._told_apart(filled, config)
        return Configuration(
            system=name,
            system_class=system_class,
            system_config=config,
            dataset=dataset,
            training=file.training,
            protocol=self.protocol,
            told_apart=told_apart,
            chosen=told_apart
            | {
                dotted(path).removeprefix("system."): filled.values[hole]
                for hole, path in filled.paths.items()
                if path != ("system",)
            },
            values=filled.values,
            data={key: value for key, value in filled.data.items() if key != "execution"},
            pruned=self.pruner.reason,
        )

    def executor(self, base: type[plugins.T], name: str) -> type[plugins.T]:
        """The executor that `execution.executor` names. Raises `UsageError` at that key."""
        try:
            return plugins.find(base, name, self._folder, self._named_code)
        except UsageError as error:
            self.document.fail(("execution", "executor"), str(error))

    def system_class(self, system: str) -> "type[System]":
        """The class of one of the `systems`."""
        from aigc_lab.systems.base import System

        name = space.label(self._competing[self.systems.index(system)])
        return plugins.find(System, name, self._folder, self._named_code)  # type: ignore[type-abstract]

    def defaults(self, system: str) -> dict[str, Any]:
        """The paper's defaults of one of the `systems`, by the name of the hole; none for a hole whose range lacks its
        default.
        """
        kind = self.system_class(system)
        models: dict[KeyPath, type[BaseModel]] = {("system",): kind.Config, ("training",): Training}
        values = {}
        for hole in self.holes:
            if dict(hole.given).get("system", system) != system or hole.path[:-1] not in models:
                continue
            key = models[hole.path[:-1]].model_fields.get(str(hole.path[-1]))
            if key is not None and not key.is_required() and key.default in hole:
                values[hole.name] = key.default
        return values

    @cached_property
    def protocol(self) -> Protocol:
        """The protocol that `evaluation:` names, with the keys that it overrides."""
        section = self.file.evaluation
        changes = {"name": section} if isinstance(section, str) else dict(section)
        name = changes.pop("name", None)
        if not isinstance(name, str):
            self.document.fail(("evaluation",), "name a protocol, like evaluation: image-small")
        try:
            path = content.find_file("evaluation", name)
        except UsageError as error:
            self.document.fail(("evaluation",), str(error))
        places = {key: self.document.where(("evaluation", key)) for key in changes}
        return load_protocol(path, changes, places)

    @cached_property
    def metrics(self) -> "list[Metric]":
        """The protocol's metrics, ready to score."""
        from aigc_lab.metrics.base import Metric

        metrics = []
        for index, (name, config) in enumerate(self.protocol.metrics):
            place = f"protocol {self.protocol.name}: metrics[{index}]"

            def fail(at: KeyPath, message: str, place: str = place, name: str = name) -> NoReturn:
                raise UsageError(f"{place}: {dotted((name, *at))}: {message}")

            try:
                kind = plugins.find(Metric, name, self._folder, self._named_code)  # type: ignore[type-abstract]
            except UsageError as error:
                raise UsageError(f"{place}: {error}") from None
            metrics.append(kind(validated(kind.Config, self._located(config), fail)))
        return metrics

    def _located(self, config: dict[str, Any]) -> dict[str, Any]:
        """A metric's configuration with the paths of its files of features."""
        files = {key: plugins.located(value, self._folder) for key, value in feature_files(config)}
        for path in files.values():
            if plugins.is_file(path.name):
                self._named_code(path, plugins.read_source(str(path)))
        return config | {key: str(path) for key, path in files.items()}

    def _named_code(self, path: Path, source: bytes) -> None:
        """Records a file of code before it is run; `allowed` raises for one that is not trusted."""
        if self.allowed is not None:
            self.allowed(path, source)
        self.code[hashlib.sha256(source).hexdigest()] = path.name

    def _check(self, model: type[M], filled: space.Filled) -> M:
        return validated(model, filled.data, lambda at, message: self.document.fail(filled.source(at), message))

    def _named(self, filled: space.Filled, section: str, keys: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The `name` of a section, and its other keys."""
        config = dict(keys)
        name = config.pop("name", None)
        if not isinstance(name, str):
            hint = f"; did you mean {kind}?" if (kind := space.misspelt_hole(keys)) else ""
            self.document.fail(filled.source((section,)), f"it needs a name, like {section}: {{name: …}}{hint}")
        return name, config

    def _plugin(
        self, filled: space.Filled, section: str, base: type[Any], keys: dict[str, Any]
    ) -> tuple[str, Any, Any]:
        """The name, class and checked configuration of the plugin that a section names."""
        name, config = self._named(filled, section, keys)
        try:
            kind = plugins.find(base, name, self._folder, self._named_code)
        except UsageError as error:
            self.document.fail(filled.source((section, "name")), str(error))
        config |= self._knobs(filled, section, config)
        model = validated(
            kind.Config, config, lambda at, message: self.document.fail(filled.source((section, *at)), message)
        )
        return plugins.name_of(kind), kind, model

    def _knobs(self, filled: space.Filled, section: str, config: dict[str, Any]) -> dict[str, str]:
        """The keys of a section that name files of code (`penalty: ./mine.py`), with the paths of these."""
        paths = {}
        for key, name in plugins.keyed_files(config).items():
            try:
                path = plugins.located(name, self._folder)
                self._named_code(path, plugins.read_source(str(path)))
            except UsageError as error:
                self.document.fail(filled.source((section, key)), str(error))
            paths[key] = str(path)
        return paths

    def _dataset(self, filled: space.Filled, file: Sections) -> "Dataset":
        from aigc_lab.data.base import Dataset

        key = json.dumps(file.data, sort_keys=True)
        if key not in self._datasets:
            # One object for all trials, so that its samples are loaded and its digest is computed once.
            _, kind, config = self._plugin(filled, "data", Dataset, file.data)
            self._datasets[key] = kind(config, self.data_dir)
        return self._datasets[key]

    def _system(self, filled: space.Filled, file: Sections, dataset: "Dataset") -> "tuple[str, type[System], Any]":
        from aigc_lab.systems.base import System

        name, kind, config = self._plugin(filled, "system", System, file.system)
        if kind.modality != dataset.shape.modality:
            self.document.fail(
                filled.source(("system", "name")),
                f"{name} makes {kind.modality}, and dataset {dataset.name} holds {dataset.shape.modality}",
            )
        return name, kind, config


#: what names an experiment: a name, the path of a file, or the content of a file with a `name` beside its sections
Source = str | Path | Mapping[str, Any]


def load_experiment(
    source: Source,
    changes: Iterable[tuple[str, str, str]] = (),
    *,
    data_dir: Path,
    weights: WeightsPolicy = PUBLISHED,
) -> Experiment:
    """The experiment of a source, with `changes` as (dotted key, YAML text, the option to quote in messages).

    Raises `UsageError` for a source that cannot be read and for a key that is not there.
    """
    if isinstance(source, Mapping):
        name, document = _from_mapping(source)
    else:
        path = content.find_file("experiments", str(source))
        name, document = path.stem, read_yaml(path)
        _refuse_name(name, f"{path}: rename the file")
    for key, text, option in changes:
        override(document, key, parse(text, option), option, sections=list(Sections.model_fields))
    return Experiment(name, document, data_dir, weights)


def _refuse_name(name: object, place: str) -> None:
    """Raises `UsageError` for a name that folders, MLflow's runs and models cannot bear."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):
        raise UsageError(f"{place}: it needs a name of letters, digits and _ . -, 100 at most, not {name!r:.120}")


def _from_mapping(sections: Mapping[str, Any]) -> tuple[str, Document]:
    """The name and the document of a file's content."""
    try:
        # Parsed as YAML, so that the bounds of files hold.
        data = parse(json.dumps(sections), "the experiment")
    except UsageError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the experiment holds what YAML cannot: {error}") from None
    name = data.pop("name", None)
    _refuse_name(name, "an experiment given as a mapping")
    return name, Document(name, data)
