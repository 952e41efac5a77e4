"""Fan-out in process: an ASGI app with many listening connections and one speaker.

It times an event from the speaker's frame to the `send` of every listener. Here `send` does almost nothing, so the
result is a lower bound: a server also makes frames and writes to sockets.
"""

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.contestants import Contestant
from benchmarks.driver import Unfit
from benchmarks.job import Speech, scope

__all__ = ("Hall", "Talk", "lifespan", "number_in", "open_hall", "payload")

PATIENCE = 8.0  # seconds for one event
JOINING = 30.0  # seconds for all to join
AT_ONCE = 100  # connections opened together
_rooms = itertools.count()
_MARK = re.compile(r"#(\d+)#")


@dataclass(frozen=True, slots=True)
class Talk:
    """The messages of a contestant's protocol: how a listener joins and how the speaker sends an event."""

    speech: Speech
    join: Callable[[str], str]  # takes a room
    tell: Callable[[str, str], str]  # takes a room and the event's data
    greetings: int = 1  # messages that a listener gets until it is ready, with the reply to `join`
    lifespan: bool = False  # whether the app needs its lifespan


def payload(number: int) -> str:
    """An event's data: its number and text of the length of a chat message. ``payload(7)`` begins with ``#7#``."""
    return f"#{number}# " + "x" * 80


def number_in(text: str) -> int | None:
    """The number of the event in a message; None if it is not an event."""
    return int(found[1]) if "told" in text and (found := _MARK.search(text)) else None


class Hall:
    """The connections of one app; times events to all of them."""

    def __init__(self, app: Any, talk: Talk, listeners: int) -> None:
        self.app, self.talk, self.room = app, talk, f"room{next(_rooms)}"
        self.left = 0  # listeners that still wait for the event
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.times: list[float] | None = None  # when each listener got the event, if requested
        self.number = 0
        self.listeners = [_Listener(self, talk.join(self.room), talk.greetings) for _ in range(listeners)]
        self.speaker = _Listener(self, None, talk.greetings - 1)
        self.tasks: list[asyncio.Future[None]] = []

    async def fill(self) -> None:
        """Opens all connections and waits until all listen."""
        async with asyncio.timeout(JOINING):
            for first in range(0, len(self.listeners), AT_ONCE):
                some = self.listeners[first : first + AT_ONCE]
                self.tasks += [asyncio.ensure_future(self.app(self._scope(), x.receive, x.send)) for x in some]
                for one in some:
                    await one.ready.wait()
            speaker = self.speaker
            self.tasks.append(asyncio.ensure_future(self.app(self._scope(), speaker.receive, speaker.send)))
            await speaker.ready.wait()

    def _scope(self) -> dict[str, Any]:
        return scope(self.talk.speech.path, self.talk.speech.query)

    async def close(self) -> None:
        """Ends all connections."""
        for one in (*self.listeners, self.speaker):
            one.end()
        await asyncio.wait(self.tasks, timeout=5)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)  # an app may handle its disconnect as it likes

    async def event(self, *, deaf: int = 0) -> float:
        """Seconds until all listeners have one event, except ``deaf`` of them. Raises `Unfit`."""
        self.number += 1
        self.left, self.done = len(self.listeners) - deaf, asyncio.get_running_loop().create_future()
        text = self.talk.tell(self.room, payload(self.number))
        began = time.perf_counter()
        self.speaker.say(text)
        try:
            async with asyncio.timeout(PATIENCE):
                await self.done
        except TimeoutError:
            raise Unfit(f"{self.left} of {len(self.listeners)} were not told an event in {PATIENCE:g} s") from None
        return time.perf_counter() - began

    async def waits(self, events: int, *, deaf: int = 0) -> list[float]:
        """Seconds from the frame to each listener, for a number of events."""
        waits: list[float] = []
        for _ in range(events):
            self.times = []
            began = time.perf_counter()
            await self.event(deaf=deaf)
            waits += [at - began for at in self.times]
        self.times = None
        return waits

    def verify(self) -> None:
        """Raises `Unfit` if a listener's last message is not the last event."""
        for one in self.listeners:
            if number_in(one.last) != self.number:
                raise Unfit(f"expected event {self.number} as the last message, got {one.last[:100]}")


class _Listener:
    """The server's side of one connection."""

    def __init__(self, hall: Hall, first: str | None, greetings: int) -> None:
        self._hall, self._greetings = hall, greetings
        self.ready, self._ended = asyncio.Event(), asyncio.Event()
        self.deaf = False  # its `send` does not return until the end
        self.last = ""
        texts = [*hall.talk.speech.hello, *([] if first is None else [first])]
        self._in: asyncio.Queue[Any] = asyncio.Queue()
        self._in.put_nowait({"type": "websocket.connect"})
        for text in texts:
            self.say(text)
        self.receive = self._in.get

    def say(self, text: str) -> None:
        self._in.put_nowait({"type": "websocket.receive", "text": text})

    def end(self) -> None:
        self._ended.set()
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def send(self, message: Any) -> None:
        if not self.ready.is_set():
            self._greet(message)
            return
        if self.deaf:
            await self._ended.wait()
        self.last = message.get("text", "")
        hall = self._hall
        if hall.times is not None:
            hall.times.append(time.perf_counter())
        hall.left -= 1
        if not hall.left and not hall.done.done():
            hall.done.set_result(None)

    def _greet(self, message: Any) -> None:
        if message["type"] == "websocket.send":
            self._greetings -= 1
        if self._greetings <= 0:
            self.ready.set()


@asynccontextmanager
async def open_hall(contestant: Contestant, talk: Talk, listeners: int) -> AsyncIterator[Hall]:
    """Opens connections with a number of listeners and sends three events to warm up. Raises `Unfit`."""
    hall = Hall(contestant.app(), talk, listeners)
    try:
        try:
            await hall.fill()
        except TimeoutError:
            raise Unfit(f"{listeners} listeners were not there in {JOINING:g} s") from None
        for _ in range(3):
            await hall.event()
        hall.verify()
        yield hall
    finally:
        await hall.close()


@asynccontextmanager
async def lifespan(app: Any, wanted: bool) -> AsyncIterator[None]:
    """Runs the lifespan of an app, if the contestant needs it. Raises `Unfit`."""
    if not wanted:
        yield
        return
    asked: asyncio.Queue[Any] = asyncio.Queue()
    told: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, asked.get, told.put))
    for step in ("startup", "shutdown"):
        asked.put_nowait({"type": f"lifespan.{step}"})
        if (await told.get())["type"] != f"lifespan.{step}.complete":
            raise Unfit(f"its lifespan's {step} failed")
        if step == "startup":
            yield
    await task


def json_talk(action: str, route: str, data: str | None = None) -> str:
    """A frame of wsaction, or of a contestant with similar JSON."""
    return json.dumps({"action": action, "route": route} | ({} if data is None else {"data": data}))
