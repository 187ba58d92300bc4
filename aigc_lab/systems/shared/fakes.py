"""Fakes that the critic's turn of a step leaves for the generator's."""

from typing import Any

import torch
from torch import Tensor


class Fakes:
    """Made samples with their graph, from the turn that makes them until the turn that takes them. They are no state:
    where they are not at hand, as in a copy of the system, they are made again.
    """

    def __init__(self) -> None:
        self._latents: Tensor | None = None
        self._fakes: Tensor | None = None

    def keep(self, latents: Tensor, fakes: Tensor) -> None:
        """Keeps the fakes of these latents; not those of a stack, whose graph ends with its turn."""
        if not torch._C._functorch.is_functorch_wrapped_tensor(latents):  # noqa: SLF001
            self._latents, self._fakes = latents, fakes

    def take(self, latents: Tensor) -> Tensor | None:
        """The fakes, if they are of this very tensor; they are then kept no longer."""
        if self._latents is not latents:
            return None
        fakes, self._latents, self._fakes = self._fakes, None, None
        return fakes

    def __deepcopy__(self, memo: Any) -> "Fakes":
        return Fakes()
