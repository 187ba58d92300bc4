"""The vision transformer (Dosovitskiy et al. 2021) as DINOv2 and CLIP publish theirs: to be run, not trained."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_Shapes = dict[str, tuple[int, ...]]
_MEAN = {"dinov2": (0.485, 0.456, 0.406), "clip": (0.48145466, 0.4578275, 0.40821073)}
_STD = {"dinov2": (0.229, 0.224, 0.225), "clip": (0.26862954, 0.26130258, 0.27577711)}


class Form(NamedTuple):
    """Its sizes. Positions were learned on `grid`² patches; images are resized to `side`. `output` is what CLIP
    projects its features to.
    """

    width: int
    depth: int
    heads: int
    patch: int
    grid: int
    side: int = 224
    output: int = 0


def dinov2_shapes(form: Form) -> _Shapes:
    """What DINOv2's file holds, without the token of masked patches."""
    width = form.width
    shapes: _Shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, form.grid**2 + 1, width),
        "patch_embed.proj.weight": (width, 3, form.patch, form.patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for index in range(form.depth):
        parts = _block(width, "norm1", "attn.qkv.", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        parts |= {"ls1.gamma": (width,), "ls2.gamma": (width,)}
        shapes |= {f"blocks.{index}.{name}": shape for name, shape in parts.items()}
    return shapes


def clip_shapes(form: Form) -> _Shapes:
    """What CLIP's file holds of its images' half."""
    width = form.width
    shapes: _Shapes = {
        "class_embedding": (width,),
        "positional_embedding": (form.grid**2 + 1, width),
        "conv1.weight": (width, 3, form.patch, form.patch),
        "ln_pre.weight": (width,),
        "ln_pre.bias": (width,),
        "ln_post.weight": (width,),
        "ln_post.bias": (width,),
        "proj": (width, form.output),
    }
    for index in range(form.depth):
        parts = _block(width, "ln_1", "attn.in_proj_", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
        shapes |= {f"transformer.resblocks.{index}.{name}": shape for name, shape in parts.items()}
    return {f"visual.{name}": shape for name, shape in shapes.items()}


def _block(width: int, *names: str) -> _Shapes:
    sizes = ((width,), (3 * width, width), (width, width), (width,), (4 * width, width), (width, 4 * width))
    shapes: _Shapes = {}
    for name, size in zip(names, sizes, strict=True):
        stem = name if name.endswith((".", "_")) else f"{name}."
        shapes |= {f"{stem}weight": size, f"{stem}bias": size[:1]}
    return shapes


def dinov2(weights: Mapping[str, Tensor], form: Form) -> "ViT":
    """The last block's class token, normalised: what DINOv2 calls its features."""
    net, w = ViT("dinov2", form, 1e-6), weights
    fill(net.norm, w["norm.weight"], w["norm.bias"])
    fill(net.patches, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"])
    net.token, positions, across = hold(w["cls_token"][0]), w["pos_embed"][0].float(), form.side // form.patch
    if across != form.grid:
        # As DINOv2 does: the tenth keeps a rounding from losing a patch, and shifts every position a little.
        scale = (across + 0.1) / form.grid
        table = positions[1:].T.reshape(1, form.width, form.grid, form.grid)
        table = F.interpolate(table, scale_factor=(scale, scale), mode="bicubic")
        positions = torch.cat([positions[:1], table.flatten(2)[0].T])
    net.positions = hold(positions)
    for index, block in enumerate(net.blocks):
        assert isinstance(block, Block)
        here = f"blocks.{index}."
        block.fill(w, here, "norm1", "attn.qkv.", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        # The scale of each layer is linear, and what it scales is too.
        for linear, scale_ in ((block.out, w[f"{here}ls1.gamma"].float()), (block.down, w[f"{here}ls2.gamma"].float())):
            linear.weight.mul_(scale_[:, None])
            linear.bias.mul_(scale_)
    return net


def clip(weights: Mapping[str, Tensor], form: Form) -> "ViT":
    """The class token after CLIP's projection, without its norm of one."""
    net, w = ViT("clip", form, 1e-5), {name.removeprefix("visual."): tensor for name, tensor in weights.items()}
    fill(net.before, w["ln_pre.weight"], w["ln_pre.bias"])
    fill(net.norm, w["ln_post.weight"], w["ln_post.bias"])
    fill(net.patches, w["conv1.weight"], torch.zeros(form.width))
    net.token, net.positions = hold(w["class_embedding"][None]), hold(w["positional_embedding"])
    net.projection = hold(w["proj"])
    for index, block in enumerate(net.blocks):
        assert isinstance(block, Block)
        here = f"transformer.resblocks.{index}."
        block.fill(w, here, "ln_1", "attn.in_proj_", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    return net


def hold(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.float(), requires_grad=False)


def fill(module: nn.Module, weight: Tensor, bias: Tensor) -> None:
    module.weight, module.bias = hold(weight.clone()), hold(bias.clone())


class ViT(nn.Module):
    """uint8 images [N, 3, H, W] -> features [N, width], or [N, output]. Images are resized as both were trained:
    bicubic and smoothed.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, kind: str, form: Form, epsilon: float) -> None:
        super().__init__()
        self.kind, self.side = kind, form.side
        width = form.width
        with torch.device("meta"):  # every tensor is filled, or nothing runs
            self.patches = nn.Conv2d(3, width, form.patch, form.patch)
            self.before = nn.LayerNorm(width, epsilon)
            self.norm = nn.LayerNorm(width, epsilon)
            self.blocks = nn.ModuleList(Block(width, form.heads, epsilon, kind) for _ in range(form.depth))
        self.token: Tensor
        self.positions: Tensor
        self.projection: Tensor | None = None
        if kind != "clip":
            self.before = nn.Identity()  # type: ignore[assignment]
        self.register_buffer("mean", torch.tensor(_MEAN[kind])[:, None, None])
        self.register_buffer("std", torch.tensor(_STD[kind])[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        x = F.interpolate(images.float(), (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 255)
        x = self.patches((x / 255 - self.mean) / self.std).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), 1, -1), x], 1) + self.positions
        x = self.before(x)
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.norm(x[:, 0])
        return features if self.projection is None else features @ self.projection


class Block(nn.Module):
    """Attention and a perceptron, each of the normalised input and added to it."""

    def __init__(self, width: int, heads: int, epsilon: float, kind: str) -> None:
        super().__init__()
        self.heads, self.kind = heads, kind
        self.first, self.second = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def fill(self, weights: Mapping[str, Tensor], here: str, *names: str) -> None:
        modules = (self.first, self.qkv, self.out, self.second, self.up, self.down)
        for module, name in zip(modules, names, strict=True):
            stem = here + (name if name.endswith((".", "_")) else f"{name}.")
            fill(module, weights[f"{stem}weight"], weights[f"{stem}bias"])

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.first(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        inner = self.up(self.second(x))
        # CLIP's "quick" GELU; DINOv2 has the exact one.
        inner = inner * torch.sigmoid(1.702 * inner) if self.kind == "clip" else F.gelu(inner)
        added: Tensor = x + self.down(inner)
        return added
