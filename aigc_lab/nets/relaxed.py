"""Sentences of relaxed words: weights of all words instead of one word, through which a critic's gradient flows.

A word that is drawn is the largest of logits with Gumbel noise; its relaxation is their softmax at a temperature (Jang,
Gu & Poole 2017; Maddison, Mnih & Teh 2017).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from aigc_lab.nets.decoding import Predict
from aigc_lab.text.vocabulary import EOS, PAD


def gumbel_of(uniform: Tensor) -> Tensor:
    """Standard Gumbel numbers −log(−log u) of uniform numbers u in [0, 1], finite at both ends.

    Uniform numbers are multiples of the type's ε / 2: 0 stands for half of that, and 1 for the last number below.

    >>> [round(number, 2) for number in gumbel_of(torch.tensor([0.0, 1.0])).tolist()]
    [-2.85, 16.64]
    """
    epsilon = torch.finfo(uniform.dtype).eps
    return -uniform.clamp(epsilon / 4, 1 - epsilon / 2).log().neg().log()


def relaxed_word(logits: Tensor, gumbel: Tensor, temperature: float | Tensor, *, hard: bool) -> Tensor:
    """Weights [N, K] of K words that add up to 1, of their logits and standard Gumbel numbers [N, K]: the softmax of
    (logits + gumbel) / temperature, which is a number or a tensor []. With `hard` the value is the drawn word alone,
    and the gradient still the softmax's (straight-through, Bengio, Léonard & Courville 2013): its bias vanishes with
    the temperature where what reads the word is at most quadratic in it, that of the softmax always.
    """
    scores = logits + gumbel
    soft = (scores / temperature).softmax(1)
    if not hard:
        return soft
    # The largest score and not the largest weight, which may be several in single precision. `F.one_hot` would ask the
    # device for a number. soft − soft is exactly 0.
    drawn = torch.zeros_like(soft).scatter(1, scores.argmax(1, keepdim=True), 1.0)
    return drawn + (soft - soft.detach())


def relaxed_sentences(
    predict: Predict,
    memory: Any,
    gumbel: Tensor,
    first: int,
    temperature: float | Tensor,
    *,
    words: int,
    hard: bool,
) -> Tensor:
    """Weights [N, L, V] of all V = `words` words at each place, by standard Gumbel numbers [N, L, V − first]; those of
    words below `first` are 0. `predict` is that of `decoding.sentences`, and reads the weights of the word before.

    A sentence goes on with the product of 1 − weight of `<eos>` over the places so far: by this much the next word
    counts, and `<pad>` by the rest. It is 1 or 0 where words are `hard`, and its gradient says how long a sentence
    should be.
    """
    padding = gumbel.new_zeros(len(gumbel), words)
    padding[:, PAD] = 1
    word, alive, weights = padding, gumbel.new_ones(len(gumbel), 1), []
    for place in range(gumbel.shape[1]):
        logits, memory = predict(word.unsqueeze(1), memory)
        drawn = F.pad(relaxed_word(logits, gumbel[:, place], temperature, hard=hard), (first, 0))
        word = alive * drawn + (1 - alive) * padding
        alive = alive * (1 - drawn[:, EOS, None])
        weights.append(word)
    return torch.stack(weights, 1)
