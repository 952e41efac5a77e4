"""Outsiders: who publishes to a route without being connected, an HTTP endpoint or a job, by an app's own router."""

from typing import Any

from wsaction.addresses import PATH_KEY
from wsaction.frames import new_frame
from wsaction.routing import Resolver404, ResolverMatch, Router
from wsaction.runtime import SESSION_KEY, Runtime
from wsaction.tables import Call, RouteTable, Targets

__all__ = ("Outsider", "handler_at")


class Outsider:
    """What stands for the `dispatch.Session` of somebody who has no connection."""

    __slots__ = ("connection", "runtime", "table", "targets")

    def __init__(self, table: RouteTable, runtime: Runtime, match: ResolverMatch) -> None:
        self.table, self.runtime, self.connection = table, runtime, None
        self.targets = Targets(table, match.args, match.kwargs, 1)


def handler_at(router: Router, runtime: Runtime, route: str, path: str | None, root: str = "") -> Any:
    """The handler of a route, for nobody's user, on the connections of ``path``.

    Raises ``ValueError`` where there is no such path or route, or no one path that is meant.
    """
    match = _connection(router, path)
    view: Any = match.func
    session = Outsider(view.table, runtime, match)
    target = session.targets.resolve(route)
    if not target.is_topic or target.mounted is None:
        raise ValueError(f"{view.table.nearest(route)} ({view.handler_class.__name__} at {match.canonical!r})")
    root = root.strip("/") + "/" if root.strip("/") else ""
    frame = new_frame({}, None, route, None)
    frame.call = Call(target, "", target.mounted, target.mounted.no_such_action)
    handler = target.mounted.instance()
    frame.consumer = handler
    handler.consumer, handler.mounted, handler.connection, handler.frame = handler, target.mounted, None, frame
    where = root + match.canonical
    handler.scope = {"type": "websocket", "path": f"/{where}", PATH_KEY: where, SESSION_KEY: session}
    return handler


def _connection(router: Router, path: str | None) -> ResolverMatch:
    if path is None:
        path = _only_path(router)
    try:
        match = router.resolve(path.removeprefix("/"))
    except Resolver404 as exc:
        raise ValueError(f"path={path!r} leads to no connection: {exc}") from None
    if not hasattr(match.func, "table"):
        raise ValueError(
            f"path={path!r} leads to {match.func!r}, which is no consumer's as_asgi(): its routes are not known here"
        )
    return match


def _only_path(router: Router) -> str:
    """The path of the only consumer whose path captures nothing."""
    leaves = [leaf for leaf in router.leaves if hasattr(leaf.endpoint.view, "table")]
    paths = [leaf.route for leaf in leaves if not any(one.is_regex or one.converters for one in leaf.patterns)]
    if len(paths) != 1:
        known = ", ".join(repr(leaf.route) for leaf in leaves) or "none"
        raise ValueError(
            f"path= says which connections are meant, unless just one path has no captures; the app has {known}"
        )
    return paths[0]
