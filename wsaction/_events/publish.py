"""Publishing: an event on its way to the hub, from a handler or, by an app's own router, from anywhere else.

Within a unit of work that has begun it waits for the commit: nobody is told of what is not kept. Else it is told at
once. Where nobody knows whether the unit was committed, the subscribers are told to load again.
"""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from wsaction._events.plan import event_plan
from wsaction._handlers.route_table import Call, RouteTable, Targets
from wsaction._protocol.event_frames import encode_event
from wsaction._protocol.frames import new_frame
from wsaction._protocol.scope import PATH_KEY, SESSION_KEY, route_topic, topic_as, topic_of
from wsaction._pubsub.hub import Hub
from wsaction._pubsub.subscription import Subscriber
from wsaction.exceptions import LayerUnavailable, RouteNotFound
from wsaction.layers.base import History
from wsaction.routing import Resolver404, ResolverMatch, Router
from wsaction.transactions import COMMIT_ARRIVES, UnitOfWork, unit_to_wait_for

if TYPE_CHECKING:
    from wsaction._dispatch.session import Session
    from wsaction._server.runtime import LoopState, Runtime
    from wsaction.handlers import AsyncAPIActionHandler

__all__ = (
    "DetachedSession",
    "handler_at",
    "hub_of",
    "invalidate_later",
    "own_route",
    "own_topic",
    "publish_after",
    "publish_from",
    "push_to",
    "session_of",
    "topic_at",
)

logger = logging.getLogger("wsaction")


def session_of(handler: "AsyncAPIActionHandler") -> "Session":
    """What the frames of a handler's connection go through. Raises ``RuntimeError`` for a handler without one."""
    try:
        session: Session = handler.scope[SESSION_KEY]
    except (AttributeError, KeyError):
        raise RuntimeError(
            f"this {type(handler).__name__} serves no connection, or not any more; "
            "publish from elsewhere with app.publish(route, ...)"
        ) from None
    return session


def own_route(handler: "AsyncAPIActionHandler") -> str:
    """The canonical route that a handler answers: the topic's, and that of event frames.

    Raises `RouteNotFound` for one that only its beginning matches, which is no topic.
    """
    if handler.is_consumer:
        return ""
    target = handler.frame.call.target
    if not target.is_topic:
        raise RouteNotFound
    return target.canonical or ""  # a topic has one


def own_topic(handler: "AsyncAPIActionHandler") -> str:
    """The topic of a handler's connection path and route."""
    return route_topic(handler.scope, own_route(handler))


def topic_at(handler: "AsyncAPIActionHandler") -> str:
    """The topic of a handler and its route, as its ``get_topic()`` says. Raises ``TypeError`` for what is no string."""
    if handler.decides_topic:
        return topic_as(handler, handler.get_topic())
    return session_of(handler).topic_prefix + own_route(handler)


def hub_of(session: "Session | DetachedSession") -> Hub:
    """The hub of the event loop that a connection is served on, made at first use."""
    return session.here.hub or session.runtime.hub


async def publish_from(
    handler: "AsyncAPIActionHandler", event: str, data: Any, exclude: Subscriber | None = None, topic: str | None = None
) -> None:
    """Publishes an event to the topic of a handler; see `wsaction.handlers.AsyncAPIActionHandler.publish`.

    Within a unit of work it is published after the commit, else at once.
    """
    hub, route, plan = hub_of(session_of(handler)), own_route(handler), event_plan(handler)
    topic = topic_at(handler) if topic is None else topic_as(handler, topic)
    text = encode_event(event, route, plan.types.encode(event, data))
    if (unit := unit_to_wait_for()) is None:
        await hub.publish(topic, text, plan.history, exclude=exclude)
    else:
        publish_after(unit, hub, topic, text, plan.history, exclude)


async def push_to(handler: "AsyncAPIActionHandler", event: str, data: Any) -> None:
    """Sends an event to the connection of a handler alone."""
    text = encode_event(event, own_route(handler), event_plan(handler).types.encode(event, data))
    handler.consumer.connection.put(text)


def publish_after(
    unit: UnitOfWork, hub: Hub, topic: str, text: str, history: History | None, exclude: Subscriber | None = None
) -> None:
    """Has the hub publish an event once a unit of work is committed.

    Nothing is raised then: it is logged, and all who are subscribed are told to load again as soon as that can be done.
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
        logger.error("an event of %r was not told; its subscribers will be told to load again: %r", topic, exc)
        hub.invalidate_later(topic, history)


def invalidate_later(hub: Hub, topic: str, history: History | None) -> None:
    """Tells the subscribers of a topic to load again, where nobody knows whether a change of it was committed.

    They are told now, and once more when a commit that was still on its way to the database has surely arrived.
    """
    hub.invalidate_later(topic, history)
    asyncio.get_running_loop().call_later(COMMIT_ARRIVES, _invalidate_once_more, hub, topic, history)


def _invalidate_once_more(hub: Hub, topic: str, history: History | None) -> None:
    if not hub.is_closed:  # else there is nobody left to tell
        hub.invalidate_later(topic, history)


# ---------------------------------------------------------------------------------------------- from anywhere else
class DetachedSession:
    """What stands for the `_dispatch.session.Session` of somebody who has no connection: one of ``path``."""

    __slots__ = ("connection", "runtime", "table", "targets", "topic_prefix")

    def __init__(self, table: RouteTable, runtime: "Runtime", match: ResolverMatch, path: str) -> None:
        self.table = table
        self.runtime = runtime
        self.connection = None
        self.targets = Targets(table, match.args, match.kwargs, 1)
        self.topic_prefix = topic_of(path, "")

    @property
    def here(self) -> "LoopState":
        """What belongs to the running event loop."""
        return self.runtime.here


def handler_at(router: Router, runtime: "Runtime", route: str, path: str | None, root: str = "") -> Any:
    """The handler of a route, for nobody's user, on the connections of ``path``.

    Raises ``ValueError`` where there is no such path or route, or no one path that is meant.
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
            f"path={path!r} leads to {match.func!r}, which is no consumer's as_asgi(): its routes are not known here"
        )
    return match


def _only_path(router: Router) -> str:
    """The path of the only consumer whose path captures nothing."""
    leaves = [leaf for leaf in router.leaves if hasattr(leaf.endpoint.view, "table")]
    paths = [leaf.route for leaf in leaves if not any(part.is_regex or part.converters for part in leaf.patterns)]
    if len(paths) != 1:
        known = ", ".join(repr(leaf.route) for leaf in leaves) or "none"
        raise ValueError(
            f"path= says which connections are meant, unless just one path has no captures; the app has {known}"
        )
    return paths[0]
