"""Serve clients of another framework: a `Dialect` translates their messages.

A dialect is chosen when a connection opens. It reads messages into frames, which routes, handlers and hooks treat like
any others, and translates replies and events into the client's protocol. A consumer declares its dialects::

    class Cards(AsyncAPIConsumer):
        dialect = DCRF()          # for clients that offer no known sub-protocol
        dialects = (JSONRPC(),)   # for clients that offer its sub-protocol

Without a ``dialect``, and for clients that offer it, the protocol is ``wsaction.v1``.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from wsaction._connection.connection import Connection
from wsaction._connection.flusher import Flusher
from wsaction._connection.outbox import Outbox
from wsaction._protocol.close_codes import SERVICE_RESTART
from wsaction._protocol.event_frames import is_event
from wsaction._protocol.frames import Frame, current_frame
from wsaction._utils.asgi import Receive, Send
from wsaction.exceptions import ImproperlyConfigured
from wsaction.limits import Limits

__all__ = ("SUBPROTOCOL", "Conversation", "Dialect", "DialectOutbox", "Worded", "check_dialects", "negotiate")

SUBPROTOCOL = "wsaction.v1"


class Worded(str):
    """The text of a message in the client's protocol."""

    __slots__ = ("is_event", "then")

    then: Callable[[], None] | None
    """Called once, when the message is handed over for sending, after all earlier ones."""
    is_event: bool
    """Whether the message is an event; set by the outbox."""

    def __new__(cls, text: str, then: Callable[[], None] | None = None) -> "Worded":
        message = super().__new__(cls, text)
        message.then = then
        message.is_event = False
        return message


class Conversation(Protocol):
    """A dialect on one connection. It may keep state of that connection."""

    def read(self, text: str | None, limits: Limits) -> Frame:
        """The frame of a message; ``text`` is None for a binary message.

        Must not raise: set ``error`` of the frame if the message is malformed.
        """

    def reply(self, frame: Frame, text: str) -> Worded:
        """Translates a reply to the frame, final or partial. ``text`` is the reply in ``wsaction.v1``."""

    def event(self, text: str) -> Iterable[Worded] | None:
        """Translates an event to one message, several or none. ``text`` is the event in ``wsaction.v1``.

        Return None if the client has missed events and its protocol cannot say so. The connection then closes with
        1012, so that the client reconnects.
        """

    def subscribed(self, route: str, frame: Frame, most: int) -> None:
        """An action other than ``subscribe`` has subscribed to a route.

        A dialect that remembers such frames keeps at most ``most`` subscriptions in all, but at least one per route.
        """

    def unsubscribed(self, route: str) -> None:
        """The subscription to a route has ended."""


class Dialect(Protocol):
    """The protocol of another framework. One object serves all connections."""

    @property
    def subprotocol(self) -> str:
        """The name that a client offers to choose this dialect."""

    def converse(self) -> Conversation:
        """Returns the conversation for a new connection."""


class DialectConnection(Connection):
    """A connection with a dialect. Its client may reuse a ``request_id`` that is still in flight."""

    __slots__ = ("_conversation", "read")

    def __init__(
        self,
        conversation: Conversation,
        receive: Receive,
        send: Send,
        limits: Limits,
        flusher: Flusher,
        *,
        drop_events: bool,
    ) -> None:
        super().__init__(receive, send, limits, flusher, drop_events=drop_events)
        self._conversation = conversation
        self.read = conversation.read
        self._lanes.unique_ids = False
        self.outbox = DialectOutbox(conversation, send, self, limits.max_outbox_bytes, flusher, drop_events=drop_events)

    def on_subscribed(self, route: str, frame: Frame) -> None:
        """Tells the dialect that an action other than ``subscribe`` has subscribed."""
        self._conversation.subscribed(route, frame, self.limits.max_subscriptions)

    def on_unsubscribed(self, route: str) -> None:
        """Tells the dialect that a subscription has ended."""
        self._conversation.unsubscribed(route)


class DialectOutbox(Outbox):
    """An outbox that translates replies and events. Other messages are sent unchanged."""

    __slots__ = ("_conversation",)

    def __init__(self, conversation: Conversation, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._conversation = conversation

    def translate(self, text: str, by: Frame | None = None) -> str:
        """A reply to ``by``, or else to the current frame, in the client's protocol; other text unchanged."""
        if type(text) is Worded or not text.startswith('{"errors":['):
            return text
        frame = by or current_frame.get()
        return text if frame is None else self._conversation.reply(frame, text)

    async def send(self, text: str, by: Frame) -> None:
        """Translates a reply to the frame ``by`` and sends it."""
        text = self.translate(text, by)
        if type(text) is Worded:
            _call_then(text)
        await super().send(text, by)

    def put(self, text: str) -> None:
        """Translates a message and queues it."""
        if type(text) is Worded or not is_event(text):
            text = self.translate(text)
            super().put(text)
            _call_then(text)
            return
        messages = self._conversation.event(text)
        if messages is None:
            self._connection.close(SERVICE_RESTART, "events were lost; connect again")
            return
        for message in messages:
            message.is_event = True
            super().put(message)
            _call_then(message)

    def is_event(self, text: str) -> bool:
        """Whether a queued message is an event."""
        return type(text) is Worded and text.is_event


def _call_then(text: str) -> None:
    if type(text) is Worded and text.then is not None:
        then, text.then = text.then, None
        then()


def _all_dialects(dialect: Any, dialects: Sequence[Any]) -> Sequence[Any]:
    return dialects if dialect is None else (*dialects, dialect)


def negotiate(
    dialect: Dialect | None, dialects: Sequence[Dialect], offered: Sequence[str]
) -> tuple[Dialect | None, str | None]:
    """Chooses the dialect of a connection: None for ``wsaction.v1``, and the sub-protocol to accept, if any.

    The first known sub-protocol of ``offered`` decides. If none is known, it is ``dialect``, the consumer's default,
    and the handshake accepts no sub-protocol. RFC 6455 leaves it to the client what that means: browsers fail the
    connection. Others are served, as they may have offered a token alone.
    """
    known = {each.subprotocol: each for each in _all_dialects(dialect, dialects)}
    for name in offered:
        if name == SUBPROTOCOL:
            return None, name
        if name in known:
            return known[name], name
    return dialect, None


def check_dialects(owner: str, dialect: Any, dialects: Any) -> None:
    """Raises `ImproperlyConfigured` for objects that are not dialects, or share a sub-protocol."""
    if not isinstance(dialects, Sequence):
        raise ImproperlyConfigured(f"{owner}.dialects: expected a sequence, as in (DCRF(),), got {dialects!r}")
    names = [SUBPROTOCOL]
    for candidate in _all_dialects(dialect, dialects):
        if isinstance(candidate, type) or not hasattr(candidate, "converse"):
            raise ImproperlyConfigured(f"{owner}: a dialect is an object, as in dialect = DCRF(), not {candidate!r}")
        if candidate.subprotocol in names:
            raise ImproperlyConfigured(f"{owner}: two dialects have the sub-protocol {candidate.subprotocol!r}")
        names.append(candidate.subprotocol)
