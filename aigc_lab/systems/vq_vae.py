"""VQ-VAE (van den Oord et al. 2017): a code of discrete vectors, and an autoregressive prior in a second phase."""

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from aigc_lab.config import Depth, Few, Positive, Strict, Weight, Width
from aigc_lab.nets import dcgan, joined
from aigc_lab.nets.transformer import TransformerDecoder
from aigc_lab.noise import Draw, Noise
from aigc_lab.optimizers import base as optimizers
from aigc_lab.samples import Images, Samples
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems import base
from aigc_lab.systems.shared.flow import Flow
from aigc_lab.systems.shared.mixture import GaussianMixture
from aigc_lab.systems.shared.principal import PrincipalComponents
from aigc_lab.systems.shared.samplers import (
    FLOW_LAYERS,
    MIXTURE,
    SAMPLER_READS,
    Sampler,
    blocks,
    refuse_few,
    refuse_more,
)

# Places of an image's code, 4×4, where DCGAN's pyramid ends.
_SIDE = 4
_PLACES = _SIDE * _SIDE
_SAMPLER = (
    "where samples' codes come from: the autoregressive prior, or a Gaussian mixture or a normalising flow fitted to "
    "the encoder's vectors of train before each evaluation"
)


class VQVAE(base.System):
    """Minimises E‖x − D(e)‖² + β·E‖z − sg(e)‖², summed over pixels in [0, 1] and over the code's numbers (equation 3):
    e are the codebook's vectors nearest to the encoder's z, at 4×4 places, and gradients pass from e to z as if they
    were one. The codebook follows by a moving average (appendix A.1). Up to a constant, the first term is the nats of a
    Gaussian likelihood with σ² = ½. A code that is hardly ever chosen becomes a vector of the batch (Dhariwal et al.
    2020): with `restart: 0`, the paper's, most of a random codebook is never chosen.

    The prior is a transformer over the 16 places, row by row, trained in nats an image; `sample` draws by it. It learns
    beside the autoencoder and follows its codes. With `prior_start` it learns after it, as the paper's PixelCNN does:
    from that step on the prior alone is trained, on codes that no longer move. Defaults of the paper: 512 vectors, β =
    0.25, Adam at 2·10⁻⁴, a decay of 0.99.

    With `sampler: gmm` or `flow` there is no such prior: a mixture or a flow is fitted to the encoder's vectors of
    *train* before they are quantised, all 16 of an image together, in the space of their first principal components.
    What it draws is quantised as the encoder's vectors are, and decoded.
    """

    modality = Modality.IMAGES
    optimizer_only = frozenset({"lr", "prior_lr"})
    loss_only = frozenset({"commitment", "restart"})

    class Config(Strict):
        width: Width = Field(64, description="channels at the widest picture; doubled at every halving")
        codes: Few = Field(512, description="K: vectors of the codebook")
        embedding: Width = Field(64, description="numbers of a vector")
        commitment: Weight = Field(0.25, description="weight β of the encoder's distance to the codebook")
        decay: float = Field(0.99, ge=0, lt=1, description="of the moving averages that the codebook is made of")
        restart: Weight = Field(0.1, description="a code chosen less often than this share of the mean begins anew")
        hidden: Width = Field(128, description="width of the prior")
        layers: Depth = Field(2, description="of the prior")
        heads: Few = Field(4, description="of the prior's attention")
        sampler: Sampler = Field("prior", description=_SAMPLER)
        mixture: Few = Field(10, description=MIXTURE)
        flow_layers: Depth = Field(8, description=FLOW_LAYERS)
        principal: Width = Field(16, description="principal components of an image's vectors that are fitted, at most")
        prior_start: int = Field(
            0, ge=0, le=10**12, description="step at which the prior takes over; 0: it learns beside the autoencoder"
        )
        lr: Positive = Field(2e-4, description="Adam's step, of the autoencoder")
        prior_lr: Positive = Field(1e-3, description="step of the prior's optimiser")
        optimizer: optimizers.Name = Field("adam", description=optimizers.NAME)
        optimizer_options: optimizers.Options = Field({}, description=optimizers.OPTIONS)

        @model_validator(mode="after")
        def _has_a_prior(self) -> Any:
            if self.prior_start and self.sampler != "prior":
                raise ValueError(
                    f"prior_start is of the autoregressive prior, which sampler {self.sampler} takes the place of: "
                    "leave it out, or set sampler to prior"
                )
            return self

    reads = (
        *SAMPLER_READS,
        base.Read("principal", "sampler", ("gmm", "flow")),
        *(base.Read(key, "sampler", ("prior",)) for key in ("hidden", "layers", "heads", "prior_lr")),
    )
    config: Config
    codebook: Tensor
    counts: Tensor
    sums: Tensor
    seen_counts: Tensor
    seen_sums: Tensor
    spare: Tensor

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        codes, size, width = config.codes, config.embedding, config.width
        top = width * 2 ** (dcgan.stages(shape.size) - 1)
        *body, _, _ = dcgan.Encoder(1, width, shape.size)
        self.encoder = nn.Sequential(*body, nn.Conv2d(top, size, 1))
        _, _, *rest = dcgan.Decoder(1, width, shape.size)
        self.decoder = nn.Sequential(nn.Conv2d(size, top, 1, bias=False), *rest)
        # Drawn whatever the sampler, so that the codebook begins alike.
        prior = TransformerDecoder(codes + 1, _PLACES, config.hidden, config.layers, config.heads)
        output = nn.Linear(config.hidden, codes)
        self.fitted = None if config.sampler == "prior" else self._sampler(config)
        if self.fitted is None:
            self.prior, self.output = prior, output
        self.register_buffer("codebook", torch.randn(codes, size))
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", self.codebook.clone())
        # What the loss saw in its batch, for `after`.
        self.register_buffer("seen_counts", torch.zeros(codes))
        self.register_buffer("seen_sums", torch.zeros(codes, size))
        self.register_buffer("spare", torch.zeros(codes, size))

    @staticmethod
    def _sampler(config: Config) -> PrincipalComponents:
        numbers = _PLACES * config.embedding
        size = min(config.principal, numbers)
        mixed = config.sampler == "gmm"
        inner = GaussianMixture(config.mixture, size) if mixed else Flow(config.flow_layers, size)
        return PrincipalComponents(numbers, inner, size)

    # ---- the code of an image

    def _encoded(self, images: Tensor) -> Tensor:
        """The encoder's vectors z [N, 16, embedding] of float images in [0, 1]."""
        encoded: Tensor = self.encoder(images * 2 - 1).float()
        return encoded.flatten(2).transpose(1, 2)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the codebook's vector nearest to each of [..., embedding]."""
        # ‖z‖² is the same for all of them.
        return (self.codebook.square().sum(1) - 2 * vectors @ self.codebook.T).argmin(-1)

    def _decoded(self, vectors: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(vectors.transpose(1, 2).unflatten(2, (_SIDE, _SIDE))).float()  # type: ignore[no-untyped-call]
        return decoded

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The codebook's vectors [N, 16 · embedding] of float images in [0, 1], and their log variance: −∞, points."""
        code = self.codebook[self.nearest(self._encoded(images))].flatten(1)
        return code, torch.full_like(code, -torch.inf)

    def decode(self, latents: Tensor) -> Tensor:
        """Images as floats in [0, 1], of vectors [N, 16 · embedding]."""
        return self._decoded(latents.reshape(-1, _PLACES, self.config.embedding)).clamp(0, 1)

    # ---- the two phases

    def check_train(self, train: Samples) -> None:
        refuse_more("codes", self.config.codes, "vectors of the codebook", train)
        if self.fitted is not None:
            components = self.config.mixture if self.config.sampler == "gmm" else None
            refuse_few(self.fitted.basis.shape[1], "principal components", components, train)

    def phases(self, batch_size: int) -> list[base.Phase]:
        config = self.config
        rule, prior_rule = (base.OptimizerConfig.of(config, lr) for lr in (config.lr, config.prior_lr))
        spare = Draw((config.codes,), "unit")
        networks: list[nn.Module] = [self.encoder, self.decoder]
        autoencoder = base.Phase("autoencoder", self._loss, networks, rule, {"spare": spare}, after=self._follow)
        if self.fitted is not None:
            return [autoencoder]
        start = config.prior_start
        prior = base.Phase("prior", self._prior_loss, [self.prior, self.output], prior_rule, start=start)
        prior = prior._replace(begins={"prior_start": start})
        return [autoencoder._replace(stop=start or None), prior]

    def _loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        images = batch.unit()
        encoded = self._encoded(images)
        with torch.no_grad():
            indices = self.nearest(encoded)
            vectors = self.codebook[indices]
            counts = self._note(encoded.flatten(0, 1), indices.flatten(), noise["spare"])
        straight = encoded + (vectors - encoded).detach()
        error = (self._decoded(straight) - images).square().flatten(1).sum(1).mean()
        commitment = (encoded - vectors).square().flatten(1).sum(1).mean()
        shares = counts / counts.sum()
        perplexity = (-torch.special.xlogy(shares, shares).sum()).exp()
        parts = {"squared_error": error, "commitment": commitment}
        return base.Loss(error + self.config.commitment * commitment, parts, {"perplexity": perplexity})

    def _note(self, vectors: Tensor, indices: Tensor, uniform: Tensor) -> Tensor:
        """How many of the vectors [M, embedding] each code is nearest to [K]; kept with their sums until `after`, and
        with a vector for each code that may begin anew, which uniform numbers [K] pick.
        """
        # A comparison: one_hot would ask the device for a number.
        chosen = (indices[:, None] == torch.arange(self.config.codes, device=indices.device)).to(vectors.dtype)
        # The codebook follows the whole batch, in whichever process a vector lies.
        chosen, vectors = joined.gather(chosen), joined.gather(vectors)
        counts = chosen.sum(0)
        self.seen_counts.copy_(counts)
        self.seen_sums.copy_(chosen.T @ vectors)
        picked = (uniform * len(vectors)).long().clamp_max(len(vectors) - 1)
        self.spare.copy_(vectors[picked])
        return counts

    def _follow(self, step: int) -> None:
        """Moves the codebook to the average of the vectors that were nearest to each of its own."""
        rest = 1 - self.config.decay
        self.counts.lerp_(self.seen_counts, rest)
        self.sums.lerp_(self.seen_sums, rest)
        total = self.counts.sum()
        # Laplace smoothing: a code that is never chosen is not divided by zero.
        smoothed = (self.counts + 1e-5) / (total + self.config.codes * 1e-5) * total
        dead = self.counts < self.config.restart * total / self.config.codes
        self.codebook.copy_(torch.where(dead[:, None], self.spare, self.sums / smoothed[:, None]))
        self.sums.copy_(torch.where(dead[:, None], self.spare, self.sums))
        self.counts.copy_(torch.where(dead, 1.0, self.counts))

    def _prior_loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        with torch.no_grad():
            indices = self.nearest(self._encoded(batch.unit()))
        logits = self.output(self.prior(F.pad(indices[:, :-1] + 1, (1, 0)))).float()
        nats = F.cross_entropy(logits.flatten(0, 1), indices.flatten(), reduction="none")
        return base.Loss(nats.reshape(-1, _PLACES).sum(1).mean())

    # ---- samples

    def samplers(self) -> list[nn.Module]:
        return [self]

    def latents(self, count: int) -> Draw:
        if self.fitted is not None:
            return Draw((count, self.fitted.basis.shape[1] + self.fitted.extra))
        return Draw((count, _PLACES), "unit")

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Images:
        return Images(self.decode(self.codebook[self.indices(latents)].flatten(1)))

    def indices(self, latents: Tensor) -> Tensor:
        """Codes [N, 16] of samples: from the prior, or those nearest to the vectors that the fitted sampler draws."""
        if self.fitted is None:
            return self.drawn(latents)
        return self.nearest(self.fitted(latents).unflatten(1, (_PLACES, -1)))

    @torch.no_grad()
    def fit_sampler(self, train: Samples) -> None:
        """Fits the sampler to the encoder's vectors of at most 10,000 images of `train`, a seeded choice."""
        if self.fitted is None:
            return
        device = self.codebook.device
        vectors = [self._encoded(batch.as_inputs()).flatten(1).cpu() for batch in blocks(train, device)]
        self.fitted.fit(torch.cat(vectors))

    def drawn(self, uniform: Tensor) -> Tensor:
        """Codes [N, 16] from the prior, place by place, each picked by its uniform number [N, 16]."""
        memory, word = self.prior.start(len(uniform), _PLACES), torch.zeros_like(uniform[:, :1], dtype=torch.long)
        places = []
        for place in range(_PLACES):
            features, memory = self.prior.step(word, memory)
            cumulative = self.output(features[:, -1]).double().softmax(1).cumsum(1)
            picked = torch.searchsorted(cumulative, uniform[:, place : place + 1].double().contiguous(), right=True)
            picked = picked.clamp_max(self.config.codes - 1)
            places.append(picked)
            word = picked + 1
        return torch.cat(places, 1)
