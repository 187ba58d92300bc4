"""Networks that read class labels [N] beside their input: by concatenation, batch normalisation, or the last layer.

A label enters as its one-hot vector and products with it: a GPU repeats their gradients to the bit.
"""

from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from aigc_lab.nets.classes import beside, one_hot

# The labels of the pass that is under way, for layers inside of a network that is called with its input alone.
_LABELS: ContextVar[Tensor] = ContextVar("labels")


class Bound(nn.Module):
    """A network of (x, labels) as a network of x, for one batch's labels: what is differentiated in x alone."""

    def __init__(self, network: nn.Module, labels: Tensor) -> None:
        super().__init__()
        self.network, self._labels = network, labels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x, self._labels)
        return out


class Concatenated(nn.Module):
    """A network that reads the one-hot label beside its input, as `beside` appends it."""

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network, self._classes = network, classes

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        out: Tensor = self.network(beside(x, labels, self._classes))
        return out


class _ConditionalBatchNorm(nn.Module):
    """Batch normalisation with a scale and a shift of each class, at first 1 and 0 (de Vries et al. 2017; Dumoulin et
    al. 2017); mean and variance are those of the whole batch.
    """

    def __init__(self, norm: _BatchNorm, classes: int) -> None:
        super().__init__()
        self.norm = type(norm)(norm.num_features, norm.eps, norm.momentum, affine=False)
        self.scale = nn.Parameter(torch.ones(classes, norm.num_features))
        self.shift = nn.Parameter(torch.zeros(classes, norm.num_features))

    def forward(self, x: Tensor) -> Tensor:
        rows = one_hot(_LABELS.get(), len(self.scale), self.scale.dtype)
        scale, shift = (
            (rows @ table).reshape(*x.shape[:2], *[1] * (x.ndim - 2)).to(x.dtype) for table in (self.scale, self.shift)
        )
        out: Tensor = self.norm(x) * scale + shift
        return out


class ClassNormalised(nn.Module):
    """A network whose batch normalisations have a scale and a shift of each class. Raises `ValueError` for a network
    without any.
    """

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        norms = [name for name, part in network.named_modules() if isinstance(part, _BatchNorm)]
        if not norms:
            raise ValueError("the generator has no batch normalisation, by which it would read its labels")
        for name in norms:
            network.set_submodule(name, _ConditionalBatchNorm(network.get_submodule(name), classes))  # type: ignore[arg-type]
        self.network = network

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        token = _LABELS.set(labels)
        try:
            out: Tensor = self.network(x)
        finally:
            _LABELS.reset(token)
        return out


class _Heads(nn.Module):
    """A last layer of one output, and beside it one of `classes` outputs: [N, 1 + classes, …]."""

    def __init__(self, score: nn.Linear | nn.Conv2d, classes: int, bias: bool) -> None:
        super().__init__()
        self.score = score
        if isinstance(score, nn.Linear):
            self.classes: nn.Module = nn.Linear(score.in_features, classes, bias=bias)
        else:
            places = (score.kernel_size, score.stride, score.padding, score.dilation)
            self.classes = nn.Conv2d(score.in_channels, classes, *places, bias=bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([self.score(features), self.classes(features)], 1)


def _with_heads(critic: nn.Module, classes: int, bias: bool) -> nn.Module:
    """The critic, its last layer one of 1 + `classes` outputs. Raises `ValueError` where that is not its one output."""
    layers = [(name, part) for name, part in critic.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    name, last = layers[-1] if layers else ("", None)
    if last is None or not name or len(last.weight) != 1:
        raise ValueError("the critic does not end in a layer of one output, beside which its classes would stand")
    critic.set_submodule(name, _Heads(last, classes, bias))
    return critic


class Projection(nn.Module):
    """ψ(φ(x)) + ⟨e(y), φ(x)⟩ (Miyato & Koyama 2018, eq. 4), of a critic whose last layer ψ is linear in the features φ:
    the embeddings e are the rows of a layer beside it. [N, …] -> [N, 1].
    """

    def __init__(self, critic: nn.Module, classes: int) -> None:
        super().__init__()
        self.network, self._classes = _with_heads(critic, classes, bias=False), classes

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        outputs = self.network(x)
        of_class = outputs[:, 1:] * one_hot(labels, self._classes, outputs.dtype)
        score: Tensor = outputs[:, :1] + of_class.sum(1, keepdim=True)
        return score


class Auxiliary(nn.Module):
    """A critic that says a score [N, 1], and with `judged` logits of the classes [N, classes] beside it (Odena et al.
    2017); it reads no labels.
    """

    def __init__(self, critic: nn.Module, classes: int) -> None:
        super().__init__()
        self.network = _with_heads(critic, classes, bias=True)

    def judged(self, x: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.network(x)
        return outputs[:, :1], outputs[:, 1:]

    def forward(self, x: Tensor) -> Tensor:
        return self.judged(x)[0]
