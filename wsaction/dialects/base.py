"""What it takes to speak with clients of another framework: a `Dialect`, chosen when a connection is opened.

A dialect stands at both ends of a connection. It reads messages into frames, which routes, handlers and hooks see as
any others, and words replies and events as its clients know them. A consumer says which it speaks::

    class Cards(AsyncAPIConsumer):
        dialect = DCRF()          # to clients that offer no sub-protocol
        dialects = (JSONRPC(),)   # to clients that offer its sub-protocol

``wsaction.v1`` is spoken to all others, and to who offers it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from wsaction._connection.connection import Connection, Receive, Send
from wsaction._connection.flusher import Flusher
from wsaction._connection.outbox import Outbox
from wsaction._protocol.event_frames import is_event
from wsaction._protocol.frames import Frame, current_frame
from wsaction.exceptions import ImproperlyConfigured
from wsaction.limits import Limits

__all__ = (
    "SUBPROTOCOL",
    "Conversation",
    "Dialect",
    "SpeakingOutbox",
    "Worded",
    "check_dialects",
    "choose",
)

SUBPROTOCOL = "wsaction.v1"


class Worded(str):
    """A message as the client is to get it. ``then`` is called when it is given to be sent, behind all before it."""

    __slots__ = ("is_event", "then")

    then: Callable[[], None] | None
    is_event: bool

    def __new__(cls, text: str, then: Callable[[], None] | None = None) -> "Worded":
        message = super().__new__(cls, text)
        message.then = then
        message.is_event = False
        return message


class Conversation(Protocol):
    """A dialect as it is spoken on one connection, where it may keep what it has to remember of it."""

    def read(self, text: str | None, limits: Limits) -> Frame:
        """The frame that a message holds; None stands for a binary one. Raises nothing: what is wrong with it is its
        ``error``."""

    def reply(self, frame: Frame, text: str) -> Worded:
        """A reply to the frame, partial ones too. ``text`` is that of ``wsaction.v1``."""

    def event(self, text: str) -> Iterable[Worded] | None:
        """What the client is told of an event, in one message, several or none. ``text`` is as above.

        None: it has missed something, and its language has no word for that. It is closed, 1012, to come back.
        """

    def subscribed(self, route: str, frame: Frame, most: int) -> None:
        """An action that is not ``subscribe`` has subscribed to a route; what is remembered of such frames is at most
        ``most``, and one for each route."""

    def unsubscribed(self, route: str) -> None:
        """The subscription to a route has ended."""


class Dialect(Protocol):
    """How clients of another framework speak; one object serves all connections."""

    @property
    def subprotocol(self) -> str:
        """What a client offers to choose it."""

    def converse(self) -> Conversation:
        """Begins to speak it, on a new connection."""


class SpeakingConnection(Connection):
    """A connection on which a dialect is spoken. Its clients may use a ``request_id`` again while it is in flight."""

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
        self.outbox = SpeakingOutbox(
            conversation, send, self, limits.max_outbox_bytes, flusher, drop_events=drop_events
        )

    def subscribed(self, route: str, frame: Frame) -> None:
        self._conversation.subscribed(route, frame, self.limits.max_subscriptions)

    def unsubscribed(self, route: str) -> None:
        self._conversation.unsubscribed(route)


class SpeakingOutbox(Outbox):
    """An outbox whose messages are worded by a conversation; what is neither reply nor event is sent as it is."""

    __slots__ = ("_conversation",)

    def __init__(self, conversation: Conversation, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._conversation = conversation

    def translate(self, text: str, by: Frame | None = None) -> str:
        if type(text) is Worded or not text.startswith('{"errors":['):
            return text
        frame = by or current_frame.get()
        return text if frame is None else self._conversation.reply(frame, text)

    async def send(self, text: str, by: Frame) -> None:
        text = self.translate(text, by)
        if type(text) is Worded:
            _call_then(text)
        await super().send(text, by)

    def put(self, text: str) -> None:
        if type(text) is Worded or not is_event(text):
            text = self.translate(text)
            super().put(text)
            _call_then(text)
            return
        messages = self._conversation.event(text)
        if messages is None:
            self._connection.close(1012, "events were lost; connect again")
            return
        for message in messages:
            message.is_event = True
            super().put(message)
            _call_then(message)

    def is_event(self, text: str) -> bool:
        return type(text) is Worded and text.is_event


def _call_then(text: str) -> None:
    if type(text) is Worded and text.then is not None:
        then, text.then = text.then, None
        then()


def _all_dialects(dialect: Any, dialects: Sequence[Any]) -> Sequence[Any]:
    return dialects if dialect is None else (*dialects, dialect)


def choose(
    dialect: Dialect | None, dialects: Sequence[Dialect], offered: Sequence[str]
) -> tuple[Dialect | None, str | None]:
    """The dialect to be spoken, None for ``wsaction.v1``, and the sub-protocol to be echoed.

    The first one offered that is known decides; none: ``dialect``, the consumer's own.
    """
    known = {each.subprotocol: each for each in _all_dialects(dialect, dialects)}
    for name in offered:
        if name == SUBPROTOCOL:
            return None, name
        if name in known:
            return known[name], name
    return dialect, None


def check_dialects(owner: str, dialect: Any, dialects: Any) -> None:
    """Raises `ImproperlyConfigured` for what are no dialects, and for a sub-protocol that is two dialects'."""
    if not isinstance(dialects, Sequence):
        raise ImproperlyConfigured(f"{owner}.dialects: expected a sequence, as in (DCRF(),), got {dialects!r}")
    names = [SUBPROTOCOL]
    for candidate in _all_dialects(dialect, dialects):
        if isinstance(candidate, type) or not hasattr(candidate, "converse"):
            raise ImproperlyConfigured(f"{owner}: a dialect is an object, as in dialect = DCRF(), not {candidate!r}")
        if candidate.subprotocol in names:
            raise ImproperlyConfigured(f"{owner}: two dialects have the sub-protocol {candidate.subprotocol!r}")
        names.append(candidate.subprotocol)
