"""Generated images beside the training images that are nearest to them, as one picture."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from aigc_lab import plugins
from aigc_lab.errors import UsageError
from aigc_lab.host.files import write_atomically
from aigc_lab.metrics import memorisation
from aigc_lab.metrics.base import Evidence, Metric
from aigc_lab.modalities.base import modality_of
from aigc_lab.pictures import drawing
from aigc_lab.samples import Images

# So many training samples are drawn beside a generated one.
_NEIGHBOURS = 5


def neighbours_by(path: Path, metrics: Sequence[Metric], evidence: Evidence) -> str:
    """The extractor by whose features neighbours are found. Raises `UsageError` where no picture can be drawn."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: the picture of the neighbours is a PNG; name a file that ends in .png")
    train = evidence.real.train
    if train is None:
        raise UsageError("the neighbours are training samples, which are not known here: name them (train)")
    if len(train) <= _NEIGHBOURS:
        raise UsageError(f"{_NEIGHBOURS} neighbours are drawn, and there are {len(train)} training samples")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(path.parent, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UsageError(f"{path}: no picture can be written there; name another place")
    extractors = {plugins.name_of(type(metric)): metric.extractor for metric in metrics if metric.extractor}
    if not extractors:
        raise UsageError("the neighbours are found in the features of a metric, and none of these metrics has any")
    return extractors.get("memorisation") or next(iter(extractors.values()))


def draw_neighbours(path: Path, extractor: str, evidence: Evidence, say: Callable[[str], None]) -> None:
    """Writes generated images beside their nearest training images to `path`; `say` is told of a file that cannot be
    written. Raises `UsageError` for samples that are no images.
    """
    fake_features, train_features = (
        evidence.features(extractor, samples) for samples in (evidence.generated, evidence.train)
    )
    kind = modality_of(evidence.generated)
    if not kind.is_image or evidence.train.modality != evidence.generated.modality:
        raise UsageError("--neighbours: a picture shows images, and these are none")
    images, train = cast(Images, evidence.generated), cast(Images, evidence.train)
    tiles = memorisation.look_alikes(images, train, fake_features, train_features, columns=_NEIGHBOURS)
    try:
        write_atomically(path, drawing.png(kind.tiles(tiles, 1 + _NEIGHBOURS)))
    except OSError as error:
        say(f"the picture cannot be written ({error.strerror}: {path}); the scores are not lost for that")
