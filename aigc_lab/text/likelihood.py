"""Protocol of models that give sentences a probability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Likelihood(Protocol):
    """Autoregressive model of sentences: a system, or the oracle that made the data."""

    def token_nll(self, words: Tensor) -> Tensor:
        """−log p of each word given those before it, in nats [N, L], of `Text.values` [N, L]; 0 at `<pad>`. A
        conditional model takes the classes of the sentences beside them, `labels` [N], and gives −log p(x|y).
        """


def is_conditional(model: object) -> bool:
    """Whether a system takes labels beside samples and codes, so that its likelihood is given the class and is no
    number to set beside an unconditional one.
    """
    return bool(getattr(model, "conditional", False))


def token_nll(model: Likelihood, words: Tensor, labels: Tensor | None) -> Tensor:
    """−log p of each word [N, L] under a model of either kind; `labels` [N] are read by a conditional one."""
    if not is_conditional(model):
        return model.token_nll(words)
    conditional: Any = model
    nll: Tensor = conditional.token_nll(words, labels=labels)
    return nll
