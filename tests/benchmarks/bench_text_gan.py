"""What SeqGAN's rollouts and steps cost: `uv run python tests/benchmarks/bench_text_gan.py [--only rollouts|trainer]`.

Rollouts: one policy step, rewards and update, beside the straightforward way, which published implementations take: a
loop over beginnings and rollouts that draws every sentence anew from its first word, word by word, and asks the critic
about these. Same sizes, weights and layers, and one thread. The reference draws by `torch.multinomial`, as they do; a
second figure is against the same loop with an inverse distribution function, as our sampler has it. With our uniform
numbers its rewards are ours.

Trainer: its speed, of a bare loop of the same steps (`bench_train.py`), in each phase.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from bench_train import ours
from torch import Tensor

from aigc_lab.benchmarks.shared.bare import bare
from aigc_lab.data.oracle import OracleText
from aigc_lab.data.shared.batches import Batches
from aigc_lab.nets.decoding import pick, pick_by_groups
from aigc_lab.objectives.policy import reinforce
from aigc_lab.systems.seqgan import SeqGAN
from aigc_lab.training.state import TrainingState

# Vocabulary, length, batch, rollouts, hidden; the last are the paper's.
SIZES = [(500, 10, 16, 4, 32), (2000, 20, 32, 8, 32), (5000, 20, 64, 16, 32)]
Draw = Callable[[Tensor, int, int, int], Tensor]


def made(words: int, length: int, batch: int, rollouts: int, hidden: int) -> tuple[SeqGAN, OracleText]:
    config = OracleText.Config(words=words, length=length, train=1000, scored=100)
    oracle = OracleText(config, Path(tempfile.mkdtemp()))
    torch.manual_seed(0)
    return SeqGAN(SeqGAN.Config(embedding=hidden, hidden=hidden, rollouts=rollouts), oracle.shape), oracle


# ---- rollouts


def completed(system: SeqGAN, words: Tensor, given: int, draw: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Sentences [N, L] that keep `given` words, read and drawn one word after the other."""
    memory, word, read = system.decoder.start(len(words), system.length), torch.zeros_like(words[:, 0]), []
    for place in range(system.length):
        features, memory = system.decoder.step(word[:, None], memory)
        probabilities = system.output(features[:, -1]).softmax(1)
        word = words[:, place] if place < given else draw(probabilities, place) + system.first
        read.append(word)
    return torch.stack(read, 1)


def reference(system: SeqGAN, words: Tensor, rollouts: int, draw: Draw) -> Tensor:
    """Rewards [N, L]; `draw(probabilities, beginning, rollout, place)` gives the words."""
    rewards = []
    for given in range(1, system.length):
        total = torch.zeros(len(words))
        for rollout in range(rollouts):

            def at(probabilities: Tensor, place: int, given: int = given, rollout: int = rollout) -> Tensor:
                return draw(probabilities, given, rollout, place)

            total += system.scores(completed(system, words, given, at)).sigmoid()
        rewards.append(total / rollouts)
    return torch.stack([*rewards, system.scores(words).sigmoid()], 1)


def multinomial(probabilities: Tensor, given: int, rollout: int, place: int) -> Tensor:
    return torch.multinomial(probabilities, 1).squeeze(1)


def inverse(probabilities: Tensor, given: int, rollout: int, place: int) -> Tensor:
    return pick(probabilities, torch.rand(len(probabilities)))


def policy_step(system: SeqGAN, batch: int, rewards: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    parameters = [*system.decoder.parameters(), *system.output.parameters()]
    rule = torch.optim.Adam(parameters, lr=0.0)  # the weights stay: all draw from the same

    def step() -> None:
        with torch.no_grad():
            words = system.made(torch.rand(batch, system.length))
            given = rewards(words)
        rule.zero_grad()
        reinforce(-system.token_nll(words), given).backward()  # type: ignore[no-untyped-call]
        rule.step()

    return step


def timed(contestants: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Seconds of processor time, medians of rounds in turns."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            started = time.process_time()
            run()
            times[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def difference(system: SeqGAN, words: Tensor, uniform: Tensor) -> float:
    """The largest difference of a reward from the reference's, by the same uniform numbers."""

    def same(probabilities: Tensor, given: int, rollout: int, place: int) -> Tensor:
        return pick_by_groups(probabilities, uniform[given - 1, :, rollout, place - 1])

    with torch.no_grad():
        slow = reference(system, words, uniform.shape[2], same)
        return float((slow - system.rewards(words, words, uniform)).abs().max())


def race_rollouts(rounds: int) -> None:
    print("policy step, CPU s        ours   loop, multinomial      loop, inverse     largest difference of a reward")
    for words, length, batch, rollouts, hidden in SIZES:
        system, oracle = made(words, length, batch, rollouts, hidden)
        real = oracle.load("train").values[:batch]

        def uniform(length: int = length, batch: int = batch, rollouts: int = rollouts) -> Tensor:
            return torch.rand(length - 1, batch, rollouts, length - 1)

        def loop(draw: Draw, system: SeqGAN = system, rollouts: int = rollouts) -> Callable[[Tensor], Tensor]:
            return lambda drawn: reference(system, drawn, rollouts, draw)

        def batched(words: Tensor, system: SeqGAN = system, real: Tensor = real) -> Tensor:
            return system.rewards(words, real, uniform())

        contestants = {"ours": batched, "loop": loop(multinomial), "inverse": loop(inverse)}
        spent = timed({name: policy_step(system, batch, each) for name, each in contestants.items()}, rounds)
        made_words = system.sample(torch.rand(batch, length)).values
        print(
            f"{words:5} × {length} × {batch} × {rollouts:2} × {hidden} {spent['ours']:8.3f} "
            f"{spent['loop']:10.3f}, {spent['loop'] / spent['ours']:4.1f} times "
            f"{spent['inverse']:10.3f}, {spent['inverse'] / spent['ours']:4.1f} times "
            f"{difference(system, made_words, uniform()):.1e}",
            flush=True,
        )


# ---- the trainer


def race_trainer(rounds: int) -> None:
    print(f"{'phases':12} {'bare ms/step':>13} {'ours ms/step':>13} {'of bare speed':>14}")
    _, oracle = made(500, 12, 32, 4, 32)
    for name, begin, critic, steps in (("pretraining", 10**6, 0, 60), ("critic", 0, 10**6, 10), ("all", 0, 0, 6)):
        config = SeqGAN.Config(rollouts=4, n_critic=2, pretrain_steps=begin, critic_steps=critic)

        def fresh(config: SeqGAN.Config = config) -> TrainingState:
            return TrainingState.fresh(SeqGAN, config, oracle.shape, seed=0, batch_size=32, device="cpu")

        batches = Batches(oracle.load("train"), 32, 0)
        contestants = {key: race(fresh(), batches, 0.999, steps) for key, race in (("bare", bare), ("ours", ours))}
        spent = timed(contestants, rounds + 1)
        each = {key: seconds / steps * 1000 for key, seconds in spent.items()}
        print(f"{name:12} {each['bare']:13.2f} {each['ours']:13.2f} {each['bare'] / each['ours']:13.0%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=["rollouts", "trainer"])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.only != "trainer":
        race_rollouts(given.rounds)
    if given.only != "rollouts":
        race_trainer(given.rounds)


if __name__ == "__main__":
    main()
