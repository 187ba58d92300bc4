"""Label accuracy: the share of generated images that the stored classifier sorts into the class that was asked for."""

from typing import ClassVar

from aigc_lab.data.base import Dataset
from aigc_lab.metrics import base
from aigc_lab.metrics.shared import classes
from aigc_lab.metrics.shared.accuracy import Sorted, accuracy_scores
from aigc_lab.samples import Samples
from aigc_lab.shape import Modality


class LabelAccuracy(base.Metric):
    """`label_accuracy`: share of generated images that the dataset's own stored classifier sorts into the class that
    they were asked for as, with its exact interval. Its floor is the accuracy of as many real images by that
    classifier: a ceiling here, since higher is better. One far above it is of images that are easier than real ones.

    `label_accuracy_worst` is that of the least accurate class, among those with at least 20 images. Its interval holds
    for all classes together, so that it covers the least true accuracy whichever class that is.

    The classifier has learned real images alone: a system's own classifier, as that of an auxiliary classifier GAN, is
    not asked. Accuracy says nothing of variety: one good image of each class has 1 (see `class_diversity`).
    """

    needs: ClassVar[frozenset[base.Need]] = frozenset({"labels"})
    modality = Modality.IMAGES

    @property
    def extractor(self) -> str:
        return "classifier"

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"label_accuracy": "higher", "label_accuracy_worst": "higher"}

    def check(self, dataset: Dataset, samples: int) -> None:
        super().check(dataset, samples)
        classes.check(dataset, samples)

    def check_given(self, evidence: base.Evidence, samples: int) -> None:
        super().check(evidence.dataset, samples)
        classes.check(evidence.dataset, samples, classes.number_asked(evidence))

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        def sort(samples: Samples | base.Part) -> Sorted:
            features = evidence.features(self.extractor, samples)
            assert features.logits is not None
            return features.logits.argmax(1).cpu(), classes.labels_of(samples)[features.rows]

        identity = evidence.identity(self.extractor)
        signature = self.signature(evidence, identity, *classes.asked(evidence), f"worst-of:{classes.FEWEST}")
        return accuracy_scores(self, evidence, signature, sort)
