"""Subscribing: a handler's connection joins the topic of its route.

`subscribe` runs the action of `wsaction.subscriptions.SubscribeMixin`. `authorize` checks that it is allowed,
`Hub.join` joins the topic, and an `Attempt` sends the reply before the first event.
"""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import takewhile
from json import loads
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from wsaction._events.access import Access, access_of, action_plan, check_key, check_object, event_filter
from wsaction._events.plan import is_default
from wsaction._events.publish import hub_of, own_route, own_topic, session_of, topic_at
from wsaction._events.reauthorization import Grant, update_presence
from wsaction._handlers.route_table import Call
from wsaction._protocol.event_frames import encode_event
from wsaction._protocol.frames import AfterReply, Frame, current_frame, encode_reply, new_frame, quote
from wsaction._pubsub.hub import Joined
from wsaction.exceptions import APIError, Busy, Cancelled, InvalidParameters, PermissionDenied, RouteNotFound, Throttled
from wsaction.layers.base import Place, Position
from wsaction.permissions._classes import require
from wsaction.throttling import MemoryThrottleStore, Rate
from wsaction.transactions import release_reads

if TYPE_CHECKING:
    from wsaction._dispatch.session import Session
    from wsaction.handlers import AsyncAPIActionHandler
    from wsaction.subscriptions import SubscribeMixin

    class SubscribingHandler(SubscribeMixin, AsyncAPIActionHandler):
        """A handler or consumer with the mixin."""


JOIN_RATE = Rate(20, 10.0)  # subscriptions to one topic with presence, per connection: 20, and 2 more each second
MAX_RATED_TOPICS = 1_024  # topics per connection whose rate is kept


async def subscribe(handler: "SubscribingHandler", since: Position | None, snapshot: bool) -> dict[str, Any]:
    """Subscribes a handler's connection to its route. See `wsaction.subscriptions.SubscribeMixin.subscribe`."""
    session = session_of(handler)
    key = subscribable_topic(handler), own_route(handler)
    hub, access = hub_of(session), access_of(handler)
    take_snapshot = _snapshot(handler, session) if snapshot else None
    has_key = access.names_object and access.plan.has_objects
    if has_key and (not handler.overrides_topic or key[0] == own_topic(handler)):
        check_key(handler, access.plan.lookup)
    attempt = await begin_attempt(session, handler.frame, key)
    try:
        grant, access = await authorize(handler, access, *key)
        if key not in session.grants:
            _check_limit(session, key)
            if handler.shows_presence:
                _check_join_rate(session, key[0])
        rechecks = 0
        while session.rechecks != rechecks:  # perhaps after this frame's permissions were checked
            rechecks = session.rechecks
            if not await grant.holds():
                raise PermissionDenied
        attempt.grant = grant
        if is_default(handler.get_event_filter, *handler._default_hooks):
            filter = event_filter(handler, access, grant)
        else:
            filter = handler.get_event_filter(grant)
        history = access.plan.history
        attempt.joined = await hub.join(
            session.connection,
            *key,
            reply=attempt.keep_outcome,
            history=history,
            since=since,
            snapshot=take_snapshot,
            filter=filter,
            filter_timeout=session.connection.limits.action_timeout,
        )
        if handler.shows_presence:
            grant.place = Place(*key, history)
            update_presence(session, key[0])
        return attempt.hold()
    except BaseException as exc:
        attempt.undo()
        if isinstance(exc, Cancelled):  # the hub's word for a subscription that was ended meanwhile
            attempt.raise_if_ended()
        raise


def subscribable_topic(handler: "SubscribingHandler") -> str:
    """Returns the topic of a handler's route. Raises `RouteNotFound` if clients cannot subscribe to that route."""
    if not handler.frame.call.target.is_topic:
        raise RouteNotFound
    return topic_at(handler)


async def authorize(handler: "SubscribingHandler", access: Access, topic: str, route: str) -> tuple[Grant, Access]:
    """Returns the right to a topic's events and presence. Raises `PermissionDenied` or `NotFound` without it."""
    frame = handler.frame
    if is_default(handler.check_subscription, *handler._default_hooks):
        await check_object(handler, access)
    else:
        await require(handler, "check_subscription")
        access = access_of(handler)  # the hook may have set a queryset on the handler
    grant = Grant(session_of(handler), handler, topic, route, access.shows)
    await grant.check_showing_actions(frame)
    await _release_reads(frame)
    return grant, access


async def _release_reads(frame: Frame) -> None:
    """Gives the database connection back before a wait, unless the frame's action may still use what it has read."""
    if frame.unit is not None and frame.call.name in ("subscribe", "presence"):
        await release_reads(frame)


def _check_limit(session: "Session", key: tuple[str, str]) -> None:
    limit = session.connection.limits.max_subscriptions
    before = takewhile(lambda other: other != key, session.attempts)
    if len({*session.grants, *before}) >= limit:
        raise Busy(
            "This connection has reached its maximum number of subscriptions.",
            {"limit": "max_subscriptions", "value": limit},
        )


def _check_join_rate(session: "Session", topic: str) -> None:
    """Raises `Throttled` if a connection subscribes too often: each ``join`` fills the history that all share."""
    if session.join_rates is None:
        session.join_rates = MemoryThrottleStore(MAX_RATED_TOPICS)
    if wait := session.join_rates.take(topic, JOIN_RATE):
        raise Throttled(wait=wait)


async def begin_attempt(session: "Session", frame: Frame, key: tuple[str, str]) -> "Attempt":
    """Begins to subscribe, once no other frame of the connection is about to subscribe to the same.

    If an action subscribes twice, the second time counts, even if that fails. Raises ``RuntimeError`` within a snapshot
    of the same route.
    """
    while (other := session.attempts.get(key)) is not None:
        if other.frame is frame and other.is_held:
            other.withdraw()
        elif other.task is asyncio.current_task():
            raise RuntimeError(
                f"expected an action that only reads for the snapshot of {key[1]!r}, got one that subscribes to it; "
                "let the client do that, or another action"
            )
        else:
            await _release_reads(frame)
            if other.is_current:
                await other.wait()
    attempt = session.attempts[key] = Attempt(session, frame, key)
    return attempt


class Attempt:
    """A frame that is about to subscribe its connection to a topic under a route.

    Until the frame is answered, an earlier subscription is as it was, but held back if a new one is to replace it. It
    goes on if the frame fails.
    """

    __slots__ = (
        "_changed",
        "_error",
        "_is_reply",
        "_key",
        "_outcome",
        "_session",
        "_text",
        "_work",
        "frame",
        "grant",
        "joined",
        "task",
    )

    def __init__(self, session: "Session", frame: Frame, key: tuple[str, str]) -> None:
        self._session = session
        self._key = key
        self.frame = frame
        self.task = asyncio.current_task()
        self.grant: Grant | None = None  # the right to the subscription
        self.joined: Joined | None = None
        waits = any(work.send_reply for work in frame.held or ())  # the action has called itself
        self._is_reply = frame.call.name == "subscribe" and frame is current_frame.get() and not waits
        self._outcome: tuple[Position, bool | None, str | None] = Position("", 0), None, None
        self._text = ""  # the encoded reply, if this is the reply
        self._work: AfterReply | None = None
        self._error: APIError | None = None  # if the subscription was ended meanwhile
        self._changed = asyncio.Event()

    @property
    def is_held(self) -> bool:
        """Whether all is ready, and waits for the frame's reply."""
        return self._work is not None

    @property
    def is_current(self) -> bool:
        """Whether it has neither succeeded nor failed."""
        return self._session.attempts.get(self._key) is self

    async def wait(self) -> None:
        """Waits until this is held, or is over."""
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # ------------------------------------------------------------------------------------------------ while it joins
    def keep_outcome(self, position: Position, recovered: bool | None, snapshot: str | None) -> None:
        """Keeps the result. The hub calls this before it starts the subscription, and an error here prevents it.

        Raises what `raise_if_ended` raises, and `ReplyTooLarge`.
        """
        self.raise_if_ended()
        self._outcome = position, recovered, snapshot
        if self._is_reply:
            self._text = self._encode_reply(*self._outcome)
            if len(self._text) > self._session.fast_path_size:
                self._session.check_size(self._text)

    def hold(self) -> dict[str, Any]:
        """Holds the events back until the frame's reply is sent. Returns the data of the reply."""
        data: dict[str, Any] = loads(self._encode_data(*self._outcome))
        self._work = AfterReply(self.confirm, self.undo, self._send if self._is_reply else None, data)
        self.frame.hold(self._work)
        self._notify()
        return data

    # ------------------------------------------------------------------------------------------------ its end
    def confirm(self) -> None:
        """The reply is sent: the subscription begins, or the client is told that it was ended meanwhile."""
        later = self._session.attempts.get(self._key)
        is_subscribed = self._key in self._session.grants or (later is not None and later.frame is self.frame)
        if self._error is not None and not is_subscribed:
            reason = to_json({"reason": self._error.type}).decode()
            self._session.connection.put(encode_event("$unsubscribed", self._key[1], reason))
        if not self.is_current or self.grant is None or self.joined is None:
            return
        del self._session.attempts[self._key]
        self._session.grants[self._key] = self.grant
        if not self._is_reply:
            self._session.connection.on_subscribed(self._key[1], self.frame)
        self.joined.confirm()
        self._notify()

    def undo(self) -> None:
        """The frame has failed: an earlier subscription goes on."""
        if not self.is_current:
            return
        del self._session.attempts[self._key]
        if self.joined is not None:
            self.joined.revert()
        update_presence(self._session, self._key[0])
        self._notify()

    def end(self, error: APIError) -> None:
        """The subscription is ended before the reply: that of ``subscribe`` is ``error``; others are followed by it."""
        self._error = error
        if self.is_held and self.frame is current_frame.get():  # its own action has ended it
            self.withdraw()
        elif self.is_held:
            self.undo()

    def withdraw(self) -> None:
        """The action itself has ended this, or subscribes once more: its reply says nothing of it."""
        self.undo()
        if self.frame.held is not None:
            self.frame.held = [work for work in self.frame.held if work is not self._work]

    def raise_if_ended(self) -> None:
        """Raises the error of `end`."""
        if self._error is not None:
            raise self._error

    def _send(self, override: str | None) -> None:
        """Sends the reply. If the client was subscribed already, it follows the events that wait for the client.

        Raises what `raise_if_ended` raises.
        """
        self.raise_if_ended()
        session, outbox = self._session, self._session.connection.outbox
        if self.joined is None or self.joined.is_new:
            outbox.put(outbox.translate(override or self._text, self.frame))
        else:  # the hub adds the position of the moment when it sends the reply
            hub_of(session).answer(
                session.connection,
                *self._key,
                lambda *outcome: outbox.translate(override or self._encode_reply(*outcome), self.frame),
            )

    def _encode_reply(self, position: Position, recovered: bool | None, snapshot: str | None) -> str:
        frame = self.frame
        return encode_reply(frame.call.tail, self._encode_data(position, recovered, snapshot), 200, frame.request_id)

    def _encode_data(self, position: Position, recovered: bool | None, snapshot: str | None) -> str:
        route, flag = self._key[1], "null" if recovered is None else "true" if recovered else "false"
        data = f'{{"epoch":{quote(position.epoch)},"offset":{position.offset},"recovered":{flag}'
        if route != self.frame.route.partition("?")[0]:
            data += f',"route":{quote(route)}'
        return data + ("}" if snapshot is None else f',"snapshot":{snapshot}}}')


def _snapshot(handler: "SubscribingHandler", session: "Session") -> Callable[[], Awaitable[str]]:
    """Returns a function that takes the snapshot. Raises `InvalidParameters` if the route has no action for it."""
    name, outer = handler.get_snapshot_action() or "", handler.frame
    if (plan := action_plan(handler.mounted, name)) is None:
        msg = "This route has no snapshot: it has neither a list nor a retrieve action."
        raise InvalidParameters([{"type": "no_snapshot", "msg": msg, "loc": ["snapshot"]}])
    body = {key: value for key, value in outer.body.items() if key not in ("since", "snapshot", "stream")}

    async def take() -> str:
        frame = new_frame(body, name, outer.route, None)
        frame.consumer, frame.call = outer.consumer, Call(outer.call.target, name, handler.mounted, plan)
        return await session.answer(frame)

    return take
