"""The rows of a `MemoryQuerySet`, and the drafts in which a unit of work collects its changes to them."""

import uuid
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import SchemaValidator

from wsaction.exceptions import Conflict, ImproperlyConfigured, NotFound
from wsaction.querysets._lookups import UnknownClass, name_of
from wsaction.querysets._model_fields import ModelFields, is_immutable, json_text, jsonable, members
from wsaction.serializers._core_schema import MAX_MODELS, build, by_names, whole_schema

M = TypeVar("M", bound=BaseModel)


class Table(Generic[M]):
    """Rows in the order of their keys, with an index of the unique fields. A stored row is replaced, never changed.

    Raises `ImproperlyConfigured` if the model has no such key or unique field.
    """

    def __init__(self, model: type[M], pk: str, unique: Iterable[str | Iterable[str]]) -> None:
        self.model = model
        self.pk = pk
        self.fields = ModelFields(model, pk)
        self._kinds: dict[str, tuple[type[M], ModelFields]] = {name_of(model): (model, self.fields)}
        self.unique = tuple((names,) if isinstance(names, str) else tuple(names) for names in unique)
        for name in [pk, *(name for names in self.unique for name in names)]:
            if name not in model.model_fields:
                raise ImproperlyConfigured(
                    f"{model.__name__} has no field {name!r} for a key; name one of {', '.join(model.model_fields)}"
                )
        self.rows: dict[Any, M] = {}
        self.keys: list[Any] = []  # in order
        self.index: dict[tuple[str, ...], dict[tuple[Any, ...], Any]] = {names: {} for names in self.unique}
        key_types = members(self.fields.types[pk])
        self.sort_key = None if len(key_types) == 1 and key_types[0] is not Any else _sort_by_type
        self._counts_keys = key_types == (int,)
        self._last_key = 0  # the largest integer key so far; a deleted key is not used again
        self._makes_uuids = key_types == (uuid.UUID,) and _is_required(model, pk)
        self._needs_deep_copy = _has_more(model) or not all(map(is_immutable, self.fields.types.values()))
        self._is_plain = not self._needs_deep_copy and _is_copied_by_pydantic(model)
        # A bare model's validation makes a new object. A validator around the model may return one that others hold.
        is_bare = model.__pydantic_complete__ and model.__pydantic_core_schema__["type"] == "model"
        self._validation_copies = self._is_plain and is_bare

    # ---------------------------------------------------------------------------------------------- classes
    def model_named(self, kind: str | None) -> type[M]:
        """The class of this name among those of all rows so far; None is the table's model. Raises `UnknownClass`."""
        return self.model if kind is None else self._kind(kind)[0]

    def fields_of(self, kind: str | None) -> ModelFields:
        """The fields of the class that `model_named` finds. Raises `UnknownClass`."""
        return self.fields if kind is None else self._kind(kind)[1]

    def _kind(self, kind: str) -> tuple[type[M], ModelFields]:
        if kind not in self._kinds:
            raise UnknownClass(f"a MemoryQuerySet of {self.model.__name__} has had no rows of the class {kind}")
        return self._kinds[kind]

    # ---------------------------------------------------------------------------------------------- rows
    def new_row(self, values: Mapping[str, Any]) -> M:
        """A validated row with these values by field name. A missing integer or UUID key is made.

        Raises ``pydantic.ValidationError``.
        """
        if values.get(self.pk) is None:
            if self._counts_keys:
                values = {**values, self.pk: self._last_key + 1}
            elif self._makes_uuids:
                values = {**values, self.pk: uuid.uuid4()}
        row = self.validate(values, self.model)
        self._note_key(getattr(row, self.pk))
        return row

    def with_key(self, row: M) -> M:
        """A copy of a row. A missing integer key is made."""
        key = getattr(row, self.pk)
        if key is None and self._counts_keys:
            key = self._last_key + 1
        self._note_key(key)
        copied = self.copy(row)
        return copied if key is getattr(row, self.pk) else copied.model_copy(update={self.pk: key})

    def _note_key(self, key: Any) -> None:
        if self._counts_keys and type(key) is int:
            self._last_key = max(self._last_key, key)

    def change(self, row: M, values: Mapping[str, Any]) -> M:
        """A validated row with these values changed. Raises ``pydantic.ValidationError``."""
        return self.validate({**self._values(row), **values}, type(row))

    def _values(self, row: M) -> dict[str, Any]:
        if type(row) is self.model and self._is_plain:
            values = row.__dict__
            return {name: values[name] for name in self.fields.types}
        return {name: getattr(row, name) for name in type(row).model_fields}

    def difference(self, before: M, after: M) -> dict[str, Any]:
        """The fields that differ, with their values in ``after``."""
        olds = self._values(before)
        return {
            name: new
            for name, new in self._values(after).items()
            if type(old := olds[name]) is not type(new) or old != new
        }

    def validate(self, values: Mapping[str, Any], kind: type[M]) -> M:
        """A validated row of this class that shares no mutable object with the values."""
        validate = _validator(kind)
        try:
            row: M = validate(values)
        except ValidationError as exc:
            row = validate(_with_json_values(values, exc))
        return row if self._validation_copies and kind is self.model else self.copy(row)

    def copy(self, row: M) -> M:
        """A copy of a row, so that the application and the table never hold the same object."""
        if type(row) is not self.model or not self._is_plain:
            return row.model_copy(deep=self._needs_deep_copy or type(row) is not self.model)
        return _copy(self.model, row)

    def merge(self, row: M, changes: Mapping[str, Any]) -> M:
        """A copy of a row with these changes, which are validated already."""
        if type(row) is not self.model or not self._is_plain:
            return row.model_copy(update=changes)
        other = _copy(self.model, row)
        other.__dict__.update(changes)
        other.__pydantic_fields_set__.update(changes)
        return other

    def unique_values(self, row: M) -> Iterator[tuple[tuple[str, ...], tuple[Any, ...]]]:
        """The unique fields and their values, which no other row may have. A null value may repeat."""
        for names in self.unique:
            values = tuple(getattr(row, name) for name in names)
            if None not in values:
                yield names, values

    def keys_after(self, key: Any) -> list[Any]:
        """The keys that are greater than this one. All keys must be of one type."""
        return self.keys[bisect_right(self.keys, key) :]

    # ---------------------------------------------------------------------------------------------- keeping
    def put(self, key: Any, row: M) -> None:
        """Stores a row; it replaces the one with this key, if there is one."""
        if key in self.rows:
            self._unindex(key)
        else:
            insort(self.keys, key, key=self.sort_key)
        self.rows[key] = row
        kind = type(row)
        if kind is not self.model and name_of(kind) not in self._kinds:
            self._kinds[name_of(kind)] = kind, ModelFields(kind, self.pk)
        for names, values in self.unique_values(row):
            self.index[names][values] = key

    def drop(self, key: Any) -> None:
        """Removes a row."""
        self._unindex(key)
        del self.rows[key]
        target = self.sort_key(key) if self.sort_key else key
        del self.keys[bisect_left(self.keys, target, key=self.sort_key)]

    def _unindex(self, key: Any) -> None:
        for names, values in self.unique_values(self.rows[key]):
            if self.index[names].get(values) == key:  # else another row of the same draft has taken the values
                del self.index[names][values]

    def conflict(self, names: Iterable[str]) -> Conflict:
        """The error if another row has the same values of these fields."""
        taken = " and ".join(names)
        return Conflict(f"There is already a {self.model.__name__} with this {taken}.", {"fields": list(names)})


class Draft(Generic[M]):
    """The changes of a unit of work to one table. Until they are stored, only that unit sees them.

    For a changed row it holds the changed fields alone, so that another unit's changes to other fields survive.
    """

    def __init__(self, table: Table[M]) -> None:
        self.table = table
        self.created: dict[Any, M] = {}
        self.changed: dict[Any, dict[str, Any]] = {}
        self.deleted: set[Any] = set()
        self._taken: dict[tuple[Any, ...], Any] = {}  # unique names and values -> key of the last row that got them

    # ---------------------------------------------------------------------------------------------- reading
    def row(self, key: Any) -> M | None:
        """The row with this key as the unit sees it, or None."""
        if key in self.created:
            return self.created[key]
        row = None if key in self.deleted else self.table.rows.get(key)
        return self.table.merge(row, self.changed[key]) if row is not None and key in self.changed else row

    def rows(self) -> Iterator[M]:
        """All rows as the unit sees them, in the order of their keys."""
        keys = self.table.keys
        if self.created:
            new = (key for key in self.created if key not in self.table.rows)
            keys = sorted([*keys, *new], key=self.table.sort_key)
        for key in keys:
            if (row := self.row(key)) is not None:
                yield row

    # ---------------------------------------------------------------------------------------------- changes
    def create(self, row: M) -> None:
        """Adds a row. Raises `Conflict`."""
        key = getattr(row, self.table.pk)
        if self.row(key) is not None:
            raise self.table.conflict((self.table.pk,))
        self._check_unique(key, row)
        self.created[key] = row

    def update(self, key: Any, row: M, changes: dict[str, Any]) -> None:
        """Changes a row. ``changes`` are its new values, ``row`` is the row with them. Raises `Conflict`."""
        self._check_unique(key, row)
        if key in self.created:
            self.created[key] = row
        elif changes:
            self.changed.setdefault(key, {}).update(changes)

    def delete(self, key: Any) -> None:
        """Deletes a row that exists."""
        if self.created.pop(key, None) is None:
            self.changed.pop(key, None)
            self.deleted.add(key)

    def _check_unique(self, key: Any, row: M) -> None:
        unique = list(self.table.unique_values(row))
        for names, values in unique:
            for holder in (self.table.index[names].get(values), self._taken.get((names, values))):
                other = None if holder is None or holder == key else self.row(holder)
                if other is not None and (names, values) in self.table.unique_values(other):
                    raise self.table.conflict(names)
        self._taken.update(dict.fromkeys(unique, key))

    # ---------------------------------------------------------------------------------------------- keeping
    def check(self) -> None:
        """Raises `Conflict` or `NotFound` if other units have stored changes that contradict this draft."""
        rows, touched = self.table.rows, self.changed.keys() | self.deleted
        if any(key not in rows for key in touched):
            raise NotFound(f"This {self.table.model.__name__} was deleted meanwhile.")
        if any(key in rows and key not in self.deleted for key in self.created):
            raise self.table.conflict((self.table.pk,))
        if not self.table.unique:
            return
        claimed: set[tuple[Any, ...]] = set()
        for key in (*self.changed, *self.created):
            for names, values in self.table.unique_values(self.row(key)):  # type: ignore[arg-type]  # it is there
                holder = self.table.index[names].get(values, key)
                if (names, values) in claimed or (holder != key and holder not in touched):
                    raise self.table.conflict(names)
                claimed.add((names, values))

    def keep(self) -> None:
        """Stores the changes in the table. `check` must have passed just before."""
        final = {key: self.row(key) for key in (*self.changed, *self.created)}
        for key in self.deleted:
            self.table.drop(key)
        for key, row in final.items():
            self.table.put(key, row)  # type: ignore[arg-type]  # it is there


class Drafts:
    """The drafts of a unit of work, one for each table; implements `transactions.Resource`."""

    instant = True

    def __init__(self) -> None:
        self._drafts: dict[Table[Any], Draft[Any]] = {}

    def of(self, table: Table[M]) -> Draft[M]:
        """The draft of a table, made at first use."""
        if table not in self._drafts:
            self._drafts[table] = Draft(table)
        return self._drafts[table]

    async def prepare(self) -> None:
        for draft in self._drafts.values():
            draft.check()

    async def commit(self) -> None:
        self.keep()

    async def rollback(self) -> None:
        self._drafts.clear()

    def keep(self) -> None:
        """Stores all drafts or none. It must not await: no other unit may store between the checks and the changes.

        Raises `Conflict`, `NotFound`.
        """
        for draft in self._drafts.values():
            draft.check()
        for draft in self._drafts.values():
            draft.keep()


# For `_copy`, which does what `model_copy()` does, many times as fast: these slots bypass the model's `__setattr__`.
_set_dict, _set_extra, _set_fields_set, _set_private = (
    vars(BaseModel)[name].__set__
    for name in ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__")
)


@lru_cache(MAX_MODELS)
def _validator(model: type[BaseModel]) -> Callable[[Any], Any]:
    """A validator that takes fields by name and ignores aliases, so that a value never lands in another field."""
    schema = by_names(whole_schema(model))
    if schema is None:
        return model.model_validate
    validate: Callable[[Any], Any] = build(SchemaValidator, schema).validate_python
    return validate


def _copy(model: type[M], row: M) -> M:
    copied = model.__new__(model)
    _set_dict(copied, row.__dict__.copy())
    _set_extra(copied, None)
    _set_fields_set(copied, row.__pydantic_fields_set__.copy())
    _set_private(copied, None)
    return copied


def _has_more(model: type[BaseModel]) -> bool:
    """Whether objects have more than their fields: private attributes or extra values, of any type."""
    return bool(model.__private_attributes__) or model.model_config.get("extra") == "allow"


def _is_copied_by_pydantic(model: type[BaseModel]) -> bool:
    """Whether the model does not override how pydantic copies objects."""
    return model.__copy__ is BaseModel.__copy__ and model.model_copy is BaseModel.model_copy


def _with_json_values(values: Mapping[str, Any], error: ValidationError) -> dict[str, Any]:
    """The values, with those that failed validation as JSON data: they may come from a model with other types.

    Raises ``error`` if there are none, or if JSON cannot represent one.
    """
    wrong = {str(line["loc"][0]): line["type"] for line in error.errors(include_url=False) if line["loc"]}
    try:
        plain = {
            name: json_text(values[name]) if error_type == "string_type" else jsonable(values[name])
            for name, error_type in wrong.items()
            if name in values
        }
    except ValueError:
        raise error from None
    if not plain:
        raise error
    return {**values, **plain}


def _sort_by_type(key: Any) -> tuple[str, Any]:
    """A sort key for keys of several types, which do not compare: the type comes first."""
    return type(key).__name__, key


def _is_required(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields[name]
    return field.default_factory is None and (field.is_required() or field.default is None)
