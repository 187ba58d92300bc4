"""Systems that predict a sentence word by word: what they share, whatever network predicts."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from aigc_lab.config import Positive, Strict
from aigc_lab.nets import decoding, joined
from aigc_lab.nets.decoding import Sampling
from aigc_lab.noise import Draw, Noise
from aigc_lab.optimizers import base as optimizers
from aigc_lab.samples import Text
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems import base
from aigc_lab.text.vocabulary import EOS, PAD, Vocabulary

Conditional = Literal["none", "concat"]
# The likelihood of the next word alone, or a critic of sentences, whatever came before it.
TrainedBy = Literal["likelihood", "critic"]
CONDITIONAL = "concat: a vector of the class beside each word"


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
    """Text, word by word. A latent is one uniform number for each place: it picks the word there. A conditional system
    sets `class_embedding`.
    """

    modality = Modality.TEXT
    #: what its sentences are learned by, where a text GAN is compared with maximum likelihood; None: neither of the two
    trained_by: ClassVar[TrainedBy | None] = None
    class_embedding: nn.Embedding

    def __init__(self, config: Any, shape: Shape) -> None:
        super().__init__(config, shape)
        assert shape.vocabulary is not None, "text has a vocabulary"
        self.vocabulary = shape.vocabulary
        self.length = shape.size[0]
        self.first = first_word(self.vocabulary)

    def context(self, labels: Tensor | None) -> Tensor | None:
        """Vectors [N, d] of the classes `labels`, int64 [N]; None for an unconditional model. Raises `ValueError` for a
        conditional one without labels.
        """
        if not self.conditional:
            return None
        if labels is None:
            raise ValueError(
                "it is conditional: its sentences are drawn and scored given their classes, so give labels"
            )
        vectors: Tensor = self.class_embedding(labels)
        return vectors

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

    def generator(self) -> list[nn.Module]:
        """The networks that predict the next word: what updates them is an update of the generator."""
        return [self.decoder, self.output]  # type: ignore[list-item]

    def predictor(self, context: Tensor | None = None) -> decoding.Predict:
        """`predict` of `decoding.sentences`: what `decoder` and `output` say of the next word; `context` [N, d] is what
        the decoder is told beside the words.
        """
        decoder: Any = self.decoder

        def predict(words: Tensor, memory: Any) -> tuple[Tensor, Any]:
            features, memory = decoder.step(words, memory, context)
            return self.output(features[:, -1]), memory  # type: ignore[operator]

        return predict

    def sentences(
        self, uniform: Tensor, sampling: Sampling, context: Tensor | None = None, *, to_the_end: bool = False
    ) -> Tensor:
        """Sentences [N, L] that `decoder` and `output` predict word by word, each drawn by its row of uniform numbers
        [N, L]; `context` is that of `predictor`, `to_the_end` as in `decoding.sentences`.
        """
        decoder: Any = self.decoder
        memory = decoder.start(len(uniform), self.length, context)
        return decoding.sentences(
            self.predictor(context), memory, uniform, self.vocabulary, self.first, sampling, to_the_end=to_the_end
        )

    def text(self, words: Tensor) -> Text:
        """Sentences [N, L] with their vocabulary."""
        return Text(words, vocabulary=self.vocabulary)


class AutoregressiveSystem(LanguageSystem):
    """p(x) as the product of p(word | words before it), which is all that its `sample` needs.

    A subclass sets `decoder`, which has `step` and `start` and gives features of `width`, then `output` by `head()`.
    """

    trained_by: ClassVar[TrainedBy | None] = "likelihood"
    decoder: Any
    output: nn.Linear

    def head(self) -> nn.Linear:
        """The layer from features to the logits of all words that may follow."""
        return nn.Linear(self.decoder.width, len(self.vocabulary) - self.first)

    def token_nll(self, words: Tensor, *, labels: Tensor | None = None) -> Tensor:
        """−log p of each word given those before it, in nats [N, L]; 0 at `<pad>`. That of a conditional model is given
        the class too, `labels` [N].
        """
        return nll_of(self.output(self.decoder(shifted(words), **self._told(labels))), words, self.first)

    def _told(self, labels: Tensor | None) -> dict[str, Tensor]:
        """What the decoder of a conditional model reads beside the words; another's need not know of it."""
        context = self.context(labels)
        return {} if context is None else {"context": context}

    def samplers(self) -> list[nn.Module]:
        return [self.decoder, self.output, *([self.class_embedding] if self.conditional else [])]

    def sample(
        self,
        latents: Tensor,
        *,
        labels: Tensor | None = None,
        sampling: Sampling = Sampling(),  # noqa: B008 -- frozen
    ) -> Text:
        """A sentence for each row of uniform numbers [N, L], of the class in `labels` [N] if it is conditional."""
        return self.text(self.sentences(latents, sampling, self.context(labels)))


class LanguageModel(AutoregressiveSystem):
    """Maximises the likelihood of the next word: the mean over the words of a batch, `<eos>` among them. A conditional
    one maximises log p(x|y), and reads a vector of the class y beside each word.
    """

    class Config(Strict):
        conditional: Conditional = Field("none", description=CONDITIONAL)
        dropout: float = Field(0.0, ge=0, lt=1, description="of what enters and leaves the network, locked over places")
        lr: Positive = Field(1e-3, description="Adam's step")
        max_norm: Positive = Field(5.0, description="a longer gradient is shortened to this")
        optimizer: optimizers.Name = Field("adam", description=optimizers.NAME)
        optimizer_options: optimizers.Options = Field({}, description=optimizers.OPTIONS)

    optimizer_only = frozenset({"lr", "max_norm"})
    loss_only = frozenset({"dropout"})

    @abstractmethod
    def __init__(self, config: Any, shape: Shape) -> None:
        super().__init__(config, shape)

    def phases(self, batch_size: int) -> list[base.Phase]:
        if self.conditional and not hasattr(self, "class_embedding"):
            raise ValueError("its own network reads no labels: set class_embedding where it is conditional")
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
        logits = self.output(self.decoder(shifted(words), keep=keep, **self._told(batch.labels)))
        total = nll_of(logits, words, self.first).sum() / joined.mean((words != PAD).sum())
        return base.Loss(total)
