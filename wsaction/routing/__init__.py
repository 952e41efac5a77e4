"""URL routing like Django's: declare routes with `path()`, `re_path()` and `include()`; resolve and reverse them.

The package imports only the standard library, so you can use the `Router` without the rest of wsaction::

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
