"""BERT's encoder (Devlin et al. 2019) as sentence-transformers pools it (Reimers & Gurevych 2019): run, not trained."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aigc_lab.nets.vit import fill, hold

_EPSILON = 1e-12


class Form(NamedTuple):
    """Its sizes: width of a vector, layers, heads, width inside a layer, pieces of words, and the longest sentence."""

    width: int
    depth: int
    heads: int
    inner: int
    pieces: int
    places: int


def shapes(form: Form) -> dict[str, tuple[int, ...]]:
    """What the published file holds, without the pooler, which sentence vectors do not use."""
    width, inner = form.width, form.inner
    tables = {"word": form.pieces, "position": form.places, "token_type": 2}
    sizes: dict[str, tuple[int, ...]] = {
        f"embeddings.{name}_embeddings.weight": (rows, width) for name, rows in tables.items()
    }
    sizes |= {"embeddings.LayerNorm.weight": (width,), "embeddings.LayerNorm.bias": (width,)}
    linear = {f"attention.self.{name}": (width, width) for name in ("query", "key", "value")}
    linear |= {"attention.output.dense": (width, width), "intermediate.dense": (inner, width)}
    linear |= {"output.dense": (width, inner)}
    for index in range(form.depth):
        here = f"encoder.layer.{index}."
        for name, size in linear.items():
            sizes |= {f"{here}{name}.weight": size, f"{here}{name}.bias": size[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            sizes |= {f"{here}{name}.weight": (width,), f"{here}{name}.bias": (width,)}
    return sizes


class SentenceBERT(nn.Module):
    """Pieces int64 [N, L], padded by 0 -> unit vectors [N, width]: the mean over the pieces of the last layer."""

    def __init__(self, weights: Mapping[str, Tensor], form: Form) -> None:
        super().__init__()
        self.word = hold(weights["embeddings.word_embeddings.weight"])
        # One sentence at a time is read: all of it is of the first kind.
        kind = weights["embeddings.token_type_embeddings.weight"][0]
        self.place = hold(weights["embeddings.position_embeddings.weight"] + kind)
        with torch.device("meta"):  # every tensor is filled, or nothing runs
            self.norm = nn.LayerNorm(form.width, _EPSILON)
            self.layers = nn.ModuleList(_Layer(form) for _ in range(form.depth))
        fill(self.norm, weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"])
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, _Layer)
            layer.fill(weights, f"encoder.layer.{index}.")

    def forward(self, pieces: Tensor) -> Tensor:
        inside = pieces != 0
        x = self.norm(self.word[pieces] + self.place[: pieces.shape[1]])
        for layer in self.layers:
            x = layer(x, inside[:, None, None])
        mean = (x * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)
        return F.normalize(mean)


class _Layer(nn.Module):
    """Attention and a perceptron, each added to its input and then normalised."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.heads, width = form.heads, form.width
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, form.inner), nn.Linear(form.inner, width)
        self.first, self.second = nn.LayerNorm(width, _EPSILON), nn.LayerNorm(width, _EPSILON)

    def fill(self, weights: Mapping[str, Tensor], here: str) -> None:
        modules = {
            "attention.output.dense": self.out,
            "intermediate.dense": self.up,
            "output.dense": self.down,
            "attention.output.LayerNorm": self.first,
            "output.LayerNorm": self.second,
        }
        for name, module in modules.items():
            fill(module, weights[f"{here}{name}.weight"], weights[f"{here}{name}.bias"])
        qkv = [f"{here}attention.self.{name}" for name in ("query", "key", "value")]
        weight, bias = (torch.cat([weights[f"{name}.{each}"] for name in qkv]) for each in ("weight", "bias"))
        fill(self.qkv, weight, bias)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = self.first(x + self.out(attended.transpose(1, 2).flatten(2)))
        normed: Tensor = self.second(x + self.down(F.gelu(self.up(x))))
        return normed
