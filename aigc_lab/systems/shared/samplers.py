"""Where the latents of an autoencoder's samples come from: the knob `sampler`, and what is fitted to codes for it."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.samples import Samples
from aigc_lab.systems import base

#: values of the knob `sampler`, and what is said of it
Sampler = Literal["prior", "gmm", "flow"]
SAMPLER = (
    "where samples' latents come from: the prior, or a Gaussian mixture or a normalising flow fitted to codes of train "
    "(given their class in a conditional system) before each evaluation"
)
MIXTURE = "components of the fitted mixture, or of each class's in a conditional system"
FLOW_LAYERS = "coupling layers of the fitted flow"
#: what the choice of a sampler leaves without effect
SAMPLER_READS = (base.Read("mixture", "sampler", ("gmm",)), base.Read("flow_layers", "sampler", ("flow",)))
#: codes that a sampler is fitted to, at most
CODES = 10_000
#: real samples that are encoded at a time, which is part of their draws' key
BLOCK = 500


class LatentSampler(base.Fitted):
    """Distribution over latents [D] that is fitted to codes after training, and drawn from by standard normal numbers.

    All that is fitted are buffers. Until `fit` it is N(0, I), the prior: `forward` gives the first D numbers of a row.
    """

    #: numbers of a draw beside one for each latent
    extra: int = 0

    @abstractmethod
    def forward(self, normal: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents [N, D] of standard normal numbers [N, D + extra]. `labels` (int64 [N]) are read by a distribution of
        latents given their class, which needs them.
        """

    @abstractmethod
    def fit(self, codes: Tensor, labels: Tensor | None = None) -> None:
        """Fits it to codes [n, D], given their classes (int64 [n]) where it reads them, from nothing and the same for
        the same codes. Codes that are not finite leave it as it is: the run has diverged, and says so elsewhere.
        """


def given_labels(labels: Tensor | None) -> Tensor:
    """The labels, of which a conditional system needs one for each sample. Raises `ValueError` without them."""
    if labels is None:
        raise ValueError("it is conditional, and a picture's class is not given: pass labels, int64 [N]")
    return labels


def chosen(train: Samples) -> Tensor:
    """Rows of at most 10,000 samples of `train`, a seeded choice, whose codes a sampler is fitted to."""
    return torch.randperm(len(train), generator=noise.generator("sampler"))[:CODES]


def chosen_labels(train: Samples) -> Tensor | None:
    """The classes of the chosen samples, in their order, on the host; None for a `train` without labels."""
    return None if train.labels is None else train.labels.cpu()[chosen(train)]


def blocks(train: Samples, device: torch.device) -> Iterator[Samples]:
    """The chosen samples of `train`, 500 at a time, on a device."""
    for rows in torch.split(chosen(train), BLOCK):
        yield train.take(rows.to(train.values.device)).to(device)


def refuse_few(size: int, what: str, components: int | None, train: Samples) -> None:
    """Raises `ValueError` if *train* has too few codes for a density of `size` latents, called `what`, and for so many
    components of a mixture.
    """
    if components is not None:
        refuse_more("mixture", components, "components", train)
    if size >= (count := min(len(train), CODES)):
        raise ValueError(
            f"the covariance of {size} {what} cannot be fitted to {count} codes of train: take fewer than {count} "
            f"{what}, or set sampler to prior"
        )


def refuse_more(key: str, value: int, what: str, train: Samples) -> None:
    """Raises `ValueError` if a system has more of something than there are training samples."""
    if value > len(train):
        raise ValueError(f"{key}: {value} {what} are more than train has samples; set it to {len(train)} or less")
