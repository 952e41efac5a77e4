"""What wsaction keeps in ASGI scopes, and what it reads there: a connection's path, captures and topics.

Tenants on different connection paths never share a topic, and ``07/`` is ``7/``: both halves of one are canonical, each
capture written back through its converter.
"""

from collections.abc import Mapping
from typing import Any

__all__ = (
    "PATH_KEY", "RUNTIME_KEY", "SESSION_KEY", "SOCKET_EXTENSION", "USER_ID_KEY", "captured_root",
    "connection_captures", "connection_path", "topic_of",
)  # fmt: skip

RUNTIME_KEY = "wsaction.runtime"  # where an app leaves its runtime in the scope of a connection
SESSION_KEY = "wsaction.session"  # where a connection's scope has what its frames go through
SOCKET_EXTENSION = "wsaction.socket"  # the ASGI extension in a connection's scope: its `fairness.FairProtocol`
PATH_KEY = "wsaction.path"  # where an app leaves the canonical path of a connection in its scope
USER_ID_KEY = "wsaction.user_id"  # and what says who a user is, where it was given something that does


def topic_of(path: str, route: str) -> str:
    """The topic of a route on the connections of a path; no two pairs have the same.

    ``topic_of("ws/acme/", "boards/7/")`` is ``"ws/acme/?boards/7/"``.
    """
    return path.replace("%", "%25").replace("?", "%3F") + "?" + route


def connection_path(scope: Mapping[str, Any]) -> str:
    """The canonical path of a connection; of a consumer that no app routes to, its path as it is."""
    path: str = scope[PATH_KEY] if PATH_KEY in scope else scope["path"]
    return path


def captured_root(scope: Mapping[str, Any]) -> str:
    """What stands before an app's own paths, where an enclosing route captured something there: a tenant, say.

    Where nothing was captured it is ``""``: one app is the same app wherever it is mounted.
    """
    root: str = scope.get("root_path", "")
    return root.strip("/") + "/" if scope.get("path_params") and root.strip("/") else ""


def connection_captures(scope: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the connection's own path captured: by an enclosing Starlette route, and by ours."""
    route = scope.get("url_route") or {}
    return tuple(route.get("args", ())), {**scope.get("path_params", {}), **route.get("kwargs", {})}
