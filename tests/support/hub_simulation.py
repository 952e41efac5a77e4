"""Simulates clients, publishers and a store around the hub, and checks what each client received.

A topic has several routes. A client subscribes to some of them and asks who is present. It keeps a log of each route.
`World.faults` compares the logs with the acknowledged events: a client must get every event once and in order, or a
notice of the loss.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from wsaction._protocol.event_frames import encode_event
from wsaction._pubsub.event import Event
from wsaction._pubsub.hub import Hub
from wsaction.exceptions import Cancelled, LayerUnavailable
from wsaction.layers.base import History, Layer, Position


class SnapshotFailed(Exception):
    """A repeated subscribe fails: the subscription before it goes on."""


def now() -> float:
    return asyncio.get_running_loop().time()


class FakeSubscriber:
    """A connection with a byte-bounded outbox, which one task delivers to the client."""

    def __init__(self, receive: Callable[[str], Awaitable[None] | None], capacity: int = 1 << 20) -> None:
        self.capacity, self.code, self.size = capacity, 0, 0
        self._receive, self._outbox = receive, deque[str]()
        self._wake, self._room = asyncio.Event(), asyncio.Event()
        self._writer = asyncio.create_task(self._write())

    @property
    def is_closed(self) -> bool:
        return bool(self.code)

    @property
    def is_empty(self) -> bool:
        return not self._outbox

    def put(self, text: str) -> None:
        if self.code:
            return
        self.size += len(text)
        if self.size > self.capacity:
            self.close(1013, "slow consumer")
            return
        self._outbox.append(text)
        self._wake.set()

    async def wait_for_space(self, size: int) -> None:
        while self.size and self.size + size > self.capacity // 2 and not self.code:
            self._room.clear()
            await self._room.wait()

    def close(self, code: int = 1000, reason: str = "") -> None:
        if not self.code:
            self.code = code
            self._outbox.clear()
            self._room.set()
            self._writer.cancel()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                text = self._outbox.popleft()
                self.size -= len(text)
                if (wait := self._receive(text)) is not None:
                    await wait
            self._room.set()


@dataclass
class Joined:
    """A reply to a subscription, in a log."""

    at: float
    position: Position
    recovered: bool | None


@dataclass
class Told:
    """A notice, in a log."""

    at: float
    event: str
    position: Position


@dataclass
class Got:
    """An event, in a log: the ``number``-th of a publisher on this topic."""

    at: float
    offset: int
    publisher: int
    number: int


@dataclass
class Segment:
    """The events after a fresh start. None of them may be missing."""

    head: Joined | Told
    events: list[Got] = field(default_factory=list)


class Node:
    """A process."""

    def __init__(self, world: World, **options: Any) -> None:
        self.layer = world.make_layer()
        self.hub = Hub(self.layer, **options)
        self.clients: set[Client] = set()
        self.healed: set[str] = set()

    async def start(self) -> Node:
        await self.hub.open()
        return self

    async def stop(self) -> None:
        for client in sorted(self.clients, key=lambda client: client.number):
            client.drop()
        await self.hub.close()


class World:
    """The whole simulation. ``options`` are those of the hubs."""

    def __init__(
        self,
        rng: random.Random,
        make_layer: Callable[[], Layer],
        *,
        clients: int = 14,
        topics: int = 3,
        history: int = 200,
        gentle: bool = False,
        apart: bool = False,
        options: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.rng, self.make_layer, self.options, self.gentle = rng, make_layer, options, gentle
        self.count: Counter[str] = Counter()
        self.topics = [f"boards/{number}/" for number in range(topics)]
        self.topic_of = {route: topic for topic in self.topics for route in (topic, f"{topic}1/", f"{topic}2/")}
        self.there: dict[str, dict[str, int]] = {topic: {} for topic in self.topics}  # the data of `presence`
        self.history = History(history, 60)
        self.rows: dict[str, dict[str, int]] = {topic: {} for topic in self.topics}  # the store
        self.acknowledged: dict[str, dict[tuple[int, int], float]] = {topic: {} for topic in self.topics}  # start times
        self.nodes: list[Node] = []
        self.is_apart = apart  # whether the publishers have a process without subscribers
        self.over, self.paused, self.publishing = False, False, 0
        self.clients = [Client(self, number) for number in range(clients)]

    # ------------------------------------------------------------------------------------------------ publishers
    async def publish(self, publisher: int, pause: float) -> None:
        rng, numbers = self.rng, Counter[str]()
        while not self.over:
            if self.paused:
                await asyncio.sleep(0.01)
                continue
            self.publishing += 1
            topic = self.topics[0] if rng.random() < 0.5 else rng.choice(self.topics)
            numbers[topic] += 1
            await self._publish_one(publisher, topic, numbers[topic], pause)
            self.publishing -= 1
            if rng.random() < 0.7:
                await asyncio.sleep(rng.random() * pause)

    async def _publish_one(self, publisher: int, topic: str, number: int, pause: float) -> None:
        rng = self.rng
        key = str(rng.randrange(20))
        version = self.rows[topic][key] = self.rows[topic].get(key, 0) + 1  # committed
        self.there[topic][str(publisher)] = number
        if rng.random() < 0.5:
            await asyncio.sleep(rng.random() * pause)  # published later
        begun = now()
        data = {"by": publisher, "n": number, "key": key, "version": version, "x": "x" * rng.randrange(50)}
        node = self.nodes[-1] if self.is_apart else self.nodes[publisher % 2]
        route = rng.choice([one for one, its in self.topic_of.items() if its == topic])
        try:
            await node.hub.publish(topic, encode_event("updated", route, json.dumps(data)), self.history)
        except LayerUnavailable as exc:
            self.count["uncertain" if exc.uncertain else "refused"] += 1
            self.invalidate_later(node, topic)
            await asyncio.sleep(0.02)
        else:
            self.count["acknowledged"] += 1
            self.acknowledged[topic][publisher, number] = begun

    def invalidate_later(self, node: Node, topic: str) -> None:
        node = node if node in self.nodes else self.nodes[0]
        node.healed.add(topic)
        node.hub.invalidate_later(topic, self.history)

    # ------------------------------------------------------------------------------------------------ running
    async def quiet(self) -> None:
        """Waits until no publication is under way."""
        self.paused = True
        while self.publishing:  # noqa: ASYNC110  # virtual time
            await asyncio.sleep(0.005)

    def drop_some(self) -> None:
        for client in self.rng.sample(self.clients, self.rng.randint(1, max(2, len(self.clients) // 7))):
            if client.subscriber is not None:
                client.drop()
                self.count["drops"] += 1

    def hold_one(self) -> None:
        """Holds the events of a client, as while its permissions are checked again."""
        client = self.rng.choice(self.clients)
        if client.subscriber is not None:
            for route in client.routes:
                go_on = client.node.hub.hold(client.subscriber, self.topic_of[route], route)
                asyncio.get_running_loop().call_later(self.rng.random() * 0.3, go_on)
            self.count["held"] += 1

    async def restart_node(self) -> None:
        if self.gentle:  # a drain waits for publications
            await self.quiet()
        which = self.rng.randrange(2)
        old, self.nodes[which] = self.nodes[which], await Node(self, **self.options()).start()
        await old.stop()
        for topic in sorted(old.healed):  # invalidations that the old node had pending
            self.invalidate_later(self.nodes[which], topic)
        self.count["node_restarts"] += 1
        self.paused = False

    async def live(
        self, chaos: Callable[[World], Awaitable[None]], *, publishers: int = 3, pause: float = 0.02
    ) -> None:
        """Runs until the faults have ended and all clients are at rest."""
        self.nodes = [await Node(self, **self.options()).start() for _ in range(3 if self.is_apart else 2)]
        clients = [asyncio.create_task(client.live()) for client in self.clients]
        at_work = [asyncio.create_task(self.publish(number, pause)) for number in range(publishers)]
        try:
            await chaos(self)
            self.over = True
            await asyncio.gather(*at_work)
            await self.rest()
            await asyncio.sleep(2.0)  # the hubs compare their positions
            await self.rest()
        finally:
            for task in (*clients, *at_work):
                task.cancel()
            await asyncio.gather(*clients, *at_work, return_exceptions=True)
            for node in self.nodes:
                await node.stop()

    async def rest(self) -> None:
        """Waits until every client is connected and up to date."""
        async with asyncio.timeout(60):
            while not self.is_at_rest():  # noqa: ASYNC110  # virtual time
                await asyncio.sleep(0.2)

    def is_at_rest(self) -> bool:
        return all(client.is_at_rest for client in self.clients) and not any(
            node.hub._pending_invalidation
            or node.hub._invalidating
            or any(topic.is_resync_pending or not topic.ready.is_set() for topic in node.hub._topics.values())
            for node in self.nodes
        )

    # ------------------------------------------------------------------------------------------------ checks
    def faults(self) -> list[Any]:
        """The faults in the clients' logs; empty if there are none."""
        return [
            *(
                (client.number, "under a route that it has not", client.strays)
                for client in self.clients
                if client.strays
            ),
            *((client.number, "presence was overtaken", *one) for client in self.clients for one in client.overtaken),
            *(fault for client in self.clients for route in client.routes for fault in self._faults(client, route)),
        ]

    def _faults(self, client: Client, route: str) -> list[Any]:
        segments, faults, topic = list[Segment](), list[Any](), self.topic_of[route]
        seen: Counter[tuple[int, int]] = Counter()
        for entry in client.log[route]:
            if isinstance(entry, Got):
                if not segments:
                    return [(client.number, route, "an event before a reply")]
                if entry.publisher < 0:
                    faults.append(("foreign", entry))
                segments[-1].events.append(entry)
                seen[entry.publisher, entry.number] += 1
            elif (entry.event == "$resync") if isinstance(entry, Told) else entry.recovered is not True:
                segments.append(Segment(entry))
                if isinstance(entry, Joined) and entry.recovered is None:  # a fresh start
                    faults += [("twice", key) for key, times in seen.items() if times > 1]
                    seen.clear()
        faults += [("twice", key) for key, times in seen.items() if times > 1]
        for at, segment in enumerate(segments):
            following = segments[at + 1] if at + 1 < len(segments) else None
            faults += self._faults_of(segment, following, client, topic)
        if client.has_snapshot and not client.is_filtered and client.state[route] != self.rows[topic]:
            faults.append(("state differs", client.state[route], self.rows[topic]))
        if client.asks_who and client.there[route] != self.there[topic]:
            faults.append(("presence differs", client.there[route], self.there[topic]))
        return [(client.number, route, *fault) for fault in faults]

    def _faults_of(self, segment: Segment, following: Segment | None, client: Client, topic: str) -> list[Any]:
        faults, events, acknowledged = list[Any](), segment.events, self.acknowledged[topic]
        offsets = [event.offset for event in events]
        first = segment.head.position.offset + 1
        if client.is_filtered:
            if any(later <= earlier for earlier, later in itertools.pairwise(offsets)):
                faults.append(("order", offsets))
        elif offsets != list(range(first, first + len(offsets))):
            faults.append(("hole in offsets", segment.head, offsets))
        numbers: dict[int, list[Got]] = defaultdict(list)
        for event in events:
            numbers[event.publisher].append(event)
        for publisher, got in numbers.items():
            have = [event.number for event in got]
            if have != sorted(have):
                faults.append(("order of publisher", publisher, have))
            holes = [
                number
                for number in range(have[0], have[-1])
                if (publisher, number) in acknowledged and client.sees(number) and number not in set(have)
            ]
            if holes and following is not None and _told_soon(holes, got, events[-1].at):
                self.count["told_late"] += 1
            elif holes:
                faults.append(("hole", publisher, holes))
        if following is None:
            have_all = {(event.publisher, event.number) for event in events}
            begun = {key: at for key, at in acknowledged.items() if at > segment.head.at and client.sees(key[1])}
            if missing := begun.keys() - have_all:
                faults.append(("short at the end", segment.head, len(missing), sorted(missing)[:3]))
        return faults


def _told_soon(holes: list[int], got: list[Got], last: float) -> bool:
    """Whether a notice came within 2 s of each hole, of events that Redis had acknowledged and then lost."""
    return all(last - next(event.at for event in got if event.number > hole) < 2.0 for hole in holes)


class Client:
    """A client that connects, disconnects, returns with ``since``, reloads after a `$resync`, and logs everything."""

    def __init__(self, world: World, number: int) -> None:
        rng = world.rng
        self.world, self.number = world, number
        self.routes = rng.sample(list(world.topic_of), rng.randint(1, len(world.topics) + 1))
        self.has_snapshot, self.is_filtered = number % 3 == 0, number % 5 == 1
        self.is_slow, self.is_flighty, self.asks_twice = number % 10 in (2, 7), number % 4 == 2, number % 4 == 3
        self.asks_who, self.is_indirect = number % 2 == 0 and not self.is_filtered, number % 4 < 2
        self.position: dict[str, Position | None] = dict.fromkeys(self.routes)
        self.log: dict[str, list[Joined | Told | Got]] = {route: [] for route in self.routes}
        self.state: dict[str, dict[str, int]] = {route: {} for route in self.routes}
        self.there: dict[str, dict[str, int]] = {route: {} for route in self.routes}
        self.strays: set[str] = set()
        self.overtaken: list[Any] = []
        self.doubts, self.settled = Counter[str](), Counter[str]()  # requests for presence, and their replies
        self.to_reload: set[str] = set()
        self.subscriber: FakeSubscriber | None = None
        self.node: Node
        self.orders: dict[str, asyncio.Lock] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def sees(self, number: int) -> bool:
        return not self.is_filtered or number % 2 == 0

    @property
    def is_at_rest(self) -> bool:
        subscriber = self.subscriber
        if subscriber is None or subscriber.is_closed or self.to_reload or self.tasks or not subscriber.is_empty:
            return False
        subscriptions = self.node.hub._joined.get(subscriber, {})
        return len(subscriptions) == len(self.routes) and not any(
            one._hold or getattr(one, "_queue", None) or getattr(one, "_filtering", None)
            for one in subscriptions.values()
        )

    async def live(self) -> None:
        rng = self.world.rng
        while True:
            if self.subscriber is None:
                await asyncio.sleep(rng.random() ** 3 * 2.0)
                self.connect()
            elif self.subscriber.is_closed:
                self.world.count[f"closed_{self.subscriber.code}"] += 1
                self.drop()
            elif self.asks_twice and rng.random() < 0.02 and not self.world.over:
                self.start(rng.choice(self.routes), again=True)
            elif self.asks_who and rng.random() < 0.05 and not self.world.over:
                self.begin(self.ask_who(rng.choice(self.routes)))
            await asyncio.sleep(0.02)

    def connect(self) -> None:
        self.node = self.world.rng.choice(self.world.nodes[:2])
        self.node.clients.add(self)
        small = self.is_slow and not self.world.gentle
        self.subscriber = FakeSubscriber(
            self.receive_slowly if self.is_slow else self.receive, 6000 if small else 1 << 20
        )
        self.orders = {route: asyncio.Lock() for route in self.routes}
        for route in self.routes:
            self.start(route)

    def drop(self) -> None:
        if self.subscriber is not None:
            self.subscriber.close()
            self.node.hub.leave_all(self.subscriber)
            self.node.clients.discard(self)
            self.subscriber = None
            for task in self.tasks:
                task.cancel()

    def start(self, route: str, *, again: bool = False) -> None:
        self.begin(self.subscribe(route, again))

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def ask_who(self, route: str) -> None:
        """Asks for presence like the action, with a slow layer and a slow middleware."""
        subscriber, world, topic = self.subscriber, self.world, self.world.topic_of[route]
        if subscriber is None:
            return
        async with self.orders[route]:
            go_on = self.node.hub.hold(subscriber, topic, route)
            await asyncio.sleep(world.rng.random() * 0.05)
            there, doubts = dict(world.there[topic]), self.doubts[route]
            await asyncio.sleep(world.rng.random() * 0.05)
            subscriber.put(json.dumps([route, there, doubts]))
            go_on()
            world.count["presences"] += 1

    async def subscribe(self, route: str, again: bool) -> None:
        subscriber, world, rng = self.subscriber, self.world, self.world.rng
        topic, replies = world.topic_of[route], list[str]()
        assert subscriber is not None

        async def snapshot() -> dict[str, int]:
            await asyncio.sleep(rng.random() * 0.05)
            rows = dict(world.rows[topic])
            await asyncio.sleep(rng.random() * 0.05)
            if fails:
                raise SnapshotFailed
            return rows

        async def only_even(event: Event) -> str | None:
            if rng.random() < 0.3:
                await asyncio.sleep(0.001)
            return event.frame if event.message["data"]["n"] % 2 == 0 else None

        def reply(position: Position, recovered: bool | None, rows: Any) -> str | None:
            replies.append(json.dumps([route, position.epoch, position.offset, recovered, rows]))
            return None if is_indirect else replies[0]

        fails, is_reverted = again and rng.random() < 0.4, again and rng.random() < 0.3
        # Another action subscribes and keeps running, and perhaps fails.
        is_indirect = is_reverted or (self.is_indirect and not again)
        async with self.orders[route]:  # frames of one route are handled in order
            if subscriber.is_closed:
                return
            try:
                joined = await self.node.hub.join(
                    subscriber,
                    topic,
                    route,
                    reply=reply,
                    history=world.history,
                    since=None if again else self.position[route],
                    snapshot=snapshot if self.has_snapshot or fails else None,
                    filter=only_even if self.is_filtered else None,
                )
            except SnapshotFailed:
                world.count["snapshots_failed"] += 1
                if route in self.to_reload and self.subscriber is subscriber:
                    self.start(route, again=True)
            except (LayerUnavailable, Cancelled):
                world.count["join_refused"] += 1
                if self.subscriber is subscriber:
                    subscriber.close(1000)
            else:
                world.count["joins"] += 1
                if is_indirect:
                    await asyncio.sleep(rng.random() * 0.1)
                if is_reverted:
                    world.count["reverted"] += 1
                    joined.revert()
                    if route in self.to_reload and self.subscriber is subscriber:
                        self.start(route, again=True)
                elif is_indirect:
                    subscriber.put(replies[-1])
                    joined.confirm()

    async def receive_slowly(self, text: str) -> None:
        await asyncio.sleep(0.004)
        self.receive(text)

    def receive(self, text: str) -> None:
        message = json.loads(text)
        if isinstance(message, list) and len(message) == 3:
            self.answered(*message)
        elif isinstance(message, list):
            self.joined(*message)
        elif message["route"] not in self.routes:
            self.strays.add(message["route"])
        elif message["event"].startswith("$"):
            self.told(message["event"], message["route"], Position(**message["data"]))
        else:
            self.got(message["route"], message["offset"], message["data"])

    def answered(self, route: str, there: dict[str, int], doubts: int) -> None:
        """Takes a reply to `presence`, which must not be older than the events before it."""
        if older := {by: n for by, n in self.there[route].items() if n > there.get(by, 0) and by != "-1"}:
            self.overtaken.append((route, older, there))
        self.there[route], self.settled[route] = there, doubts

    def doubt(self, route: str) -> None:
        """Asks for presence again. Until the reply, even over lost connections, the known presence has no position."""
        self.doubts[route] += 1
        self.begin(self.ask_who(route))

    def joined(self, route: str, epoch: str, offset: int, recovered: bool | None, rows: dict[str, int] | None) -> None:
        position = self.position[route] = Position(epoch, offset)
        self.log[route].append(Joined(now(), position, recovered))
        self.world.count[f"recovered_{recovered}"] += 1
        if rows is not None:
            self.state[route] = rows
        self.to_reload.discard(route)
        if self.asks_who and (recovered is not True or self.settled[route] != self.doubts[route]):
            self.doubt(route)
        if self.is_flighty and self.world.rng.random() < 0.1 and not self.world.over:
            self.world.count["flights"] += 1
            self.drop()

    def told(self, event: str, route: str, position: Position) -> None:
        self.world.count[event] += 1
        if self.position[route] is not None or event == "$resync":
            self.position[route] = position
        self.log[route].append(Told(now(), event, position))
        if event == "$resync" and self.asks_who:
            self.doubt(route)
        if event == "$resync" and self.has_snapshot:
            self.position[route] = None  # until the next snapshot, the state has no position
            self.to_reload.add(route)
            self.start(route, again=True)

    def got(self, route: str, offset: int, data: dict[str, Any]) -> None:
        self.world.count["delivered"] += 1
        known = self.position[route]
        if known is not None:
            self.position[route] = Position(known.epoch, offset)
        self.log[route].append(Got(now(), offset, data["by"], data["n"]))
        self.there[route][str(data["by"])] = data["n"]
        if self.state[route].get(data["key"], 0) < data["version"]:
            self.state[route][data["key"]] = data["version"]
