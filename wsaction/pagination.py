"""Pagination: a long list in parts, by DRF's names. A page is asked for in the route, ``cards/?page=4``.

A paginator is an instance made once, or for each frame, and keeps nothing of either: what it finds is a `Page`.
``pagination_class = PageNumberPagination`` and ``pagination_class = PageNumberPagination(page_size=20)`` are both
welcome. `wsaction.cursors` has `CursorPagination`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, NotRequired, TypeVar
from urllib.parse import parse_qsl, urlencode

from typing_extensions import TypedDict  # which comes with pydantic, and which it asks for before Python 3.12

from wsaction.exceptions import ImproperlyConfigured, InvalidParameters, NotFound

__all__ = (
    "BasePagination",
    "LimitOffsetPagination",
    "Page",
    "PageNumberPagination",
    "PageReply",
    "asked_size",
    "bad_parameter",
    "paginator_of",
    "replace_query",
)

T = TypeVar("T")

MAX_OFFSET = 2**63 - 1  # which databases can count to


class PageReply(TypedDict, Generic[T]):
    """What a paginated ``list`` answers; ``next`` and ``previous`` are routes; ``count`` may be off."""

    count: NotRequired[int]
    next: str | None
    previous: str | None
    results: list[T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page: its objects, the routes of its neighbours, and how many objects there are on all pages, if known."""

    items: Sequence[Any]
    next: str | None = None
    previous: str | None = None
    count: int | None = None


class BasePagination:
    """A paginator. A subclass finds the page in `paginate_queryset` and names the query parameters that it reads.

    ``page_size``: how many objects a page has. ``count``: whether their number on all pages is told, which costs a
    query. Keyword arguments set attributes that the class has; others are refused with `ImproperlyConfigured`.
    """

    page_size: int = 100
    count: bool = True

    def __init__(self, **options: Any) -> None:
        for name, value in options.items():
            if name.startswith("_") or not hasattr(type(self), name) or callable(getattr(type(self), name)):
                raise ImproperlyConfigured(f"{type(self).__name__} has no option {name!r}")
            setattr(self, name, value)
        own = getattr(self, "default_limit", None)
        for name, size in (("page_size", self.page_size), ("default_limit", 1 if own is None else own)):
            if type(size) is not int or size < 1:
                raise ImproperlyConfigured(f"{type(self).__name__}.{name} is a number of 1 or more, not {size!r}")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the query parameters that it reads."""
        return ()

    def check(self, handler: Any) -> None:
        """Raises `ImproperlyConfigured` where it lacks something; asked when a handler is mounted."""

    async def paginate_queryset(self, queryset: Any, handler: Any) -> Page:
        """The page that the handler's frame asks for. Raises `NotFound`, `InvalidParameters`."""
        raise NotImplementedError(f"{type(self).__name__}.paginate_queryset")

    def get_page_size(self, handler: Any) -> int:
        """How many objects the frame asks for at once."""
        return self.page_size

    def get_paginated_response(self, page: Page, results: Sequence[Any]) -> Any:
        """What ``list`` answers; ``results`` are the page's objects, serialised."""
        told = {} if page.count is None else {"count": page.count}
        return {**told, "next": page.next, "previous": page.previous, "results": results}

    def get_response_type(self, item: Any) -> Any:
        """The type of what `get_paginated_response` answers, of results of the type ``item``."""
        is_own = type(self).get_paginated_response is not BasePagination.get_paginated_response
        return Any if is_own else PageReply[item]


class PageNumberPagination(BasePagination):
    """Pages by number: ``cards/?page=4&page_size=20``, ``?page=last``.

    ``page_size_query_param = None`` leaves the size to the server; ``max_page_size`` caps what a client asks for. A
    page that there is not is a 404, the first one of an empty list excepted.
    """

    page_query_param: str = "page"
    page_size_query_param: str | None = "page_size"
    max_page_size: int = 1_000
    last_page_strings: tuple[str, ...] = ("last",)

    @property
    def parameters(self) -> tuple[str, ...]:
        return (self.page_query_param, *((self.page_size_query_param,) if self.page_size_query_param else ()))

    def get_page_size(self, handler: Any) -> int:
        return asked_size(handler, self.page_size_query_param, self.page_size, self.max_page_size)

    async def paginate_queryset(self, queryset: Any, handler: Any) -> Page:
        size, asked = self.get_page_size(handler), handler.query_params.get(self.page_query_param, "1")
        is_last = asked in self.last_page_strings
        count = await queryset.count() if self.count or is_last else None
        last = None if count is None else max(1, -(-count // size))
        number = last if is_last else _number(asked)
        if number is None or number < 1 or (last is not None and number > last) or number * size > MAX_OFFSET:
            raise NotFound(f"There is no page {asked[:40]}.", loc=("route", self.page_query_param))
        start = (number - 1) * size
        found = await _all_of(queryset[start : start + size + (last is None)])
        if not found and number > 1:
            raise NotFound(f"There is no page {number}.", loc=("route", self.page_query_param))
        has_next = len(found) > size if last is None else number < last
        return Page(
            items=found[:size],
            next=self._route(handler, number + 1) if has_next else None,
            previous=self._route(handler, number - 1) if number > 1 else None,
            count=count if self.count else None,
        )

    def _route(self, handler: Any, number: int) -> str:
        return replace_query(handler.route, **{self.page_query_param: number if number > 1 else None})


class LimitOffsetPagination(BasePagination):
    """So many objects from there on: ``cards/?limit=20&offset=60``; ``limit`` is capped by ``max_limit``.

    ``default_limit``, or else ``page_size``, is the limit where none is asked for. Past the end, the list is empty.
    """

    default_limit: int | None = None
    limit_query_param: str = "limit"
    offset_query_param: str = "offset"
    max_limit: int = 1_000

    @property
    def parameters(self) -> tuple[str, ...]:
        return self.limit_query_param, self.offset_query_param

    def get_page_size(self, handler: Any) -> int:
        return asked_size(handler, self.limit_query_param, self.default_limit or self.page_size, self.max_limit)

    async def paginate_queryset(self, queryset: Any, handler: Any) -> Page:
        limit, offset = self.get_page_size(handler), self._offset(handler)
        count = await queryset.count() if self.count else None
        found = await _all_of(queryset[offset : offset + limit + (count is None)])
        has_next = len(found) > limit if count is None else offset + limit < count
        return Page(
            items=found[:limit],
            next=self._route(handler, limit, offset + limit) if has_next else None,
            previous=self._route(handler, limit, max(0, offset - limit)) if offset else None,
            count=count,
        )

    def _offset(self, handler: Any) -> int:
        asked = handler.query_params.get(self.offset_query_param, "0")
        offset = _number(asked)
        if offset is None or offset > MAX_OFFSET - self.max_limit - 1:
            raise bad_parameter(self.offset_query_param, "int_parsing", "Input should be a number of 0 or more")
        return offset

    def _route(self, handler: Any, limit: int, offset: int) -> str:
        return replace_query(handler.route, **{self.limit_query_param: limit, self.offset_query_param: offset or None})


async def _all_of(queryset: Any) -> list[Any]:
    """The objects of a queryset, at once where it can do that."""
    found: list[Any] = await queryset.fetch() if hasattr(queryset, "fetch") else [one async for one in queryset]
    return found


@lru_cache(256)
def _parsed(query: str) -> tuple[tuple[str, str], ...]:
    return tuple(parse_qsl(query, keep_blank_values=True))


def replace_query(route: str, **values: Any) -> str:
    """A route with some of its query's parameters replaced, or left out where they are None.

    ``replace_query("cards/?page=2&done=true", page=3)`` is ``"cards/?done=true&page=3"``.
    """
    path, _, query = route.partition("?")
    kept = [(name, value) for name, value in _parsed(query) if name not in values]
    asked = urlencode([*kept, *((name, value) for name, value in values.items() if value is not None)], safe=",")
    return f"{path}?{asked}" if asked else path


def bad_parameter(name: str, type: str, msg: str, **ctx: Any) -> InvalidParameters:
    """The 400 for a parameter of the route's query, at ``["route", name]``."""
    item: dict[str, Any] = {"type": type, "msg": f"{msg}.", "loc": ["route", name]}
    return InvalidParameters([{**item, "ctx": ctx} if ctx else item])


def _number(text: str) -> int | None:
    """Digits as a number; None for anything else, or more of them than any number here has."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def asked_size(handler: Any, name: str | None, default: int, most: int) -> int:
    """What the query's parameter of this name asks for, of ``most`` at most. Raises `InvalidParameters`."""
    if name is None or (asked := handler.query_params.get(name)) is None:
        return default
    size = _number(asked)
    if not size and not (asked.isascii() and asked.isdigit() and size is None):
        raise bad_parameter(name, "int_parsing", "Input should be a number of 1 or more")
    return min(size or most, most)


def paginator_of(pagination_class: Any, owner: str = "") -> BasePagination | None:
    """The paginator that a handler's ``pagination_class`` is or makes; None where that is None.

    Raises `ImproperlyConfigured` for what is none; ``owner`` is whose it is, ``"CardHandler."``.
    ``paginator_of(PageNumberPagination(page_size=20)).page_size`` is 20.
    """
    made: BasePagination | None = pagination_class() if isinstance(pagination_class, type) else pagination_class
    if made is not None and not hasattr(made, "paginate_queryset"):
        raise ImproperlyConfigured(
            f"{owner}pagination_class is a paginator, as in PageNumberPagination(page_size=20), or None, not {made!r}"
        )
    return made
