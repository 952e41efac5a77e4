"""Declare, resolve and reverse routes: `path`, `re_path`, `include` and `Router`.

    router = Router([path("boards/<int:pk>/", view, name="board")])
    router.resolve("boards/7/").kwargs         # {"pk": 7}
    router.reverse("board", kwargs={"pk": 7})  # "boards/7/"

The results are those of ``django.urls`` 5.2, but routes have no leading slash and are never percent-encoded. A ``?``
has no meaning here: split off a query before you resolve. Django's pattern objects work too; Django itself is not
imported. The differences:

- Patterns are compiled and includes are read once, when they are declared. So patterns cannot include themselves or
  depend on the language. A parameter used twice in a route, a second converter of the same name, and a converter whose
  regex has a named group are refused then.
- Some patterns make ``django.urls.reverse`` fail with another error than NoReverseMatch: a ``%`` in a route, flags or
  another irreversible construct anywhere in the URLconf, the same parameter in an include and below it, a parameter
  left to its default. Here such a pattern is skipped, and a ``%`` is ordinary text.
- A pattern whose literals do not fit is not tried. So a converter that raises an error other than ValueError is called
  less often.

Wrong declarations raise ``ImproperlyConfigured`` or ``TypeError``. A route that no pattern matches raises
``Resolver404``; a name or arguments that no pattern has raise ``NoReverseMatch``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from types import MethodType, ModuleType
from typing import Any, NamedTuple, overload

from wsaction.routing._patterns import Endpoint, Include, Pattern, compile_regex, compile_route
from wsaction.routing._resolver import Leaf, Memo, ResolverMatch, flatten
from wsaction.routing._reverse import Reverser
from wsaction.routing._trie import Outline, Trie, outline
from wsaction.routing.exceptions import ImproperlyConfigured, Resolver404

_MOUNT_METHODS = ("as_asgi", "as_aaah", "as_view")  # as_asgi first: a consumer has as_aaah too


class Included(NamedTuple):
    """The result of ``include()``, for ``path()`` to mount below a route."""

    patterns: Sequence[Endpoint | Include]
    app_name: str | None
    namespace: str | None


class Router:
    """Resolves routes to views, and reverses names to routes. Immutable; safe to share between tasks and threads.

    :param patterns: a list of ``path()`` and ``re_path()`` patterns, or of Django's pattern objects.
    :raises ImproperlyConfigured: if the list holds something else.
    """

    def __init__(self, patterns: Iterable[Any]) -> None:
        self.patterns = convert_patterns(patterns, "Router()")
        self.leaves: list[Leaf] = flatten(self.patterns, self.resolve)
        self._trie = Trie()
        outlines = {pattern: outline(pattern) for leaf in self.leaves for pattern in leaf.patterns}
        for leaf in self.leaves:
            self._trie.add(sum(map(outlines.__getitem__, leaf.patterns), Outline((), False)), leaf.index)

    def resolve(self, route: str) -> ResolverMatch:
        """The match of the first declared pattern that matches ``route``.

        The cost does not grow with the number of ``path()`` and ``^literal`` patterns.

        :raises Resolver404: if no pattern matches.
        """
        memo: Memo = {}
        for index in self._trie.candidates(route):
            match = self.leaves[index].match(route, memo)
            if match is not None:
                return match
        raise Resolver404(route, self.leaves)

    def reverse(self, name: Any, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None) -> str:
        """The route of the pattern called ``name``. The last declared pattern that takes these arguments wins.

        :param name: ``"name"``, ``"namespace:name"``, or a view.
        :param args: the values of the parameters, in order.
        :param kwargs: the values of the parameters by name, instead of ``args``.
        :raises NoReverseMatch: if no pattern has that name or takes these arguments.
        :raises ValueError: if both ``args`` and ``kwargs`` are given.

        ``reverse("board", kwargs={"pk": 7})`` is ``"boards/7/"``, as is ``reverse("board", [7])``.
        """
        if args and kwargs:
            raise ValueError("reverse() takes args or kwargs, got both; pass all parameters in one of them.")
        return self._reverser.reverse(name, args or (), kwargs or {})

    @cached_property
    def _reverser(self) -> Reverser:
        return Reverser(self.patterns)


@overload
def path(
    route: str,
    view: tuple[Any, str | None, str | None],
    kwargs: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Include: ...
@overload
def path(
    route: str, view: Callable[..., Any], kwargs: Mapping[str, Any] | None = None, name: str | None = None
) -> Endpoint: ...
def path(route: str, view: Any, kwargs: Mapping[str, Any] | None = None, name: str | None = None) -> Endpoint | Include:
    """Declare a route that leads to a view.

    :param route: the text to match, with parameters such as ``<pk>`` or ``<int:pk>``.
    :param view: a callable, or ``include(...)`` for more patterns below this route.
    :param kwargs: further keyword arguments for the view; they win over the captures of this pattern.
    :param name: the name for ``Router.reverse()``; ignored for an include.
    :raises ImproperlyConfigured: if angle brackets contain white space, a converter is unknown, or a parameter is not
        an identifier or is used twice.
    :raises TypeError: if the view is neither callable nor an include, the route is not a string, or ``kwargs`` is not
        a mapping.

    ``path("boards/<int:pk>/", view, name="board")`` matches ``boards/7/``.
    """
    return _declare(compile_route, route, view, kwargs, name)


@overload
def re_path(
    route: str,
    view: tuple[Any, str | None, str | None],
    kwargs: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Include: ...
@overload
def re_path(
    route: str, view: Callable[..., Any], kwargs: Mapping[str, Any] | None = None, name: str | None = None
) -> Endpoint: ...
def re_path(
    route: str, view: Any, kwargs: Mapping[str, Any] | None = None, name: str | None = None
) -> Endpoint | Include:
    r"""Declare a route by a regular expression.

    Named groups become keyword arguments. If there are none, unnamed groups become positional arguments. The regex is
    searched for: without ``^`` it may match anywhere in a route, and without ``$`` any text may follow.

    The parameters are those of ``path()``.

    :raises ImproperlyConfigured: if the regex does not compile.
    :raises TypeError: as ``path()`` does.

    ``re_path(r"^boards/(?P<pk>[0-9]+)/$", view)`` matches ``boards/7/`` and captures ``{"pk": "7"}``.
    """
    return _declare(compile_regex, route, view, kwargs, name)


def include(source: Any, namespace: str | None = None) -> Included:
    """Include patterns below a route: ``path("boards/", include([...]))``.

    :param source: a list of patterns; a tuple ``(patterns, app_name)``; a ``Router``; or a module, or its dotted name,
        with ``routepatterns`` (or ``urlpatterns``) and optionally an ``app_name``.
    :param namespace: the name of this instance of the app; by default, the app name.
    :raises ImproperlyConfigured: if ``source`` has no list of patterns, is a tuple of another length, or a namespace
        comes without an app name.

    With ``path("v1/", include((patterns, "boards")))``, ``reverse("boards:detail", [7])`` finds the pattern ``detail``.
    """
    app_name = None
    if isinstance(source, tuple):
        if len(source) != 2:
            raise ImproperlyConfigured(
                f"include() takes a 2-tuple of the list of patterns and the app_name, got {len(source)} items; "
                "pass patterns as a list, and the namespace as namespace=."
            )
        source, app_name = source
    if isinstance(source, str):
        source = import_module(source)
    app_name = getattr(source, "app_name", app_name)
    if not isinstance(app_name, str | None):
        raise ImproperlyConfigured(f"An app_name is a string, got {app_name!r}; pass several patterns as a list.")
    if namespace and not app_name:
        raise ImproperlyConfigured(
            f"include() got the namespace {namespace!r} without an app_name; set app_name in the included module, "
            "or pass the 2-tuple (patterns, app_name)."
        )
    return Included(_patterns_of(source), app_name, namespace or app_name)


def endpoint_and_children(pattern: Any, children: Iterable[Any]) -> tuple[Endpoint, Include]:
    """An endpoint, and an include of more patterns below it: for a handler that has patterns of its own.

    :param pattern: an endpoint, wsaction's or Django's. For the include, a regex loses the ``$`` or ``\\Z`` at its end.
    :param children: the patterns below; they get the endpoint's captures and its default kwargs.
    :raises ImproperlyConfigured: if ``pattern`` is not an endpoint, or ``children`` is not a list of patterns.

    ``endpoint_and_children(path("boards/<int:pk>/", view), [path("cards/", cards)])`` matches ``boards/7/`` and
    ``boards/7/cards/``.
    """
    endpoint = convert_pattern(pattern)
    if not isinstance(endpoint, Endpoint):
        raise ImproperlyConfigured(f"expected an endpoint, got the include {endpoint.pattern.source!r}")
    below = convert_patterns(children, "endpoint_and_children()")
    return endpoint, Include(endpoint.pattern.prefix(), below, endpoint.kwargs, None, None)


def convert_pattern(pattern: Any) -> Endpoint | Include:
    """Convert a pattern of Django's ``path()`` or ``re_path()``. A pattern of wsaction's is returned unchanged.

    :raises ImproperlyConfigured: if it is not a pattern, depends on the language, or includes itself.

    ``adopt(django.urls.path("boards/<int:pk>/", view)).pattern.source`` is ``"boards/<int:pk>/"``.
    """
    return pattern if isinstance(pattern, Endpoint | Include) else _adopt_django_pattern(pattern, ())


def _adopt_django_pattern(pattern: Any, ancestors: tuple[Any, ...]) -> Endpoint | Include:
    text: Any = getattr(pattern, "pattern", None)
    is_endpoint = not hasattr(pattern, "url_patterns")
    if hasattr(text, "_route"):
        compiled = compile_route(str(text._route), is_endpoint, text.converters)
    elif hasattr(text, "_regex"):
        compiled = compile_regex(str(text._regex), is_endpoint)
    else:
        raise ImproperlyConfigured(f"A pattern is what path() or re_path() returns, got {pattern!r}.")
    if is_endpoint:
        return Endpoint(compiled, _checked_view(pattern.callback), dict(pattern.default_args), pattern.name)
    if any(outer is pattern for outer in ancestors):
        raise ImproperlyConfigured(f"The include {compiled.source!r} includes itself; a router's patterns are finite.")
    children = tuple(
        child if isinstance(child, Endpoint | Include) else _adopt_django_pattern(child, (*ancestors, pattern))
        for child in pattern.url_patterns
    )
    return Include(compiled, children, dict(pattern.default_kwargs), pattern.app_name, pattern.namespace)


def convert_patterns(patterns: Any, where: str) -> tuple[Endpoint | Include, ...]:
    """Convert a list of patterns; see `convert_pattern`.

    :param where: the caller, for the error message.
    :raises ImproperlyConfigured: if ``patterns`` is not a list of patterns.

    ``convert_patterns([path("boards/", view)], "Router()")`` is a tuple of that pattern.
    """
    if isinstance(patterns, Endpoint | Include):
        raise ImproperlyConfigured(f"{where} takes a list, and got one path(); put it in one: [path(...)].")
    if isinstance(patterns, str | Mapping) or not isinstance(patterns, Iterable):
        cure = "; pass its urls" if isinstance(getattr(patterns, "urls", None), list) else ""
        raise ImproperlyConfigured(
            f"{where} takes a list of what path() and re_path() return, got {patterns!r:.80}{cure}."
        )
    return tuple(map(convert_pattern, patterns))


def _patterns_of(source: Any) -> tuple[Endpoint | Include, ...]:
    if isinstance(source, Router):
        return source.patterns
    patterns = getattr(source, "routepatterns", getattr(source, "urlpatterns", source))
    if patterns is source and isinstance(source, ModuleType):
        raise ImproperlyConfigured(
            f"The included module {source.__name__!r} has no routepatterns; if it should have them, look for two "
            "modules that import each other."
        )
    return convert_patterns(patterns, "include()")


def _declare(
    compiler: Callable[[str, bool], Pattern], route: str, view: Any, kwargs: Mapping[str, Any] | None, name: str | None
) -> Endpoint | Include:
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs must be a mapping, got {type(kwargs).__name__} {kwargs!r}; a name is passed as name=.")
    if isinstance(view, list | tuple):
        if len(view) != 3:
            raise TypeError(f"The view of {route!r} is a {type(view).__name__}; put include() around patterns.")
        patterns, app_name, namespace = view
        return Include(compiler(route, False), _patterns_of(patterns), dict(kwargs or {}), app_name, namespace)
    return Endpoint(compiler(route, True), _checked_view(view), dict(kwargs or {}), name)


def _checked_view(view: Any) -> Any:
    """``view``, if it can be a view.

    :raises TypeError: if it cannot; the message says what to write instead.
    """
    view_class = view if isinstance(view, type) else type(view)
    method = next((method for method in _MOUNT_METHODS if callable(getattr(view_class, method, None))), None)
    if method is not None and (isinstance(view, type) or not callable(view)):
        raise TypeError(
            f"The view must be a callable: pass {view_class.__name__}.{method}(), "
            f"not {view_class.__name__}{'' if view_class is view else '()'}."
        )
    if isinstance(view, MethodType) and view.__name__ in _MOUNT_METHODS:
        raise TypeError(f"The view must be what {view.__qualname__}() returns: call it.")
    if isinstance(view, str):
        raise TypeError(f"The view must be a callable, got the string {view!r}: import it and pass the object.")
    if not callable(view):
        raise TypeError(f"The view must be a callable, or include() around patterns, got {view!r}.")
    return view
