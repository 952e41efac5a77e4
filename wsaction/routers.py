"""`SimpleRouter`: a list route and a detail route for each handler, as in Django REST framework.

Register handlers and use the router's routes::

    router = SimpleRouter()
    router.register("cards", CardHandler)
    router.urls  # cards/ is "card-list", cards/<pk>/ is "card-detail"
"""

from typing import Any

from wsaction._utils.misspellings import refuse_misspelt
from wsaction.routing import ImproperlyConfigured, include, path, re_path
from wsaction.routing._patterns import Endpoint, Include

__all__ = ("SimpleRouter", "lookup_name")

_LIST_ACTIONS = ("list", "create")
_DETAIL_ACTIONS = ("retrieve", "update", "partial_update", "destroy")
_SHARED_ACTIONS = ("subscribe", "unsubscribe", "presence")


class SimpleRouter:
    """Routes for handlers: ``routepatterns = router.urls``, or ``path("v1/", include(router.urls))``.

    The list route has ``list`` and ``create``. The detail route has ``retrieve``, ``update``, ``partial_update`` and
    ``destroy``. Both have the actions of `wsaction.subscriptions` and `wsaction.presence`.

    Another action is on the detail route with ``@async_action(detail=True)``, on the list route with ``detail=False``.
    Without ``detail``, it is on the detail route if it has a parameter with the name of the captured key, as in
    ``async def move(self, pk: int)``, else on the list route.

    The key is captured as the handler's ``lookup_url_kwarg`` or ``lookup_field``. It is matched by
    ``lookup_value_regex``, or by the converter ``lookup_value_converter`` (``"str"`` by default: anything but a slash).
    ``trailing_slash=False`` leaves out the slash at the end.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_misspelt(cls)

    def __init__(self, trailing_slash: bool = True) -> None:
        self.trailing_slash = "/" if trailing_slash else ""
        self.registry: list[tuple[str, Any, str]] = []

    def register(self, prefix: str, handler: Any, basename: str | None = None) -> None:
        """Adds a handler's routes below ``prefix``, such as ``"cards"`` or ``"boards/<int:board_pk>/cards"``.

        ``basename`` is the start of the routes' names; by default the name of the queryset's model in lower case.
        Raises `ImproperlyConfigured` for anything but a handler class, and for a prefix or basename that is taken.
        """
        if not hasattr(handler, "as_aaah") or not isinstance(handler, type):
            raise ImproperlyConfigured(
                f"register() takes a handler class, as in register({prefix!r}, CardHandler), not {handler!r}"
            )
        prefix = prefix.strip("/")
        basename = basename or self.get_default_basename(handler)
        for known, other, name in self.registry:
            if prefix == known or basename == name:
                taken = f"prefix {prefix!r}" if prefix == known else f"basename {basename!r}"
                raise ImproperlyConfigured(
                    f"the {taken} is {other.__name__}'s already; register {handler.__name__} by another, as in "
                    f"register({prefix!r}, {handler.__name__}, basename='...')"
                )
        self.registry.append((prefix, handler, basename))

    def get_default_basename(self, handler: Any) -> str:
        """The name of the queryset's model in lower case. Raises `ImproperlyConfigured` if there is none."""
        queryset = getattr(handler, "queryset", None)
        model = getattr(queryset, "model", None)
        if queryset is not None and model is None:
            raise ImproperlyConfigured(
                f"{handler.__name__}.queryset is {queryset!r:.80}, which has no model to name its routes after; make "
                "it a queryset, as in MemoryQuerySet(Card), or register it with basename='...'"
            )
        if model is None:
            raise ImproperlyConfigured(
                f"{handler.__name__} has no queryset to name its routes after; register it with basename='...'"
            )
        name: str = model.__name__.lower()
        return name

    @property
    def urls(self) -> list[Endpoint | Include]:
        """The routes of all registered handlers, in the order of registration."""
        return [route for registered in self.registry for route in self._routes(*registered)]

    @property
    def routepatterns(self) -> list[Endpoint | Include]:
        """The same as `urls`, for ``include(router)``."""
        return self.urls

    def _routes(self, prefix: str, handler: Any, basename: str) -> list[Endpoint | Include]:
        key = lookup_name(handler)
        shared = [name for name in handler.available_actions if name in _SHARED_ACTIONS]
        actions = {name: action for name, action in handler.available_actions.items() if name not in shared}
        detail_names = [name for name, action in actions.items() if _is_detail(name, action, key)]
        list_names = [name for name in actions if name not in detail_names]
        routes: list[Endpoint | Include] = []
        if list_names or (shared and not detail_names):
            route = f"{prefix}{self.trailing_slash}" if prefix else ""
            routes.append(path(route, handler.as_aaah(actions=list_names + shared), name=f"{basename}-list"))
        if detail_names:
            view = handler.as_aaah(actions=detail_names + shared)
            routes.append(self._detail_route(prefix, handler, key, view, f"{basename}-detail"))
        return routes

    def _detail_route(self, prefix: str, handler: Any, key: str, view: Any, name: str) -> Endpoint | Include:
        start = f"{prefix}/" if prefix else ""
        regex = getattr(handler, "lookup_value_regex", None)
        if regex is None:
            converter = getattr(handler, "lookup_value_converter", "str")
            route: Endpoint = path(f"{start}<{converter}:{key}>{self.trailing_slash}", view, name=name)
            return route
        route = re_path(rf"^(?P<{key}>{regex}){self.trailing_slash}\Z", view, name=name)
        return path(start, include([route])) if start else route


def lookup_name(handler: Any) -> str:
    """The name of the captured key: the handler's ``lookup_url_kwarg`` or ``lookup_field``, or ``"pk"``."""
    return str(getattr(handler, "lookup_url_kwarg", None) or getattr(handler, "lookup_field", "pk"))


def _is_detail(name: str, action: Any, key: str) -> bool:
    """Whether an action is on the detail route."""
    if action.options.detail is not None:
        return bool(action.options.detail)
    if name in (*_LIST_ACTIONS, *_DETAIL_ACTIONS):
        return name in _DETAIL_ACTIONS
    return any(parameter[0] == key for parameter in action.parameters)
