"""Small LSTM language model: trained on one set of sentences, it gives the likelihood of another."""

import copy
from collections.abc import Sequence
from itertools import count, islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.nets.recurrent import RecurrentDecoder
from aigc_lab.text.corpus import Corpus, Ints
from aigc_lab.text.ngrams import Floats

# Part of its numbers: `lm_score` names a version of them.
_EMBEDDING, _HIDDEN, _LR, _BATCH, _PASSES = 64, 128, 4e-3, 64, 12
# Share of the probability that is uniform over all words, so that words never learned have some too.
_UNIFORM = 0.01
_PAD = 0


def lstm_nll(learned: Corpus, scored: Corpus) -> tuple[Floats, Ints]:
    """NLL [N] of each scored sentence in nats, and its number of words [N], both with the end of the sentence.

    A tenth of `learned` is held out, and training stops when its likelihood no longer improves.
    """
    order = np.random.default_rng(0).permutation(len(learned))
    held = _held(len(order))
    fitting, judging = (_rows(learned.take(rows)) for rows in (order[held:], order[:held]))
    learner = _Learner(learned)
    model = nn.ModuleList([learner.decoder, learner.output])
    best, best_state = float("inf"), model.state_dict()
    for turn in range(_PASSES):
        for batch in _batches(fitting, turn):
            learner.step(batch)
        now = _likely(learner.decoder, learner.output, judging)
        value = float(now[0].sum() / now[1].sum())
        if value >= best:
            break
        best, best_state = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    return _likely(learner.decoder, learner.output, _rows(scored))


def most_steps(sentences: int) -> int:
    """Steps of a training on so many sentences, if it does not stop early."""
    return _PASSES * -(-(sentences - _held(sentences)) // _BATCH)


def take_steps(learned: Corpus, steps: int) -> None:
    """Takes so many steps of a training on these sentences, for the time that they take."""
    learner, rows = _Learner(learned), _rows(learned)
    batches = (batch for turn in count() for batch in _batches(rows, turn))
    for batch in islice(batches, steps):
        learner.step(batch)


def _held(sentences: int) -> int:
    """Number of sentences that are held out."""
    return max(1, sentences // 10)


def _batches(rows: Tensor, turn: int) -> Sequence[Tensor]:
    return torch.split(rows[torch.randperm(len(rows), generator=noise.generator("scorer", turn))], _BATCH)


class _Learner:
    """A fresh model of the words of a corpus, and its optimiser."""

    def __init__(self, learned: Corpus) -> None:
        words = len(learned.words) + 2  # with padding, which stands for the beginning too, and the end
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise.generator("scorer").initial_seed())
            self.decoder, self.output = RecurrentDecoder(words, _EMBEDDING, _HIDDEN), nn.Linear(_HIDDEN, words)
        weights = [*self.decoder.parameters(), *self.output.parameters()]
        self._optimizer = torch.optim.Adam(weights, lr=_LR, fused=True)

    def step(self, batch: Tensor) -> None:
        self._optimizer.zero_grad()
        nll, counted = _nll(self.decoder, self.output, batch)
        torch.autograd.backward(nll.sum() / counted.sum())
        self._optimizer.step()


def _rows(corpus: Corpus) -> Tensor:
    """Word numbers int64 [N, L]: words from 2 on, 1 at the end, 0 as padding."""
    rows = np.zeros((len(corpus), int(corpus.lengths.max(initial=0)) + 1), dtype=np.int64)
    inside = np.arange(rows.shape[1]) < corpus.lengths[:, None]
    rows[inside] = corpus.tokens + 2
    rows[np.arange(len(corpus)), corpus.lengths] = 1
    return torch.from_numpy(rows)


def _nll(decoder: RecurrentDecoder, output: nn.Linear, rows: Tensor) -> tuple[Tensor, Tensor]:
    rows = rows[:, : int((rows != _PAD).sum(1).max())]
    logits = output(decoder(F.pad(rows[:, :-1], (1, 0), value=_PAD)))
    nats = F.cross_entropy(logits.flatten(0, 1), rows.flatten(), ignore_index=_PAD, reduction="none")
    return nats.reshape(rows.shape), rows != _PAD


@torch.inference_mode()
def _likely(decoder: RecurrentDecoder, output: nn.Linear, rows: Tensor) -> tuple[Floats, Ints]:
    sums, counts = [], []
    for block in torch.split(rows, 250):
        nll, counted = _nll(decoder, output, block)
        mixed = -torch.log((1 - _UNIFORM) * (-nll.double()).exp() + _UNIFORM / output.out_features)
        sums.append((mixed * counted).sum(1))
        counts.append(counted.sum(1))
    return torch.cat(sums).numpy(), torch.cat(counts).numpy()
