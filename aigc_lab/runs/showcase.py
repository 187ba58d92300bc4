"""What a run shows: samples at each evaluation, real samples of what they lack, a language model's temperatures."""

import json
from pathlib import Path

from aigc_lab.host import signals
from aigc_lab.modalities.base import modality_of
from aigc_lab.pictures import drawing
from aigc_lab.runs.job import Job
from aigc_lab.runs.record import PNG, TEXT, Kind, Record
from aigc_lab.scoring import temperature_curve
from aigc_lab.scoring.evaluator import Evaluator
from aigc_lab.systems.shared.language import LanguageSystem
from aigc_lab.tracking.base import GRID, RunTracker
from aigc_lab.training.state import Replica


class Showcase:
    """Files of one run, which its record keeps and its tracker is told of: pictures or lines, as the modality says."""

    def __init__(self, job: Job, replica: Replica, record: Record, tracked: RunTracker, evaluator: Evaluator) -> None:
        self._job, self._replica, self._record, self._tracked = job, replica, record, tracked
        self._evaluator = evaluator
        self._modality = modality_of(job.configuration.dataset.shape)
        self._kind: Kind = TEXT if self._modality.shown_as == "lines" else PNG
        self._shown = -1, b""  # the newest samples as a file, and the step that they are of

    def show(self, step: int) -> None:
        """Keeps and tracks the samples of a step, the one that the replica has reached."""
        content, pixels = self._samples()
        self._shown = step, content
        self._record.samples(content, step, self._kind)
        self._track(step, Path(self._record.artifacts[f"samples/{step:06d}"].path), pixels)

    def show_again(self) -> None:
        """Tracks the samples of all steps that the record has."""
        for name, artifact in sorted(self._record.artifacts.items()):
            if name.startswith("samples/"):
                self._track(int(name.removeprefix("samples/")), Path(artifact.path))

    def keep_final(self, step: int) -> None:
        """Keeps the samples of the result, which is of this step: those that were shown there, else new ones."""
        shown, content = self._shown
        self._record.final_samples(content if shown == step else self._samples()[0], self._kind)

    def draw_temperatures(self) -> None:
        """Keeps and tracks the curve of the finished language model at the temperatures of the protocol, if any."""
        system, temperatures = self._replica.state.average, self._job.configuration.protocol.temperatures
        if not temperatures or not isinstance(system, LanguageSystem):
            return
        with signals.at_once():
            curve = self._evaluator.temperature_curve(system, temperatures, self._job.seed)
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

    def _track(self, step: int, file: Path, pixels: drawing.Pixels | None = None) -> None:
        if self._kind is PNG:
            self._tracked.image(GRID, drawing.pixels(file) if pixels is None else pixels, step, png=file)
            return
        self._tracked.text(f"samples/{step:06d}.txt", file.read_text("utf-8"))
        # MLflow's page shows a file of this kind as a table: a column of sentences, one line for each step.
        self._tracked.text("samples.csv", self._record.sentences())

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
            return "".join(f"{line}\n" for line in self._modality.lines(samples) or []).encode(), None
        return drawing.png(pixels), pixels
