"""The Inception of 2015-12-05 with pytorch-fid's weights and preprocessing: the only features that make a true FID."""

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.extractors import base
from aigc_lab.files import sha256
from aigc_lab.samples import Modality

FILE = "pt_inception-2015-12-05-6726825d.pth"
# The published file carries the start of its sha256 in its name, as torch's hub checks it.
SHA256_PREFIX = "6726825d"
ADDRESS = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/" + FILE


def weights_file(weights_dir: Path | None) -> Path | None:
    """The weights in `AIGC_LAB_WEIGHTS_DIR` or torch's hub folder, or None. Their hash is checked when they load."""
    folders = [weights_dir] if weights_dir else []
    folders.append(Path(torch.hub.get_dir()) / "checkpoints")
    return next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)


class Inception(base.Extractor):
    """2048 pool3 features; grey images become RGB, and pytorch-fid's own bilinear resize to 299×299 follows."""

    short = "inception"
    dimensions = 2048

    def __init__(self, weights: Path, device: str) -> None:
        from pytorch_fid import inception

        digest = sha256(weights)
        if not digest.startswith(SHA256_PREFIX):
            raise UsageError(
                f"{weights}: its sha256 begins with {digest[:8]} and not with {SHA256_PREFIX}: it is damaged or not "
                f"the published file; take it from {ADDRESS}"
            )
        self.identity = f"inception-2015-12-05:{digest[:8]}"
        # pytorch-fid can only download its weights, and checks no hash: its loader is given the verified file instead.
        state = torch.load(weights, map_location="cpu", weights_only=True)
        with mock.patch.object(inception, "load_state_dict_from_url", return_value=state):
            self.network = inception.InceptionV3().to(device).eval()

    @classmethod
    def check(cls, dataset: Dataset, weights_dir: Path | None) -> None:
        if dataset.shape.modality != Modality.IMAGES:
            raise UsageError(f"Inception features need images, and dataset {dataset.name} holds {dataset.shape}")
        if weights_file(weights_dir) is None:
            raise UsageError(
                f"fid needs Inception's weights, and {FILE} is neither in AIGC_LAB_WEIGHTS_DIR nor in torch's hub "
                f"folder; download it from {ADDRESS}, or use a protocol with fd_clf"
            )

    @classmethod
    def prepare(
        cls, dataset: Dataset, *, cache: Path, weights_dir: Path | None, device: str, say: Callable[[str], None]
    ) -> "Inception":
        cls.check(dataset, weights_dir)
        weights = weights_file(weights_dir)
        assert weights is not None
        return cls(weights, device)

    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        rgb = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        return self.network(rgb.float() / 255)[0].flatten(1), None
