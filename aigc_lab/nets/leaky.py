"""LeakGAN's generator (Guo et al. 2018): a manager reads what the critic sees in a sentence so far and sets goals, a
worker picks the words.

The manager is an LSTM over the critic's features f_t of the first t words, the rest `<pad>`. Its goals g_t have norm 1
and as many channels as these features. The word at place t, counted from 1, is told w_t = ψ (g_{t−1} + … + g_{t−c}):
no goal precedes g_0. The worker, an LSTM over the words, says O_t [V, K], and the logits of that word are O_t w_t / α.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aigc_lab.nets import recurrent
from aigc_lab.nets.recurrent import RecurrentDecoder
from aigc_lab.nets.text_critics import TextCNN
from aigc_lab.text.vocabulary import PAD


class Prefixes:
    """What a text CNN says of the beginnings of sentences of `length` places, each filled up with `<pad>`: features
    without a gradient, at the cost of reading each sentence once.

    A window of k words is a sum over its places. Of one that reaches behind the beginning, the sum over its first m
    words is kept, and that over the k − m marks behind them is the same for all sentences.
    """

    @torch.no_grad()
    def __init__(self, critic: TextCNN, length: int) -> None:
        self.critic, self.length = critic, length
        self._weights: list[Tensor] = []  # [k, E, F] of each window
        self._sizes: list[tuple[int, int]] = []  # k and F
        self._rests: list[Tensor] = []  # [k + 1, F]: the bias, and `<pad>` at the places from m on
        pad = critic.embed(torch.full((1,), PAD, device=critic.embedding.weight.device))
        for convolution in critic.convolutions:
            layer: Any = convolution
            weight = layer.weight.permute(2, 1, 0)
            behind = (pad @ weight).squeeze(1).flip(0).cumsum(0).flip(0)
            self._weights.append(weight)
            self._sizes.append((len(weight), weight.shape[2]))
            self._rests.append(F.pad(behind, (0, 0, 0, 1)) + layer.bias)
        # The weights of all windows and places side by side: one product for each word.
        self._joined = torch.cat([weight.transpose(0, 1).flatten(1) for weight in self._weights], 1)

    @torch.no_grad()
    def of_all(self, words: Tensor) -> Tensor:
        """Features [N, l + 1, G] of the first 0, 1, …, l words of sentences [N, l], l up to `length`."""
        places = words.shape[1]
        embedded = self.critic.embed(F.pad(words, (0, self.length - places), value=PAD))
        ends = torch.arange(places + 1, device=words.device)
        highest = []
        for weight, rest in zip(self._weights, self._rests, strict=True):
            window = len(weight)
            starts = torch.arange(self.length - window + 1, device=words.device)
            inside = torch.arange(window, device=words.device)
            # [N, start, place in the window, F], then the sums over its first 0, 1, …, k words.
            terms = torch.einsum("nle,kef->nlkf", embedded, weight)[:, starts[:, None] + inside, inside]
            values = F.pad(terms.cumsum(2), (0, 0, 1, 0)) + rest
            held = (ends[:, None] - starts).clamp(0, window)
            highest.append(values[:, starts, held].amax(2))
        return self._read(highest)

    def start(self, count: int) -> tuple[Tensor, Tensor]:
        """Of N sentences without a word: sums of open windows [1, N, Σ (k − 1)·F], and the largest of full ones [1, N,
        Σ F].
        """
        opened = self._joined.new_zeros(1, count, sum((window - 1) * filters for window, filters in self._sizes))
        return opened, self._joined.new_full((1, count, sum(filters for _, filters in self._sizes)), -torch.inf)

    @property
    def bytes(self) -> int:
        """Of the critic's weights as they are held here."""
        return 4 * self._joined.numel()

    @property
    def bytes_of_reading(self) -> int:
        """For each sentence while a word is read, about, beside what `start` gives twice: the word's terms, the sums
        of windows side by side, and what enters, fills and leaves the highway.
        """
        terms, filters = self._joined.shape[1], self.critic.width
        return 4 * (terms + (terms - filters) + 10 * filters)

    @torch.no_grad()
    def empty(self, count: int) -> Tensor:
        """Features [N, G] of sentences without a word."""
        return self._read([rest[:1] for rest in self._rests]).expand(count, -1)

    @torch.no_grad()
    def after(self, word: Tensor, opened: Tensor, full: Tensor, places: int) -> tuple[Tensor, Tensor, Tensor]:
        """Features [N, G] of sentences of `places` words, the last of which is `word` [N], and what `start` gives after
        it.
        """
        sizes = self._sizes
        terms = torch.split(self.critic.embed(word) @ self._joined, [window * filters for window, filters in sizes], 1)
        before = torch.split(opened[0], [(window - 1) * filters for window, filters in sizes], 1)
        bests = torch.split(full[0], [filters for _, filters in sizes], 1)
        still_open, largest, highest = [], [], []
        for (window, filters), term, part, best, rest in zip(sizes, terms, before, bests, self._rests, strict=True):
            # Sums of the windows that hold the last 1, 2, …, k words.
            sums = (F.pad(part, (filters, 0)) + term).reshape(-1, window, filters)
            if places >= window:
                best = torch.maximum(best, sums[:, -1] + rest[-1])
            still_open.append(sums[:, :-1].flatten(1))
            largest.append(best)
            highest.append(self._with_open(best, sums, rest, places))
        return self._read(highest), torch.cat(still_open, 1)[None], torch.cat(largest, 1)[None]

    def _with_open(self, best: Tensor, sums: Tensor, rest: Tensor, places: int) -> Tensor:
        """The largest [N, F] of full windows, of those that reach behind the words, and of those behind them."""
        window = sums.shape[1]
        left = self.length - window
        # A window that holds m words begins m before the end: neither before the sentence, nor too late to fit.
        low, high = max(places - left, 1), min(places, window - 1)
        if low <= high:
            best = torch.maximum(best, (sums[:, low - 1 : high] + rest[low : high + 1]).amax(1))
        return torch.maximum(best, rest[0]) if places <= left else best

    def _read(self, highest: list[Tensor]) -> Tensor:
        """The critic's features [..., G] of the largest value of each filter."""
        features: Tensor = self.critic.highway(F.relu(torch.cat(highest, -1)))
        return features.float()


class Memory(NamedTuple):
    """What is remembered of N sentences: sums of windows (`Prefixes.start`), both LSTMs [1 or layers, N, hidden], what
    the last c − 1 goals say [c − 1, N, K], the oldest first, and how many inputs were read.
    """

    opened: Tensor
    full: Tensor
    manager_hidden: Tensor
    manager_cell: Tensor
    worker_hidden: Tensor
    worker_cell: Tensor | None
    advice: Tensor
    seen: int
    prefixes: Prefixes
    temperature: float


class Trace(NamedTuple):
    """Of sentences that are known: the critic's features of their beginnings [N, L + 1, G], f_0 to f_L; the goals g_0
    to g_{L−1} [N, L, G]; next-word features [N, L, width].
    """

    leaked: Tensor
    goals: Tensor
    features: Tensor


class LeakyDecoder(nn.Module):
    """Manager and worker. Next-word features [N, L, K·(hidden + 1)] are all products of w_t / α and the worker's
    hidden values with a 1 behind them: O_t w_t is linear in these.

    `leaked` is G, the channels of the critic's features; `goal` is K, `horizon` is c. What trains the worker does not
    reach the manager: goals are detached on their way there.
    """

    def __init__(
        self,
        words: int,
        embedding: int,
        hidden: int,
        layers: int,
        *,
        leaked: int,
        manager: int,
        goal: int,
        horizon: int,
    ) -> None:
        super().__init__()
        self.worker = RecurrentDecoder(words, embedding, hidden, layers)
        self.manager = nn.LSTM(leaked, manager, batch_first=True)
        self.goal = nn.Linear(manager, leaked)
        self.projection = nn.Linear(leaked, goal, bias=False)
        self.horizon = horizon
        self.width, self.input_width = goal * (hidden + 1), embedding

    def start(self, count: int, length: int, prefixes: Prefixes, temperature: float = 1.0) -> Memory:
        """The memory before the first input, which stands for the beginning. `temperature` is α."""
        new = self.projection.weight.new_zeros
        opened, full = prefixes.start(count)
        manager = new(2, 1, count, self.manager.hidden_size)
        worker = self.worker.start(count, length)
        advice = new(self.horizon - 1, count, self.projection.out_features)
        return Memory(
            opened, full, manager[0], manager[1], worker.hidden, worker.cell, advice, 0, prefixes, temperature
        )

    def step(self, words: Tensor, memory: Memory, context: Any = None) -> tuple[Tensor, Memory]:
        """Features of inputs [N, k] that follow what the memory has seen, and the memory after them."""
        leaked, memory = self._leaked(words, memory)
        goals, manager = self._goals(leaked, (memory.manager_hidden, memory.manager_cell))
        told, advice = self._told(goals, memory.advice)
        worked, worker = self.worker.step(words, recurrent.Memory(memory.worker_hidden, memory.worker_cell))
        after = memory._replace(
            manager_hidden=manager[0],
            manager_cell=manager[1],
            worker_hidden=worker.hidden,
            worker_cell=worker.cell,
            advice=advice,
        )
        return _products(worked, told / memory.temperature), after

    def forward(self, words: Tensor, prefixes: Prefixes, temperature: float = 1.0) -> Trace:
        """Of sentences [N, L], all places at once."""
        leaked = prefixes.of_all(words)
        goals, _ = self._goals(leaked[:, :-1], None)
        nothing = goals.new_zeros(self.horizon - 1, len(words), self.projection.out_features)
        told, _ = self._told(goals, nothing)
        worked = self.worker(F.pad(words[:, :-1], (1, 0), value=PAD))
        return Trace(leaked, goals, _products(worked, told / temperature))

    def _leaked(self, words: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """The critic's features [N, k, G] after each input."""
        parts = []
        for word in words.unbind(1):
            seen, opened, full = memory.seen, memory.opened, memory.full
            if seen:
                features, opened, full = memory.prefixes.after(word, opened, full, seen)
            else:
                features = memory.prefixes.empty(len(word))
            parts.append(features)
            memory = memory._replace(opened=opened, full=full, seen=seen + 1)
        return torch.stack(parts, 1), memory

    def _goals(self, leaked: Tensor, memory: Any) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Goals [N, k, G] of norm 1, and the manager's memory after them."""
        managed, after = self.manager(leaked, memory)
        return F.normalize(self.goal(managed).float(), dim=2), after

    def _told(self, goals: Tensor, advice: Tensor) -> tuple[Tensor, Tensor]:
        """For each goal w [N, k, K], of it and the c − 1 before it (at first, `advice`); then the last c − 1."""
        every = torch.cat([advice.transpose(0, 1), self.projection(goals.detach())], 1)
        return every.unfold(1, self.horizon, 1).sum(3), every[:, goals.shape[1] :].transpose(0, 1)


def _products(worked: Tensor, told: Tensor) -> Tensor:
    """[N, k, K·(hidden + 1)] of [N, k, hidden] and [N, k, K]."""
    return (told[..., None] * F.pad(worked, (0, 1), value=1.0)[..., None, :]).flatten(2)
