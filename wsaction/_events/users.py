"""Users: the connections of each user, and the commands about users that all processes receive.

The commands are ``disconnect``, ``revoke``, ``push``, and ``missed``, which sends ``$resync`` in place of a lost push.
They travel as events of two topics of the layer, to which every serving process subscribes: one for commands that must
not be missed, and one for pushes, which may be many. A process that was cut off reads the commands since then from the
history. If the history is gone:

- The process cannot know who was disconnected. It closes all connections that users had before, with 1012. Their
  clients reconnect and are authenticated again.
- The process cannot know what was pushed. It sends ``$resync`` to these connections under the empty route, which is the
  route of pushes.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from wsaction._events.reauthorization import ConnectionRight, Grant, Stream, revoke_subscription, update_presence
from wsaction._protocol.close_codes import FORBIDDEN, SERVICE_RESTART
from wsaction._protocol.event_frames import encode_event, encode_notice
from wsaction._protocol.frames import current_frame
from wsaction._pubsub.hub import Hub
from wsaction._utils.backoff import Backoff
from wsaction._utils.tasks import Tasks
from wsaction.authentication._identity import is_somebody
from wsaction.exceptions import Cancelled, LayerUnavailable, PermissionDenied
from wsaction.layers.base import History, Position
from wsaction.transactions import LOST_COMMIT_DELAY

if TYPE_CHECKING:
    from wsaction._dispatch.session import Session

logger = logging.getLogger("wsaction")

CONTROL, PUSHES = "$control", "$push"  # topics; those of routes contain a "?"
HISTORY = History(1_000, 300.0)
MAX_UNSENT = 10_000  # commands that could not be sent after a commit, and are retried
CLOSED_AT_ONCE = 50  # connections, so that their clients do not all reconnect at once
CLOSE_PAUSE = 0.05  # seconds between two such groups of closes
LISTEN_TIMEOUT = 1.0  # seconds that a handshake waits for the subscription to the topics
COMMANDS_LOST = "commands about users may have been lost; connect again"


class Users:
    """The connections of one event loop by user, each as its `_dispatch.session.Session`.

    ``hub`` returns the loop's hub, and ``user_id`` the id of a user. ``shared`` says whether there are other processes.
    The object is itself the `_pubsub.subscription.Subscriber` of the topics of commands.
    """

    capacity = 1 << 20  # never reached: `put` runs each command at once
    is_closed = False

    def __init__(
        self, hub: Callable[[], Hub], user_id: Callable[[Any], Any], *, shared: bool, max_unsent: int = MAX_UNSENT
    ) -> None:
        self._hub = hub
        self._user_id = user_id
        self._shared = shared
        self._max_unsent = max_unsent
        self._sessions: dict[str, set[Any]] = {}
        self._keys: dict[Any, str] = {}
        self._user_since: dict[Any, float] = {}  # when, by the loop's clock, a connection got its user
        self._authenticating: dict[object, dict[str, str]] = {}  # by lookup: users disconnected since, and why
        self._unsent: dict[tuple[str, str], dict[str, str]] = {}
        self._retrying = False
        self._tasks = Tasks(copy_context())
        self._listening = False
        self.is_subscribed = asyncio.Event()  # set once commands of other processes arrive here
        self._has_tried_to_listen = asyncio.Event()  # set once that has succeeded or failed

    # ------------------------------------------------------------------------------------------------ connections
    @contextmanager
    def authenticating(self, session: "Session") -> Iterator[None]:
        """The block authenticates a connection; at its end the connection is noted as its user's.

        If the user is disconnected during the block, the lookup may have read the state before. The connection is then
        closed, as the user's other connections are.
        """
        since = asyncio.get_running_loop().time()
        disconnected = self._authenticating[token := object()] = {}  # one connection may have two lookups under way
        try:
            yield
        finally:
            del self._authenticating[token]
        self._add(session, since)
        if (reason := disconnected.get(self._keys.get(session, ""))) is not None:
            session.connection.close(FORBIDDEN, reason)

    def _add(self, session: "Session", since: float) -> None:
        previous_key, noted = self._keys.get(session), self._user_since.get(session, since)
        self.forget(session)
        user = session.scope.get("user")
        try:
            user_id = self._user_id(user) if is_somebody(user) else None
        except TypeError as exc:  # a user without an id may connect, but no command can name them
            logger.debug("the user of a connection has no id: %s", exc)
            return
        if user_id is None:
            return
        key = self._keys[session] = str(user_id)
        self._user_since[session] = noted if key == previous_key else since
        self._sessions.setdefault(key, set()).add(session)

    def forget(self, session: "Session") -> None:
        """Forgets a connection that has ended or has no user any more."""
        if (key := self._keys.pop(session, None)) is not None:
            del self._user_since[session]
            self._sessions[key].discard(session)
            if not self._sessions[key]:
                del self._sessions[key]

    def key(self, session: "Session") -> str | None:
        """Returns the id of a connection's user as text; None without one."""
        return self._keys.get(session)

    def sessions(self, key: str) -> Iterable[Any]:
        """Returns the connections of a user on this event loop."""
        return tuple(self._sessions.get(key, ()))

    async def stop(self) -> None:
        """Stops all tasks; commands of other processes are received again from the next connection on."""
        await self._tasks.stop()
        self._listening = self._retrying = False
        for command, user in self._unsent:
            _log_undelivered(command, user, "the server is stopping")
        self._unsent.clear()
        self.is_subscribed.clear()
        self._has_tried_to_listen.clear()

    # ------------------------------------------------------------------------------------------------ sending
    async def send_command(self, command: str, user_id: Any, **details: Any) -> None:
        """Runs a command for a user's connections in every process: ``disconnect``, ``revoke`` or ``push``.

        It always runs here. Raises `LayerUnavailable` if it may not have reached other processes.
        """
        data = {"user": str(user_id), **details}
        self._apply(command, data)
        await self._publish_command(command, data)

    async def send_command_with_retry(self, command: str, user_id: Any, **details: Any) -> None:
        """As `send_command`, but retries until other processes are reached: for use after a commit.

        No caller can retry then. A push is not repeated, as it may have arrived or would be late. The user's
        connections get ``$resync`` instead.
        """
        try:
            await self.send_command(command, user_id, **details)
        except LayerUnavailable as exc:
            logger.error(
                "the command %s about a user has not reached other processes and will be retried: %r", command, exc
            )
            self._retry_later("missed" if command == "push" else command, {"user": str(user_id), **details})

    async def send_command_if_unknown(self, command: str, user_id: Any, **details: Any) -> None:
        """As `send_command_with_retry`, if the outcome of the commit is unknown.

        Instead of a push, connections get ``$resync``. The command runs now and again after ``LOST_COMMIT_DELAY``
        seconds: the commit may still be on its way to the database, and permissions checked before it arrives see the
        old state.
        """
        command = "missed" if command == "push" else command
        self._tasks.start(self._send_command_again, command, user_id, details)
        await self.send_command_with_retry(command, user_id, **details)

    async def _send_command_again(self, command: str, user_id: Any, details: Mapping[str, Any]) -> None:
        current_frame.set(None)
        await asyncio.sleep(LOST_COMMIT_DELAY)
        await self.send_command_with_retry(command, user_id, **details)

    async def _publish_command(self, command: str, data: dict[str, str]) -> None:
        if self._shared:
            text = encode_event(command, "", to_json({name: data[name] for name in _COMMANDS[command]}).decode())
            topic = PUSHES if command in ("push", "missed") else CONTROL
            await self._hub().publish(topic, text, HISTORY, exclude=self)

    def _retry_later(self, command: str, data: dict[str, str]) -> None:
        key = command, data["user"]
        if key not in self._unsent and len(self._unsent) >= self._max_unsent:
            _log_undelivered(*key, f"{self._max_unsent} commands wait already")
            return
        self._unsent[key] = data
        if not self._retrying:
            self._retrying = True
            self._tasks.start(self._retry)

    async def _retry(self) -> None:
        current_frame.set(None)
        backoff = Backoff()
        try:
            while self._unsent:
                key, data = next(iter(self._unsent.items()))
                try:
                    await self._publish_command(key[0], data)
                except LayerUnavailable:
                    await asyncio.sleep(backoff.seconds())
                else:
                    backoff.reset()
                    if self._unsent.get(key) is data:
                        del self._unsent[key]
        finally:
            self._retrying = False

    def _apply(self, command: str, data: Any) -> None:
        if command == "disconnect":
            for disconnected in self._authenticating.values():
                disconnected[data["user"]] = data["reason"]
        for session in self.sessions(data["user"]):
            if command == "disconnect":
                session.connection.close(FORBIDDEN, data["reason"])
            elif command == "push":
                session.connection.put(data["text"])
            elif command == "missed":
                _send_resync(session)
            elif command == "revoke":
                recheck(session)

    # ------------------------------------------------------------------------------------------------ receiving
    def start_listening(self) -> None:
        """Starts to receive commands of other processes, unless that has started.

        It is called when the app starts or, if nothing starts the app, with the first connection.
        """
        if self._shared and not self._listening:
            self._listening = True
            self._tasks.start(self._listen)

    async def wait_until_listening(self) -> None:
        """Waits at most `LISTEN_TIMEOUT` seconds until commands of other processes arrive here.

        A user who is looked up before may miss a command, so that their connection is closed later, with 1012.
        """
        if self._shared and not self._listening:
            self._has_tried_to_listen.clear()
            self.start_listening()
        if self._shared and not self._has_tried_to_listen.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LISTEN_TIMEOUT):
                    await self._has_tried_to_listen.wait()

    async def _listen(self) -> None:
        current_frame.set(None)
        backoff = Backoff()
        while True:
            try:
                for topic in (CONTROL, PUSHES):
                    await self._hub().join(self, topic, topic, reply=lambda *_: "{}", history=HISTORY)
            except LayerUnavailable as exc:
                self._has_tried_to_listen.set()
                logger.warning("commands about users from other processes cannot be heard yet: %r", exc)
                await asyncio.sleep(backoff.seconds())
            except Cancelled:
                self._has_tried_to_listen.set()
                return  # the hub is closed
            except Exception as exc:  # the layer's configuration is wrong
                logger.error("commands about users from other processes cannot be heard: %r", exc)
                self._listening = False  # the next connection tries again
                self._has_tried_to_listen.set()
                return
            else:
                self.is_subscribed.set()
                self._has_tried_to_listen.set()
                if self._user_since:  # connections that were accepted before
                    self._handle_gap(CONTROL)
                    self._handle_gap(PUSHES)
                return

    def put(self, text: str) -> None:
        """Runs a command that the hub delivers."""
        message = from_json(text)
        if message.get("event") == "$resync":
            self._handle_gap(message["route"])
        elif _is_valid(message):
            self._apply(message["event"], message["data"])
        elif message.get("event") not in (None, "$position"):
            logger.warning("ignoring an unknown command about users: %.100r", text)

    def _handle_gap(self, topic: str) -> None:
        """Handles the loss of commands from before this process last subscribed to a topic.

        Connections that got their user before that may have missed one. Those that got theirs later have missed
        nothing; their permissions are checked again all the same.
        """
        since = self._hub().confirmed_since(topic)
        stale = [session for session, noted in self._user_since.items() if noted <= since]
        if topic == PUSHES:
            for session in stale:
                _send_resync(session)
            return
        logger.warning(
            "commands about users may have been missed: %s connections are closed with 1012, and the permissions of "
            "the others are checked again",
            len(stale),
        )
        if stale:
            self._tasks.start(self._close_all, stale)
        for session in self._user_since.keys() - set(stale):
            recheck(session)

    async def _close_all(self, sessions: list[Any]) -> None:
        random.shuffle(sessions)
        for start in range(0, len(sessions), CLOSED_AT_ONCE):
            for session in sessions[start : start + CLOSED_AT_ONCE]:
                session.connection.close(SERVICE_RESTART, COMMANDS_LOST)
            await asyncio.sleep(CLOSE_PAUSE)

    async def wait_for_space(self, size: int) -> None:
        """Returns at once, as there always is space."""

    def close(self, code: int, reason: str) -> None:
        """Does nothing: no command waits here, so that the hub never closes this subscriber for being slow."""


_COMMANDS = {"disconnect": ("user", "reason"), "revoke": ("user",), "push": ("user", "text"), "missed": ("user",)}


def _log_undelivered(command: str, user: str, why: str) -> None:
    logger.error("the command about user %r (%s) does not reach other processes: %s", user, command, why)


def _send_resync(session: "Session") -> None:
    """Sends ``$resync`` to a connection under the empty route, as a push may be lost."""
    if any(grant.route == "" for grant in session.grants.values()):
        session.runtime.loop_state.resync(session.connection, ("",))  # its own subscription there has a position
    else:
        session.connection.put(encode_notice("$resync", "", Position("", 0)))


def _is_valid(message: Any) -> bool:
    """Whether a message is a command as `Users.send_command` sends it; a layer may deliver anything."""
    command, data = message.get("event"), message.get("data")
    if not (isinstance(command, str) and isinstance(data, dict)):
        return False
    return command in _COMMANDS and all(isinstance(data.get(name), str) for name in _COMMANDS[command])


def recheck(session: "Session") -> asyncio.Task[None] | None:
    """Checks the permissions of all subscriptions and streams of a connection again, and ends those that are refused.

    Their client is told so. If the connection receives broadcasts, its right to connect is checked too; if that is
    refused, the connection is closed with 4403.

    The checks run at once, each for at most ``action_timeout`` seconds, so that one that hangs delays no other. Until
    its check has ended, a subscription delivers no event and a stream no item. Returns the task of the checks; None if
    there is nothing to check.
    """
    session.rechecks += 1
    hold = partial(session.runtime.loop_state.hold, session.connection)
    attempts = [(key, attempt.grant) for key, attempt in session.attempts.items() if attempt.grant is not None]
    grants = [*session.grants.items(), *attempts]
    checks = [partial(_recheck_subscription, session, key, grant, hold(*key)) for key, grant in grants]
    checks += [partial(_recheck_stream, session, stream, stream.hold()) for stream in session.streams]
    if (group := session.group) is not None:
        checks.append(partial(_recheck_connection, session, group, session.runtime.loop_state.hold(group, *group.key)))
    if not checks:
        return None
    task: asyncio.Task[None] = session.connection.spawn(_run_all, checks)
    return task


async def _run_all(checks: Iterable[Callable[[], Awaitable[None]]]) -> None:
    await asyncio.gather(*(check() for check in checks))


async def _recheck_stream(session: "Session", stream: Stream, resume: Callable[[], None]) -> None:
    try:
        if not await stream.still_holds() and stream in session.streams and not stream.frame.is_refused:
            session.connection.stop(stream.frame, PermissionDenied())
    finally:
        resume()


async def _recheck_connection(session: "Session", group: Any, resume: Callable[[], None]) -> None:
    try:
        if await ConnectionRight(session).still_holds():
            group.is_receiving = True
        else:
            session.connection.close(FORBIDDEN, "permission denied")
    finally:
        resume()


async def _recheck_subscription(
    session: "Session", key: tuple[str, str], grant: Grant, resume: Callable[[], None]
) -> None:
    try:
        holds, attempt = await grant.still_holds(), session.attempts.get(key)
        if holds:
            update_presence(session, key[0])
        elif session.grants.get(key) is grant:
            revoke_subscription(session, *key)
        elif attempt is not None and attempt.grant is grant:
            attempt.end(PermissionDenied())
    finally:
        resume()
