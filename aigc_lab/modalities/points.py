"""Points of any number of dimensions, of which the first two are drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aigc_lab.data.base import Modes
from aigc_lab.modalities.base import ModalityKind
from aigc_lab.pictures import drawing
from aigc_lab.pictures.class_scatter import class_scatter
from aigc_lab.samples import Points, Samples
from aigc_lab.shape import Modality, Shape

if TYPE_CHECKING:
    from aigc_lab.pictures.drawing import Pixels


class PointsKind(ModalityKind):
    """Points [N, D], float32."""

    samples = Points
    noun = "points"
    is_vector = True
    example = "ring"
    array_file = "points.npy"
    overview = "scatter.png"
    array_dimensions = frozenset({2})

    def picture(self, samples: Samples, modes: Modes | None = None) -> "Pixels":
        return drawing.scatter(samples.canonical().values, modes)

    def picture_by_class(self, samples: Samples, names: Sequence[str]) -> "Pixels":
        return class_scatter(samples.canonical().values, names)

    def panel(self, features: str | None) -> list[str]:
        return ["modes"] if features is None else super().panel(features)

    def example_shape(self) -> Shape:
        return Shape(Modality.POINTS, (2,))
