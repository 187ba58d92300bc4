"""How far the trainer is from the bare computation: `uv run python tests/benchmarks/bench_train.py`.

The bare loop does the same step by hand: the same networks, batches, losses and moving average, torch's own fused
Adam, data that lies on the device, noise from one stream, and neither scalars nor gradient norms kept. Both are timed
in turns in one process, and what counts is the ratio. Our Adam leaves out what torch's does around its kernel, so that
100 % is not the limit.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from aigc_lab.data.shared.batches import Batches
from aigc_lab.experiment import experiment
from aigc_lab.noise import Draw
from aigc_lab.optimizers.adam import DirectAdam
from aigc_lab.systems.base import Phase
from aigc_lab.systems.shared.adversarial import AdversarialSystem
from aigc_lab.training.averages import average_of
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import TrainingState

SEGMENT, ROUNDS = 100, 7
RACES = [
    *(("digits-8x8", "dcgan"), ("digits-8x8", "vae"), ("ring", "point_gan")),
    *(("pydoc", "lstm_lm"), ("pydoc", "transformer_lm"), ("pydoc", "text_vae")),
]


def prepare(name: str, system: str) -> tuple[Callable[[], TrainingState], Batches, float]:
    loaded = experiment.load_experiment(name, [("system", system, "bench")], data_dir=Path("data"))
    plan = loaded.resolve(lambda hole: loaded.defaults(system).get(hole.name, hole.ends()[0]))
    torch.set_num_threads(plan.training.threads or torch.get_num_threads())

    def fresh() -> TrainingState:
        return TrainingState.fresh(
            plan.system_class,
            plan.system_config,
            plan.dataset.shape,
            seed=0,
            batch_size=plan.training.batch_size,
            device="cpu",
        )

    return fresh, Batches(plan.dataset.load("train"), plan.training.batch_size, 0), plan.training.ema


def ours(state: TrainingState, batches: Batches, decay: float, steps: int = SEGMENT) -> Callable[[], None]:
    def segment() -> None:
        for _ in train_one(
            state, batches, seed=0, steps=state.step + steps, every=steps, decay=decay, precision="fp32"
        ):
            pass

    return segment


def drawn(what: Draw, source: torch.Generator) -> torch.Tensor:
    if what.law == "normal":
        return torch.randn(what.size, generator=source)
    values = torch.rand(what.size, generator=source)
    return values * 2 - 1 if what.law == "uniform" else values


def torchs_own(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Torch's optimiser with the same settings, as one makes it by hand."""
    if not isinstance(optimizer, DirectAdam):
        return optimizer
    (group,) = optimizer.param_groups
    how = {key: group[key] for key in ("lr", "betas", "eps", "weight_decay")}
    return torch.optim.Adam(group["params"], **how, fused=True)


def bare(state: TrainingState, batches: Batches, decay: float, steps: int = SEGMENT) -> Callable[[], None]:
    """The step as one writes it by hand, with autograd's usual backward, from the state's step on."""
    system, average = state.system, average_of(state.system)
    source = torch.Generator().manual_seed(0)
    old: list[torch.Tensor] = list(average.parameters())
    new: list[torch.Tensor] = list(system.parameters())
    old += [buffer for buffer in average.buffers() if buffer.is_floating_point()]
    new += [buffer for buffer in system.buffers() if buffer.is_floating_point()]
    moving = [(a, b.detach()) for a, b in zip(old, new, strict=True) if a is not b]
    left, right = [a for a, _ in moving], [b for _, b in moving]
    number, at = 0, state.step
    optimizers = {name: torchs_own(optimizer) for name, optimizer in state.optimizers.items()}

    def backward(loss: torch.Tensor, phase: Phase) -> None:
        optimizer = optimizers[phase.name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if phase.optimizer.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], phase.optimizer.max_norm)
        optimizer.step()

    def freeze(module: nn.Module, frozen: bool) -> None:
        for parameter in module.parameters():
            parameter.requires_grad_(not frozen)

    def update(phase: Phase) -> None:
        nonlocal number
        batch = batches[number]
        number += 1
        draws = {key: drawn(what, source) for key, what in phase.noise.items()}
        if isinstance(system, AdversarialSystem):
            freeze(system.critic, phase.name == "generator")
        backward(phase.loss(batch, draws, at).total, phase)
        if phase.after is not None:
            with torch.no_grad():
                phase.after(at)

    def step() -> None:
        nonlocal at
        for phase in state.phases:
            if phase.runs(at):
                for _ in range(phase.repeat):
                    update(phase)
        if isinstance(system, AdversarialSystem):
            freeze(system.critic, False)
        with torch.no_grad():
            torch._foreach_lerp_(left, right, 1 - decay)
        at += 1

    def segment() -> None:
        system.train()
        for _ in range(steps):
            step()

    return segment


def main() -> None:
    print(f"{'system':12} {'bare ms/step':>13} {'ours ms/step':>13} {'of bare speed':>14}")
    for name, system in RACES:
        fresh, batches, decay = prepare(name, system)
        contestants = {"bare": bare(fresh(), batches, decay), "ours": ours(fresh(), batches, decay)}
        times: dict[str, list[float]] = {key: [] for key in contestants}
        for _ in range(ROUNDS):
            for key, segment in contestants.items():
                started = time.process_time()
                segment()
                times[key].append((time.process_time() - started) / SEGMENT * 1000)
        best = {key: statistics.median(values[1:]) for key, values in times.items()}
        print(f"{system:12} {best['bare']:13.3f} {best['ours']:13.3f} {best['bare'] / best['ours']:13.0%}")


if __name__ == "__main__":
    main()
