"""The base of everything that is written in YAML: unknown keys are refused, values cannot change, no NaN passes."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
