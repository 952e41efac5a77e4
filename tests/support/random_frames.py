"""A client that sends random frames to two routes of one topic, and what must hold at the end.

`play` runs one round in virtual time and returns its faults. The same seed plays the same round.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from functools import cache
from types import SimpleNamespace
from typing import Any

from tests.support.virtual_time import run
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import PermissionDenied
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.presence import PresenceMixin
from wsaction.routing import path
from wsaction.testing import WebSocketSession, connect

ROUTES = ("left/", "right/")
FRAMES = 25  # in a round
EVENTS = 30  # published meanwhile
ACTIONS = ("subscribe",) * 3 + ("unsubscribe", "enter", "watch", "presence", "$cancel", "revoke")
LINGER = 3.0  # seconds after which nobody's topic is gone


class Room(PresenceMixin, AsyncAPIActionHandler):
    """Whatever it does takes a random time and may fail."""

    def get_topic(self) -> str:
        return "room"

    @property
    def rng(self) -> random.Random:
        rng: random.Random = self.scope["rng"]
        return rng

    async def pause(self, chance_of_failure: float = 0.0) -> None:
        await asyncio.sleep(self.rng.choice((0, 0.001, 0.005, 0.02)))
        if self.rng.random() < chance_of_failure:
            raise self.rng.choice((PermissionDenied, ValueError))

    async def check_subscription(self) -> None:
        if "rng" in self.scope:
            await self.pause(0.05)

    @async_action
    async def list(self) -> str:
        await self.pause(0.3)
        return "rows"


def enter_and_watch(*, ordered: bool) -> type[Room]:
    """Returns a room whose other actions subscribe too, and run in the order of the route or beside it."""

    class Busy(Room):
        @async_action(ordered=ordered)
        async def enter(self, snapshot: bool = False) -> Any:
            position = await self.subscribe(snapshot=snapshot)
            await self.pause(0.4)
            return position

        @async_action(ordered=ordered)
        async def watch(self) -> AsyncIterator[Any]:
            position = await self.subscribe()
            for _ in range(3):
                await self.pause(0.2)
                yield position

    return Busy


@cache
def root(*, ordered: bool, filtered: bool) -> type[AsyncAPIConsumer]:
    """Returns the consumer of a kind of rounds."""
    busy: Any = enter_and_watch(ordered=ordered)

    class Filtered(busy):
        def get_event_filter(self, grant: Any) -> Any:
            async def let_through(event: Any) -> str:
                await asyncio.sleep(self.rng.choice((0, 0, 0.001)))
                frame: str = event.frame
                return frame

            return let_through

    class Root(AsyncAPIConsumer):
        routepatterns = [path(route, (Filtered if filtered else busy).as_aaah()) for route in ROUTES]

    return Root


class ClientView:
    """What a client knows from the frames that it received: where it is subscribed, and up to which offset."""

    def __init__(self) -> None:
        self.offsets: dict[str, int] = {}  # by route, while it is subscribed
        self.final_replies: Counter[int] = Counter()
        self.ends: Counter[str] = Counter()  # the events "end", by route
        self.faults: list[str] = []
        self._holes: set[str] = set()  # routes whose next frame has to be `$resync`
        self._streams: set[int] = set()  # that have sent an item

    def receive(self, frame: dict[str, Any]) -> None:
        if "event" in frame:
            self._receive_event(frame["event"], frame["route"], frame)
            return
        request_id, action, status = frame["request_id"], frame["action"], frame["status"]
        if status != 206:
            self.final_replies[request_id] += 1
            self._streams.discard(request_id)
        elif request_id in self._streams:
            return
        else:
            self._streams.add(request_id)
        if status in (200, 206) and action in ("subscribe", "enter", "watch") and frame["data"] is not None:
            self._subscribed(frame["route"], frame["data"], is_in_order=action == "subscribe")
        elif status == 204 and action == "unsubscribe":
            self._unsubscribed(frame["route"])

    def _receive_event(self, name: str, route: str, frame: dict[str, Any]) -> None:
        if name == "$unsubscribed":
            self._unsubscribed(route)
        elif route not in self.offsets:
            self.faults.append(f"an event without a subscription: {frame}")
        elif name in ("$resync", "$position"):
            self._holes.discard(route)
            self.offsets[route] = frame["data"]["offset"]
        else:
            self.ends[route] += name == "end"
            if frame["offset"] != self.offsets[route] + 1 or route in self._holes:
                self.faults.append(f"a hole or a repeat after {self.offsets[route]}: {frame}")
            self.offsets[route] = frame["offset"]

    def _subscribed(self, route: str, position: dict[str, Any], *, is_in_order: bool) -> None:
        """``is_in_order``: whether the reply is sent behind the events up to its position."""
        last, offset = self.offsets.get(route), position["offset"]
        if last is None:
            self.offsets[route] = offset
        elif not is_in_order:  # another frame may have subscribed since
            if "snapshot" in position:
                self.offsets[route] = max(last, offset)
        elif "snapshot" in position:
            if offset < last:
                self.faults.append(f"a snapshot of {offset} on {route} after {last}")
            self.offsets[route] = offset
        elif offset != last:
            if offset < last:
                self.faults.append(f"a reply of {offset} on {route} after {last}")
            self._holes.add(route)
            self.offsets[route] = offset

    def _unsubscribed(self, route: str) -> None:
        self.offsets.pop(route, None)
        self._holes.discard(route)

    def finish(self, sent: set[int], subscribed: set[str]) -> list[str]:
        """Returns all faults, once everything has arrived."""
        found = self.faults
        found += [f"{self.final_replies[one]} final replies to {one}" for one in sent if self.final_replies[one] != 1]
        found += [f"a hole on {route} without $resync" for route in sorted(self._holes)]
        if set(self.offsets) != subscribed:
            found.append(f"the client is subscribed to {sorted(self.offsets)}, the hub says {sorted(subscribed)}")
        if self.ends != Counter(subscribed):
            found.append(f"the last event came {dict(self.ends)}, subscribed is {sorted(subscribed)}")
        return found


class Round:
    """One client's frames, and the faults found."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.app = WSAction([path("ws/", root(ordered=seed % 2 == 0, filtered=seed % 4 > 1).as_asgi())])
        self.sent: set[int] = set()
        self.faults: list[str] = []

    async def play(self) -> None:
        async with self.app.lifespan(), connect(self.app, "/ws/", user=user("bob")) as witness:
            async with connect(
                self.app, "/ws/", user=user("ada"), scope={"rng": self.rng}, timeout=0.05, capacity=10_000
            ) as ws:
                (session,) = self.app.runtime.loop_state.users.sessions("ada")
                publishing = asyncio.create_task(self.publish())
                await self.send_frames(ws)
                if self.rng.random() < 0.25:  # it loses its connection among its frames
                    ws.drop()
                    await publishing
                else:
                    await publishing
                    await self.check_calm(ws, witness, session)
            await asyncio.sleep(LINGER)
            await self.check_nothing_is_left(witness, session)

    async def publish(self) -> None:
        for number in range(EVENTS):
            await self.app.publish(ROUTES[0], "told", number, topic="room")
            await asyncio.sleep(self.rng.choice((0, 0.001, 0.003)))

    async def send_frames(self, ws: WebSocketSession) -> None:
        for number in range(FRAMES):
            action = self.rng.choice(ACTIONS)
            if action == "revoke":
                await self.app.revoke_user("ada")
                continue
            frame = {"action": action, "route": self.rng.choice(ROUTES), "request_id": number}
            if action == "$cancel":
                frame |= {"route": "", "data": max(0, number - self.rng.randint(1, 3))}
            elif action in ("subscribe", "enter") and self.rng.random() < 0.6:
                frame["snapshot"] = True
            await ws.send_json(frame)
            self.sent.add(number)
            await asyncio.sleep(self.rng.choice((0, 0, 0.001, 0.004)))

    async def check_calm(self, ws: WebSocketSession, witness: WebSocketSession, session: Any) -> None:
        """Checks what the client, the hub and presence say once all frames are answered."""
        await asyncio.sleep(5)
        await self.app.publish(ROUTES[0], "end", topic="room")
        view = ClientView()
        for frame in await receive_all(ws):
            view.receive(frame)
        subscriptions = self.app.runtime.hub.subscriptions(session.connection)
        self.faults += view.finish(self.sent, {route for _, route in subscriptions})
        if set(session.grants) != set(subscriptions):
            self.faults.append(f"the grants are {list(session.grants)}, the subscriptions {subscriptions}")
        if session.attempts:
            self.faults.append(f"still about to subscribe: {list(session.attempts)}")
        present = (await witness.call("presence", ROUTES[0]))["data"]
        if present != ({"ada": 1} if subscriptions else {}):
            self.faults.append(f"present are {present}, the subscriptions are {subscriptions}")

    async def check_nothing_is_left(self, witness: WebSocketSession, session: Any) -> None:
        present = (await witness.call("presence", ROUTES[0]))["data"]
        subscriptions = self.app.runtime.hub.subscriptions(session.connection)
        left = present, subscriptions, list(self.app.runtime.hub._topics), session.attempts, session.present
        if any(left):
            self.faults.append(f"left after the connection: {left}")


def user(pk: str) -> Any:
    return SimpleNamespace(is_authenticated=True, pk=pk)


async def receive_all(ws: WebSocketSession) -> list[Any]:
    """Receives frames until none arrives for the session's timeout."""
    frames = []
    try:
        while True:
            frames.append(await ws.receive_json())
    except TimeoutError:
        return frames


def play(seed: int) -> list[str]:
    """Plays one round and returns its faults."""
    one = Round(seed)
    run(one.play())
    return one.faults
