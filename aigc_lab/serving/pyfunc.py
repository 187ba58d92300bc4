"""Code of a promoted model in MLflow: a copy of this file lies beside the weights, and MLflow runs it to load them.

Each row of the input asks for `n` samples of a `seed`; `aigc_lab.serving.answering` describes further columns, and the
`format` (a parameter) of the answer. The samples are those of `aigc-lab sample -n N --seed SEED`, to the bit: uint8 [n,
H, W, C] for images, float32 [n, D] for points, strings [n] for text. The package `aigc-lab` must be installed.
"""

from pathlib import Path
from typing import Any

import pandas
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from aigc_lab.errors import UsageError
from aigc_lab.serving.model import Model


class PromotedModel(PythonModel):
    def load_context(self, context: PythonModelContext) -> None:
        (weights,) = Path(context.artifacts["model"]).glob("*.safetensors")
        self.model = Model.of_file(weights)

    def predict(
        self, context: PythonModelContext, model_input: pandas.DataFrame, params: dict[str, Any] | None = None
    ) -> Any:
        rows = [
            dict(zip(model_input.columns, row, strict=True)) for row in model_input.itertuples(index=False, name=None)
        ]
        try:
            return self.model.answer(rows, (params or {}).get("format", "array"))
        except UsageError as error:  # HTTP 400, and the sentence
            raise MlflowException.invalid_parameter_value(str(error)) from None


set_model(PromotedModel())
