"""Systems that predict a sentence word by word: what they share, whatever network predicts."""

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from aigc_lab.config import Positive, Strict
from aigc_lab.nets import decoding
from aigc_lab.nets.decoding import Sampling
from aigc_lab.noise import Draw, Noise
from aigc_lab.optimizers import base as optimizers
from aigc_lab.samples import Text
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems import base
from aigc_lab.text.vocabulary import EOS, PAD, Vocabulary


def shifted(words: Tensor) -> Tensor:
    """The inputs of a language model [N, L] of words [N, L]: at each place the word before it, `<pad>` at the first."""
    return F.pad(words[:, :-1], (1, 0), value=PAD)


def first_word(vocabulary: Vocabulary) -> int:
    """The number of the first word that a model gives a probability: marks that never follow get none."""
    return max(vocabulary.impossible) + 1


def nll_of(logits: Tensor, words: Tensor, first: int) -> Tensor:
    """−log p of each word [N, L] in nats, 0 at `<pad>`, of logits [N, L, V − first] of the words from `first` on."""
    targets = words - first
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD - first, reduction="none")
    return losses.reshape(words.shape)


def kept(uniform: Tensor, rate: float) -> Tensor:
    """Dropout's factors [N, 1, d] of uniform numbers [N, d]: 0, or 1 / (1 − rate)."""
    return (uniform >= rate).unsqueeze(1) / (1 - rate)


class LanguageSystem(base.System):
    """Text, word by word. A latent is one uniform number for each place: it picks the word there."""

    modality = Modality.TEXT

    def __init__(self, config: Any, shape: Shape) -> None:
        super().__init__(config, shape)
        assert shape.vocabulary is not None, "text has a vocabulary"
        self.vocabulary = shape.vocabulary
        self.length = shape.size[0]
        self.first = first_word(self.vocabulary)

    def latents(self, count: int) -> Draw:
        return Draw((count, self.length), "unit")

    def prefix(self, words: list[str]) -> tuple[int, ...]:
        """The numbers of words that sentences shall begin with. Raises `ValueError` for unknown, or too many."""
        unknown = [word for word in words if self.vocabulary.numbers.get(word, PAD) <= EOS]
        if unknown:
            raise ValueError(
                f"{', '.join(map(repr, unknown[:3]))}: not among the {len(self.vocabulary):,} words of this model, "
                f"which come from its training data (tokenizer {self.vocabulary.tokenizer})"
            )
        if len(words) >= self.length:
            raise ValueError(f"{len(words)} words to begin with, and this model's sentences have {self.length} places")
        return tuple(self.vocabulary.numbers[word] for word in words)

    def sentences(self, uniform: Tensor, sampling: Sampling, context: Tensor | None = None) -> Tensor:
        """Sentences [N, L] that `decoder` and `output` predict word by word, each drawn by its row of uniform numbers
        [N, L]; `context` [N, d] is what the decoder is told beside the words.
        """
        decoder: Any = self.decoder

        def predict(words: Tensor, memory: Any) -> tuple[Tensor, Any]:
            features, memory = decoder.step(words, memory, context)
            return self.output(features[:, -1]), memory  # type: ignore[operator]

        memory = decoder.start(len(uniform), self.length, context)
        return decoding.sentences(predict, memory, uniform, self.vocabulary, self.first, sampling)

    def text(self, words: Tensor) -> Text:
        """Sentences [N, L] with their vocabulary."""
        return Text(words, vocabulary=self.vocabulary)


class LanguageModel(LanguageSystem):
    """Maximises the likelihood of the next word: the mean over the words of a batch, `<eos>` among them.

    A subclass sets `decoder`, which has `step` and `start` and gives features of `width`, then `output` by `head()`.
    """

    decoder: Any
    output: nn.Linear

    class Config(Strict):
        dropout: float = Field(0.0, ge=0, lt=1, description="of what enters and leaves the network, locked over places")
        lr: Positive = Field(1e-3, description="Adam's step")
        max_norm: Positive = Field(5.0, description="a longer gradient is shortened to this")
        optimizer: optimizers.Name = Field("adam", description=optimizers.NAME)
        optimizer_options: optimizers.Options = Field({}, description=optimizers.OPTIONS)

    optimizer_only = frozenset({"lr", "max_norm"})

    def head(self) -> nn.Linear:
        """The layer from features to the logits of all words that may follow."""
        return nn.Linear(self.decoder.width, len(self.vocabulary) - self.first)

    def phases(self, batch_size: int) -> list[base.Phase]:
        inside, outside = self.decoder.input_width, self.decoder.width
        drawn = {"dropout": Draw((batch_size, inside + outside), "unit")} if self.config.dropout else {}
        rule = base.OptimizerConfig.of(self.config, self.config.lr, max_norm=self.config.max_norm)
        return [base.Phase("model", self._loss, [self], rule, drawn)]

    def _loss(self, batch: Any, noise: Noise, step: int) -> base.Loss:
        words, keep = batch.values, None
        if self.config.dropout:
            widths = [self.decoder.input_width, self.decoder.width]
            inside, outside = torch.split(noise["dropout"], widths, 1)
            keep = kept(inside, self.config.dropout), kept(outside, self.config.dropout)
        logits = self.output(self.decoder(shifted(words), keep=keep))
        total = nll_of(logits, words, self.first).sum() / (words != PAD).sum()
        return base.Loss(total)

    def token_nll(self, words: Tensor) -> Tensor:
        """−log p of each word given those before it, in nats [N, L]; 0 at `<pad>`."""
        return nll_of(self.output(self.decoder(shifted(words))), words, self.first)

    def samplers(self) -> list[nn.Module]:
        return [self.decoder, self.output]

    def sample(
        self,
        latents: Tensor,
        *,
        labels: Tensor | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 -- frozen
    ) -> Text:
        """A sentence for each row of uniform numbers [N, L]."""
        return self.text(self.sentences(latents, sampling))

    @abstractmethod
    def __init__(self, config: Any, shape: Shape) -> None:
        super().__init__(config, shape)
