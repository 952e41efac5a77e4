"""`CursorPagination`: pages that stay where they are while rows are inserted, and walking a long list in such pages."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from wsaction.exceptions import ImproperlyConfigured, NotFound
from wsaction.paginators import BasePagination, Page, all_of, asked_size, replace_query
from wsaction.querysets._lookups import FieldError, InvalidLookup, Q
from wsaction.serializers._write_only import check_fields

__all__ = ("CursorPagination", "pages_of", "total")

TAG_SIZE = 16  # bytes of the HMAC that a cursor carries


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in an order: behind the object with these values, or in front of it; without values, an end."""

    backwards: bool
    position: Sequence[Any] | None


class CursorPagination(BasePagination):
    """Pages by place: ``next`` and ``previous`` are opaque, ``cards/?cursor=...``, and hold the values that the order
    goes by, of the last or first object on the page; what is inserted meanwhile neither repeats nor hides another.

    ``ordering``: by what, DRF's ``"-created"`` unless said otherwise; what the handler's `OrderingFilter` finds goes
    before it. The primary key comes last by itself; what lies behind a relation has to be loaded with its object.
    ``page_size_query_param``: where it is named, ``?page_size=20`` asks for a size, of ``max_page_size`` at most.
    ``secret_key``: signs cursors, so that a changed one is a 404. It is the application's own secret of 16 characters
    or more, the same in every worker, from its environment: one that each process draws for itself would end every
    cursor at another worker, hence there is no default.
    """

    cursor_query_param: str = "cursor"
    page_size_query_param: str | None = None
    max_page_size: int = 1_000
    ordering: str | Sequence[str] = "-created"
    secret_key: str | None = None
    count: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        return (self.cursor_query_param, *((self.page_size_query_param,) if self.page_size_query_param else ()))

    def get_page_size(self, handler: Any) -> int:
        return asked_size(handler, self.page_size_query_param, self.page_size, self.max_page_size)

    def check(self, handler: Any) -> None:
        if not isinstance(self.secret_key, str) or len(self.secret_key) < 16:
            raise ImproperlyConfigured(
                f"{handler.__name__}: {type(self).__name__} needs a secret_key of 16 characters or more, the same in "
                'every worker, as in CursorPagination(secret_key=os.environ["SECRET_KEY"])'
            )
        ordering = (handler.ordering,) if isinstance(handler.ordering, str) else handler.ordering
        for attribute, fields in (("ordering", ordering), ("pagination_class", total(self.ordering))):
            check_fields(handler, attribute, [name.removeprefix("-") for name in fields])  # a cursor holds their values
        if handler.queryset is None or handler.ordering:  # get_queryset() will tell, or the filter checks its own
            return
        try:
            handler.queryset.order_by(*total(self.ordering))
        except FieldError as exc:
            raise ImproperlyConfigured(
                f"{handler.__name__}.pagination_class: {exc}; say by what, as in {type(self).__name__}(ordering='pk')"
            ) from None

    async def paginate_queryset(self, queryset: Any, handler: Any) -> Page:
        ordering = total(handler.get_ordering() or self.ordering)
        size = self.get_page_size(handler)
        cursor = self._read(handler, ordering)
        try:
            found = await fetch(queryset, ordering, cursor, size + 1)
        except InvalidLookup:  # made when a field had another type
            raise self._refused() from None
        more, items = len(found) > size, found[:size]
        if cursor.backwards:
            items.reverse()
        return Page(
            items=items,
            next=self._next(queryset, handler, ordering, cursor, items, more),
            previous=self._previous(queryset, handler, ordering, cursor, items, more),
            count=await queryset.count() if self.count else None,
        )

    def _next(
        self, queryset: Any, handler: Any, ordering: Sequence[str], cursor: Cursor, items: Sequence[Any], more: bool
    ) -> str | None:
        if not items:  # all that was in front of the cursor is gone: the first page is what is left
            return self._route(handler, None) if cursor.backwards else None
        if not (more if not cursor.backwards else cursor.position is not None):
            return None
        return self._route(handler, self._written(ordering, Cursor(False, position(queryset, items[-1], ordering))))

    def _previous(
        self, queryset: Any, handler: Any, ordering: Sequence[str], cursor: Cursor, items: Sequence[Any], more: bool
    ) -> str | None:
        if not items:  # all that was behind it is gone: the last page is what is left
            is_behind = not cursor.backwards and cursor.position is not None
            return self._route(handler, self._written(ordering, Cursor(True, None))) if is_behind else None
        if not (more if cursor.backwards else cursor.position is not None):
            return None
        return self._route(handler, self._written(ordering, Cursor(True, position(queryset, items[0], ordering))))

    def _route(self, handler: Any, text: str | None) -> str:
        return replace_query(handler.route, **{self.cursor_query_param: text})

    # ---------------------------------------------------------------------------------------------- as text
    def _written(self, ordering: Sequence[str], cursor: Cursor) -> str:
        text = json.dumps([cursor.backwards, cursor.position], separators=(",", ":"), ensure_ascii=False)
        told = text.encode("utf-8", "surrogatepass")  # as json.loads() reads it; escaped, it would be twice as long
        return urlsafe_b64encode(self._tag(ordering, told) + told).decode().rstrip("=")

    def _read(self, handler: Any, ordering: Sequence[str]) -> Cursor:
        text = handler.query_params.get(self.cursor_query_param)
        if text is None:
            return Cursor(False, None)
        try:
            raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        except ValueError:
            raise self._refused() from None
        tag, told = raw[:TAG_SIZE], raw[TAG_SIZE:]
        if not hmac.compare_digest(tag, self._tag(ordering, told)):
            raise self._refused()
        backwards, place = json.loads(told)
        return Cursor(backwards, place)

    def _tag(self, ordering: Sequence[str], told: bytes) -> bytes:
        """A signature by the secret, of a cursor that is used with the order that it was made for."""
        signed = b"\0".join((b"wsaction.cursor", *(name.encode() for name in ordering), told))
        return hmac.digest(str(self.secret_key).encode(), signed, hashlib.sha256)[:TAG_SIZE]

    def _refused(self) -> NotFound:
        return NotFound("This cursor is not one of ours, or of another order.", loc=("route", self.cursor_query_param))


# ------------------------------------------------------------------------------------------------- places in an order
def total(ordering: str | Sequence[str]) -> tuple[str, ...]:
    """An order that no two objects share a place in: the fields, each once, and the primary key last.

    ``total("-created") == ("-created", "pk")``.
    """
    fields: dict[str, str] = {}
    for name in (*((ordering,) if isinstance(ordering, str) else ordering), "pk"):
        fields.setdefault(name.removeprefix("-"), name)
        if "pk" in fields:  # what comes behind it decides nothing
            break
    return tuple(fields.values())


async def fetch(queryset: Any, ordering: Sequence[str], cursor: Cursor, most: int) -> list[Any]:
    """The objects next to a place in an order, the nearest first, at most so many."""
    if cursor.backwards:
        ordering = [name[1:] if name.startswith("-") else f"-{name}" for name in ordering]
    if cursor.position is not None:
        queryset = queryset.filter(behind(ordering, cursor.position))
    return await all_of(queryset.order_by(*ordering)[:most])


async def pages_of(ask: Callable[[], Any], ordering: Sequence[str] | None, size: int) -> AsyncIterator[list[Any]]:
    """All objects in lists of ``size``, each fetched when it is asked for, from the queryset that ``ask`` gives then.

    With an ``ordering`` they are walked by their place in it, so that nothing is left out or told twice by what is
    inserted or deleted meanwhile; without one, by their number.
    """
    place: Sequence[Any] | None = None
    start = 0
    while True:
        queryset = ask()
        if ordering is None:
            found = await all_of(queryset[start : start + size])
        else:
            found = await fetch(queryset, ordering, Cursor(False, place), size)
        if found:
            start, place = start + size, None if ordering is None else position(queryset, found[-1], ordering)
            yield found
        if len(found) < size:
            return


def position(queryset: Any, obj: Any, ordering: Sequence[str]) -> list[Any]:
    """The values that an order goes by, of an object; as JSON has them."""
    values = []
    for field in ordering:
        value = obj
        for attribute in _path(queryset, field.removeprefix("-")):
            value = None if value is None else getattr(value, attribute)
        values.append(value)
    told: list[Any] = to_jsonable_python(values)
    return told


def _path(queryset: Any, field: str) -> Sequence[str]:
    """The attributes that lead to a field, as the queryset knows them or, where it does not tell, as they are named."""
    if hasattr(queryset, "path_of"):
        known: Sequence[str] = queryset.path_of(field)
        return known
    return [getattr(queryset, "pk", name) if name == "pk" else name for name in field.split("__")]


def behind(ordering: Sequence[str], position: Sequence[Any]) -> Q:
    """What comes after a place in an order: ``-created`` less than there, or the same and ``pk`` greater.

    Null is greater than every value.
    """
    found, same = None, Q()
    for name, value in zip(ordering, position, strict=True):
        field = name.removeprefix("-")
        after = _after(field, name.startswith("-"), value)
        if after is not None:
            found = same & after if found is None else found | (same & after)
        same &= Q(**{f"{field}__isnull": True}) if value is None else Q(**{field: value})
    return Q(pk__in=[]) if found is None else found


def _after(field: str, descending: bool, value: Any) -> Q | None:
    if value is None:
        return Q(**{f"{field}__isnull": False}) if descending else None
    if value is descending:  # true descending, false ascending: the other one follows; not all databases compare them
        return Q(**{field: not value}) if descending else Q(**{field: True}) | Q(**{f"{field}__isnull": True})
    if isinstance(value, bool):
        return None if descending else Q(**{f"{field}__isnull": True})
    if descending:
        return Q(**{f"{field}__lt": value})
    if field == "pk":
        return Q(pk__gt=value)
    return Q(**{f"{field}__gt": value}) | Q(**{f"{field}__isnull": True})
