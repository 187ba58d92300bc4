"""Projection of a run from its rows and files to MLflow: for a sweep trained elsewhere, and for runs that MLflow has
lost. `commands/verify.py` compares MLflow's runs with it.

Points get times spread evenly between the start and the end of their run, since the registry holds steps and not times.
"""

import json
import logging
import math
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from aigc_lab.archive import contents
from aigc_lab.archive.contents import Row, Rows
from aigc_lab.archive.mlflow_gaps import RunGaps, Shown, shown_pictures
from aigc_lab.errors import UsageError
from aigc_lab.host.files import sha256, share
from aigc_lab.host.names import checked
from aigc_lab.host.settings import Settings
from aigc_lab.registry.records import DESCRIBED
from aigc_lab.registry.states import RunState
from aigc_lab.runs.record import table_of_sentences
from aigc_lab.tracking import final, writer
from aigc_lab.tracking.base import MetricPoint, RunTracker, Tracker, image_key, run_key, status_of
from aigc_lab.tracking.description import Beginning, RunDescription, beginning
from aigc_lab.tracking.ending import Ending
from aigc_lab.tracking.mlflow import MlflowFile
from aigc_lab.tracking.spool import SpoolTracker

_LOG = logging.getLogger(__name__)

# Artifacts of ours that MLflow has at the top of a run's.
_SHOWN = ("missing", "quality-diversity", "temperature")


def check_rows(rows: Rows) -> None:
    """Raises `UsageError` for rows whose names MLflow would refuse."""
    try:
        for row in rows["score"]:
            checked("metric", f"score/{row['name']}_{row['split']}")
        for row in rows["scalar_summary"]:
            checked("metric", row["name"])
        for row in rows["run"]:
            checked("run", row["id"])
    except ValueError as error:
        raise UsageError(str(error)) from None


def spool(settings: Settings, sweep: str, rows: Rows, tags: Mapping[str, Mapping[str, str]]) -> None:
    """Spools every run of checked rows that has begun, with its `tags` of after the sweep; the files are in the home
    already. The spool of an interrupted import is replaced.
    """
    _unite(settings.home, rows, sweep)
    folder = writer.spool_folder(settings, sweep)
    shutil.rmtree(folder, ignore_errors=True)
    tracker = SpoolTracker(folder)
    for run in projections(
        settings, rows, tags=tags
    ):  # chains stay behind: what an attempt wrote on the way is not imported
        run.show(tracker, sweep, {"imported": "true"})


def projections(
    settings: Settings,
    rows: Rows,
    chains: Mapping[str, int] | None = None,
    tags: Mapping[str, Mapping[str, str]] | None = None,
) -> "Iterator[Projection]":
    """Projections of all runs in a sweep's rows that have begun. `chains` gives the attempt with which a run's chain
    began, by default 1; `tags` gives those that runs got when their sweep had ended.
    """
    trials = {row["number"]: row for row in rows["trial"]}
    of: dict[str, Rows] = defaultdict(lambda: defaultdict(list))
    for table, of_table in rows.items():
        for row in of_table:
            if "run_id" in row:
                of[row["run_id"]][table].append(row)
    (sweep,) = rows["sweep"]
    for run in rows["run"]:
        if of[run["id"]]["attempt"]:
            key = run_key(run["id"], (chains or {}).get(run["id"], 1))
            later = (tags or {}).get(run["id"])
            yield Projection(settings.home, key, sweep, run, trials[run["trial"]], of[run["id"]], later)


def _unite(home: Path, rows: Rows, sweep: str) -> None:
    """Makes equal weights of a run one file."""
    first: dict[tuple[str, str], Path] = {}
    for row in rows["checkpoint"]:
        path = home / contents.place(row["path"], sweep)
        other = first.setdefault((row["run_id"], row["sha256"]), path)
        if other != path:
            share(other, path)


class Projection:
    """One run, in its newest attempt, as MLflow should have it. `key` identifies it there."""

    def __init__(
        self, home: Path, key: str, sweep: Row, run: Row, trial: Row, rows: Rows, later: Mapping[str, str] | None = None
    ) -> None:
        self.key = key
        self.run: str = run["id"]
        self.state = RunState(run["state"])
        self._home, self._rows, self._later = home, rows, dict(later or {})
        self._sweep, self._run, self._trial, self._attempt = sweep, run, trial, rows["attempt"][-1]
        self._began = _milliseconds(self._attempt["started_at"])
        self._ended = max(_milliseconds(run["finished_at"] or self._attempt["started_at"]), self._began)
        self._steps = max([1, *(row["step"] for table in ("score", "scalar_summary") for row in self._of(table))])

    def show(
        self, tracker: Tracker, experiment: str, tags: Mapping[str, str], gaps: RunGaps | None = None
    ) -> tuple[int, str]:
        """Sends the run, or only its `gaps`, to a tracker. Returns the number of pieces that could not be stored, and
        the tracker's id of the run.
        """
        gaps = gaps or self.gaps({}, {}, {}, run=True)
        begins = self._beginning
        tracked_run = tracker.start(
            experiment,
            name=begins.name,
            key=self.key,
            params={name: value for name, value in self.params.items() if name in gaps.params},
            tags=_nameable("tag", begins.tags | dict(tags)) if gaps.run else {},
            dataset=begins.dataset if gaps.run else None,
            at=self._began,
        )
        if gaps.run:
            for step, name in self._not_finite():
                tracked_run.scalars(step, {name: math.nan})  # which a tag names
        points = [*self._curves(), *self._scores(), *self._verdicts()]
        tracked_run.points(point for point in points if not gaps.has_point(point.name, point.step))
        tracked_run.points(gaps.corrections())
        tracked_run.flush()
        for shown, at in gaps.pictures.items():
            self._picture(tracked_run, shown, self._at(shown.step) if at is None else at)
        for place in sorted(gaps.files):
            self._file(tracked_run, place)
        return tracked_run.end(status_of(self.state), self._ending(), at=self._ended), tracked_run.run_id

    # ---- what belongs to it

    @cached_property
    def weights(self) -> dict[str, Path]:
        """File of the final weights by kind."""
        return final.weights((row["kind"], self._path(row), row["sha256"]) for row in self._of("checkpoint"))

    @cached_property
    def files(self) -> dict[str, Path]:
        """File of the home by its place among MLflow's artifacts."""
        by_place = {f"{final.FOLDER}/{path.name}": path for path in final.files(self.weights)}
        for row in self._of("artifact"):
            path = self._path(row)
            if row["name"] in _SHOWN:
                by_place[path.name] = path
            elif row["kind"] == "text/plain" and _shown(row) is not None:
                by_place[f"{row['name']}.txt"] = path
        return by_place

    @cached_property
    def _tables(self) -> list[str]:
        """Places of files that are derived from others: the sentences of all steps, of samples and of each view."""
        rows = [row for row in self._of("artifact") if row["kind"] == "text/plain"]
        return sorted({f"{shown.family}.csv" for row in rows if (shown := _shown(row)) is not None})

    @cached_property
    def pictures(self) -> dict[Shown, Path]:
        """Pictures of samples and views, as PNG files of the home."""
        rows = [row for row in self._of("artifact") if row["kind"] != "text/plain"]
        return {shown: self._path(row) for row in rows if (shown := _shown(row)) is not None}

    @cached_property
    def last(self) -> dict[str, float]:
        """Last finite value of each metric, as the registry has it (not `curves.json`)."""
        ends = {row["name"]: row["last"] for row in self._of("scalar_summary") if row["last"] is not None}
        newest: dict[str, MetricPoint] = {}
        for point in self._scores():
            if point.name not in newest or point.step >= newest[point.name].step:
                newest[point.name] = point
        return ends | {name: point.value for name, point in newest.items()}

    def fault_of_curves(self, curves: Any) -> str | None:
        """Fault of the content of `curves.json`, which must hold all scalars and end where the registry does; None if
        there is none.
        """
        for row in self._of("scalar_summary"):
            try:
                curve = curves[row["name"]]
                ends = int(curve["step"][-1]), curve["value"][-1]
            except (TypeError, ValueError, KeyError, IndexError):
                return f"lacks the curve {row['name']}"
            if ends != (row["step"], row["last"]):
                return f"ends {row['name']} at {ends[1]} (step {ends[0]}), not {row['last']} (step {row['step']})"
        return None

    @property
    def params(self) -> dict[str, Any]:
        """Parameters with names that MLflow accepts."""
        return _nameable("param", self._beginning.params)

    def gaps(
        self,
        steps: Mapping[str, set[int]],
        params: Mapping[str, str],
        files: Mapping[str, MlflowFile],
        *,
        run: bool = False,
    ) -> RunGaps:
        """Gaps of an MLflow run that has these values, params and files, whatever the files hold. A run with any params
        has all of them, since they are sent at once.
        """
        pictures = shown_pictures(files)
        missing = [shown for shown in self.pictures if len(pictures.get(shown, ())) < 2]
        return RunGaps(
            run=run,
            steps=steps,
            params=set() if params else set(self.params),
            pictures={shown: next((at for _, at in pictures.get(shown, {}).values()), None) for shown in missing},
            files={place for place in (*self.files, *self._tables) if place not in files},
        )

    def lacking_tags(self, present: Mapping[str, str]) -> dict[str, str]:
        """Tags of a new run that one in MLflow lacks: earlier versions gave it fewer. Tags with another value stay."""
        every = {**_nameable("tag", self._beginning.tags), **self._ending()}
        return {name: value for name, value in every.items() if name not in present}

    def has_file(self, place: str) -> bool:
        """Whether the home has a file for MLflow, with the recorded digest where there is one."""
        if place in self._tables:
            return True
        path = self.files[place]
        return path.is_file() and self.digests.get(path) in (None, sha256(path))

    @cached_property
    def digests(self) -> dict[Path, str]:
        """Recorded sha256 of weights by file."""
        return {self._path(row): row["sha256"] for row in self._of("checkpoint")}

    def _of(self, table: str) -> list[Row]:
        return self._rows[table]

    def _path(self, row: Row) -> Path:
        return self._home / contents.place(row["path"], self._sweep["id"])

    def _ending(self) -> dict[str, str]:
        """Tags with which the run ends, and those that it got when its sweep had ended."""
        result = min((row["step"] for row in self._of("checkpoint") if row["kind"] == "last"), default=None)
        verdicts = [(row["kind"], row["step"], row["verdict"]) for row in self._of("verdict")]
        of_result = ("last", "holdout", self._sweep.get("objective"))
        scores = (row for row in self._of("score") if (row["checkpoint"], row["split"], row["name"]) == of_result)
        floor = next(((row.get("floor"), row.get("floor_sd")) for row in scores), (None, None))
        ending = Ending(self.state, self._run["reason"], verdicts, result, floor)
        return _nameable("tag", ending.tags | final.tags(self.weights) | self._later)

    @cached_property
    def _beginning(self) -> Beginning:
        """Beginning of the run, the same as in its training."""
        run, facts = self._run, self._attempt["environment"]
        facts = facts if isinstance(facts, dict) else {}
        return beginning(
            RunDescription.load(facts.get(DESCRIBED)) or self._described(),
            facts,
            sweep=run["sweep_id"],
            trial=run["trial"],
            seed=run["seed"],
            role=run["role"],
            system=self._trial["system"],
            attempt=self._attempt["number"],
        )

    def _described(self) -> RunDescription:
        """Description for an attempt of an earlier version, which stored none: the experiment's fixed values, and the
        trial's chosen ones.
        """
        experiment = self._sweep["experiment"] if isinstance(self._sweep["experiment"], dict) else {}
        params: dict[str, Any] = {}
        for section in ("data", "training"):
            keys = experiment.get(section)
            params |= {f"{section}.{key}": value for key, value in (keys if isinstance(keys, dict) else {}).items()}
        params["data"] = params.pop("data.name", "")
        params |= self._trial["config"] if isinstance(self._trial["config"], dict) else {}
        protocol = experiment.get("evaluation")
        protocol = protocol.get("name") if isinstance(protocol, dict) else protocol
        return RunDescription(params, Path(protocol).stem if isinstance(protocol, str) else None, None)

    def _not_finite(self) -> list[tuple[int, str]]:
        """Values of curves and scores that were not finite, as (step, metric), in the order of the training."""
        points = [*self._recorded(), *self._scored()]
        return sorted(((step, name) for name, step, value in points if value is None), key=lambda each: each[0])

    def _curves(self) -> Iterator[MetricPoint]:
        """Points of `curves.json`; without that file, the last value of each scalar."""
        for name, step, value in self._recorded():
            if value is not None:
                yield self._point(name, value, step)

    def _recorded(self) -> Iterator[tuple[str, int, float | None]]:
        """Metric, step and value of each point of the curves; the value is None where it was not finite."""
        for row in self._of("artifact"):
            if row["name"] == "curves" and self._path(row).is_file():
                yield from self._recorded_in(self._path(row))
                return
        for row in self._of("scalar_summary"):
            if row["last"] is not None:
                yield row["name"], row["step"], row["last"]

    def _recorded_in(self, file: Path) -> Iterator[tuple[str, int, float | None]]:
        try:
            for name, curve in json.loads(file.read_bytes()).items():
                checked("metric", name)
                for step, value in zip(curve["step"], curve["value"], strict=True):
                    yield name, int(step), None if value is None else float(value)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
            _LOG.warning("run %s: its curves cannot be shown: %s", self._run["id"], error)

    def _scores(self) -> Iterator[MetricPoint]:
        """Points of the scores that a training shows: those during training, and the last weights' on the holdout."""
        for name, step, value in self._scored():
            if value is not None:
                yield self._point(name, value, step)

    def _scored(self) -> Iterator[tuple[str, int, float | None]]:
        """Metric, step and value of each score; the value is None where it was not finite."""
        for row in self._of("score"):
            if row["checkpoint"] == "progress":
                yield f"score/{row['name']}", row["step"], row["value"]
            elif row["checkpoint"] == "last" and row["split"] == "holdout":
                yield f"score/{row['name']}_holdout", row["step"], row["value"]

    def _point(self, name: str, value: float, step: int) -> MetricPoint:
        return MetricPoint(name, value, self._at(step), step)

    def _at(self, step: int) -> int:
        passed: int = (self._ended - self._began) * min(step, self._steps) // self._steps
        return self._began + passed

    def _verdicts(self) -> Iterator[MetricPoint]:
        """Points of the numbers behind the verdicts on the samples of each evaluation."""
        named = {"missing": "missing_seen", "diversity": "diversity", "coverage": "coverage", "precision": "precision"}
        for row in self._of("verdict"):
            evidence = row["evidence"] if row["kind"] == "collapse" and isinstance(row["evidence"], dict) else {}
            for name, key in named.items():
                value = evidence.get(key)
                if isinstance(value, int | float) and abs(value) < 2**53:  # a share; an archive may hold anything
                    yield self._point(f"verdict/{name}", float(value), row["step"])

    def _picture(self, tracked_run: RunTracker, shown: Shown, at: int) -> None:
        import numpy as np
        from PIL import Image

        path = self.pictures[shown]
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            tracked_run.image(image_key(shown.family), pixels, shown.step, at=at, png=path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            _LOG.warning("run %s: %s cannot be shown: %s", self.run, path, error)

    def _file(self, tracked_run: RunTracker, place: str) -> None:
        folder, _, name = place.rpartition("/")
        try:
            if place in self._tables:
                family = f"{place.removesuffix('.csv')}/"
                texts = {place: path for place, path in self.files.items() if place.startswith(family)}
                lines = {int(Path(place).stem): path.read_text("utf-8") for place, path in sorted(texts.items())}
                tracked_run.text(place, table_of_sentences(lines))
            elif self.has_file(place):
                tracked_run.artifact(self.files[place], folder, name)
            else:
                _LOG.warning("run %s: %s is missing, or not what was written, and is not shown", self.run, place)
        except (OSError, ValueError) as error:  # it is gone, or is not what it is called
            _LOG.warning("run %s: %s cannot be shown: %s", self.run, place, error)


def _shown(row: Row) -> Shown | None:
    """Family and step of an artifact that holds samples or a view; None for other artifacts."""
    match = re.fullmatch(r"([\w-]{1,60})/(\d{1,18})", row["name"], re.ASCII)
    return None if match is None else Shown(match[1], int(match[2]))


def _nameable(noun: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Facts whose names MLflow accepts; the others are logged and left out."""
    valid = {}
    for name, value in facts.items():
        try:
            valid[checked(noun, name)] = value
        except ValueError:
            _LOG.warning("%s %r is not shown: MLflow takes no such name", noun, name)
    return valid


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)
