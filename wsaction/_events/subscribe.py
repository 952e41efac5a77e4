"""Subscribing: a handler's connection joins the topic of its route.

`subscribe` runs the action of `wsaction.subscriptions.SubscribeMixin`. `authorize` checks that it is allowed,
`Hub.join` starts the subscription, and `_Reply` sends the reply before the first event.
"""

from collections.abc import Awaitable, Callable
from json import loads
from typing import TYPE_CHECKING, Any

from wsaction._events.access import Access, access_of, action_plan, check_key, check_object, event_filter
from wsaction._events.plan import is_default
from wsaction._events.publish import hub_of, own_route, own_topic, session_of, topic_at
from wsaction._events.reauthorization import Grant, end_subscription, revoke_subscription
from wsaction._handlers.route_table import Call
from wsaction._protocol.frames import AfterReply, Frame, current_frame, encode_reply, new_frame, quote
from wsaction.exceptions import Busy, InvalidParameters, PermissionDenied, RouteNotFound, Throttled
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
    hub, connection, access = hub_of(session), session.connection, access_of(handler)
    take_snapshot = _snapshot(handler, session) if snapshot else None
    has_key = access.names_object and access.plan.has_objects
    if has_key and (not handler.overrides_topic or key[0] == own_topic(handler)):
        check_key(handler, access.plan.lookup)
    grant, access = await authorize(handler, access, *key)
    previous = session.grants.get(key)
    if previous is None:
        _check_limit(session)
        if handler.shows_presence:
            _check_join_rate(session, key[0])
    grant.replace(previous)
    session.grants[key] = grant
    reply = _Reply(session, handler.frame, grant, key)
    history = access.plan.history
    try:
        if session.was_rechecked and not await grant.holds():  # perhaps after this frame's permissions were checked
            if previous is not None:
                revoke_subscription(session, *key)
            raise PermissionDenied
        if is_default(handler.get_event_filter, *handler._default_hooks):
            filter = event_filter(handler, access, grant)
        else:
            filter = handler.get_event_filter(grant)
        resume = await hub.join(
            connection,
            *key,
            reply=reply.keep_outcome,
            history=history,
            since=since,
            snapshot=take_snapshot,
            filter=filter,
            filter_timeout=connection.limits.action_timeout,
        )
        _settle(session, key, grant, is_new=resume is not None)
        if handler.shows_presence:
            grant.start_presence(Place(*key, history))
    finally:
        _end_earlier(session, key, grant, is_left=key not in hub.subscriptions(connection))
    return reply.hold(resume)


def _settle(session: "Session", key: tuple[str, str], grant: Grant, *, is_new: bool) -> None:
    """The subscription is joined: a new one, or the earlier one once more."""
    session.grants[key] = grant
    grant.is_joined = True
    if grant.earlier is not None:
        if is_new:
            earlier = grant.earlier.state
            grant.state.is_renewal = earlier.is_confirmed or earlier.is_renewal
        else:
            grant.state = grant.earlier.state


def _end_earlier(session: "Session", key: tuple[str, str], grant: Grant, *, is_left: bool) -> None:
    """Ends the earlier grant, unless its subscription goes on, as this one could not be joined."""
    earlier, grant.earlier = grant.earlier, None
    is_current = session.grants.get(key) is grant
    if is_left and is_current:
        end_subscription(session, *key)
    if earlier is not None:
        if is_left or grant.is_joined:
            earlier.end_presence()
        elif is_current:
            session.grants[key] = earlier


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
    if frame.unit is not None and frame.call.name in ("subscribe", "presence"):
        await release_reads(frame)  # another action still uses the objects that it read
    return grant, access


def _check_limit(session: "Session") -> None:
    limit = session.connection.limits.max_subscriptions
    if len(session.grants) >= limit:
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


class _Reply:
    """The result of a subscription: the reply of a ``subscribe`` frame, or what ``await self.subscribe()`` returns."""

    __slots__ = ("_frame", "_grant", "_is_reply", "_key", "_outcome", "_resume", "_session", "_state", "_text")

    def __init__(self, session: "Session", frame: Frame, grant: Grant, key: tuple[str, str]) -> None:
        self._session = session
        self._frame = frame
        self._grant = grant
        self._key = key
        waits = any(work.send_reply for work in frame.held or ())  # the action has called itself
        self._is_reply = frame.call.name == "subscribe" and frame is current_frame.get() and not waits
        self._outcome: tuple[Position, bool | None, str | None] = Position("", 0), None, None
        self._text = ""  # the encoded reply, if this is the reply

    def keep_outcome(self, position: Position, recovered: bool | None, snapshot: str | None) -> None:
        """Keeps the result. The hub calls this before it starts the subscription, and an error here prevents it.

        Raises `PermissionDenied` if the grant was withdrawn meanwhile, and `ReplyTooLarge`.
        """
        if self._key not in self._session.grants:
            raise PermissionDenied
        self._outcome = position, recovered, snapshot
        if self._is_reply:
            self._text = self._encode_reply(*self._outcome)
            if len(self._text) > self._session.fast_path_size:
                self._session.check_size(self._text)

    def hold(self, resume: Callable[[], None] | None) -> dict[str, Any]:
        """Holds the events back until the frame's reply is sent. Returns the data of the reply."""
        self._resume = resume  # starts delivery; None: the connection was subscribed already
        self._state = self._grant.state
        self._state.waiting += 1
        data: dict[str, Any] = loads(self._encode_data(*self._outcome))
        self._frame.hold(AfterReply(self._begin, self._undo, self._send if self._is_reply else None, data))
        return data

    def _begin(self) -> None:
        self._state.is_confirmed = True
        self._state.waiting -= 1
        if not self._is_reply:
            self._session.connection.on_subscribed(self._key[1], self._frame)
        for resume in (self._resume, self._state.resume):
            if resume is not None:
                resume()
        self._state.resume = None

    def _undo(self) -> None:
        """Ends the subscription of an action that failed, unless another frame asked for it too."""
        state, grant = self._state, self._session.grants.get(self._key)
        state.waiting -= 1
        if state.is_confirmed:  # another frame that asked for it succeeded
            if self._resume is not None:
                self._resume()
        elif state.waiting:
            state.resume = self._resume or state.resume
        elif grant is not None and grant.state is state:
            if not state.is_renewal:
                end_subscription(self._session, *self._key)
            elif self._resume is not None:  # what came between the two subscriptions may be missing
                self._resume()
                hub_of(self._session).resync(self._session.connection, (self._key[1],))

    def _send(self, override: str | None) -> None:
        """Sends the reply. If the client was subscribed already, it follows the events that wait for the client.

        Raises `PermissionDenied` if the grant was withdrawn meanwhile.
        """
        session, outbox = self._session, self._session.connection.outbox
        if (grant := session.grants.get(self._key)) is None:
            raise PermissionDenied
        if self._resume is not None and grant.state is self._state:
            outbox.put(outbox.translate(override or self._text, self._frame))
        else:  # the hub adds the position of the moment when it sends the reply
            hub_of(session).answer(
                session.connection,
                *self._key,
                lambda *outcome: outbox.translate(override or self._encode_reply(*outcome), self._frame),
            )

    def _encode_reply(self, position: Position, recovered: bool | None, snapshot: str | None) -> str:
        frame = self._frame
        return encode_reply(frame.call.tail, self._encode_data(position, recovered, snapshot), 200, frame.request_id)

    def _encode_data(self, position: Position, recovered: bool | None, snapshot: str | None) -> str:
        route, flag = self._key[1], "null" if recovered is None else "true" if recovered else "false"
        data = f'{{"epoch":{quote(position.epoch)},"offset":{position.offset},"recovered":{flag}'
        if route != self._frame.route.partition("?")[0]:
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
