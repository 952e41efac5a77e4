"""Reads the functions in `Depends`: their parameters and their own dependencies."""

import contextlib
import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import AliasChoices, AliasPath, BaseModel
from pydantic_core import PydanticUndefined

from wsaction._handlers.dependencies import GIVEN, Dependencies, Depends, Kind, ModelStep, Step, name_of
from wsaction._handlers.parameters import EMPTY, PROTOCOL_KEYS, Input, built, read_hints, read_parameter
from wsaction.exceptions import ImproperlyConfigured
from wsaction.serializers._core_schema import ReadOnly, marked_names
from wsaction.serializers._models import json_validator

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo  # not imported at run time, as it is slow and only models need it

Overrides: TypeAlias = Mapping[Callable[..., Any], Callable[..., Any]]  # by the function that is replaced


def read_dependencies(
    where: str, roots: tuple[tuple[str, Depends], ...], overrides: Overrides | None = None
) -> Dependencies:
    """Compiles the `Depends` of an action. Raises `ImproperlyConfigured` for a parameter that cannot be filled."""
    reader = _Reader(overrides or {})
    numbers = tuple(reader.number(where, depends, ()) for _, depends in roots)
    finishes = any("generator" in step.kind for step in reader.steps)
    return Dependencies(where, roots, tuple(reader.steps), numbers, tuple(reader.inputs), finishes)


def depends_of(where: str, parameter: inspect.Parameter, annotation: Any) -> Depends | None:
    """The `Depends` of a parameter, with its function; None if it has none.

    Raises `ImproperlyConfigured` for a `Depends` in a place where it has no effect: clients could set the parameter.
    """
    name, default = parameter.name, parameter.default
    if _is_mark(default):
        fn = default.fn if isinstance(default, Depends) else getattr(default, "dependency", None)  # FastAPI's
        mark = f"Depends({'' if fn is None else name_of(fn)})"
        raise ImproperlyConfigured(
            f"{where}: {name} has a Depends as its default; write {name}: Annotated[..., {mark}] without a default, "
            "with Depends from wsaction.dependencies"
        )
    annotation = getattr(annotation, "__value__", annotation)  # of `type Session = Annotated[...]`
    marks = list(_marks(annotation, set()))
    if not marks:
        _refuse_function(where, name, annotation)
        return None
    mark = marks[0]
    if mark is Depends:
        raise ImproperlyConfigured(
            f"{where}: {name} is annotated with Depends itself, which has no effect; write Depends(fn) with the "
            "function that makes it, or Depends() for the annotated class"
        )
    if not isinstance(mark, Depends):
        raise ImproperlyConfigured(
            f"{where}: the {type(mark).__name__} of {name} is that of {type(mark).__module__.partition('.')[0]}; "
            "import it from wsaction.dependencies"
        )
    if len(marks) > 1 or mark not in getattr(annotation, "__metadata__", ()):
        raise ImproperlyConfigured(
            f"{where}: {name} is annotated {annotation!r}; write Depends once, in the outermost Annotated, as in "
            f"{name}: Annotated[..., {mark!r}]"
        )
    if default is not EMPTY:
        raise ImproperlyConfigured(f"{where}: {name} has a default, which has no effect beside {mark!r}; leave it out")
    if mark.fn is not None:
        return mark
    cls = typing.get_args(annotation)[0]
    if not inspect.isclass(cls) or cls is Any:
        raise ImproperlyConfigured(
            f"{where}: Depends() of {name} expected a class as the annotation, got {cls!r}; write Depends(fn) with the "
            "function that makes it"
        )
    return Depends(cls, use_cache=mark.use_cache)


def _refuse_function(where: str, name: str, annotation: Any) -> None:
    """Raises for a function in an ``Annotated`` without `Depends`, which nothing would call."""
    for mark in getattr(annotation, "__metadata__", ()):
        if inspect.isroutine(mark) or isinstance(mark, functools.partial):
            raise ImproperlyConfigured(
                f"{where}: {name} is annotated with {name_of(mark)} itself, which nothing calls, so clients could send "
                f"any {name}; write Depends({name_of(mark)})"
            )


def _is_mark(part: Any) -> bool:
    """Whether it is a `Depends`, or one of the common mistakes for it: the class itself, or FastAPI's."""
    if part is Depends or isinstance(part, Depends):
        return True
    return type(part).__name__ in ("Depends", "Security") and hasattr(part, "dependency")


def _marks(part: Any, seen: set[int]) -> Iterator[Any]:
    """Every mark in an annotation, at any depth."""
    if id(part) in seen:  # `type Json = dict[str, Json]`
        return
    seen.add(id(part))
    if _is_mark(part):
        yield part
    named = (getattr(part, "__value__", None), getattr(part, "__supertype__", None))  # a NewType's
    nested_parts = part if isinstance(part, list) else (*typing.get_args(part), *named)
    for nested in nested_parts:
        yield from _marks(nested, seen)


class _Reader:
    """Reads dependencies into steps; a step comes after those that it needs."""

    def __init__(self, overrides: Overrides) -> None:
        self.steps: list[Step | ModelStep] = []
        self.inputs: list[Input] = []
        self._overrides = overrides
        self._known: dict[Any, int] = {}  # the step of each function that runs once

    def number(self, where: str, depends: Depends, above: tuple[Any, ...]) -> int:
        """The number of the step that makes the value of a `Depends`; adds the step if it is new."""
        function: Any = self._overrides.get(_key(depends.fn), depends.fn)
        if depends.use_cache and _key(function) in self._known:
            return self._known[_key(function)]
        where = f"{where} → {name_of(function)}"
        if any(outer is function for outer in above):
            raise ImproperlyConfigured(f"{where} depends on itself; remove one of these dependencies")
        self.steps.append(self._step(where, function, (*above, function)))
        number = len(self.steps) - 1
        if depends.use_cache:
            self._known[_key(function)] = number
        return number

    def _step(self, where: str, function: Any, above: tuple[Any, ...]) -> Step | ModelStep:
        if hasattr(function, "__pydantic_validator__") and inspect.isclass(function):
            return self._model(where, function)
        kind = _kind(where, function)
        given, needs, parameters = [], [], []
        signature, hints = _signature(where, function, kind)
        for parameter in signature:
            depends = depends_of(where, parameter, hints.get(parameter.name))
            if depends is not None:
                needs.append((parameter.name, self.number(where, depends, above)))
            elif parameter.name in GIVEN or parameter.name in PROTOCOL_KEYS:
                given.append(parameter.name)
            else:
                filled, field = read_parameter(where, parameter, hints)
                parameters.append(filled)
                self.inputs.append(field)
        return Step(_callable(function, kind), kind, tuple(parameters), tuple(given), tuple(needs))

    def _model(self, where: str, model: Any) -> ModelStep:
        keys: dict[str, None] = {}
        is_base_model = issubclass(model, BaseModel)
        read_only = marked_names(model, ReadOnly) if is_base_model else ()
        fields: Mapping[str, FieldInfo] = model.model_fields if is_base_model else model.__pydantic_fields__
        for name, model_field in fields.items():
            if name in read_only:
                continue
            aliases = [*_aliases(model_field.validation_alias), *_aliases(model_field.alias), name]
            keys |= dict.fromkeys(aliases)
            default = EMPTY if model_field.default is PydanticUndefined else model_field.default
            self.inputs.append(Input(aliases[0], model_field.rebuild_annotation(), default, model_field.is_required()))
        return ModelStep(tuple(keys), built(where, "it", json_validator, model))


def _aliases(alias: str | AliasPath | AliasChoices | None) -> Iterator[str]:
    """The keys under which a field looks for its value."""
    if isinstance(alias, AliasChoices):
        for choice in alias.choices:
            yield from _aliases(choice)
    elif isinstance(alias, AliasPath):
        yield str(alias.path[0])
    elif alias is not None:
        yield alias


def _callable(function: Any, kind: Kind) -> Callable[..., Any]:
    if kind == "async generator":
        return contextlib.asynccontextmanager(function)
    return contextlib.contextmanager(function) if kind == "generator" else function


def _kind(where: str, function: Any) -> Kind:
    if inspect.isclass(function):
        if inspect.isabstract(function):
            raise ImproperlyConfigured(f"{where} is an abstract class; depend on a concrete subclass")
        return "class"
    called = _called(function)
    if getattr(called, "__globals__", None) is vars(contextlib):
        raise ImproperlyConfigured(
            f"{where}: expected a generator function, got a context manager; leave out @contextmanager and "
            "@asynccontextmanager"
        )
    for candidate in (called, inspect.unwrap(called)):  # a decorator's sync function returns what the wrapped one does
        if inspect.iscoroutinefunction(candidate):
            return "coroutine"
        if inspect.isasyncgenfunction(candidate):
            return "async generator"
        if inspect.isgeneratorfunction(candidate):
            return "generator"
    return "function"


def _called(function: Any) -> Any:
    """The function that a call runs: the wrapped one of a partial, the ``__call__`` of another object."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else function.__call__


def _signature(where: str, function: Any, kind: Kind) -> tuple[list[inspect.Parameter], dict[str, Any]]:
    """The parameters to fill, and their annotations."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError) as exc:
        raise ImproperlyConfigured(
            f"{where} has no readable signature ({exc}); wrap it in a function that names the parameters"
        ) from exc
    if isinstance(function, functools.partial):
        parameters = [p for p in parameters if p.name not in function.keywords]  # the partial has set them
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ImproperlyConfigured(
                f"{where}: {parameter} cannot be filled by name; declare each parameter by name, without *, ** and /"
            )
    called = _called(function)
    if kind == "class":
        called = function.__init__ if function.__init__ is not object.__init__ else function.__new__
    annotations = {
        p.name: p.annotation for p in parameters if p.annotation is not EMPTY
    }  # a `__signature__` may have annotations too
    return parameters, annotations | read_hints(where, called)


def _key(function: Any) -> Any:
    """A hashable key for a function: itself, or its id if it is not hashable."""
    try:
        hash(function)
    except TypeError:
        return id(function)
    return function
