"""What wsaction keeps in ASGI scopes, and what it reads there: a connection's path, captures and topics.

The framework makes every topic's name. Each begins with the connection path, so that tenants on different paths never
share one, and what follows says whose it is::

    ws/acme/?boards/7/              a route, in canonical form: each capture is written back through its converter
    ws/acme/??ninbox/?inbox:7       what a get_topic() returned, within the first route that has this get_topic()
    ??snews                         a SharedTopic, of the whole app
    ws/acme/??g   ??l("ws/...       groups of broadcasts: of a path, or of a pattern and what it captured
    $control                        what processes tell each other

A ``?`` in a path or a pattern is escaped and routes have none, so no string that a client or a handler chooses leaves
its own kind of topic.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

__all__ = (
    "PATH_KEY",
    "PATTERN_KEY",
    "RUNTIME_KEY",
    "SESSION_KEY",
    "SOCKET_EXTENSION",
    "USER_ID_KEY",
    "RouteTopic",
    "SharedTopic",
    "captured_root",
    "connection_captures",
    "connection_path",
    "group_topic",
    "is_loaded",
    "is_named",
    "is_shared",
    "route_topic",
    "topic_as",
    "topic_of",
)

MAX_NAME = 512  # characters of a name in a topic; a longer one is replaced by its hash

RUNTIME_KEY = "wsaction.runtime"  # where an app leaves its runtime in the scope of a connection
SESSION_KEY = "wsaction.session"  # where a connection's scope has what its frames go through
SOCKET_EXTENSION = "wsaction.socket"  # an ASGI extension in the scope: `_server.uvicorn_protocol.FairProtocol`
PATTERN_KEY = "wsaction.pattern"  # where an app leaves the pattern that a connection's path matched, and its root
PATH_KEY = "wsaction.path"  # where an app leaves the canonical path of a connection in its scope
USER_ID_KEY = "wsaction.user_id"  # and what says who a user is, where it was given something that does


def topic_of(path: str, route: str) -> str:
    """The topic of a route on the connections of a path; no two pairs have the same.

    ``topic_of("ws/acme/", "boards/7/")`` is ``"ws/acme/?boards/7/"``.
    """
    return _escape(path) + "?" + route


def route_topic(scope: Mapping[str, Any], route: str) -> str:
    """The topic of a route on a connection."""
    return topic_of(connection_path(scope), route)


class RouteTopic(str):
    """The topic of a route: what ``get_topic()`` returns unless it is overridden."""

    __slots__ = ()


class SharedTopic(str):
    """A topic of the whole app: what ``get_topic()`` returns to share events between connection paths or handlers.

    Without it the name is the handler's own, and that of one connection path. Every handler of the app that returns a
    ``SharedTopic`` of the same name shares its events, for all tenants.

    >>> def get_topic(self) -> str:
    ...     return SharedTopic(f"inbox:{self.user.id}")
    """

    __slots__ = ()


def is_named(topic: str) -> bool:
    """Whether a ``get_topic()`` has named it, and it is not the route's own."""
    return topic.partition("?")[2].startswith(("?n", "?N", "?s", "?S"))


def is_shared(topic: str) -> bool:
    """Whether it is a `SharedTopic`, which handlers anywhere may name."""
    return topic.startswith(("??s", "??S"))


def topic_as(handler: Any, name: Any) -> str:
    """The topic that a handler means by a name."""
    if isinstance(name, RouteTopic):
        return str(name)
    if isinstance(name, SharedTopic):
        return _make_topic("", "s", "", name)
    if not isinstance(name, str):
        raise TypeError(
            f"{type(handler).__name__}.get_topic() returned {name!r:.100}; expected a string, as in "
            'f"inbox:{self.user.id}"'
        )
    return _make_topic(connection_path(handler.scope), "n", _escape(handler.mounted.topic_space) + "?", name)


def group_topic(path: Any, *names: Any) -> str:
    """The topic of a group of broadcasts: that of a connection path; with ``names``, of all connections whose path
    matched one pattern below one root, ``path``, and who have these."""
    return _make_topic("", "l", "", repr((path, *names))) if names else _make_topic(path, "g", "", "")


def is_loaded(topic: str) -> bool:
    """Whether the subscribers of a topic are clients, who load what they missed: not what processes tell each other,
    nor groups of broadcasts, which nobody could load."""
    return not (topic.startswith("$") or topic.partition("?")[2].startswith(("?g", "?G", "?l", "?L")))


def _make_topic(path: str, kind: str, space: str, name: str) -> str:
    if len(name) > MAX_NAME:
        kind, name = kind.upper(), sha256(name.encode(errors="surrogatepass")).hexdigest()
    return f"{_escape(path)}??{kind}{space}{name}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("?", "%3F")


def connection_path(scope: Mapping[str, Any]) -> str:
    """The canonical path of a connection; of a consumer that no app routes to, its path as it is."""
    path: str = scope[PATH_KEY] if PATH_KEY in scope else scope["path"]
    return path


def captured_root(scope: Mapping[str, Any]) -> str:
    """What stands before an app's own paths, where an enclosing route captured something there, a tenant, say: the host
    where a ``Host`` of Starlette's did, and the root path.

    Where nothing was captured it is ``""``: one app is the same app wherever it is mounted.
    """
    captured = scope.get("path_params")
    if not captured:
        return ""
    router, host = scope.get("router"), _host(scope)
    captured_host = host if _is_host_captured(getattr(router, "routes", ()), host, captured) else ""
    return "".join(f"{part}/" for text in (captured_host, scope.get("root_path", "")) if (part := text.strip("/")))


def _is_host_captured(routes: Any, host: str, captured: Mapping[str, Any]) -> bool:
    """Whether the host is one that something was captured of."""
    for route in routes or ():
        if (regex := getattr(route, "host_regex", None)) is not None:
            if (match := regex.match(host)) is None:
                continue
            if not captured.keys().isdisjoint(match.groupdict()):
                return True
        if _is_host_captured(getattr(route, "routes", ()), host, captured):
            return True
    return False


def _host(scope: Mapping[str, Any]) -> str:
    """The Host header without its port, in lower case, as Starlette compares it."""
    header: bytes = next((value for name, value in scope.get("headers", ()) if name == b"host"), b"")
    return header.decode("latin-1").partition(":")[0].lower()


def connection_captures(scope: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the connection's own path captured: by an enclosing Starlette route, and by ours."""
    route = scope.get("url_route") or {}
    return tuple(route.get("args", ())), {**scope.get("path_params", {}), **route.get("kwargs", {})}
