"""Base of everything that is written in YAML: unknown keys are refused, values cannot change, no NaN passes.

The types limit numbers to those that memory, stores and arithmetic can hold.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

#: what registries, generators and tensors hold: 64 bits with a sign
LEAST, MOST = -(2**63), 2**63 - 1

#: which way a score is better
Better = Literal["lower", "higher"]

#: of samples, sentences, points
Count = Annotated[int, Field(ge=1, le=10**9)]
#: of things that are tried or repeated, each at some cost: trials, seeds, updates, replicates
Times = Annotated[int, Field(ge=1, le=1_000_000)]
#: of modes, groups, and whatever else there are few of
Few = Annotated[int, Field(ge=1, le=10_000)]
#: n of n-grams
Order = Annotated[int, Field(ge=1, le=100)]
#: channels, features, latents, words' vectors: the size of a layer
Width = Annotated[int, Field(ge=1, le=2**16)]
#: of layers one behind the other
Depth = Annotated[int, Field(ge=1, le=1000)]
#: training steps, and intervals of them
Steps = Annotated[int, Field(ge=1, le=10**12)]
BatchSize = Annotated[int, Field(ge=2, le=2**20)]
Seed = Annotated[int, Field(ge=0, le=MOST)]

#: numbers that single precision holds, by far
Real = Annotated[float, Field(ge=-1e30, le=1e30)]
Weight = Annotated[float, Field(ge=0, le=1e30)]
#: rates of learning, scales, radii
Positive = Annotated[float, Field(gt=0, le=1e30)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _holdable(cls, value: Any) -> Any:
        """Refuses integers beyond 64 bits in every field, since fields of users' systems may be
        declared as mere `int`.
        """
        if _beyond(value):
            raise ValueError("it holds a whole number beyond 64 bits")
        return value


def _beyond(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_beyond, value)) or any(map(_beyond, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_beyond, value))
    return isinstance(value, int) and not LEAST <= value <= MOST
