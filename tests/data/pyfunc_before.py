"""The code of a promoted model in MLflow: a copy of this file lies beside the weights, and MLflow runs it to load them.

Each row of the input asks for `n` samples of `seed` (0 when there is no such column) and, of a conditional system, of
the class `label`, the samples of all rows follow each other. They are those of
`aigc-lab sample -n N --seed SEED`, to the bit: uint8 [n, H, W, C] for images, float32 [n, D] for points, strings [n]
for text. The package `aigc-lab` must be installed.
"""

from pathlib import Path
from typing import Any

import numpy
import numpy.typing
import pandas
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from aigc_lab.serving.model import Model


class PromotedModel(PythonModel):
    def load_context(self, context: PythonModelContext) -> None:
        (weights,) = Path(context.artifacts["model"]).glob("*.safetensors")
        self.model = Model.of_file(weights)

    def predict(
        self, context: PythonModelContext, model_input: pandas.DataFrame, params: dict[str, Any] | None = None
    ) -> "numpy.typing.NDArray[Any]":
        rows = model_input.astype(object).where(model_input.notna(), None).to_dict("records")
        return numpy.concatenate([self._of(**row) for row in rows])

    def _of(self, n: int, seed: int | None = None, label: int | None = None) -> "numpy.typing.NDArray[Any]":
        return self.model.sample(int(n), seed=int(seed or 0), labels=None if label is None else [int(label)])


set_model(PromotedModel())
