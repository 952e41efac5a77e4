"""Where objects come from: the `QuerySet` protocol, and `MemoryQuerySet` for any pydantic model."""

from collections.abc import Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from wsaction.exceptions import Conflict, ImproperlyConfigured, NotFound

__all__ = ("MemoryQuerySet", "QuerySet")

M = TypeVar("M", bound=BaseModel)


class QuerySet(Protocol):
    """What a generic handler's ``queryset`` has to offer; any object that does is one."""

    async def get(self, **lookups: Any) -> Any:
        """The one object with these values (``pk`` is the primary key). Raises `NotFound` when there is none."""

    async def create(self, values: Mapping[str, Any]) -> Any:
        """A new object with these values. Raises `Conflict` where the key is taken."""

    async def count(self) -> int:
        """How many objects there are."""


class MemoryQuerySet(Generic[M]):
    """Objects of a pydantic model, kept in this process and found by primary key.

    ``rows`` are the first ones, ``pk`` the name of the key's field; an int key that is left out of ``create`` counts on
    from the largest. What is returned are copies: only ``create`` changes what is kept.

    >>> cards = MemoryQuerySet(Card, rows=[Card(id=1, title="a")])
    >>> await cards.get(pk="1")
    Card(id=1, title='a')
    """

    def __init__(self, model: type[M], rows: Iterable[M] = (), pk: str = "id") -> None:
        if not isinstance(model, type(BaseModel)):
            raise ImproperlyConfigured(f"MemoryQuerySet takes a pydantic model class, not {model!r}")
        if pk not in model.model_fields:
            raise ImproperlyConfigured(
                f"{model.__name__} has no field {pk!r} to be its key; "
                f"name one of {', '.join(model.model_fields)} with pk=..."
            )
        self.model, self.pk = model, pk
        types: dict[str, Any] = {name: field.annotation for name, field in model.model_fields.items()}
        self._types = {name: TypeAdapter[Any](annotation) for name, annotation in types.items()}
        self._rows: dict[Any, M] = {}
        for row in rows:
            self._add(row)

    async def get(self, **lookups: Any) -> M:
        """The object with these values: ``get(pk=7)``, ``get(slug="a", owner_id=1)``.

        A value is coerced to its field's type, and one that cannot be finds nothing. Raises
        `wsaction.exceptions.NotFound`, and ``TypeError`` for a field that the model does not have.
        """
        wanted = {self.pk if name == "pk" else name: value for name, value in lookups.items()}
        unknown = sorted(set(wanted) - set(self.model.model_fields))
        if unknown or not wanted:
            raise TypeError(
                f"{self.model.__name__}: get() takes the values of fields, not {', '.join(unknown) or 'nothing'}"
            )
        try:
            wanted = {name: self._types[name].validate_python(value) for name, value in wanted.items()}
            rows = [self._rows.get(wanted[self.pk])] if self.pk in wanted else self._rows.values()
        except (ValidationError, TypeError):  # the latter for what is not hashable, of a key of any type
            raise NotFound from None
        for row in rows:
            if row is not None and all(getattr(row, name) == value for name, value in wanted.items()):
                return row.model_copy(deep=True)
        raise NotFound

    async def create(self, values: Mapping[str, Any]) -> M:
        """Keeps a new object and returns it.

        Raises `Conflict` for a key that is taken, pydantic's error for bad values.
        """
        if self.pk not in values and self.model.model_fields[self.pk].annotation is int:
            values = {**values, self.pk: max(self._rows, default=0) + 1}
        row = self.model.model_validate(dict(values))
        self._add(row)
        return row.model_copy(deep=True)

    async def count(self) -> int:
        """How many objects are kept."""
        return len(self._rows)

    def _add(self, row: M) -> None:
        key = getattr(row, self.pk)
        if key in self._rows:
            raise Conflict(f"There is already a {self.model.__name__} with {self.pk} {key!r}.")
        self._rows[key] = row.model_copy(deep=True)
