"""What a run shows: samples and views at each evaluation, real samples of what they lack, a language model's
temperatures.
"""

import json
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from aigc_lab.host import shared_files, signals
from aigc_lab.modalities.base import modality_of
from aigc_lab.pictures import drawing
from aigc_lab.runs import views
from aigc_lab.runs.faults import reason_of
from aigc_lab.runs.job import Job
from aigc_lab.runs.record import PNG, TEXT, Kind, Record, step_name
from aigc_lab.runs.views import View
from aigc_lab.samples import Samples
from aigc_lab.scoring import temperature_curve
from aigc_lab.scoring.evaluator import Evaluator
from aigc_lab.systems.base import updates_of
from aigc_lab.systems.shared.language import LanguageSystem
from aigc_lab.tracking.base import SAMPLES, RunTracker, image_key
from aigc_lab.training.state import Replica

_LOG = logging.getLogger(__name__)


class Showcase:
    """Files of one run, which its record keeps and its tracker is told of: pictures or lines, as the modality says."""

    def __init__(self, job: Job, replica: Replica, record: Record, tracked: RunTracker, evaluator: Evaluator) -> None:
        self._job, self._replica, self._record, self._tracked = job, replica, record, tracked
        self._evaluator = evaluator
        self._modality = modality_of(job.configuration.dataset.shape)
        self._kind: Kind = TEXT if self._modality.shown_as == "lines" else PNG
        self._shown: tuple[int, dict[str, bytes]] = -1, {}  # the newest files by family, and the step they are of
        self._views = views.views_of(replica.state.average)
        self._failed: set[str] = set()

    def show(self, step: int) -> None:
        """Keeps and tracks samples and views of a step, the one that the replica has reached."""
        content, pixels = self._samples()
        shown = {SAMPLES: content}
        self._keep(SAMPLES, step, content, pixels)
        for view in self._views:
            drawn = self._view(view)
            if drawn is not None:
                shown[view.name] = drawn[0]
                self._keep(view.name, step, *drawn)
        self._shown = step, shown

    def show_again(self) -> None:
        """Tracks samples and views of all steps that the record has."""
        for name, artifact in sorted(self._record.artifacts.items()):
            family, _, step = name.partition("/")
            if step.isdecimal():
                self._track(family, int(step), shared_files.at_hand(Path(artifact.path)))

    def keep_final(self, step: int) -> None:
        """Keeps samples and views of the result, which is of this step: those that were shown there, else new ones."""
        at, shown = self._shown
        if at != step:
            shown = {SAMPLES: self._samples()[0]}
            shown |= {view.name: drawn[0] for view in self._views if (drawn := self._view(view)) is not None}
        for family, content in shown.items():
            self._record.file(family, *self._kind, content)

    def draw_temperatures(self, step: int) -> None:
        """Keeps and tracks the curve of the finished language model, which is of this step, at the temperatures of the
        protocol, if any; with what it was trained by, and how many updates its generator had.
        """
        state, temperatures = self._replica.state, self._job.configuration.protocol.temperatures
        if not temperatures or not isinstance(state.average, LanguageSystem):
            return
        with signals.at_once():
            curve = self._evaluator.temperature_curve(state.average, temperatures, self._job.seed)
        assert isinstance(state.system, LanguageSystem)
        updates = updates_of(state.phases, state.system.generator(), step)
        curve |= {"trained_by": state.average.trained_by, "generator_updates": updates}
        content = json.dumps(curve, allow_nan=False)
        self._record.file("temperature", "application/json", ".json", content.encode())
        picture = drawing.png(temperature_curve.picture(curve))
        self._record.file("quality-diversity", "image/png", ".png", picture)
        self._tracked.text("temperature.json", content)
        self._tracked.artifact(Path(self._record.artifacts["quality-diversity"].path), "")

    def draw_missing(self, until: int) -> None:
        """Keeps and tracks real samples of what the generated ones lack, by the last verdict up to a step. The verdict
        is the record's, because a resumed run may not judge again.
        """
        steps = [step for kind, step in self._record.verdicts if kind == "collapse" and step <= until]
        last = self._record.verdicts["collapse", max(steps)].evidence["bins"] if steps else []
        picture = self._evaluator.missing(last)
        if picture is not None:
            self._record.file("missing", "image/png", ".png", picture)
            self._tracked.artifact(Path(self._record.artifacts["missing"].path), "")

    def _keep(self, family: str, step: int, content: bytes, pixels: drawing.Pixels | None) -> None:
        """Keeps and tracks the file of a step."""
        self._record.step_file(family, step, self._kind, content)
        self._track(family, step, Path(self._record.artifacts[step_name(family, step)].path), pixels)

    def _track(self, family: str, step: int, file: Path, pixels: drawing.Pixels | None = None) -> None:
        if self._kind is PNG:
            shown = drawing.pixels(file) if pixels is None else pixels
            self._tracked.image(image_key(family), shown, step, png=file)
            return
        self._tracked.text(f"{step_name(family, step)}.txt", file.read_text("utf-8"))
        # MLflow's page shows a file of this kind as a table: a column of sentences, one line for each step.
        self._tracked.text(f"{family}.csv", self._record.sentences(family))

    @cached_property
    def _real(self) -> Samples:
        """The real samples of the views, where the replica is."""
        device = next(self._replica.state.average.parameters()).device
        return views.real_samples(self._job.configuration.dataset).to(device)

    def _view(self, view: View) -> tuple[bytes, drawing.Pixels | None] | None:
        """The file of a view of now, and its pixels where it is a picture; None where there is nothing to see, or the
        system fails at it. Views are beside the result, so that this costs the view and not the run.
        """
        average = self._replica.state.average
        try:
            with signals.at_once(), views.at_rest(average):
                rows = view.draw(average, self._real)
                if rows is None:
                    return None
                if self._kind is TEXT:
                    return _text(views.lines(rows)), None
                pixels = views.picture(rows)
            return drawing.png(pixels), pixels
        except Exception as error:  # noqa: BLE001 -- a system of a user's may raise anything
            signals.raise_if_interrupted()  # a signal may break anything
            if view.name not in self._failed:
                self._failed.add(view.name)
                step = self._replica.state.step
                _LOG.warning("run %s: no %s at step %d: %s", self._job.run, view.name, step, reason_of(error))
            return None

    def _samples(self) -> tuple[bytes, drawing.Pixels | None]:
        """The file that shows the samples of now, and its pixels where it is a picture."""
        system, dataset = self._replica.state.average, self._job.configuration.dataset
        pixels: drawing.Pixels | None = None if self._kind is TEXT else system.portrait()
        if pixels is None:
            with signals.at_once():
                # The key is this word alone: all runs and all steps start from the same latents, and can be compared.
                samples = system.generate(self._modality.shown(dataset.modes), "picture")
                pixels = self._modality.picture(samples, dataset.modes)
        if pixels is None:
            return _text(self._modality.lines_by_class(samples, dataset.class_names) or []), None
        return drawing.png(pixels), pixels


def _text(lines: Sequence[str]) -> bytes:
    """The file of lines."""
    return "".join(f"{line}\n" for line in lines).encode()
