"""A user's own features: a file of code, or an exported program of which nothing is run but the network."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Judged
from networks_of_users import MINE
from torch import Tensor, nn

from aigc_lab import plugins
from aigc_lab.data.ring import Ring
from aigc_lab.errors import UsageError
from aigc_lab.extractors import base
from aigc_lab.extractors.shared import lookup
from aigc_lab.host.weights import PUBLISHED
from aigc_lab.metrics.base import Metric
from aigc_lab.samples import Images
from aigc_lab.scoring.feature_store import FeatureStore


def store(judged: Judged, folder: Path) -> FeatureStore:
    return FeatureStore(judged.dataset, cache=folder, weights=PUBLISHED, device="cpu")


def grey(count: int = 5, side: int = 32) -> Images:
    return Images(torch.randint(0, 256, (count, 1, side, side), generator=torch.Generator().manual_seed(1)).byte())


def test_a_file_with_a_network_is_enough(tmp_path: Path, judged: Judged) -> None:
    path = tmp_path / "mi-ne.py"
    path.write_text(MINE.replace("SEED", "1"))
    first = store(judged, tmp_path)
    features = first.made(str(path), grey())
    assert features.vectors.shape == (5, 8) and features.logits is None
    assert not first.extractor(str(path)).network.training
    kind = plugins.find(Metric, "fd")  # type: ignore[type-abstract]
    assert list(kind(kind.Config.model_validate({"features": str(path)})).gives) == ["fd_mi_ne"]
    identity = first.extractor(str(path)).identity

    def changed(text: str) -> str:
        path.write_text(text)
        return store(judged, tmp_path).extractor(str(path)).identity

    weights, file = identity.split(":")[1:]
    same_network = changed(MINE.replace("SEED", "1") + "# a word\n")
    assert same_network.split(":")[1] == weights and same_network.split(":")[2] != file
    assert changed(MINE.replace("SEED", "2")).split(":")[1] != weights
    assert changed(MINE.replace("SEED", "1")) == identity


def test_points_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE.replace("SEED", "1"))
    with pytest.raises(UsageError, match=r"mine.*ring"):
        lookup.find_extractor(str(path)).check(Ring(Ring.Config(), tmp_path), PUBLISHED)


OF_POINTS = """
import torch
from aigc_lab.extractors.base import Extractor
from aigc_lab.shape import Modality

class Mine(Extractor):
    reads = Modality.POINTS

    def __init__(self):
        self.network = torch.nn.Identity()

    def __call__(self, points):
        return self.network(points).square(), None
"""


def test_an_extractor_says_which_samples_it_reads(tmp_path: Path, judged: Judged) -> None:
    path = tmp_path / "squares.py"
    path.write_text(OF_POINTS)
    kind, ring = lookup.find_extractor(str(path)), Ring(Ring.Config(points=200), tmp_path)
    extractor = kind.prepare(ring, cache=tmp_path, weights=PUBLISHED, device="cpu", say=print)
    points = ring.load("train")
    assert torch.equal(extractor.extract(points, block=64).vectors, points.values.square())
    with pytest.raises(UsageError, match="squares features need points, and dataset digits holds"):
        kind.check(judged.dataset, PUBLISHED)


class Net(nn.Module):
    """Something of every image, with or without logits."""

    def __init__(self, logits: bool = False) -> None:
        super().__init__()
        self.logits = logits
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Any:
        vectors = self.body(images).mean((2, 3))
        return (vectors, self.head(vectors)) if self.logits else vectors


Export = Callable[..., Path]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    def save(net: nn.Module, example: Tensor | None = None, dynamic: tuple[int, ...] = (0,), name: str = "net") -> Path:
        shape = dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC)
        given = torch.rand(2, 3, 32, 32) if example is None else example
        program = torch.export.export(net.eval(), (given,), dynamic_shapes=(shape,))
        torch.export.save(program, tmp_path / f"{name}.pt2")
        return tmp_path / f"{name}.pt2"

    return save


def made(path: Path, judged: Judged) -> base.Extractor:
    return lookup.find_extractor(str(path)).prepare(
        judged.dataset, cache=Path(), weights=PUBLISHED, device="cpu", say=print
    )


@pytest.mark.parametrize("logits", [False, True])
def test_an_exported_program_gives_its_networks_features(export: Export, judged: Judged, logits: bool) -> None:
    net = Net(logits)
    path = export(net)
    extractor = made(path, judged)
    assert plugins.name_of(lookup.find_extractor(str(path))) == "net"
    images = grey()
    with torch.no_grad():
        truth = net(images.values.expand(-1, 3, -1, -1).float() / 255)
    features = extractor.extract(images, block=3)
    torch.testing.assert_close(features.vectors, truth[0] if logits else truth)
    if logits:
        torch.testing.assert_close(features.logits, truth[1])
    assert extractor.identity.split(":")[0] == extractor.short == "net"


def test_its_batch_and_size_are_kept(export: Export, judged: Judged) -> None:
    """Five images through a program of two of 16 pixels each; nothing of what fills the last batch is left."""
    extractor = made(export(Net(), torch.rand(2, 3, 16, 16), ()), judged)
    vectors = extractor.extract(grey(), block=5).vectors
    assert vectors.shape == (5, 8)
    torch.testing.assert_close(extractor.extract(grey(), block=1).vectors, vectors)
    assert "16x16" in extractor.identity
    free = made(export(Net(), torch.rand(2, 3, 32, 32), (0, 2, 3), "free"), judged)
    assert free.extract(grey(3, 40)).vectors.shape == (3, 8) and "as they are" in free.identity


def test_another_file_is_another_identity(export: Export, judged: Judged) -> None:
    identities = {made(export(Net(), name=name), judged).identity.partition(":")[2] for name in ("one", "two")}
    assert len(identities) == 2


@pytest.mark.parametrize(
    ("net", "example", "said"),
    [
        (nn.Flatten(0), torch.rand(2, 3, 32, 32), "vectors"),
        (nn.Identity(), torch.rand(2, 5), "N, C, H, W"),
        (nn.Conv2d(5, 1, 1), torch.rand(2, 5, 32, 32), "5 channels"),
        (nn.Flatten(), torch.rand(2, 3, 32, 32).double(), "float64"),
    ],
)
def test_another_form_is_refused(export: Export, judged: Judged, net: nn.Module, example: Tensor, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        made(export(net, example, ()), judged).extract(grey(2))


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def tampered(path: Path, change: Callable[[str, bytes], bytes], extra: dict[str, bytes] | None = None) -> Path:
    """The archive with other records."""
    result = path.with_name("tampered.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(result, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, content in (extra or {}).items():
            new.writestr(f"{old.namelist()[0].partition('/')[0]}/{name}", content)
    return result


@pytest.mark.parametrize("trap", ["inputs", "weights", "operator", "symbol", "library", "opaque"])
def test_what_torch_would_run_is_refused(export: Export, judged: Judged, tmp_path: Path, trap: str) -> None:
    sprung = tmp_path / "sprung"
    buffer = io.BytesIO()
    torch.save(((Trap(sprung),), {}), buffer)
    code = f"open('{sprung}', 'w')"
    extra: dict[str, bytes] = {}

    def change(name: str, content: bytes) -> bytes:
        if trap == "inputs" and name.endswith("sample_inputs/model.pt"):
            return buffer.getvalue()
        if trap == "weights" and name.endswith("model_weights_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        if trap == "weights" and name.endswith("weight_0"):
            return buffer.getvalue()
        if trap == "operator" and name.endswith("model.json"):
            return content.replace(b"torch.ops.aten.relu.default", b"torch.ops.load_library")
        if trap == "symbol" and name.endswith("model.json"):
            model = json.loads(content)
            return json.dumps(model).replace("Symbol('", f"{code} or Symbol('").encode()
        if trap == "opaque" and name.endswith("model_constants_config.json"):
            meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
            return json.dumps({"config": {"x": meta}}).encode()
        return content

    if trap == "library":
        extra = {"data/aotinductor/model/wrapper.so": b"\x7fELF"}
    if trap == "opaque":
        extra = {"data/constants/opaque_obj_0": pickle.dumps(Trap(sprung))}
    whole = export(Net())
    made(tampered(whole, lambda name, content: content), judged)
    with pytest.raises(UsageError, match=r"tampered\.pt2"):
        made(tampered(whole, change, extra), judged)
    assert not sprung.exists()


def test_no_archive_at_all_is_said(tmp_path: Path, judged: Judged) -> None:
    (tmp_path / "net.pt2").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"net\.pt2: torch\.export\.save did not write it"):
        made(tmp_path / "net.pt2", judged)
    with pytest.raises(UsageError, match=r"absent\.pt2: no such file"):
        lookup.find_extractor(str(tmp_path / "absent.pt2"))
