"""What MLflow shows of a sweep that was trained elsewhere: made again from its rows and files, through the spool.

Points get times spread evenly between the start and the end of their run: an archive holds steps, not times.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from aigc_lab.archive import belongings
from aigc_lab.archive.belongings import Row, Rows
from aigc_lab.errors import UsageError
from aigc_lab.registry.states import State
from aigc_lab.settings import Settings
from aigc_lab.tracking import writer
from aigc_lab.tracking.base import Point, RunTracker, Status, checked
from aigc_lab.tracking.spool import SpoolTracker

_LOG = logging.getLogger(__name__)
_STATUS: dict[str, Status] = {State.FAILED: "FAILED", State.KILLED: "KILLED"}


def check(rows: Rows) -> None:
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


def spool(settings: Settings, sweep: str, rows: Rows) -> None:
    """Spools every run of checked rows that has begun; the files are in the home already. What an interrupted import
    has spooled is replaced.
    """
    folder = writer.spool_folder(settings, sweep)
    shutil.rmtree(folder, ignore_errors=True)
    tracker = SpoolTracker(folder)
    trials = {row["number"]: row for row in rows["trial"]}
    for run in rows["run"]:
        attempts = [row for row in rows["attempt"] if row["run_id"] == run["id"]]
        if attempts:
            _Shown(settings, rows, run, trials[run["trial"]], attempts[-1]).spool(tracker)


class _Shown:
    """One run as MLflow gets it: its newest attempt."""

    def __init__(self, settings: Settings, rows: Rows, run: Row, trial: Row, attempt: Row) -> None:
        self._home = settings.home
        self._rows = rows
        (self._sweep,) = rows["sweep"]
        self._run, self._trial, self._attempt = run, trial, attempt
        self._began = _milliseconds(attempt["started_at"])
        self._ended = max(_milliseconds(run["finished_at"] or attempt["started_at"]), self._began)
        self._steps = max([1, *(row["step"] for table in ("score", "scalar_summary") for row in self._of(table))])

    def spool(self, tracker: SpoolTracker) -> None:
        run, trial = self._run, self._trial
        shown = tracker.start(
            self._sweep["id"],
            name=f"{trial['system']} {run['trial']}.{run['seed']}",
            key=f"{run['id']}.1",  # chains stay behind: what an attempt wrote on the way is not imported
            params=_nameable("param", self._params()),
            tags=_nameable("tag", self._tags()),
            at=self._began,
        )
        shown.points([*self._curves(), *self._scores()])
        shown.flush()
        self._pictures(shown)
        for folder in sorted({self._path(row).parent for row in self._of("checkpoint")}):
            for file in sorted(folder.iterdir()):
                shown.artifact(file, "model")
        state, reason = run["state"], run["reason"]
        ending = {"state": state} | ({"reason": reason} if reason else {})
        shown.end(_STATUS.get(state, "FINISHED"), ending, at=self._ended)

    def _of(self, table: str) -> list[Row]:
        return [row for row in self._rows[table] if row["run_id"] == self._run["id"]]

    def _path(self, row: Row) -> Path:
        return self._home / belongings.place(row["path"], self._sweep["id"])

    def _params(self) -> dict[str, Any]:
        """What the experiment fixed, and what the search chose for this trial."""
        experiment = self._sweep["experiment"] if isinstance(self._sweep["experiment"], dict) else {}
        params: dict[str, Any] = {"system": self._trial["system"], "seed": self._run["seed"]}
        for section in ("data", "training"):
            given = experiment.get(section)
            params |= {f"{section}.{key}": value for key, value in (given if isinstance(given, dict) else {}).items()}
        params["data"] = params.pop("data.name", "")
        return params | (self._trial["config"] if isinstance(self._trial["config"], dict) else {})

    def _tags(self) -> dict[str, str]:
        run, facts = self._run, self._attempt["environment"]
        facts = facts if isinstance(facts, dict) else {}
        versions = facts.get("versions")
        tags = {"sweep": run["sweep_id"], "trial": run["trial"], "seed": run["seed"], "role": run["role"]}
        tags |= {"attempt": self._attempt["number"], "system": self._trial["system"], "imported": "true"}
        tags |= {key: facts[key] for key in ("device", "threads", "git_commit", "git_dirty") if key in facts}
        tags |= {f"version.{k}": v for k, v in versions.items()} if isinstance(versions, dict) else {}
        return {key: str(value) for key, value in tags.items()}

    def _curves(self) -> Iterator[Point]:
        """The curves of `curves.json`; of a run that has none, the last value of each scalar."""
        for row in self._of("artifact"):
            if row["name"] == "curves":
                yield from self._points_of(self._path(row))
                return
        for row in self._of("scalar_summary"):
            if row["last"] is not None:
                yield self._point(row["name"], row["last"], row["step"])

    def _points_of(self, file: Path) -> Iterator[Point]:
        try:
            for name, curve in json.loads(file.read_bytes()).items():
                checked("metric", name)
                for step, value in zip(curve["step"], curve["value"], strict=True):
                    if value is not None:
                        yield self._point(name, float(value), int(step))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            _LOG.warning("run %s: its curves cannot be shown: %s", self._run["id"], error)

    def _scores(self) -> Iterator[Point]:
        """As a training shows them: those on the way, and at the end the last weights' on the holdout."""
        for row in self._of("score"):
            if row["value"] is None:
                continue
            if row["checkpoint"] == "progress":
                yield self._point(f"score/{row['name']}", row["value"], row["step"])
            elif row["checkpoint"] == "last" and row["split"] == "holdout":
                yield self._point(f"score/{row['name']}_holdout", row["value"], row["step"])

    def _point(self, name: str, value: float, step: int) -> Point:
        return Point(name, value, self._at(step), step)

    def _at(self, step: int) -> int:
        passed: int = (self._ended - self._began) * min(step, self._steps) // self._steps
        return self._began + passed

    def _pictures(self, shown: RunTracker) -> None:
        import numpy as np
        from PIL import Image

        for row in self._of("artifact"):
            step = re.fullmatch(r"samples/(\d{1,18})", row["name"], re.ASCII)
            if step is None:
                continue
            try:
                if row["kind"] == "text/plain":
                    shown.text(f"{row['name']}.txt", self._path(row).read_text("utf-8"))
                    continue
                with Image.open(self._path(row), formats=["PNG"]) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
                shown.image("samples/grid", pixels, int(step[1]), at=self._at(int(step[1])))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                _LOG.warning("run %s: %s cannot be shown: %s", self._run["id"], row["name"], error)


def _nameable(noun: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Without what has a name that MLflow does not take."""
    kept = {}
    for name, value in facts.items():
        try:
            kept[checked(noun, name)] = value
        except ValueError:
            _LOG.warning("%s %r is not shown: MLflow takes no such name", noun, name)
    return kept


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)
