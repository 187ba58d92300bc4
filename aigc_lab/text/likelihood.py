"""Protocol of models that give sentences a probability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Likelihood(Protocol):
    """Autoregressive model of sentences: a system, or the oracle that made the data."""

    def token_nll(self, words: Tensor) -> Tensor:
        """−log p of each word given those before it, in nats [N, L], of `Text.values` [N, L]; 0 at `<pad>`."""
