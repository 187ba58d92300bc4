"""Recorded computations: what they give on other inputs, and what is refused."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aigc_lab.training.graphs import Graphs
from aigc_lab.training.program import Program, aside, record


def repeated(program: Program, *inputs: Tensor) -> list[Tensor]:
    piece = program.compiled()
    with torch.no_grad():
        return piece.run(*(inputs[program.inputs.index(name)] for name in piece.takes))


class Step:
    """A step of training of a small convolutional network, with all that steps hold: views, a running mean, a second
    derivative, an update in place.
    """

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(0.2, inplace=True), nn.Flatten(), nn.Linear(144, 1)
        )
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-2, fused=True)

    def __call__(self, images: Tensor) -> list[Tensor]:
        images = images.detach().requires_grad_()
        said = self.net(images)
        (slope,) = torch.autograd.grad(said.sum(), images, create_graph=True)
        loss = F.softplus(-said).mean() + slope.square().flatten(1).sum(1).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return [torch.stack([loss, slope.norm()]).detach()]

    def tensors(self) -> list[Tensor]:
        memory = [each for of_one in self.optimizer.state.values() for each in of_one.values()]
        return [*self.net.parameters(), *self.net.buffers(), *memory]


def batches(count: int) -> list[Tensor]:
    source = torch.Generator().manual_seed(1)
    return [torch.randn(5, 1, 8, 8, generator=source) for _ in range(count)]


def test_a_step_of_training_is_repeated_to_the_bit() -> None:
    plain, recorded = Step(), Step()
    first, second, *others = batches(6)
    for step in (plain, recorded):
        step(first)
    expected = [plain(second), *(plain(batch) for batch in others)]
    results, program = record(lambda: recorded(second), [second])
    assert program.fault is None
    found = [results, *(repeated(program, batch) for batch in others)]
    for (one,), (two,) in zip(expected, found, strict=True):
        assert torch.equal(one, two)
    for one, two in zip(plain.tensors(), recorded.tensors(), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(expected[-1][0], expected[-2][0])


def test_two_recordings_of_a_step_are_one_program() -> None:
    step, (one, two, three) = Step(), batches(3)
    step(one)
    (_, first), (_, second) = (record(partial(step, batch), [batch]) for batch in (two, three))
    assert first.difference(second) is None
    step.optimizer.param_groups[0]["lr"] = 2e-2
    assert "0.02" in (first.difference(record(lambda: step(one), [one])[1]) or "")


def _of_rows(weight: Tensor, values: Tensor) -> list[Tensor]:
    return [torch.func.vmap(lambda row, value: torch.sigmoid(value @ row).sum())(weight, values)]


def _in_bf16(weight: Tensor, values: Tensor) -> list[Tensor]:
    with torch.autocast("cpu", torch.bfloat16):
        return [F.linear(values[0], weight[0]).float().tanh()]


def _of_parts(weight: Tensor, values: Tensor) -> list[Tensor]:
    one, two = values.unbind()[:2]
    return [torch.cat([one.t() @ two, *torch.split(weight, 3, 1)[0]]).clamp_min(0)]


@pytest.mark.parametrize("function", [_of_rows, _in_bf16, _of_parts])
def test_what_lies_above_the_kernels_is_recorded_through(function: Callable[..., list[Tensor]]) -> None:
    weight, (one, two) = torch.randn(4, 6, 6), torch.randn(2, 4, 6, 6)
    _, program = record(lambda: function(weight, one), [one])
    assert program.fault is None
    (found,), (expected,) = repeated(program, two), function(weight, two)
    assert torch.equal(found, expected)


def test_an_input_that_is_given_twice_is_one() -> None:
    one, two = torch.randn(2, 3)
    _, program = record(lambda: [one * one.exp()], [one, one])
    assert program.inputs == ["i0", "i0"]
    assert torch.equal(repeated(program, two, two)[0], two * two.exp())


def test_what_is_done_aside_reads_the_host_each_time() -> None:
    weight, rate, one = torch.zeros(3), [1.0], torch.ones(3)

    def step(values: Tensor) -> list[Tensor]:
        gradient = values * 2
        aside(lambda given: weight.add_(given * rate[0]), gradient)
        return [weight + gradient]

    results, program = record(lambda: step(one), [one])
    assert program.fault is None and results[0].tolist() == [4, 4, 4]
    rate[0] = 10.0
    assert repeated(program, torch.full((3,), 2.0))[0].tolist() == [46, 46, 46], "2 + 10 · 4, and 4"
    aside(lambda given: weight.copy_(given), one)
    assert weight.tolist() == [1, 1, 1], "outside of a recording it is a call"


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda values: [values * values.sum().item()], "on the host"),
        (lambda values: [values[values > 0].sum()], "depends on numbers"),
        (lambda values: [values + torch.randn(3)], "random numbers"),
        (lambda values: [F.dropout(values)], "random numbers"),
        (lambda values: [values.clone().unsqueeze_(0)], "in place"),
        (lambda values: [values], "nothing that it computes"),
    ],
)
def test_what_cannot_be_repeated_says_why_and_is_computed(function: Callable[..., list[Tensor]], why: str) -> None:
    values = torch.tensor([1.0, -2.0, 3.0])
    torch.manual_seed(0)
    expected = function(values)
    torch.manual_seed(0)
    results, program = record(lambda: function(values), [values])
    assert why in (program.fault or "")
    assert torch.equal(results[0], expected[0])


def test_a_constant_that_is_made_anew_must_stay_the_same() -> None:
    values, number = torch.ones(2), [1.0]

    def function() -> list[Tensor]:
        return [values * torch.tensor([number[0], 2.0])]

    first, second = record(function, [values])[1], record(function, [values])[1]
    assert first.difference(second) is None
    number[0] = 3.0
    assert "other numbers" in (first.difference(record(function, [values])[1]) or "")


class _Product(torch.autograd.Function):
    """x · w, whose gradients are both computed, whichever is asked for."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return x * weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return gradient * weight, (gradient * x).sinh()


def test_what_nothing_reads_is_left_out() -> None:
    weight = torch.tensor(3.0, requires_grad=True)

    def slope(values: Tensor) -> list[Tensor]:
        values = values.detach().requires_grad_()
        product: Tensor = _Product.apply(values, weight)
        spoiled = product.detach().clone()
        spoiled[0].mul_(2).add_(1)  # of what is not read, by a view of it
        return [torch.autograd.grad(product.square().sum(), values)[0]]

    one, other = torch.arange(4.0), torch.arange(4.0) + 1
    _, program = record(lambda: slope(one), [one])
    assert program.fault is None
    assert not any(word in line.text for line in program.lines for word in ("sinh", "add_", "clone"))
    assert torch.equal(repeated(program, other)[0], slope(other)[0])


def test_what_is_there_for_what_it_does_is_kept() -> None:
    """An assertion has no result, and a view that does not say so is one."""

    def checked(values: Tensor) -> list[Tensor]:
        torch._assert_async(values.sum() > -100)
        torch.ops.aten._unsafe_view(values.clone(), [4])
        base = values.clone()
        view = torch.ops.aten._unsafe_view(base, [2, 2])
        view.mul_(2)
        return [base + 1]

    one, other = torch.arange(4.0), torch.arange(4.0) + 1
    _, program = record(lambda: checked(one), [one])
    assert program.fault is None
    assert sum("assert_async" in line.text for line in program.lines) == 1
    assert sum("unsafe_view" in line.text for line in program.lines) == 1
    assert torch.equal(repeated(program, other)[0], 2 * other + 1)
    with pytest.raises(RuntimeError):
        repeated(program, -1000 * other)


def test_what_outlasts_is_written_though_no_result_reads_it() -> None:
    """By a view of it, in place, and by a batch normalisation whose schema does not say so."""
    memory, norm = torch.zeros(3, 2), nn.BatchNorm1d(2)

    def remembered(values: Tensor) -> list[Tensor]:
        norm(values)
        memory[1].copy_(values[0])
        torch.add(values[1], 1, out=memory[2])
        halves = values.clone()
        halves[:, 0].mul_(0.5)
        return [halves.sum()]

    def norms() -> list[Tensor]:
        return [memory.clone(), norm.running_mean.clone(), norm.running_var.clone()]  # type: ignore[union-attr]

    one, other = torch.randn(5, 2), torch.randn(5, 2)
    (plain,) = remembered(other)
    expected = norms()
    memory.zero_()
    norm.reset_running_stats()
    _, program = record(lambda: remembered(one), [one])
    memory.zero_()
    norm.reset_running_stats()
    assert program.fault is None
    assert torch.equal(repeated(program, other)[0], plain)
    for mine, true in zip(norms(), expected, strict=True):
        assert torch.equal(mine, true)


def test_a_tensor_that_is_gone_does_not_name_the_next_in_its_place() -> None:
    values, other = torch.randn(2, 3)

    def function(given: Tensor) -> list[Tensor]:
        total = given
        for number in range(50):
            given * 2
            total = total * torch.tensor([1.0 + number % 3 / 10] * 3)
        return [total]

    _, program = record(lambda: function(values), [values])
    assert torch.equal(repeated(program, other)[0], function(other)[0])


# ---- as CUDA graphs


def tensors_of(tree: Any) -> list[Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, Tensor)]


class FakeGraph(TorchDispatchMode):
    """A CUDA graph on the CPU: while it is captured, what is computed is garbage; each replay computes the same
    operations on the same memory.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        written = tensors_of((args, kwargs))
        before = [each.clone() for each in written]
        results = func(*args, **(kwargs or {}))
        made = tensors_of(results)
        view = any(
            one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr() for one in made for two in written
        )
        self.kernels.append((func, args, kwargs or {}, [] if view else made))
        for tensor, value in zip(written, before, strict=True):  # a capture runs nothing
            if 0 not in tensor.stride():  # which nothing writes
                tensor.copy_(value)
        if not view:
            for tensor in made:
                if tensor.is_floating_point():
                    tensor.fill_(float("nan"))
        return results

    def replay(self) -> None:
        for func, args, kwargs, made in self.kernels:
            results = func(*args, **kwargs)
            if made:
                for tensor, value in zip(made, tensors_of(results), strict=True):
                    tensor.copy_(value)


@pytest.fixture
def as_gpu(monkeypatch: pytest.MonkeyPatch) -> list[FakeGraph]:
    captured: list[FakeGraph] = []

    def graph(made: FakeGraph, *, pool: Any, capture_error_mode: str) -> FakeGraph:
        captured.append(made)
        assert pool == "pool" and capture_error_mode == "thread_local"
        return made

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return captured


def on_gpu(program: Program, host: Sequence[str] = ()) -> Program:
    """The program as if its tensors lay on a GPU, but for operations of these names."""
    lines = [replace(line, host=any(name in line.text for name in host)) for line in program.lines]
    return replace(program, lines=lines)


def test_a_step_is_one_graph_in_fixed_memory(as_gpu: list[FakeGraph]) -> None:
    plain, recorded = Step(), Step()
    first, second, *others = batches(5)
    for step in (plain, recorded):
        step(first)
    _, program = record(lambda: recorded(second), [second])
    plain(second)
    before = [each.detach().clone() for each in recorded.tensors()]
    repeat = Graphs(on_gpu(program), [second])
    assert len(as_gpu) == 1
    for tensor, value in zip(recorded.tensors(), before, strict=True):
        assert torch.equal(tensor, value), "to capture is not to run"
    rows = [(plain(batch)[0], repeat([batch])) for batch in others]
    for one, two in rows:  # after the last: a row is no window onto what the next one overwrites
        assert torch.equal(one, two)
    for one, two in zip(plain.tensors(), recorded.tensors(), strict=True):
        assert torch.equal(one, two)


def test_what_is_aside_and_the_hosts_own_come_between_two_graphs(as_gpu: list[FakeGraph]) -> None:
    weight, count, rate = torch.zeros(3), torch.zeros(()), [1.0]

    def step(values: Tensor) -> list[Tensor]:
        gradient = values * 2
        count.logical_not_()  # the host's
        aside(lambda given: weight.add_(given * rate[0]), gradient)
        return [weight + gradient]

    one, two = torch.ones(3), torch.full((3,), 2.0)
    _, program = record(lambda: step(one), [one])
    repeat = Graphs(on_gpu(program, ["logical_not_"]), [one])
    assert len(as_gpu) == 2
    weight.fill_(1.0)
    count.zero_()
    rate[0] = 10.0
    assert repeat([two]).tolist() == [45, 45, 45] and count.item() == 1
    assert repeat([one]).tolist() == [63, 63, 63] and count.item() == 0
