"""One run in MLflow: points in batches, pictures and files, and what waits while the store fails."""

import logging
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, uuid5

from aigc_lab.host.files import clear_unfinished, share
from aigc_lab.host.names import checked
from aigc_lab.host.settings import masked
from aigc_lab.tracking import base
from aigc_lab.tracking.base import NONFINITE, Status, shown_status
from aigc_lab.tracking.mlflow_store import SourceMissing, error_line, is_permanent

if TYPE_CHECKING:
    import numpy
    import numpy.typing
    from mlflow.tracking import MlflowClient

_LOG = logging.getLogger(__name__)

# A request may hold this many points (MLflow's own limit).
_POINTS = 1000
# The longer side of the small picture that MLflow's grid of images loads, in pixels.
_THUMBNAIL = 256


class MlflowRun(base.Recorder):
    """One MLflow run. Files are sent at once while the store works; after a failure everything waits for the next
    `flush`.

    `root` is the folder of its artifacts if it lies in this home: files are then linked there instead of uploaded.
    """

    def __init__(self, client: "MlflowClient", run_id: str, uri: str, root: Path | None = None) -> None:
        super().__init__(run_id)
        self._root = root
        self._client = client
        self._uri = uri
        self._outbox: deque[tuple[str, Callable[[], object]]] = deque()
        self._noted = ""
        self._down = self._warned = False  # since the last flush; since it last worked
        self._refused_pieces = 0
        self._tagged = False  # as one that has images

    def image(
        self,
        key: str,
        pixels: "numpy.typing.NDArray[numpy.uint8]",
        step: int,
        *,
        at: int | None = None,
        png: Path | None = None,
    ) -> None:
        self._check_image(key, pixels)
        # A copy: the picture may wait in the outbox, and its array is the caller's.
        send = partial(self._send_image, pixels.copy(), key, step, at or base.now(), png)
        self._deliver(f"image {key} of step {step}", send)

    def text(self, name: str, text: str) -> None:
        checked("artifact", name)
        self._deliver(f"text {name}", lambda: self._client.log_text(self.run_id, text, name))

    def artifact(self, path: Path, folder: str, name: str = "") -> None:
        if not path.is_file():
            raise ValueError(f"artifact {path}: no such file")
        place, name = checked("artifact", folder) if folder else "", name or path.name
        self._deliver(f"artifact {name}", lambda: self._send(path, place, name))

    def _send(self, path: Path, place: str, name: str) -> None:
        if not path.is_file():
            raise SourceMissing(f"{path} is gone")
        if self._root is not None:
            share(path, self._root / place / name)
            return
        with tempfile.TemporaryDirectory() as folder:
            named = Path(folder, name)
            named.symlink_to(path.absolute())
            self._client.log_artifact(self.run_id, str(named), place or None)

    def _send_image(
        self, pixels: "numpy.typing.NDArray[numpy.uint8]", key: str, step: int, at: int, png: Path | None
    ) -> None:
        """Stores what `client.log_image` stores, under names that depend on run, key and step alone, so that a picture
        sent twice exists once.

        MLflow's own names hold a random number, and its upload is asynchronous by default, which loses images on a
        kill.
        """
        from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES
        from PIL import Image

        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)
        scale = _THUMBNAIL / max(image.size)
        small = image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
        unique = uuid5(NAMESPACE_OID, f"{self.run_id}/{key}/{step}")
        name = f"{key.replace('/', '~')}+step+{step}+timestamp+{at}+{unique}"
        with tempfile.TemporaryDirectory() as folder:
            whole, reduced = Path(folder, f"{name}.png"), Path(folder, f"{name}+compressed.webp")
            stored = png if png is not None and png.is_file() else None
            if stored is None:
                image.save(whole)
            elif self._root is None:
                shutil.copyfile(stored, whole)
            small.save(reduced)
            if self._root is not None:
                share(stored or whole, self._root / "images" / whole.name)
                share(reduced, self._root / "images" / reduced.name)
            else:
                self._client.log_artifacts(self.run_id, folder, "images")
        if not self._tagged:
            self._client.set_tag(self.run_id, MLFLOW_LOGGED_IMAGES, "True")
            self._tagged = True

    def tags(self, tags: Mapping[str, str]) -> None:
        for name, value in base.clean_tags(tags).items():
            self._deliver(f"tag {name}", partial(self._client.set_tag, self.run_id, name, value))

    def flush(self) -> int:
        from mlflow.entities import Metric

        self._down = False
        while self._points and not self._down:
            batch = self._points[:_POINTS]
            send = partial(self._client.log_batch, self.run_id, metrics=[Metric(*point) for point in batch])
            if self._attempt(f"{len(batch)} points", send, pieces=len(batch)):
                del self._points[:_POINTS]
        note = self._nonfinite_tag()
        if note != self._noted and not self._down:
            self._noted = note
            self.tags({NONFINITE: note})
        while self._outbox and not self._down and self._attempt(*self._outbox[0]):
            self._outbox.popleft()
        if self._warned and not self._down:
            self._warned = False
            _LOG.warning("%s: delivering again", masked(self._uri))
        return len(self._points) + len(self._outbox)

    def end(self, status: Status, tags: Mapping[str, str], *, at: int | None = None) -> int:
        if self._ended:
            return 0
        try:
            self.flush()
            self.tags(tags)
        finally:  # a full artifact disk, or a tag that is refused, must not leave the run RUNNING
            self._ended = True
            if self._root is not None:
                with suppress(OSError):
                    clear_unfinished(self._root)  # left by a writer that was killed: MLflow would list it
            shown = shown_status(status, tags.get("state", ""))
            closed = self._attempt(f"status {shown}", lambda: self._client.set_terminated(self.run_id, shown, at))
        lost = self._refused_pieces + len(self._points) + len(self._outbox) + (not closed)
        if lost:
            _LOG.warning("%s: run %s ended %s with %d pieces lost", masked(self._uri), self.run_id, status, lost)
        return lost - self._refused_pieces

    def _deliver(self, what: str, send: Callable[[], object]) -> None:
        assert not self._ended, f"run {self.run_id} has ended"
        if self._down or not self._attempt(what, send):
            self._outbox.append((what, send))

    def _attempt(self, what: str, send: Callable[[], object], pieces: int = 1) -> bool:
        """Whether the piece needs no further attempt: it was delivered, or refused for good."""
        try:
            send()
        except Exception as error:  # noqa: BLE001 - a database, a server, a bucket: their errors share no base class
            reason = error_line(self._uri, error)
            if is_permanent(error):
                self._refused_pieces += pieces
                _LOG.warning("%s: %s refused and dropped: %s", masked(self._uri), what, reason)
                return True
            if not self._warned:
                _LOG.warning("%s: %s not delivered, kept for the next flush: %s", masked(self._uri), what, reason)
            self._down = self._warned = True
            self.reason = reason
            return False
        return True
