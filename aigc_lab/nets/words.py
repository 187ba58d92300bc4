"""Words as a network reads them: their vectors, or mixtures of their vectors."""

from torch import Tensor, nn


class WordEmbedding(nn.Embedding):
    """Vectors [N, k, E] of words: by their numbers int64 [N, k], or the mean vector by weights of all words [N, k, V],
    through which gradients flow.
    """

    def forward(self, words: Tensor) -> Tensor:
        if words.is_floating_point():
            return words @ self.weight
        return super().forward(words)
