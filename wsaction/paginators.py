"""What paginators are made of: `BasePagination`, the `Page` that one finds, and the query that asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, NotRequired, TypeVar
from urllib.parse import parse_qsl, urlencode

from typing_extensions import TypedDict  # which comes with pydantic, and which it asks for before Python 3.12

from wsaction._utils.hints import refuse_misspelt
from wsaction.exceptions import ImproperlyConfigured, InvalidParameters

__all__ = (
    "BasePagination",
    "Page",
    "PageReply",
    "all_of",
    "asked_size",
    "bad_parameter",
    "number_of",
    "replace_query",
)

T = TypeVar("T")


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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_misspelt(cls)

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


async def all_of(queryset: Any) -> list[Any]:
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


def number_of(text: str) -> int | None:
    """Digits as a number; None for anything else, or more of them than any number here has."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def asked_size(handler: Any, name: str | None, default: int, most: int) -> int:
    """What the query's parameter of this name asks for, of ``most`` at most. Raises `InvalidParameters`."""
    if name is None or (asked := handler.query_params.get(name)) is None:
        return default
    size = number_of(asked)
    if not size and not (asked.isascii() and asked.isdigit() and size is None):
        raise bad_parameter(name, "int_parsing", "Input should be a number of 1 or more")
    return min(size or most, most)
