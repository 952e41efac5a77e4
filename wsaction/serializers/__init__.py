"""Serializers: pydantic models for input and output. Mark fields `ReadOnly` or `WriteOnly` to use one model for both.

    class User(BaseModel):
        id: Annotated[int, ReadOnly] = 0  # ignored in input
        name: str
        password: Annotated[str, WriteOnly]  # left out of output

The framework derives two models from it, by `input_model` and `output_model`.
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
