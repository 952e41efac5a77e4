"""Publishing: takes an event to the hub, from a handler or, through the app's router, from anywhere else.

Within an open unit of work an event waits for the commit, so that nobody learns of a change that is rolled back.
Otherwise it is published at once. If the outcome of the commit is unknown, the subscribers get ``$resync``.
"""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from wsaction._events.plan import event_plan
from wsaction._handlers.route_table import Call, RouteTable, Targets
from wsaction._protocol.event_frames import encode_event, event_name, traced_frame
from wsaction._protocol.frames import new_frame
from wsaction._protocol.scope import PATH_KEY, SESSION_KEY, route_topic, topic_for_name, topic_of
from wsaction._pubsub.hub import Hub
from wsaction._pubsub.subscription import Subscriber
from wsaction.exceptions import LayerUnavailable, RouteNotFound
from wsaction.hooks import HookList
from wsaction.layers.base import History
from wsaction.routing import Resolver404, ResolverMatch, Router
from wsaction.transactions import LOST_COMMIT_DELAY, UnitOfWork, unit_to_wait_for

if TYPE_CHECKING:
    from wsaction._connection.connection import Connection
    from wsaction._dispatch.session import Session
    from wsaction._server.runtime import LoopState, Runtime
    from wsaction.handlers import AsyncAPIActionHandler

logger = logging.getLogger("wsaction")

PUSHED = "$push"  # what hooks get as the topic of an event that has none


def session_of(handler: "AsyncAPIActionHandler") -> "Session":
    """Returns the session of a handler's connection. Raises ``RuntimeError`` if the handler has no connection."""
    try:
        session: Session = handler.scope[SESSION_KEY]
    except (AttributeError, KeyError):
        raise RuntimeError(
            f"this {type(handler).__name__} serves no connection, or its connection has ended; "
            "to publish from elsewhere, use app.publish(route, ...)"
        ) from None
    return session


def own_route(handler: "AsyncAPIActionHandler") -> str:
    """Returns the canonical route that a handler answers, which its topic and its event frames have too.

    Raises `RouteNotFound` if only the beginning of the route matches a pattern: such a route has no topic.
    """
    if handler.is_consumer:
        return ""
    target = handler.frame.call.target
    if not target.is_topic:
        raise RouteNotFound
    return target.canonical or ""  # a topic always has a canonical route


def own_topic(handler: "AsyncAPIActionHandler") -> str:
    """Returns the topic of a handler's connection path and route, which is the default of ``get_topic()``."""
    return route_topic(handler.scope, own_route(handler))


def topic_at(handler: "AsyncAPIActionHandler") -> str:
    """Returns the topic of a handler by its ``get_topic()``. Raises ``TypeError`` if that returns no string."""
    if handler.overrides_topic:
        return topic_for_name(handler, handler.get_topic())
    return session_of(handler).topic_prefix + own_route(handler)


def is_on_loop(connection: "Connection | None") -> bool:
    """Whether the running event loop serves a connection, or there is no connection."""
    return connection is None or connection.loop is asyncio.get_running_loop()


def check_loop(session: "Session | DetachedSession") -> None:
    """Raises ``RuntimeError`` on another event loop than the session's, which has none of its subscriptions."""
    if not is_on_loop(session.connection):
        raise RuntimeError(
            "expected a call on the event loop that serves this connection, got one on another event loop; make the "
            "action an async def, or call the method by anyio.from_thread.run()"
        )


def hub_of(session: "Session | DetachedSession") -> Hub:
    """Returns the hub of the event loop that serves a session, created at first use. Raises as `check_loop` does."""
    check_loop(session)
    return session.loop_state.hub or session.runtime.hub


async def publish_from(
    handler: "AsyncAPIActionHandler", event: str, data: Any, exclude: Subscriber | None = None, topic: str | None = None
) -> None:
    """Publishes an event to the topic of a handler. See `wsaction.handlers.AsyncAPIActionHandler.publish`.

    Within a unit of work the event is published after the commit, otherwise at once.
    """
    hub, route, plan = hub_of(session_of(handler)), own_route(handler), event_plan(handler)
    if topic is None and not (handler.overrides_topic or hasattr(handler, "_event_types")):
        raise TypeError(
            f"{type(handler).__name__} publishes {event!r}, but nobody can subscribe to it: add SubscribeMixin as its "
            "first base class, or use push() for the own connection"
        )
    topic = topic_at(handler) if topic is None else topic_for_name(handler, topic)
    text = encode_event(event, route, plan.types.encode(event, data))
    if (unit := unit_to_wait_for()) is None:
        await hub.publish(topic, text, plan.history, exclude=exclude)
    else:
        publish_after(unit, hub, topic, text, plan.history, exclude)


async def push_to(handler: "AsyncAPIActionHandler", event: str, data: Any) -> None:
    """Sends an event to the handler's own connection only."""
    text = encode_event(event, own_route(handler), event_plan(handler).types.encode(event, data))
    handler.consumer.connection.put(pushed_frame(session_of(handler).runtime.hooks, event, text))


def pushed_frame(hooks: HookList, event: str, text: str) -> str:
    """The frame of an event to one connection or user, with what hooks carry with it."""
    with hooks.around("around_publish", PUSHED, event) as carried:
        text = traced_frame(text, carried)
    hooks.call("on_publish", PUSHED, event)
    return text


def publish_after(
    unit: UnitOfWork, hub: Hub, topic: str, text: str, history: History | None, exclude: Subscriber | None = None
) -> None:
    """Publishes an event after the commit of a unit of work.

    A failure is then logged and not raised, and the subscribers get ``$resync`` as soon as they can be reached.
    """
    unit.on_commit(
        partial(_publish_or_invalidate, hub, topic, text, history, exclude),
        if_unknown=partial(invalidate_later, hub, topic, history),
    )


async def _publish_or_invalidate(
    hub: Hub, topic: str, text: str, history: History | None, exclude: Subscriber | None
) -> None:
    try:
        await hub.publish(topic, text, history, exclude=exclude)
    except LayerUnavailable as exc:
        logger.error(
            "an event of topic %r could not be published; its subscribers will get $resync: %r",
            topic,
            exc,
            extra={"topic": topic, "event": event_name(text)},
        )
        hub.invalidate_later(topic, history)


def invalidate_later(hub: Hub, topic: str, history: History | None) -> None:
    """Sends ``$resync`` to the subscribers of a topic if it is unknown whether a change was committed.

    They get it now and again after ``LOST_COMMIT_DELAY`` seconds: the commit may still be on its way to the database.
    """
    hub.invalidate_later(topic, history)
    asyncio.get_running_loop().call_later(LOST_COMMIT_DELAY, _invalidate_once_more, hub, topic, history)


def _invalidate_once_more(hub: Hub, topic: str, history: History | None) -> None:
    if not hub.is_closed:  # a closed hub has no subscribers
        hub.invalidate_later(topic, history)


# ---------------------------------------------------------------------------------------------- from anywhere else
class DetachedSession:
    """Stands in for a `_dispatch.session.Session` when code publishes without a connection, for those of ``path``."""

    __slots__ = ("connection", "runtime", "table", "targets", "topic_prefix")

    def __init__(self, table: RouteTable, runtime: "Runtime", match: ResolverMatch, path: str) -> None:
        self.table = table
        self.runtime = runtime
        self.connection = None
        self.targets = Targets(table, match.args, match.kwargs, 1)
        self.topic_prefix = topic_of(path, "")

    @property
    def loop_state(self) -> "LoopState":
        """The state of the running event loop."""
        return self.runtime.loop_state


def handler_at(router: Router, runtime: "Runtime", route: str, path: str | None, root: str = "") -> Any:
    """Returns a handler for a route on the connections of ``path``, without a user.

    Raises ``ValueError`` if there is no such path or route, or if ``path`` is None and the app has several paths.
    """
    match = _resolve_path(router, path)
    view: Any = match.func
    full_path = f"{root.strip('/')}/{match.canonical}".removeprefix("/")
    session = DetachedSession(view.table, runtime, match, full_path)
    target = session.targets.resolve(route)
    if not target.is_topic or target.mounted is None:
        raise ValueError(f"{view.table.nearest(route)} ({view.handler_class.__name__} at {match.canonical!r})")
    frame = new_frame({}, None, route, None)
    frame.call = Call(target, "", target.mounted, target.mounted.no_such_action)
    handler = target.mounted.instance()
    frame.consumer = handler
    handler.consumer = handler
    handler.mounted = target.mounted
    handler.connection = None
    handler.frame = frame
    handler.scope = {"type": "websocket", "path": f"/{full_path}", PATH_KEY: full_path, SESSION_KEY: session}
    return handler


def _resolve_path(router: Router, path: str | None) -> ResolverMatch:
    if path is None:
        path = _only_path(router)
    try:
        match = router.resolve(path.removeprefix("/"))
    except Resolver404 as exc:
        raise ValueError(f"path={path!r} leads to no connection: {exc}") from None
    if not hasattr(match.func, "table"):
        raise ValueError(
            f"path={path!r}: expected the path of a consumer, as in path('ws/', Consumer.as_asgi()), got that of "
            f"{match.func!r}"
        )
    return match


def _only_path(router: Router) -> str:
    """Returns the path of the only consumer whose path has no captures."""
    leaves = [leaf for leaf in router.leaves if hasattr(leaf.endpoint.view, "table")]
    paths = [leaf.route for leaf in leaves if not any(part.is_regex or part.converters for part in leaf.patterns)]
    if len(paths) != 1:
        known = ", ".join(repr(leaf.route) for leaf in leaves) or "none"
        raise ValueError(
            f"path= says which connections are meant; it may be left out only if exactly one path has no captures; "
            f"the app has {known}"
        )
    return paths[0]
