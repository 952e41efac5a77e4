"""Objects as instances of an output model, read from their attributes."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from types import CoroutineType
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from wsaction.exceptions import ImproperlyConfigured
from wsaction.serializers._core_schema import MAX_MODELS

Model = type[BaseModel]
M = TypeVar("M", bound=BaseModel)


def as_output(output: type[M], obj: Any) -> M:
    """An object as an instance of exactly ``output``, without the fields that the object's class adds.

    Raises ``pydantic.ValidationError`` for attributes that do not fit the model, `ImproperlyConfigured` for attributes
    that are not loaded, ``TypeError`` for a coroutine. ``as_output(UserOut, UserInDB(id=1, password="x"))`` is
    ``UserOut(id=1)``.
    """
    if type(obj) is output:
        return obj
    if output in type(obj).__mro__:
        return _as_parent(output, obj)
    try:
        return output.model_validate(obj, from_attributes=True)
    except ValidationError as exc:
        if isinstance(obj, CoroutineType):
            obj.close()  # else Python also warns that it was never awaited
            raise TypeError(
                f"{output.__name__} shows an object, not the coroutine {obj.__qualname__}(); did you forget `await`?"
            ) from exc
        _explain_unloaded(exc, output, type(obj))
        raise


def many_as_output(output: type[M], objs: Sequence[Any]) -> Sequence[M]:
    """Many objects as `as_output` returns one. Instances of other classes take one call of pydantic for all."""
    if any(output in kind.__mro__ for kind in set(map(type, objs))):
        return [as_output(output, obj) for obj in objs]
    try:
        shown: Sequence[M] = _list_of(output)(objs, from_attributes=True)
    except ValidationError as exc:
        _explain_unloaded(exc, output, type(objs[0]))
        raise
    return shown


@lru_cache(MAX_MODELS)
def _list_of(model: Model) -> Callable[..., Any]:
    return TypeAdapter(list[model]).validator.validate_python  # type: ignore[valid-type]  # a class, of whichever model


def _as_parent(output: type[M], obj: BaseModel) -> M:
    """An instance of a parent class with the same values. pydantic would return the object itself."""
    parent = output.__new__(output)
    names, private = output.model_fields, getattr(obj, "__pydantic_private__", None)
    _set(parent, "__dict__", {name: getattr(obj, name) for name in names})
    _set(parent, "__pydantic_fields_set__", {name for name in obj.model_fields_set if name in names})
    _set(parent, "__pydantic_extra__", obj.__pydantic_extra__ if output.model_config.get("extra") == "allow" else None)
    _set(
        parent,
        "__pydantic_private__",
        private and {name: value for name, value in private.items() if name in output.__private_attributes__},
    )
    return parent


_set = object.__setattr__


_NOT_LOADED = ("MissingGreenlet", "DetachedInstanceError", "lazy='raise'", "raiseload=True")  # SQLAlchemy's words


def _explain_unloaded(exc: ValidationError, output: Model, kind: type) -> None:
    """Raises `ImproperlyConfigured` if the error is about an attribute that SQLAlchemy has not loaded."""
    for line in exc.errors(include_url=False, include_input=False):
        if line["type"] == "get_attribute_error" and any(text in line["msg"] for text in _NOT_LOADED):
            path = [name for name in line["loc"] if isinstance(name, str)]
            raise ImproperlyConfigured(
                f"{output.__name__} shows {'.'.join(path)}, which is not loaded with its object; make the queryset "
                f"load it, as in select({kind.__name__}).options({_loader_option(kind, path)})"
            ) from exc


def _loader_option(kind: type, path: Sequence[str]) -> str:
    """The SQLAlchemy loader option for a path of attributes, ``selectinload(Card.owner).undefer(User.name)``."""
    steps: list[str] = []
    for name in path:
        mapped = getattr(getattr(kind, name, None), "property", None)
        load = "undefer" if hasattr(mapped, "columns") else "selectinload"
        steps.append(f"{load}({kind.__name__}.{name})")
        if load == "undefer" or mapped is None:
            break
        kind = mapped.mapper.class_
    return ".".join(steps)
