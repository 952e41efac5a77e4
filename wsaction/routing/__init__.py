"""Routes like Django's: `path()`, `re_path()` and `include()` declare them, a `Router` resolves and reverses them.

The package imports the standard library alone, so that the router can be used without the rest of wsaction::

    router = Router([path("boards/<int:pk>/", get_board, name="board")])
    router.resolve("boards/7/").kwargs  # {"pk": 7}
    router.reverse("board", kwargs={"pk": 7})  # "boards/7/"
"""

from wsaction.routing._resolver import ResolverMatch
from wsaction.routing._urlconf import Router, include, path, re_path
from wsaction.routing.converters import Converter, register_converter
from wsaction.routing.exceptions import ImproperlyConfigured, NoReverseMatch, Resolver404

__all__ = (
    "Converter",
    "ImproperlyConfigured",
    "NoReverseMatch",
    "Resolver404",
    "ResolverMatch",
    "Router",
    "include",
    "path",
    "re_path",
    "register_converter",
)
