"""Variational autoencoder of sentences (Bowman et al. 2016): annealing, free bits, β and word dropout as knobs."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from aigc_lab.config import Positive, Width
from aigc_lab.nets.decoding import Sampling
from aigc_lab.nets.recurrent import RecurrentDecoder, RecurrentEncoder
from aigc_lab.noise import Draw, Noise
from aigc_lab.optimizers import base as optimizers
from aigc_lab.samples import Text
from aigc_lab.shape import Shape
from aigc_lab.systems import base
from aigc_lab.systems.shared.kl_term import ANNEALING, KL_READS, Annealing, KLConfig, kl_term
from aigc_lab.systems.shared.language import CONDITIONAL, Conditional, LanguageSystem, nll_of, shifted
from aigc_lab.text.vocabulary import PAD, UNK


class TextVAE(LanguageSystem):
    """Minimises E[−log p(x|z)] + w·β·Σᵢ max(KLᵢ, λ), nats a sentence. KLᵢ is the batch mean of latent i's divergence
    from N(0, 1), λ its free bits (Kingma et al. 2016, equation 15), w the annealing's weight.

    A strong decoder does without z, and KL falls to 0 (posterior collapse): annealing lets the code be learned first;
    word dropout, which replaces the decoder's inputs by `<unk>`, makes the decoder need it. A latent of `sample` is z
    and a normal number for each place, whose quantile picks the word. A conditional one has q(z|x, y) and p(x|z, y) for
    classes y, `labels` int64 [N] (Sohn et al. 2015).
    """

    likelihood = "categorical"
    unstackable = "torch's LSTM has no batching rule under vmap"

    class Config(KLConfig):
        embedding: Width = 128
        hidden: Width = 256
        latent_size: Width = 32
        annealing: Annealing = Field("linear", description=ANNEALING)
        word_dropout: float = Field(0.3, ge=0, le=1, description="share of the decoder's inputs replaced by <unk>")
        conditional: Conditional = Field("none", description=CONDITIONAL)
        lr: Positive = Field(1e-3, description="Adam's step")
        max_norm: Positive = Field(5.0, description="a longer gradient is shortened to this")
        optimizer: optimizers.Name = Field("adam", description=optimizers.NAME)
        optimizer_options: optimizers.Options = Field({}, description=optimizers.OPTIONS)

    optimizer_only = frozenset({"lr", "max_norm"})
    reads = KL_READS

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        words, size = len(self.vocabulary), config.latent_size
        told = config.embedding if self.conditional else 0
        self.encoder = RecurrentEncoder(words, config.embedding, config.hidden, 2 * size, told)
        self.decoder = RecurrentDecoder(words, config.embedding, config.hidden, context=size + told)
        self.output = nn.Linear(config.hidden, words - self.first)
        if shape.classes is not None and self.conditional:
            self.class_embedding = nn.Embedding(shape.classes, told)

    def phases(self, batch_size: int) -> list[base.Phase]:
        noise = {
            "latents": Draw((batch_size, self.config.latent_size)),
            "words": Draw((batch_size, self.length), "unit"),
        }
        rule = base.OptimizerConfig.of(self.config, self.config.lr, max_norm=self.config.max_norm)
        return [base.Phase("vae", self._loss, [self], rule, noise)]

    def _loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        config, words = self.config, batch.values
        mean, log_variance = self.encode(words, labels=batch.labels)
        latents = mean + (0.5 * log_variance).exp() * noise["latents"]
        inputs = shifted(words)
        # The beginning is no word: it stays.
        hidden = (noise["words"][:, : words.shape[1]] < config.word_dropout) & (inputs != PAD)
        given = self._given(latents, batch.labels)
        reconstruction = self._nll(given, words, inputs.masked_fill(hidden, UNK)).mean()
        divergence = kl_term(config, mean, log_variance, step)
        parts = {"reconstruction": reconstruction, **divergence.parts}
        return base.Loss(reconstruction + divergence.total, parts, divergence.dynamics)

    def encode(self, words: Tensor, *, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), each [N, latent_size], of sentences [N, L]."""
        mean, log_variance = self.encoder(words, (words != PAD).sum(1), self.context(labels)).float().chunk(2, dim=1)
        return mean, log_variance

    def decode(self, latents: Tensor, *, labels: Tensor | None = None) -> Tensor:
        """The sentences [N, L] of which each word is the most likely one after those before it."""
        uniform = latents.new_zeros(len(latents), self.length)
        return self.sentences(uniform, Sampling(temperature=0), self._given(latents, labels))

    def log_likelihood(self, words: Tensor, latents: Tensor, *, labels: Tensor | None = None) -> Tensor:
        """Log p(x|z) in nats a sentence [N], its `<eos>` included."""
        return -self._nll(self._given(latents, labels), words, shifted(words))

    def _given(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """What the decoder is told beside the words: the latents, with the vectors of the classes if there are any."""
        classes = self.context(labels)
        return latents if classes is None else torch.cat([latents, classes], 1)

    def _nll(self, given: Tensor, words: Tensor, inputs: Tensor) -> Tensor:
        return nll_of(self.output(self.decoder(inputs, given)), words, self.first).sum(1)

    def samplers(self) -> list[nn.Module]:
        # All of it: an average decoder beside the raw encoder would be scored as an autoencoder that nobody trained.
        return [self]

    def latents(self, count: int) -> Draw:
        return Draw((count, self.config.latent_size + self.length))

    def sample(
        self,
        latents: Tensor,
        *,
        labels: Tensor | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 -- frozen
    ) -> Text:
        """A sentence for each latent [N, latent_size + L]: z, and the numbers that pick the words."""
        code, normal = torch.split(latents, [self.config.latent_size, self.length], 1)
        return self.text(
            self.sentences(torch.special.ndtr(normal.double()).float(), sampling, self._given(code, labels))
        )
