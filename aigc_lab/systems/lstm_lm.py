"""LSTM language model trained by maximum likelihood: the baseline that a text GAN must beat (Yu et al. 2017)."""

from typing import Any, Literal

from pydantic import Field, model_validator
from torch import nn

from aigc_lab.config import Depth, Positive, Width
from aigc_lab.nets.recurrent import RecurrentDecoder
from aigc_lab.shape import Shape
from aigc_lab.systems.shared.language import LanguageModel

_PRACTICAL = {"embedding": 128, "hidden": 256, "dropout": 0.3, "lr": 2e-3}


class LSTMLM(LanguageModel):
    """Defaults are SeqGAN's generator before its adversarial training (Yu et al. 2017, section 4 and its published
    code): embedding and hidden layer of 32, Adam at 10⁻², gradients of norm 5 at most. `preset: practical` is a model
    for real text, of 128 and 256 with dropout: what the preset sets, a key of its own overrides.
    """

    unstackable = "torch's LSTM has no batching rule under vmap"

    class Config(LanguageModel.Config):
        preset: Literal["seqgan", "practical"] = "seqgan"
        embedding: Width = 32
        hidden: Width = 32
        layers: Depth = 1
        lr: Positive = Field(1e-2, description="Adam's step")

        @model_validator(mode="before")
        @classmethod
        def _filled(cls, given: Any) -> Any:
            practical = isinstance(given, dict) and given.get("preset") == "practical"
            return _PRACTICAL | given if practical else given

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        context = config.embedding if self.conditional else 0
        self.decoder = RecurrentDecoder(len(self.vocabulary), config.embedding, config.hidden, config.layers, context)
        self.output = self.head()
        if shape.classes is not None and self.conditional:
            self.class_embedding = nn.Embedding(shape.classes, context)
        for weight in self.parameters():
            # SeqGAN's N(0, 0.1²) of all weights is for 32 channels; wider ones get the scale of their width.
            nn.init.normal_(weight, std=0.1 if config.preset == "seqgan" else 0.05)
