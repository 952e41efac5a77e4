"""Pagination: a long list in parts, by DRF's names. A page is asked for in the route, ``cards/?page=4``.

A paginator is an instance made once, or for each frame, and keeps nothing of either: what it finds is a `Page`.
``pagination_class = PageNumberPagination`` and ``pagination_class = PageNumberPagination(page_size=20)`` are both
welcome.
"""

from typing import Any

from wsaction.cursors import CursorPagination
from wsaction.exceptions import ImproperlyConfigured, NotFound
from wsaction.paginators import (
    BasePagination,
    Page,
    PageReply,
    all_of,
    asked_size,
    bad_parameter,
    number_of,
    replace_query,
)

__all__ = (
    "BasePagination",
    "CursorPagination",
    "LimitOffsetPagination",
    "Page",
    "PageNumberPagination",
    "PageReply",
    "paginator_of",
    "replace_query",
)

MAX_OFFSET = 2**63 - 1  # which databases can count to


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
        number = last if is_last else number_of(asked)
        if number is None or number < 1 or (last is not None and number > last) or number * size > MAX_OFFSET:
            raise NotFound(f"There is no page {asked[:40]}.", loc=("route", self.page_query_param))
        start = (number - 1) * size
        found = await all_of(queryset[start : start + size + (last is None)])
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
        found = await all_of(queryset[offset : offset + limit + (count is None)])
        has_next = len(found) > limit if count is None else offset + limit < count
        return Page(
            items=found[:limit],
            next=self._route(handler, limit, offset + limit) if has_next else None,
            previous=self._route(handler, limit, max(0, offset - limit)) if offset else None,
            count=count,
        )

    def _offset(self, handler: Any) -> int:
        asked = handler.query_params.get(self.offset_query_param, "0")
        offset = number_of(asked)
        if offset is None or offset > MAX_OFFSET - self.max_limit - 1:
            raise bad_parameter(self.offset_query_param, "int_parsing", "Input should be a number of 0 or more")
        return offset

    def _route(self, handler: Any, limit: int, offset: int) -> str:
        return replace_query(handler.route, **{self.limit_query_param: limit, self.offset_query_param: offset or None})


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
