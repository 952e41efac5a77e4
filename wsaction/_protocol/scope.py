"""The keys that wsaction adds to an ASGI scope; and the path, captures and topics of a connection.

The framework makes the name of every topic. It begins with the connection path, so that tenants on different paths
never share a topic. The rest shows its kind::

    ws/acme/?boards/7/              a route, in canonical form: each capture written back by its converter
    ws/acme/??ninbox/?inbox:7       a name from get_topic(), within the first route that has this get_topic()
    ??snews                         a SharedTopic, of the whole app
    ws/acme/??g   ??l("ws/...       groups of broadcasts: of a path, or of a pattern and its captures
    $control                        messages between the processes

A ``?`` in a path or a pattern is escaped, and routes have none. So a string that a client or a handler chooses cannot
name a topic of another kind.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

MAX_NAME = 512  # characters of a name in a topic; a longer one is replaced by its hash

RUNTIME_KEY = "wsaction.runtime"  # the app's runtime
SESSION_KEY = "wsaction.session"  # the session that dispatches the connection's frames
SOCKET_EXTENSION = "wsaction.socket"  # an ASGI extension in the scope: `_server.uvicorn_protocol.FairProtocol`
PATTERN_KEY = "wsaction.pattern"  # the pattern that the connection's path matched, and its root
PATH_KEY = "wsaction.path"  # the canonical path of the connection
USER_ID_KEY = "wsaction.user_id"  # the app's function for the id of a user, if it has one


def topic_of(path: str, route: str) -> str:
    """The topic of a route on the connections of a path. Each pair has a different topic.

    ``topic_of("ws/acme/", "boards/7/")`` is ``"ws/acme/?boards/7/"``.
    """
    return _escape(path) + "?" + route


def route_topic(scope: Mapping[str, Any], route: str) -> str:
    """The topic of a route on a connection."""
    return topic_of(connection_path(scope), route)


class RouteTopic(str):
    """The topic of a route, which ``get_topic()`` returns by default."""

    __slots__ = ()


class SharedTopic(str):
    """A topic of the whole app. Return it from ``get_topic()`` to share events between connection paths or handlers.

    A plain string names a topic of this handler on one connection path. All handlers of the app that return a
    ``SharedTopic`` of the same name share its events, for all tenants.

    >>> def get_topic(self) -> str:
    ...     return SharedTopic(f"inbox:{self.user.id}")
    """

    __slots__ = ()


def is_named(topic: str) -> bool:
    """Whether the name comes from a ``get_topic()``, and is not the topic of a route."""
    return topic.partition("?")[2].startswith(("?n", "?N", "?s", "?S"))


def is_shared(topic: str) -> bool:
    """Whether it is a `SharedTopic`, which any handler may name."""
    return topic.startswith(("??s", "??S"))


def topic_for_name(handler: Any, name: Any) -> str:
    """The topic for a name that a handler's ``get_topic()`` returned, or passed to ``publish()``."""
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
    """The topic of a group of broadcasts.

    Without ``names`` it is the group of a connection path. With ``names``, a capture's name and value, ``path`` is a
    root and a pattern; the group is all connections whose path matched them with that value.
    """
    return _make_topic("", "l", "", repr((path, *names))) if names else _make_topic(path, "g", "", "")


def is_loadable(topic: str) -> bool:
    """Whether the subscribers of a topic are clients that can load what they missed.

    That is false for the messages between processes and for groups of broadcasts, which have nothing to load.
    """
    return not (topic.startswith("$") or topic.partition("?")[2].startswith(("?g", "?G", "?l", "?L")))


def _make_topic(path: str, kind: str, space: str, name: str) -> str:
    if len(name) > MAX_NAME:
        kind, name = kind.upper(), sha256(name.encode(errors="surrogatepass")).hexdigest()
    return f"{_escape(path)}??{kind}{space}{name}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("?", "%3F")


def connection_path(scope: Mapping[str, Any]) -> str:
    """The canonical path of a connection; the path of the scope if no app routes to the consumer."""
    path: str = scope[PATH_KEY] if PATH_KEY in scope else scope["path"]
    return path


def captured_root(scope: Mapping[str, Any]) -> str:
    """The prefix of an app's paths if an enclosing Starlette route captured something in it, such as a tenant.

    It is the root path, after the host if a Starlette ``Host`` captured something of that. If nothing was captured it
    is ``""``, so that an app has the same topics wherever it is mounted.
    """
    captured = scope.get("path_params")
    if not captured:
        return ""
    router, host = scope.get("router"), _host(scope)
    captured_host = host if _is_host_captured(getattr(router, "routes", ()), host, captured) else ""
    return "".join(f"{part}/" for text in (captured_host, scope.get("root_path", "")) if (part := text.strip("/")))


def _is_host_captured(routes: Any, host: str, captured: Mapping[str, Any]) -> bool:
    """Whether one of the routes, or of the routes below them, captured something of the host."""
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
    """The positional and keyword captures of a connection's path, by enclosing Starlette routes and by wsaction's."""
    route = scope.get("url_route") or {}
    return tuple(route.get("args", ())), {**scope.get("path_params", {}), **route.get("kwargs", {})}
