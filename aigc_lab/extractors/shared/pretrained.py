"""Extractors with published weights: download, check, and reading without unpickling."""

import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.extractors.base import Extractor
from aigc_lab.host.weights import Published, WeightsPolicy


class Pretrained(Extractor):
    """Extractor whose network is built from one published file of weights, whose hash is in the identity."""

    published: ClassVar[Published]
    #: the network and its preprocessing, as identities name them before the hash
    kind: ClassVar[str]

    def __init__(self, network: nn.Module, weights: str) -> None:
        self.network = network
        self.identity = f"{self.kind}:{weights}"

    @classmethod
    def built(cls, path: Path) -> nn.Module:
        """Network of a verified file. Raises `UsageError` naming the file and what is wrong in it."""
        raise NotImplementedError

    @classmethod
    def check(cls, dataset: Dataset, weights: WeightsPolicy) -> None:
        super().check(dataset, weights)
        path = cls.published.found(weights)
        if path is not None:
            cls.published.verified(path, weights)

    @classmethod
    def fetch(cls, weights: WeightsPolicy, say: Callable[[str], None]) -> None:
        cls.published.fetched(weights, say)

    @classmethod
    def prepare(
        cls, dataset: Dataset, *, cache: Path, weights: WeightsPolicy, device: str, say: Callable[[str], None]
    ) -> Self:
        cls.check(dataset, weights)
        path = cls.published.fetched(weights, say)
        extractor = cls.read(path, cls.published.verified(path, weights), dataset)
        extractor.network.to(device).eval().requires_grad_(False)
        return extractor

    @classmethod
    def read(cls, path: Path, verified: str, dataset: Dataset) -> Self:
        """The extractor of a file whose hash begins with `verified`; a subclass that reads more than the network's
        weights overrides it.
        """
        return cls(cls.built(path), verified)


def read_weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors with the names and shapes of `shapes`, from a file that `torch.save`, TorchScript or safetensors wrote;
    other entries are ignored.

    Nothing is unpickled. Raises `UsageError` with the file and the first name that does not fit.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(path)
        elif _is_script(path):
            # CLIP is published so. TorchScript has a reader of its own, which makes tensors and runs no Python.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch would rather see its other formats
                tensors = dict(torch.jit.load(path, map_location="cpu").state_dict())  # type: ignore[no-untyped-call]
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 -- a damaged file fails in many ways
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(f"{path}: it is no file of weights ({reason:.200})") from None
    if not isinstance(tensors, Mapping):
        raise UsageError(f"{path}: it holds a {type(tensors).__name__}, not tensors by name")
    return fitting(path, tensors, shapes)


def fitting(path: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Those of the `tensors` of a file that `shapes` names; raises `UsageError` as `read_weights` does."""
    for name, shape in shapes.items():
        tensor = tensors.get(name)
        if not isinstance(tensor, Tensor):
            raise UsageError(f"{path}: {name} is missing: these are weights of another network")
        if tuple(tensor.shape) != tuple(shape):
            raise UsageError(f"{path}: {name} has the shape {list(tensor.shape)}, and {list(shape)} is wanted")
    return {name: tensors[name] for name in shapes}


def read(path: Path, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """`read_weights` by its former name, which users' files import."""
    return read_weights(path, wanted)


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


class InceptionFeatures(Pretrained):
    """Inception of 2015-12-05 with pytorch-fid's preprocessing, at one of its four depths."""

    #: of `nets.inception.DIMENSIONS`
    dimensions: ClassVar[int]
    published = Published(
        "Inception",
        "pt_inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        ("weights-inception-2015-12-05-6726825d.pth",),  # torch-fidelity's and torchmetrics'
    )
    # The widest layer takes 5.5 MB an image: more at once is slower on a CPU, whose caches it leaves.
    block = 32

    @classmethod
    def built(cls, path: Path) -> nn.Module:
        from aigc_lab.nets import inception  # with torchvision: a second that other features need not wait

        return inception.Inception(read_weights(path, inception.shapes()), cls.dimensions)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        vectors, logits = self.network(images)
        return vectors, logits
