"""DINOv2 and CLIP from files of the published form, small and random, against torch's and torch-fidelity's layers."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks_of_users import FORMS, random
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import CLIPVisual

from aigc_lab.data.digits import Digits
from aigc_lab.errors import UsageError
from aigc_lab.extractors.shared import lookup
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.nets import vit
from aigc_lab.samples import Images


def published(name: str) -> Any:
    return lookup.find_extractor(name)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, form in FORMS.items():
        monkeypatch.setattr(published(name), "form", form)


def images(channels: int = 3) -> Images:
    values = torch.randint(0, 256, (2, channels, 224, 224), generator=torch.Generator().manual_seed(1))
    values[1] //= 4  # noise looks like noise, and dark noise does not
    return Images(values.byte())


def extract(name: str, path: Path, given: Images) -> Tensor:
    extractor = published(name).prepare(
        Digits(Digits.Config(), path),
        cache=path,
        weights=WeightsPolicy(file=path, allow_unverified=True),
        device="cpu",
        say=print,
    )
    assert extractor.identity.startswith(f"{published(name).kind}:unverified:")
    vectors: Tensor = extractor.extract(given).vectors
    return vectors


def test_clip_is_torch_fidelitys(tmp_path: Path) -> None:
    """From a TorchScript file of half precision, as OpenAI publishes it; nothing is resized at 224 pixels."""
    form = FORMS["clip"]
    other = CLIPVisual(form.output, 224, form.depth, form.width, form.patch).eval()
    weights = {name: value.half().float() for name, value in random(vit.clip_shapes(form)).items()}
    other.load_state_dict(weights)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = other.visual

        def forward(self, x: Tensor) -> Any:
            return self.visual(x)

    path = tmp_path / "ViT-B-32.pt"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.jit.trace(Whole().eval(), torch.rand(2, 3, 224, 224)).save(str(path))  # type: ignore[no-untyped-call]
        mean, std = (torch.tensor(table["clip"])[:, None, None] for table in (vit._MEAN, vit._STD))
        truth = other.visual((images().values / 255 - mean) / std)
    vectors = extract("clip", path, images())
    assert vectors.shape == (2, 16) and truth.std(0).mean() > 1e-2
    torch.testing.assert_close(vectors, truth, rtol=1e-4, atol=1e-4)


def test_dinov2_is_made_of_torchs_layers(tmp_path: Path) -> None:
    """torch's own encoder layers, with the layer scale put into the weights that it scales."""
    form = FORMS["dinov2"]
    w = random(vit.dinov2_shapes(form))
    path = tmp_path / "dinov2_vitl14_pretrain.pth"
    torch.save(w | {"mask_token": torch.zeros(1, form.width)}, path)
    mean, std = (torch.tensor(table["dinov2"])[:, None, None] for table in (vit._MEAN, vit._STD))
    x = F.conv2d((images().values / 255 - mean) / std, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], 14)
    table = w["pos_embed"][:, 1:].reshape(1, 37, 37, form.width).permute(0, 3, 1, 2)
    table = F.interpolate(table, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic")
    assert table.shape[2:] == (16, 16)
    patches = (x + table).flatten(2).transpose(1, 2)
    x = torch.cat([(w["cls_token"] + w["pos_embed"][:, :1]).expand(2, -1, -1), patches], 1)
    for index in range(form.depth):
        layer = nn.TransformerEncoderLayer(
            form.width, form.heads, 4 * form.width, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
        )
        part = {name.removeprefix(f"blocks.{index}."): value for name, value in w.items() if f"blocks.{index}." in name}
        names = {
            "norm1": "norm1", "norm2": "norm2", "self_attn.out_proj": "attn.proj", "linear1": "mlp.fc1",
            "linear2": "mlp.fc2",
        }  # fmt: skip
        state = {f"{ours}.{end}": part[f"{name}.{end}"] for ours, name in names.items() for end in ("weight", "bias")}
        state |= {f"self_attn.in_proj_{end}": part[f"attn.qkv.{end}"] for end in ("weight", "bias")}
        for name, scale in (("self_attn.out_proj", part["ls1.gamma"]), ("linear2", part["ls2.gamma"])):
            state[f"{name}.weight"] = state[f"{name}.weight"] * scale[:, None]
            state[f"{name}.bias"] = state[f"{name}.bias"] * scale
        layer.load_state_dict(state)
        with torch.no_grad():
            x = layer(x)  # in training mode, without dropout: the plain path and not the fused one
    truth = F.layer_norm(x[:, 0], (form.width,), w["norm.weight"], w["norm.bias"], 1e-6)
    vectors = extract("dinov2", path, images())
    assert vectors.shape == (2, 64) and truth.std(0).mean() > 1e-2
    torch.testing.assert_close(vectors, truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FORMS)
def test_any_image_is_read_and_a_file_of_another_form_refused(name: str, tmp_path: Path) -> None:
    shapes = vit.dinov2_shapes(FORMS[name]) if name == "dinov2" else vit.clip_shapes(FORMS[name])
    weights = random(shapes)
    path = tmp_path / "weights.pth"
    torch.save(weights, path)
    grey = Images(images(1).values[:, :, :32, :28])
    assert extract(name, path, grey).shape == (2, 64 if name == "dinov2" else 16)
    last = list(shapes)[-1]
    torch.save({key: value for key, value in weights.items() if key != last}, path)
    with pytest.raises(UsageError, match=rf"weights\.pth: {last} is missing"):
        extract(name, path, grey)


def test_the_published_forms() -> None:
    """The numbers of parameters that the papers give: 304 million, and 88 million with the projection."""
    large = vit.Form(width=1024, depth=24, heads=16, patch=14, grid=37)
    base = vit.Form(width=768, depth=12, heads=12, patch=32, grid=7, output=512)
    counts = [
        sum(torch.Size(shape).numel() for shape in shapes.values())
        for shapes in (vit.dinov2_shapes(large), vit.clip_shapes(base))
    ]
    assert [round(count / 1e6) for count in counts] == [304, 88]
