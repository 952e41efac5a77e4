"""Pagination: long lists in pages, with DRF's names. The route asks for a page: ``cards/?page=4``.

A handler sets a class or an instance: ``pagination_class = PageNumberPagination`` or
``pagination_class = PageNumberPagination(page_size=20)``. A paginator keeps no state of a frame: it returns a `Page`.
"""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, NotRequired
from urllib.parse import parse_qsl, urlencode

from pydantic_core import to_jsonable_python
from typing_extensions import TypedDict, TypeVar  # pydantic requires the former before Python 3.12; defaults: 3.13

from wsaction._utils.misspellings import refuse_misspelt
from wsaction.exceptions import ImproperlyConfigured, NotFound, bad_parameter
from wsaction.querysets._lookups import FieldError, InvalidLookup, Q
from wsaction.serializers._write_only import check_fields

__all__ = (
    "BasePagination",
    "CursorPagination",
    "LimitOffsetPagination",
    "Page",
    "PageNumberPagination",
    "PageReply",
    "fetch_all",
    "iterate_pages",
    "paginator_of",
    "parse_number",
    "replace_query",
    "requested_size",
    "total",
)

T = TypeVar("T", default=Any)


class PageReply(TypedDict, Generic[T]):
    """The ``data`` of a paginated ``list`` reply. ``next`` and ``previous`` are routes; ``count`` is optional."""

    count: NotRequired[int]
    next: str | None
    previous: str | None
    results: list[T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page of a list: its objects, the routes of its neighbours, and the number of all objects, if known."""

    items: Sequence[T]
    next: str | None = None
    previous: str | None = None
    count: int | None = None


class BasePagination:
    """Base class of paginators. A subclass implements `paginate_queryset` and names the parameters that it reads.

    ``page_size`` is the number of objects on a page. ``count`` says whether replies have the number of all objects,
    which costs a query. Keyword arguments set attributes of the class; unknown ones raise `ImproperlyConfigured`.
    """

    page_size: int = 100
    count: bool = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_misspelt(cls)

    def __init__(self, **options: Any) -> None:
        for name, value in options.items():
            if name.startswith("_") or not hasattr(type(self), name) or callable(getattr(type(self), name)):
                raise ImproperlyConfigured(f"{type(self).__name__} has no option {name!r}")
            setattr(self, name, value)
        limit = getattr(self, "default_limit", None)
        for name, size in (("page_size", self.page_size), ("default_limit", 1 if limit is None else limit)):
            if type(size) is not int or size < 1:
                raise ImproperlyConfigured(f"{type(self).__name__}.{name} is a number of 1 or more, not {size!r}")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the query parameters that the paginator reads."""
        return ()

    def check(self, handler: Any) -> None:
        """Raises `ImproperlyConfigured` if the paginator does not fit the handler. Called when it is mounted."""

    async def paginate_queryset(self, queryset: Any, handler: Any) -> Page:
        """The page that ``handler.query_params`` ask for. Raises `NotFound`, `InvalidParameters`."""
        raise NotImplementedError(f"{type(self).__name__}.paginate_queryset")

    def get_page_size(self, handler: Any) -> int:
        """The number of objects on the page that the frame asks for. Raises `InvalidParameters`."""
        return self.page_size

    def get_paginated_response(self, page: Page, results: Sequence[Any]) -> Any:
        """The ``data`` of the ``list`` reply. ``results`` are the serialized objects of the page."""
        count = {} if page.count is None else {"count": page.count}
        return {**count, "next": page.next, "previous": page.previous, "results": results}

    def get_response_type(self, item: Any) -> Any:
        """The type of what `get_paginated_response` returns, if results have the type ``item``."""
        is_overridden = type(self).get_paginated_response is not BasePagination.get_paginated_response
        return Any if is_overridden else PageReply[item]


async def fetch_all(queryset: Any) -> list[Any]:
    """A list of the objects of a queryset, in one call if it has ``fetch()``."""
    objects: list[Any] = await queryset.fetch() if hasattr(queryset, "fetch") else [obj async for obj in queryset]
    return objects


@lru_cache(256)
def _parse_query(query: str) -> tuple[tuple[str, str], ...]:
    return tuple(parse_qsl(query, keep_blank_values=True))


def replace_query(route: str, **values: Any) -> str:
    """The route with these query parameters replaced, or removed if the value is None.

    ``replace_query("cards/?page=2&done=true", page=3)`` is ``"cards/?done=true&page=3"``.
    """
    path, _, query = route.partition("?")
    kept = [(name, value) for name, value in _parse_query(query) if name not in values]
    replaced = [(name, value) for name, value in values.items() if value is not None]
    query = urlencode([*kept, *replaced], safe=",")
    return f"{path}?{query}" if query else path


def parse_number(text: str) -> int | None:
    """The number that a text of at most 19 digits is; None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def requested_size(handler: Any, name: str | None, default: int, maximum: int) -> int:
    """The number in the query parameter ``name``, at most ``maximum``; ``default`` without one.

    Raises `InvalidParameters`.
    """
    if name is None or (text := handler.query_params.get(name)) is None:
        return default
    size = parse_number(text)
    if size == 0 or (size is None and not (text.isascii() and text.isdigit())):
        raise bad_parameter(name, "int_parsing", "Input should be a number of 1 or more")
    return maximum if size is None else min(size, maximum)


MAX_OFFSET = 2**63 - 1  # the largest OFFSET that databases take


class PageNumberPagination(BasePagination):
    """Pages by number: ``cards/?page=4&page_size=20``, ``?page=last``.

    Clients choose the page size, at most ``max_page_size``, unless ``page_size_query_param`` is None. A page that does
    not exist is a 404; the first page of an empty list exists.
    """

    page_query_param: str = "page"
    page_size_query_param: str | None = "page_size"
    max_page_size: int = 1_000
    last_page_strings: tuple[str, ...] = ("last",)

    @property
    def parameters(self) -> tuple[str, ...]:
        return (self.page_query_param, *((self.page_size_query_param,) if self.page_size_query_param else ()))

    def get_page_size(self, handler: Any) -> int:
        return requested_size(handler, self.page_size_query_param, self.page_size, self.max_page_size)

    async def paginate_queryset(self, queryset: Any, handler: Any) -> Page:
        size = self.get_page_size(handler)
        page = handler.query_params.get(self.page_query_param, "1")
        is_last = page in self.last_page_strings
        count = await queryset.count() if self.count or is_last else None
        last = None if count is None else max(1, -(-count // size))
        number = last if is_last else parse_number(page)
        if number is None or number < 1 or (last is not None and number > last) or number * size > MAX_OFFSET:
            raise NotFound(f"There is no page {page[:40]}.", loc=("route", self.page_query_param))
        start = (number - 1) * size
        objects = await fetch_all(queryset[start : start + size + (last is None)])
        if not objects and number > 1:
            raise NotFound(f"There is no page {number}.", loc=("route", self.page_query_param))
        has_next = len(objects) > size if last is None else number < last
        return Page(
            items=objects[:size],
            next=self._route(handler, number + 1) if has_next else None,
            previous=self._route(handler, number - 1) if number > 1 else None,
            count=count if self.count else None,
        )

    def _route(self, handler: Any, number: int) -> str:
        return replace_query(handler.route, **{self.page_query_param: number if number > 1 else None})


class LimitOffsetPagination(BasePagination):
    """Pages by limit and offset: ``cards/?limit=20&offset=60``.

    ``max_limit`` is the maximum. The default limit is ``default_limit``, or else ``page_size``. An offset past the end
    gives an empty list.
    """

    default_limit: int | None = None
    limit_query_param: str = "limit"
    offset_query_param: str = "offset"
    max_limit: int = 1_000

    @property
    def parameters(self) -> tuple[str, ...]:
        return self.limit_query_param, self.offset_query_param

    def get_page_size(self, handler: Any) -> int:
        return requested_size(handler, self.limit_query_param, self.default_limit or self.page_size, self.max_limit)

    async def paginate_queryset(self, queryset: Any, handler: Any) -> Page:
        limit, offset = self.get_page_size(handler), self._offset(handler)
        count = await queryset.count() if self.count else None
        objects = await fetch_all(queryset[offset : offset + limit + (count is None)])
        has_next = len(objects) > limit if count is None else offset + limit < count
        return Page(
            items=objects[:limit],
            next=self._route(handler, limit, offset + limit) if has_next else None,
            previous=self._route(handler, limit, max(0, offset - limit)) if offset else None,
            count=count,
        )

    def _offset(self, handler: Any) -> int:
        offset = parse_number(handler.query_params.get(self.offset_query_param, "0"))
        if offset is None or offset > MAX_OFFSET - self.max_limit - 1:
            raise bad_parameter(self.offset_query_param, "int_parsing", "Input should be a number of 0 or more")
        return offset

    def _route(self, handler: Any, limit: int, offset: int) -> str:
        return replace_query(handler.route, **{self.limit_query_param: limit, self.offset_query_param: offset or None})


def paginator_of(pagination_class: Any, owner: str = "") -> BasePagination | None:
    """The paginator of a handler's ``pagination_class``, a class, an instance or None.

    Raises `ImproperlyConfigured` for anything else; its message begins with ``owner``, such as ``"CardHandler."``.
    """
    paginator: BasePagination | None = pagination_class() if isinstance(pagination_class, type) else pagination_class
    if paginator is not None and not hasattr(paginator, "paginate_queryset"):
        raise ImproperlyConfigured(
            f"{owner}pagination_class is a paginator, as in PageNumberPagination(page_size=20), or None, "
            f"not {paginator!r}"
        )
    return paginator


TAG_SIZE = 16  # bytes of the HMAC that a cursor carries


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in an order, to read from: after the object with these values, or, ``backwards``, before it.

    Without values, it is the start of the list, or its end.
    """

    backwards: bool
    position: Sequence[Any] | None


class CursorPagination(BasePagination):
    """Pages by cursor: ``cards/?cursor=...``. Objects that are inserted or deleted meanwhile do not shift the pages.

    ``next`` and ``previous`` are opaque. They hold the values, in the order's fields, of the last or first object on
    the page.

    ``ordering`` is the order, by default DRF's ``"-created"``; the order of the handler's `OrderingFilter` takes
    precedence. The primary key is added last. If the order uses a relation, its object must be loaded with each object.

    ``page_size_query_param`` lets clients choose the page size, at most ``max_page_size``; by default they cannot.

    ``secret_key`` signs cursors, so that a changed cursor is a 404. It has 16 characters or more and is required: all
    workers must have the same key, or else a cursor is valid at one worker only. Read it from the environment.
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
        return requested_size(handler, self.page_size_query_param, self.page_size, self.max_page_size)

    def check(self, handler: Any) -> None:
        if not isinstance(self.secret_key, str) or len(self.secret_key) < 16:
            raise ImproperlyConfigured(
                f"{handler.__name__}: {type(self).__name__} needs a secret_key of 16 characters or more, the same in "
                'every worker, as in CursorPagination(secret_key=os.environ["SECRET_KEY"])'
            )
        ordering = (handler.ordering,) if isinstance(handler.ordering, str) else handler.ordering
        for attribute, fields in (("ordering", ordering), ("pagination_class", total(self.ordering))):
            check_fields(handler, attribute, [name.removeprefix("-") for name in fields])  # a cursor reveals values
        if handler.queryset is None or handler.ordering:  # unknown before a frame, or checked by the OrderingFilter
            return
        try:
            handler.queryset.order_by(*total(self.ordering))
        except FieldError as exc:
            raise ImproperlyConfigured(
                f"{handler.__name__}.pagination_class: {exc}; set the order, as in {type(self).__name__}(ordering='pk')"
            ) from None

    async def paginate_queryset(self, queryset: Any, handler: Any) -> Page:
        ordering = total(handler.get_ordering() or self.ordering)
        size = self.get_page_size(handler)
        cursor = self._decode(handler, ordering)
        try:
            objects = await fetch_from(queryset, ordering, cursor, size + 1)
        except InvalidLookup:  # the field had another type when the cursor was made
            raise self._invalid_cursor() from None
        has_more, items = len(objects) > size, objects[:size]
        if cursor.backwards:
            items.reverse()
        next_route = previous_route = None
        if not items and cursor.backwards:  # nothing is left before the cursor: go on with the first page
            next_route = replace_query(handler.route, **{self.cursor_query_param: None})
        elif not items and cursor.position is not None:  # nothing is left after the cursor: go back to the last page
            previous_route = self._route(handler, ordering, Cursor(True, None))
        elif items:
            if cursor.position is not None if cursor.backwards else has_more:
                next_route = self._route(handler, ordering, Cursor(False, position(queryset, items[-1], ordering)))
            if has_more if cursor.backwards else cursor.position is not None:
                previous_route = self._route(handler, ordering, Cursor(True, position(queryset, items[0], ordering)))
        count = await queryset.count() if self.count else None
        return Page(items=items, next=next_route, previous=previous_route, count=count)

    def _route(self, handler: Any, ordering: Sequence[str], cursor: Cursor) -> str:
        return replace_query(handler.route, **{self.cursor_query_param: self._encode(ordering, cursor)})

    # ---------------------------------------------------------------------------------------------- as text
    def _encode(self, ordering: Sequence[str], cursor: Cursor) -> str:
        text = json.dumps([cursor.backwards, cursor.position], separators=(",", ":"), ensure_ascii=False)
        payload = text.encode("utf-8", "surrogatepass")  # json.loads() reads this; escapes are longer
        return urlsafe_b64encode(self._tag(ordering, payload) + payload).decode().rstrip("=")

    def _decode(self, handler: Any, ordering: Sequence[str]) -> Cursor:
        text = handler.query_params.get(self.cursor_query_param)
        if text is None:
            return Cursor(False, None)
        try:
            raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        except ValueError:
            raise self._invalid_cursor() from None
        tag, payload = raw[:TAG_SIZE], raw[TAG_SIZE:]
        if not hmac.compare_digest(tag, self._tag(ordering, payload)):
            raise self._invalid_cursor()
        return Cursor(*json.loads(payload))

    def _tag(self, ordering: Sequence[str], payload: bytes) -> bytes:
        """The signature of a cursor. It includes the order, so that a cursor is invalid with any other order."""
        signed = b"\0".join((b"wsaction.cursor", *(name.encode() for name in ordering), payload))
        return hmac.digest(str(self.secret_key).encode(), signed, hashlib.sha256)[:TAG_SIZE]

    def _invalid_cursor(self) -> NotFound:
        return NotFound("This cursor is invalid, or of another order.", loc=("route", self.cursor_query_param))


# ------------------------------------------------------------------------------------------------- places in an order
def total(ordering: str | Sequence[str]) -> tuple[str, ...]:
    """A total order, in which no two objects are equal: each field once, and the primary key last.

    ``total("-created") == ("-created", "pk")``.
    """
    fields: dict[str, str] = {}
    for name in (*((ordering,) if isinstance(ordering, str) else ordering), "pk"):
        fields.setdefault(name.removeprefix("-"), name)
        if "pk" in fields:  # fields after the primary key have no effect
            break
    return tuple(fields.values())


async def fetch_from(queryset: Any, ordering: Sequence[str], cursor: Cursor, limit: int) -> list[Any]:
    """At most ``limit`` objects after the cursor's place, or before it if it is ``backwards``; the nearest first."""
    if cursor.backwards:
        ordering = [name[1:] if name.startswith("-") else f"-{name}" for name in ordering]
    if cursor.position is not None:
        queryset = queryset.filter(conditions_after(ordering, cursor.position))
    return await fetch_all(queryset.order_by(*ordering)[:limit])


async def iterate_pages(ask: Callable[[], Any], ordering: Sequence[str] | None, size: int) -> AsyncIterator[list[Any]]:
    """All objects in lists of ``size``. Each list is fetched when it is needed, from a new queryset of ``ask()``.

    With an ``ordering``, each list starts after the last object before, so that inserts and deletes meanwhile neither
    skip nor repeat objects. Without one, lists are slices.
    """
    place: Sequence[Any] | None = None
    start = 0
    while True:
        queryset = ask()
        if ordering is None:
            objects = await fetch_all(queryset[start : start + size])
            start += size
        else:
            objects = await fetch_from(queryset, ordering, Cursor(False, place), size)
            place = position(queryset, objects[-1], ordering) if objects else place
        if objects:
            yield objects
        if len(objects) < size:
            return


def position(queryset: Any, obj: Any, ordering: Sequence[str]) -> list[Any]:
    """The values of an object in the fields of an order, as JSON data."""
    values = []
    for field in ordering:
        value = obj
        for attribute in _path(queryset, field.removeprefix("-")):
            value = None if value is None else getattr(value, attribute)
        values.append(value)
    plain: list[Any] = to_jsonable_python(values)
    return plain


def _path(queryset: Any, field: str) -> Sequence[str]:
    """The attributes that lead to a field: from the queryset's ``path_of``, or else the parts of its name."""
    if hasattr(queryset, "path_of"):
        path: Sequence[str] = queryset.path_of(field)
        return path
    return [getattr(queryset, "pk", name) if name == "pk" else name for name in field.split("__")]


def conditions_after(ordering: Sequence[str], position: Sequence[Any]) -> Q:
    """The condition for objects after a place in an order; null is greater than every value.

    For ``("-created", "pk")``: ``created`` is less, or it is equal and ``pk`` is greater.
    """
    result: Q | None = None
    same = Q()
    for name, value in zip(ordering, position, strict=True):
        field = name.removeprefix("-")
        after = _after(field, name.startswith("-"), value)
        if after is not None:
            result = same & after if result is None else result | (same & after)
        same &= Q(**{f"{field}__isnull": True}) if value is None else Q(**{field: value})
    return Q(pk__in=[]) if result is None else result


def _after(field: str, descending: bool, value: Any) -> Q | None:
    if value is None:
        return Q(**{f"{field}__isnull": False}) if descending else None
    if value is descending:  # True descending, False ascending: the other follows; some databases cannot compare them
        return Q(**{field: not value}) if descending else Q(**{field: True}) | Q(**{f"{field}__isnull": True})
    if isinstance(value, bool):
        return None if descending else Q(**{f"{field}__isnull": True})
    if descending:
        return Q(**{f"{field}__lt": value})
    if field == "pk":
        return Q(pk__gt=value)
    return Q(**{f"{field}__gt": value}) | Q(**{f"{field}__isnull": True})
