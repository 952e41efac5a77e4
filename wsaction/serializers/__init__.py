"""Serializers are pydantic models. One model is enough for input and output: mark fields `ReadOnly` or `WriteOnly`.

    class User(BaseModel):
        id: Annotated[int, ReadOnly] = 0  # ignored in input
        name: str
        password: Annotated[str, WriteOnly]  # left out of output

`input_model` and `output_model` are the two models that the framework makes of it.
"""

from wsaction.serializers._core_schema import ReadOnly, WriteOnly
from wsaction.serializers._models import InputModel, input_model, output_model

__all__ = (
    "InputModel",
    "ReadOnly",
    "WriteOnly",
    "input_model",
    "output_model",
)
