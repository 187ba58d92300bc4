"""LeakGAN: what is leaked, the goals and what the worker is told of them, whose reward is whose, what moves whom."""

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from leakgans import LENGTH, leakgan, oracle_in
from scipy.special import expit
from scipy.stats import rankdata
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.data.oracle import OracleText
from aigc_lab.nets.decoding import Sampling, chosen, pick
from aigc_lab.nets.leaky import LeakyDecoder, Prefixes
from aigc_lab.nets.rollouts import completions
from aigc_lab.nets.text_critics import TextCNN, WordCritic
from aigc_lab.objectives.goals import intrinsic, reached
from aigc_lab.objectives.policy import rescaled
from aigc_lab.systems.base import Phase
from aigc_lab.systems.leakgan import LeakGAN
from aigc_lab.text.vocabulary import EOS, PAD

WORDS = 9


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> OracleText:
    return oracle_in(tmp_path_factory.mktemp("data"))


def critic() -> TextCNN:
    """Of weights that are not small, so that every term shows."""
    torch.manual_seed(0)
    found = TextCNN(WORDS, 4, LENGTH, {1: 3, 2: 2, 4: 3, LENGTH: 2})
    with torch.no_grad():
        for weight in found.parameters():
            weight.add_(torch.randn_like(weight))
    return found


def decoder(horizon: int = 4) -> tuple[LeakyDecoder, Prefixes]:
    reader = critic()
    torch.manual_seed(1)
    return LeakyDecoder(WORDS, 5, 7, 1, leaked=reader.width, manager=6, goal=3, horizon=horizon), Prefixes(
        reader, LENGTH
    )


def sentences() -> Tensor:
    words = torch.randint(2, WORDS, (4, LENGTH), generator=torch.Generator().manual_seed(2))
    words[1, 2:] = torch.tensor([EOS, PAD, PAD, PAD])
    return words


def inputs_of(words: Tensor) -> Tensor:
    return torch.cat([torch.full_like(words[:, :1], PAD), words[:, :-1]], 1)


def close(found: Tensor, expected: Any) -> None:
    torch.testing.assert_close(found.detach().double(), torch.as_tensor(expected).double(), rtol=1e-4, atol=1e-5)


# ---- what is leaked


def test_what_is_leaked_of_a_beginning_is_what_the_critic_sees_in_it_padded() -> None:
    reader, words = critic(), sentences()
    beginnings = [torch.where(torch.arange(LENGTH) < places, words, PAD) for places in range(LENGTH + 1)]
    expected = torch.stack([reader.features(reader.embed(each)) for each in beginnings], 1)
    assert (expected[:, 1:] - expected[:, :-1]).abs().amax(2)[0].min() > 0.01, "every word shows"
    prefixes = Prefixes(reader, LENGTH)
    close(prefixes.of_all(words), expected)
    close(prefixes.of_all(words[:, :4]), expected[:, :5])
    opened, full = prefixes.start(len(words))
    by_word = [prefixes.empty(len(words))]
    for place, word in enumerate(words.unbind(1)):
        leaked, opened, full = prefixes.after(word, opened, full, place + 1)
        by_word.append(leaked)
    close(torch.stack(by_word, 1), expected)
    assert not any(each.requires_grad for each in (prefixes.of_all(words), *by_word, opened, full))


# ---- goals, and what the worker is told


def lstm(layer: nn.LSTM, inputs: np.ndarray) -> np.ndarray:
    """Hidden values [L, H] of an LSTM at inputs [L, d], by its equations."""
    w, u, b, c = (
        getattr(layer, name).detach().double().numpy()
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    )
    size = layer.hidden_size
    hidden, cell, said = np.zeros(size), np.zeros(size), []
    for row in inputs:
        i, f, g, o = np.split(w @ row + b + u @ hidden + c, 4)
        cell = expit(f) * cell + expit(i) * np.tanh(g)
        hidden = expit(o) * np.tanh(cell)
        said.append(hidden)
    return np.array(said)


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def test_goals_and_logits_are_what_plain_loops_say() -> None:
    horizon, alpha = 3, 1.5
    network, prefixes = decoder(horizon)
    words, output = sentences(), nn.Linear(network.width, WORDS - 1, bias=False)
    trace = network(words, prefixes, alpha)
    logits = output(trace.features)
    leaked, table = array(prefixes.of_all(words)), array(output.weight).reshape(WORDS - 1, 3, 8)
    embedding, projection = array(network.worker.embedding.weight), array(network.projection.weight)
    for n, row in enumerate(words.tolist()):
        managed = lstm(network.manager, leaked[n, :-1])
        worked = lstm(network.worker.lstm, embedding[[PAD, *row[:-1]]])
        goals: list[np.ndarray] = []
        for place in range(LENGTH):
            goal = array(network.goal.weight) @ managed[place] + array(network.goal.bias)
            goals.append(goal / np.sqrt((goal**2).sum()))
            told = projection @ sum(goals[-horizon:])  # w
            said = [[np.append(worked[place], 1.0) @ table[v, k] for k in range(3)] for v in range(WORDS - 1)]  # O
            close(logits[n, place], [sum(said[v][k] * told[k] for k in range(3)) / alpha for v in range(WORDS - 1)])
        close(trace.goals[n], np.array(goals))


@pytest.mark.parametrize("horizon", [1, 4, LENGTH])
def test_word_by_word_is_the_same_as_all_at_once(horizon: int) -> None:
    network, prefixes = decoder(horizon)
    words = sentences()
    trace = network(words, prefixes, 1.5)
    for parts in ([1] * LENGTH, [2, 3, 1], [LENGTH]):
        memory, found = network.start(len(words), LENGTH, prefixes, 1.5), []
        for part in torch.split(inputs_of(words), parts, 1):
            features, memory = network.step(part, memory)
            found.append(features)
        close(torch.cat(found, 1), trace.features)


def test_rollouts_of_all_beginnings_at_once_are_those_drawn_one_by_one() -> None:
    network, prefixes = decoder()
    words, rollouts = sentences(), 2
    output = nn.Linear(network.width, WORDS - 1, bias=False)
    nn.init.normal_(output.weight)
    uniform = torch.rand(LENGTH - 1, len(words), rollouts, LENGTH - 1)

    def read(last: Tensor, memory: Any) -> tuple[Tensor, Any]:
        features, memory = network.step(last, memory)
        return features[:, -1], memory

    with torch.no_grad():
        memory = network.start(len(words), LENGTH, prefixes, 1.5)
        at_once = completions(read, memory, words, uniform, lambda told, at: chosen(output, told, at, WORDS - 1, 1))
        for begun, row, rollout in itertools.product(range(LENGTH - 1), range(len(words)), range(rollouts)):
            slow = words[row, : begun + 1].tolist()
            while len(slow) < LENGTH:
                if EOS in slow:
                    slow.append(PAD)
                    continue
                known = torch.tensor([[*slow, *[PAD] * (LENGTH - len(slow))]])
                logits = output(network(known, prefixes, 1.5).features[:, len(slow)])
                number = uniform[begun, row, rollout, len(slow) - 1].reshape(1)
                slow.append(int(pick(Sampling().probabilities(logits), number)) + 1)
            assert at_once[begun, row, rollout].tolist() == slow


# ---- rewards


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / lengths) if lengths else 0.0


def slow_reached(leaked: np.ndarray, goals: np.ndarray, horizon: int) -> list[list[float]]:
    last = goals.shape[1]
    return [
        [cosine(f[min(t + horizon, last)] - f[t], g[t]) for t in range(last)]
        for f, g in zip(leaked, goals, strict=True)
    ]


def slow_intrinsic(leaked: np.ndarray, goals: np.ndarray, horizon: int) -> list[list[float]]:
    return [
        [
            sum(cosine(f[t] - f[t - i], g[t - i]) for i in range(1, horizon + 1) if t >= i) / horizon
            for t in range(1, len(f))
        ]
        for f, g in zip(leaked, goals, strict=True)
    ]


@pytest.mark.parametrize("horizon", [1, 3, 5])
def test_goals_reached_and_the_intrinsic_reward_are_what_plain_loops_say(horizon: int) -> None:
    source = torch.Generator().manual_seed(0)
    leaked = torch.randn(2, 6, 4, generator=source)
    leaked[1, 4:] = leaked[1, 3]  # a sentence that has ended changes no more
    goals = torch.randn(2, 5, 4, generator=source)
    close(reached(leaked, goals, horizon), slow_reached(array(leaked), array(goals), horizon))
    close(intrinsic(leaked, goals, horizon), slow_intrinsic(array(leaked), array(goals), horizon))


def test_a_worker_that_goes_where_it_is_told_is_rewarded_for_it() -> None:
    # Features move by (1, 0), then (0, 1); goals ask for (1, 0) and (1, 0).
    leaked = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]])
    goals = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    close(reached(leaked, goals, 1), [[1.0, 0.0]])
    close(reached(leaked, goals, 2), [[0.5**0.5, 0.0]])
    close(intrinsic(leaked, goals, 1), [[1.0, 0.0]])
    close(intrinsic(leaked, goals, 2), [[0.5, (0.0 + 0.5**0.5) / 2]])


def test_a_rescaled_reward_is_its_rank_in_its_column() -> None:
    close(rescaled(torch.tensor([[0.9], [0.1], [0.5], [0.2]]), 12.0), expit([[3.0], [-6.0], [0.0], [-3.0]]))
    rewards = torch.rand(7, 3, generator=torch.Generator().manual_seed(0))
    rewards[2] = rewards[5]
    ranks = np.stack([rankdata(-array(column)) for column in rewards.T], 1)
    close(rescaled(rewards, 5.0), expit(5 * (0.5 - ranks / 7)))
    close(rescaled(rewards[[3, 0, 6, 1, 2, 5, 4]], 5.0), rescaled(rewards, 5.0)[[3, 0, 6, 1, 2, 5, 4]])


def test_a_reward_is_of_its_own_sentence_alone(oracle: OracleText, monkeypatch: pytest.MonkeyPatch) -> None:
    system, count = leakgan(oracle), 5
    words = torch.arange(count)[:, None].repeat(1, LENGTH) + system.first
    uniform = torch.rand(LENGTH - 1, count, 3, LENGTH - 1)
    with torch.no_grad():
        before = system.rewards(words, words, uniform)
        others = words.clone()
        others[[0, 1, 3, 4]] = words[[4, 3, 0, 1]].flip(1)
        # Rounding differs with the rows beside.
        close(system.rewards(others, words, uniform)[2], before[2])
        # A critic that says which sentence it reads, by its first word, which every completion keeps.
        monkeypatch.setattr(system.critic, "of_completions", partial(WordCritic.of_completions, system.critic))
        monkeypatch.setattr(system.critic, "embed", lambda read: read[..., None].expand(*read.shape, 5).float())
        monkeypatch.setattr(system.critic, "features", lambda read: read[:, 0, 0] - system.first)
        monkeypatch.setattr(system, "judged", lambda features: features)
        close(system.rewards(words, words, uniform), expit(np.arange(count))[:, None].repeat(LENGTH, 1))


# ---- the losses, and whom they move


def phase_of(system: LeakGAN, name: str) -> Phase:
    (found,) = [each for each in system.phases(4) if each.name == name]
    return found


def gradients(of: Tensor, module: nn.Module) -> list[Tensor | None]:
    return list(torch.autograd.grad(of, list(module.parameters()), retain_graph=True, allow_unused=True))


def parts(system: LeakGAN) -> tuple[nn.ModuleList, nn.ModuleList]:
    made = system.decoder
    return nn.ModuleList([made.manager, made.goal]), nn.ModuleList([made.worker, made.projection, system.output])


def test_the_policy_loss_moves_manager_and_worker_by_their_own_rewards(oracle: OracleText) -> None:
    system, phase = leakgan(oracle), phase_of(leakgan(oracle), "policy")
    manager, worker = parts(system)
    batch = oracle.load("train").take(slice(4))
    draws = {name: noise.draw(what, 1, name) for name, what in phase.noise.items()}
    loss = phase_of(system, "policy").loss(batch, draws, 4)
    with torch.no_grad():
        words = system.sentences(draws["words"], Sampling(temperature=1.5))
        rewards = system.rewards(words, words, draws["rollouts"])
    assert len(set(rewards[:, 1].tolist())) == 4
    trace = system.decoder(words, Prefixes(system.critic, LENGTH), 1.5)
    q = expit(12 * (0.5 - np.stack([rankdata(-array(column)) for column in rewards.T], 1) / 4))
    r = slow_intrinsic(array(trace.leaked), array(trace.goals), 4)
    ends = [min(t + 4, LENGTH) for t in range(LENGTH)]
    unit = torch.nn.functional.normalize(trace.leaked[:, ends] - trace.leaked[:, :-1], dim=2)
    goal_loss = -(torch.as_tensor(q).float() * (unit * trace.goals).sum(2)).sum() / 4
    log_p = system.output(trace.features).log_softmax(2).gather(2, (words - system.first)[..., None])[..., 0]
    word_loss = -(torch.tensor(r).float() * log_p).sum() / 4
    for module, own in ((manager, goal_loss), (worker, word_loss)):
        torch.testing.assert_close(gradients(loss.total, module), gradients(own, module), rtol=1e-4, atol=1e-6)
    assert gradients(loss.total, system.critic) == [None] * len(list(system.critic.parameters()))
    # The value is minus the reward of whole sentences.
    close(loss.total, -rewards[:, -1].mean())
    close(loss.dynamics["intrinsic"], np.mean(r))
    close(loss.dynamics["goals"], np.mean(slow_reached(array(trace.leaked), array(trace.goals), 4)))


@pytest.mark.parametrize("name", ["pretraining", "likelihood", "policy"])
def test_the_workers_loss_leaves_the_manager_alone_and_the_managers_the_worker(oracle: OracleText, name: str) -> None:
    system, words = leakgan(oracle), oracle.load("train").values[:4]
    manager, worker = parts(system)
    trace = system.decoder(words, Prefixes(system.critic, LENGTH))
    nll, cosines = system.token_nll(words).sum(), reached(trace.leaked, trace.goals, 4).sum()
    for of, still in ((nll, manager), (cosines, worker), (nll, system.critic), (cosines, system.critic)):
        assert all(each is None for each in gradients(of, still))
    phase = phase_of(system, name)
    draws = {key: noise.draw(what, 1, key) for key, what in phase.noise.items()}
    total = phase.loss(oracle.load("train").take(slice(4)), draws, 4).total
    assert all(each is not None and each.any() for module in (manager, worker) for each in gradients(total, module))
    assert all(each is None for each in gradients(total, system.critic))
    assert set(map(id, phase.trains)) == {id(system.decoder), id(system.output)}


def test_pretraining_is_likelihood_and_goals_along_real_sentences(oracle: OracleText) -> None:
    """Over words; what lies behind a sentence counts for neither."""
    system, words = leakgan(oracle), oracle.load("train").values[:4].clone()
    words[1, 3:] = PAD
    batch = oracle.load("train").take(slice(4))
    batch.values[:] = words
    loss = phase_of(system, "pretraining").loss(batch, {}, 0)
    trace = system.decoder(words, Prefixes(system.critic, LENGTH))
    places = [(n, t) for n in range(4) for t in range(LENGTH) if words[n, t] != PAD]
    assert len(places) == 21
    log_p = system.output(trace.features).log_softmax(2)
    nll = -np.mean([log_p[n, t, words[n, t] - system.first].item() for n, t in places])
    cosines = slow_reached(array(trace.leaked), array(trace.goals), 4)
    close(loss.parts["nll"], nll)
    close(loss.parts["goals"], -np.mean([cosines[n][t] for n, t in places]))
    close(loss.total, loss.parts["nll"] + loss.parts["goals"])


def test_a_constant_reward_leaves_nothing_of_the_critic_in_what_is_rewarded(oracle: OracleText) -> None:
    system = leakgan(oracle, reward="constant")
    phase = phase_of(system, "policy")
    assert set(phase.noise) == {"words"}
    draws = {"words": torch.rand(4, LENGTH)}
    loss = phase.loss(oracle.load("train").take(slice(4)), draws, 4).total
    words = system.made(draws["words"])
    trace = system.decoder(words, Prefixes(system.critic, LENGTH), 1.5)
    log_p = system.output(trace.features).log_softmax(2).gather(2, (words - system.first)[..., None])
    manager, worker = parts(system)
    own = -reached(trace.leaked, trace.goals, 4).sum() / 4
    torch.testing.assert_close(gradients(loss, manager), gradients(own, manager))
    torch.testing.assert_close(gradients(loss, worker), gradients(-log_p.sum() / 4, worker))
