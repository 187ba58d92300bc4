"""Transformer language model trained by maximum likelihood (Vaswani et al. 2017, Radford et al. 2019), from scratch."""

from pydantic import Field
from torch import nn

from aigc_lab.config import Depth, Few, Positive, Width
from aigc_lab.nets.transformer import TransformerDecoder
from aigc_lab.shape import Shape
from aigc_lab.systems.shared.language import LanguageModel


class TransformerLM(LanguageModel):
    """GPT-2's blocks in small: norms first, learned positions, weights of N(0, 0.02²). The papers' sizes are for
    corpora of millions of sentences; these are for thousands.
    """

    class Config(LanguageModel.Config):
        width: Width = Field(128, ge=2)
        layers: Depth = 2
        heads: Few = 4
        dropout: float = Field(0.1, ge=0, lt=1, description="of what enters and leaves the network, locked over places")
        max_norm: Positive = Field(1.0, description="a longer gradient is shortened to this")

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.decoder = TransformerDecoder(len(self.vocabulary), self.length, config.width, config.layers, config.heads)
        self.output = self.head()
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)
        if shape.classes is not None and self.conditional:
            self.class_embedding = nn.Embedding(shape.classes, config.width)
            nn.init.normal_(self.class_embedding.weight, std=0.02)
