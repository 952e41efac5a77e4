"""Filter backends: the query parameters that filter, search and order a list.

``cards/?done=true&search=milk&ordering=-created,title``. A generic handler calls its ``filter_backends``, instances or
classes, in turn. Clients can use only the fields that the handler lists, and a `WriteOnly` field cannot be listed. A
parameter that no filter and no paginator reads is a 400: a list that ignored it would return too much.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wsaction._utils.misspellings import refuse_misspelt
from wsaction.exceptions import ImproperlyConfigured, bad_parameter
from wsaction.querysets._lookups import LOOKUPS, FieldError, InvalidLookup, Q
from wsaction.serializers._write_only import check_fields

__all__ = ("BaseFilterBackend", "FieldFilter", "OrderingFilter", "SearchFilter", "check_query")


class BaseFilterBackend:
    """Base class of filter backends. A subclass implements `filter_queryset` and names its parameters."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_misspelt(cls)

    def parameters(self, handler: Any) -> Sequence[str]:
        """The names of the query parameters that the backend reads for this handler."""
        return ()

    def check(self, handler: Any) -> None:
        """Raises `ImproperlyConfigured` for invalid attributes of the handler. Called when the handler is mounted.

        ``handler`` has the handler's attributes, with those that the mount sets, and its ``__name__``.
        """

    def filter_queryset(self, queryset: Any, handler: Any) -> Any:
        """The queryset, filtered or ordered by ``handler.query_params``.

        Raises `wsaction.exceptions.InvalidParameters`.
        """
        raise NotImplementedError(f"{type(self).__name__}.filter_queryset")


class FieldFilter(BaseFilterBackend):
    """Filters by the fields in ``filter_fields``: ``?done=true&title__icontains=milk``.

    ``filter_fields = ("done", "owner_id")`` allows ``exact`` alone; ``{"title": ["exact", "icontains"]}`` names the
    lookups. ``in`` and ``range`` take values separated by commas.
    """

    def parameters(self, handler: Any) -> Sequence[str]:
        return tuple(_parameter_lookups(handler.filter_fields))

    def check(self, handler: Any) -> None:
        lookups = _parameter_lookups(handler.filter_fields)
        if not lookups:
            raise ImproperlyConfigured(
                f"{handler.__name__} has a FieldFilter and lists no fields for it; set filter_fields = ('done',)"
            )
        check_fields(handler, "filter_fields", lookups)
        for name, lookup in lookups.items():
            if lookup not in LOOKUPS:
                raise ImproperlyConfigured(
                    f"{handler.__name__}.filter_fields: {name} names the unknown lookup {lookup!r}; there are "
                    f"{', '.join(LOOKUPS)}"
                )
            value = ["0", "0"] if lookup in ("in", "range") else "0"
            _check_narrowing(handler, "filter_fields", "filter", **{name: value})

    def filter_queryset(self, queryset: Any, handler: Any) -> Any:
        params = handler.query_params
        for name, lookup in _parameter_lookups(handler.filter_fields).items():
            if name in params:
                value: Any = params[name].split(",") if lookup in ("in", "range") else params[name]
                try:
                    queryset = queryset.filter(**{name: value})
                except InvalidLookup as exc:
                    raise bad_parameter(name, "value_error", _to_sentence(exc.msg)) from None
        return queryset


class SearchFilter(BaseFilterBackend):
    """Searches the fields in ``search_fields``: ``?search=milk "two bottles"``.

    Every word, and every phrase in quotes, must be in one of the fields, ignoring case. The prefix ``^`` of a field
    means that its value begins with the word, case-sensitively; ``=`` means that it equals the word, ignoring case.
    ``search_param`` is the parameter's name, ``max_words`` the maximum number of words.
    """

    search_param: str = "search"
    max_words: int = 16

    def parameters(self, handler: Any) -> Sequence[str]:
        return (self.search_param,)

    def check(self, handler: Any) -> None:
        fields: Sequence[str] = handler.search_fields
        if not fields or isinstance(fields, str):
            raise ImproperlyConfigured(
                f"{handler.__name__} has a SearchFilter and lists no fields for it; set search_fields = ('title',)"
            )
        if invalid := [name for name in fields if name[:1] in ("@", "$")]:
            raise ImproperlyConfigured(
                f"{handler.__name__}.search_fields: {', '.join(invalid)}: a field begins with ^, with = or with "
                "neither; not every queryset can search full text or regular expressions"
            )
        check_fields(handler, "search_fields", [name.lstrip("^=") for name in fields])
        for name in fields:
            _check_narrowing(handler, "search_fields", "filter", **{_search_lookup(name): "0"})

    def filter_queryset(self, queryset: Any, handler: Any) -> Any:
        words = _split_words(handler.query_params.get(self.search_param, ""))
        if len(words) > self.max_words:
            msg = f"A search takes at most {self.max_words} words"
            raise bad_parameter(self.search_param, "too_long", msg, max_length=self.max_words)
        for word in words:
            anywhere = Q()
            for field in handler.search_fields:
                anywhere |= Q(**{_search_lookup(field): word})
            queryset = queryset.filter(anywhere)
        return queryset


class OrderingFilter(BaseFilterBackend):
    """Orders by the fields in ``ordering_fields``: ``?ordering=-created,title``. The default is ``ordering``."""

    ordering_param: str = "ordering"

    def parameters(self, handler: Any) -> Sequence[str]:
        return (self.ordering_param,)

    def check(self, handler: Any) -> None:
        if isinstance(handler.ordering_fields, str):
            raise ImproperlyConfigured(
                f"{handler.__name__}.ordering_fields takes names, as in ({handler.ordering_fields!r},), not a string"
            )
        for attribute in ("ordering_fields", "ordering"):
            names = _as_tuple(getattr(handler, attribute))
            check_fields(handler, attribute, [name.removeprefix("-") for name in names])
            _check_narrowing(handler, attribute, "order_by", *names)

    def get_ordering(self, handler: Any) -> Sequence[str]:
        """The fields to order by: those of the parameter, or else the handler's ``ordering``."""
        allowed = list(handler.ordering_fields)
        fields: dict[str, str] = {}
        for name in filter(None, map(str.strip, handler.query_params.get(self.ordering_param, "").split(","))):
            if name.removeprefix("-") not in allowed:
                msg = f"This list can be ordered by {', '.join(allowed) or 'nothing'}"
                raise bad_parameter(self.ordering_param, "literal_error", msg, allowed=allowed)
            fields.setdefault(name.removeprefix("-"), name)  # a repeated field has no effect
        return tuple(fields.values()) or _as_tuple(handler.ordering)

    def filter_queryset(self, queryset: Any, handler: Any) -> Any:
        ordering = self.get_ordering(handler)
        return queryset.order_by(*ordering) if ordering else queryset


def check_query(parameters: Iterable[tuple[str, str]], allowed: Sequence[str]) -> None:
    """Raises `wsaction.exceptions.InvalidParameters` for unknown and repeated parameters, and for null characters."""
    seen: set[str] = set()
    for name, value in parameters:
        if name not in allowed:
            msg = f"Unknown parameter; there are {', '.join(allowed) or 'none'}"
            raise bad_parameter(name[:100], "extra_forbidden", msg, allowed=list(allowed))
        if name in seen:
            raise bad_parameter(name, "value_error", "The parameter is given more than once")
        if "\0" in value:
            raise bad_parameter(name, "value_error", "The value must not contain a null character")
        seen.add(name)


def _check_narrowing(handler: Any, attribute: str, method: str, /, *fields: str, **lookups: Any) -> None:
    """Raises `ImproperlyConfigured` if the handler's queryset does not know a listed field."""
    if handler.queryset is None:  # get_queryset() makes it for each frame
        return
    try:
        getattr(handler.queryset, method)(*fields, **lookups)
    except FieldError as exc:
        raise ImproperlyConfigured(f"{handler.__name__}.{attribute}: {exc}") from None
    except InvalidLookup:  # the field exists; the value of this trial does not fit it
        return


def _as_tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _parameter_lookups(fields: Any) -> Mapping[str, str]:
    """The lookup of each parameter: ``{"title": ["exact", "lt"]}`` has the parameters ``title`` and ``title__lt``."""
    if not isinstance(fields, Mapping):
        fields = dict.fromkeys((fields,) if isinstance(fields, str) else fields, ("exact",))
    return {
        name if lookup == "exact" else f"{name}__{lookup}": lookup
        for name, lookups in fields.items()
        for lookup in lookups
    }


def _split_words(text: str) -> list[str]:
    """The words and quoted phrases of a search: ``'milk "two bottles"'`` has two. Commas separate words too."""
    return [quoted or word for quoted, word in re.findall(r'"([^"]+)"|([^\s,"]+)', text)]


def _search_lookup(field: str) -> str:
    lookup = {"^": "startswith", "=": "iexact"}.get(field[:1])
    return f"{field}__icontains" if lookup is None else f"{field[1:]}__{lookup}"


def _to_sentence(text: str) -> str:
    return (text[:1].upper() + text[1:]).removesuffix(".")
