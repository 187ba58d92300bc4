"""Every system trains by two processes as by one, or says why not: a new one is tested without touching this file."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_contract_systems import case, own_variants

from aigc_lab import plugins
from aigc_lab.contracts.system_case import BATCH
from aigc_lab.host import environment
from aigc_lab.training import process_group
from aigc_lab.training.loop import train
from aigc_lab.training.parallel import OnDevices
from aigc_lab.training.state import Progress, Replica

Choice = tuple[tuple[str, Any], ...]


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "cores", lambda: 2)
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    process_group.close()


def choices(defaults: bool) -> Iterator[Any]:
    for name in plugins.names("systems"):
        for number, choice in enumerate(own_variants(name)):
            if (number == 0) == defaults:
                yield pytest.param(name, tuple(choice.items()), id="-".join([name, *map(str, choice.values())]))


def check(name: str, choice: Choice) -> None:
    """The first turn of each phase compares loss, gradient and buffers of the parts with those of the whole, and raises
    where they differ by more than roundings. That it does is tested in `training/test_parallel.py`.
    """
    one = Replica(case(name, choice).fresh(), case(name, choice).batches(), 0)
    if one.state.system.unparallel is not None:
        assert len(one.state.system.unparallel) > 10, "a reason"
        return
    steps = max(phase.start for phase in one.state.phases) + 1
    course = OnDevices(process_group.opened(2, "cpu"))
    (((_, end),),) = train([one], steps=steps, every=steps, decay=0.5, precision="fp32", course=course)
    assert isinstance(end, Progress) and one.state.step == steps
    assert BATCH % 2 == 0


@pytest.mark.parametrize(("name", "choice"), list(choices(defaults=True)))
def test_a_system_trains_in_parts_as_it_does_whole(name: str, choice: Choice) -> None:
    check(name, choice)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "choice"), list(choices(defaults=False)))
def test_so_it_does_with_its_other_options(name: str, choice: Choice) -> None:
    check(name, choice)
