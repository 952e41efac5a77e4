"""`wsaction._connection.outbox`: messages to a client that reads slowly."""

import asyncio
import random
from typing import Any

import pytest

from wsaction._connection import outbox as outboxes
from wsaction._connection.flusher import Flusher
from wsaction._connection.outbox import Outbox, cut_reason
from wsaction._protocol.event_frames import is_event
from wsaction._protocol.frames import new_frame

WAIT = 5.0


class Peer:
    """The connection around an outbox, and a client that reads once ``reads`` is set."""

    def __init__(self, max_bytes: int, **options: Any) -> None:
        self.breaches, self.got, self.reached = [], [], []  # type: ignore[var-annotated]
        self.reads = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.adopted = asyncio.Event()
        self.outbox = Outbox(self.send, self, max_bytes, Flusher(), **options)
        self.outbox.open()

    async def send(self, message: Any) -> None:
        await self.reads.wait()
        self.got.append(message["text"])

    def adopt(self, task: asyncio.Task[None]) -> None:
        self.tasks.add(task)
        self.adopted.set()

    def close(self, code: int, reason: str) -> None:
        raise AssertionError(f"closed: {code}")

    def close_for_limit(self, code: int, limit: str, reason: str) -> None:
        self.outbox.end()
        self.breaches.append((code, limit, reason))

    def on_limit(self, limit: str, value: float) -> None:
        self.reached.append((limit, value))

    def peer_disconnected(self, code: int) -> None:
        raise AssertionError("the peer did not disconnect")

    async def read_all(self) -> list[str]:
        self.reads.set()
        await asyncio.wait_for(asyncio.gather(*self.tasks), WAIT)
        return self.got


async def blocked(max_bytes: int, **options: Any) -> Peer:
    """A peer whose first message is being sent and not read yet."""
    peer = Peer(max_bytes, **options)
    peer.outbox.put("first")
    await asyncio.wait_for(peer.adopted.wait(), WAIT)  # the flusher has taken over the send
    assert peer.outbox.size == 0
    return peer


async def test_past_the_bound_the_client_is_closed() -> None:
    peer = await blocked(10)
    peer.outbox.put("12345")
    peer.outbox.put("67890")
    assert not peer.breaches
    peer.outbox.put("!")
    assert peer.breaches == [(1013, "max_outbox_bytes", "slow consumer")]
    await peer.read_all()


async def test_after_the_end_waiting_messages_stay_for_the_close_frame() -> None:
    peer = await blocked(100)
    peer.outbox.put("second")
    peer.outbox.end()
    assert await peer.read_all() == ["first"]
    await peer.outbox.send("third", new_frame({}, "act", "", None))
    assert peer.got == ["first"]
    assert list(peer.outbox.waiting or ()) == ["second"]


async def test_the_oldest_events_make_room_and_replies_stay_in_order() -> None:
    peer = await blocked(3 * SIZE + 4, drop_events=True)
    for text in (event("a"), "r1", event("b"), "r2", event("c")):
        peer.outbox.put(text)
    peer.outbox.put("n" * (2 * SIZE))
    assert peer.reached == [("max_outbox_bytes", 3 * SIZE + 4)]
    assert peer.outbox.size == 3 * SIZE + 4
    assert await peer.read_all() == ["first", "r1", "r2", event("c"), "n" * (2 * SIZE)]
    assert not peer.breaches
    assert peer.outbox.size == 0


async def test_an_event_that_replies_leave_no_room_for_is_dropped() -> None:
    peer = await blocked(SIZE, drop_events=True)
    peer.outbox.put("r" * SIZE)
    peer.outbox.put(event("a"))
    assert not peer.breaches
    assert peer.reached == [("max_outbox_bytes", SIZE)]
    assert await peer.read_all() == ["first", "r" * SIZE]


async def test_replies_that_wait_are_looked_at_once_not_for_each_event(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr(outboxes, "is_event", lambda text: looked_at.append(text) or is_event(text))
    peer = await blocked(1_000 * 4 + 3 * SIZE, drop_events=True)
    for number in range(1_000):
        peer.outbox.put(f"r{number:03}")
    for number in range(500):
        peer.outbox.put(event(f"{number:03}"[-1]))
        peer.outbox.put(event("z"))
    assert len(looked_at) < 1_000 + 3 * 1_000
    sent = await peer.read_all()
    assert sent[1:1_001] == [f"r{number:03}" for number in range(1_000)]
    assert sent[1_001:] == [event("z"), event("9"), event("z")]


@pytest.mark.parametrize("seed", range(20))
async def test_replies_keep_their_order_and_the_oldest_events_drop(seed: int) -> None:
    rng = random.Random(seed)
    bound = 6 * SIZE
    peer = await blocked(bound, drop_events=True)
    waiting: list[str] = []  # the expected queue
    for number in range(200):
        kind = rng.random()
        if kind < 0.4 and waiting:
            assert peer.outbox.next() == waiting.pop(0)
            continue
        text = f"r{number}" if kind < 0.6 else event(rng.choice("abc"))
        while sum(map(len, [*waiting, text])) > bound and any(map(is_event, waiting)):
            waiting.remove(next(filter(is_event, waiting)))
        if sum(map(len, [*waiting, text])) > bound:
            if not is_event(text):
                break  # the outbox closed the connection
        else:
            waiting.append(text)
        peer.outbox.put(text)
        assert list(peer.outbox.waiting or ()) == waiting
        assert peer.outbox.size == sum(map(len, waiting))
    await peer.read_all()


async def test_replies_are_never_dropped() -> None:
    peer = await blocked(2 * SIZE, drop_events=True)
    peer.outbox.put("r" * SIZE)
    peer.outbox.put(event("a"))
    peer.outbox.put("r" * (SIZE + 1))
    assert peer.breaches == [(1013, "max_outbox_bytes", "slow consumer")]
    await peer.read_all()


# ------------------------------------------------------------------------------------------------ dropped events
def event(route: str) -> str:
    """An event frame of `SIZE` bytes."""
    return f'{{"event":"e","route":"{route}"}}'


SIZE = len(event("a"))


async def test_routes_of_dropped_events_are_reported_when_half_is_free() -> None:
    peer = await blocked(4 * SIZE, drop_events=True)
    reports: list[Any] = []

    def report(lost: Any) -> None:
        reports.append((lost, peer.outbox.size))
        for route in sorted(lost):
            peer.outbox.put(f"load {route} again")

    peer.outbox.on_lost = report
    for route in "aabcdd":
        peer.outbox.put(event(route))
    assert reports == []
    got = await peer.read_all()
    assert reports == [({"a"}, 2 * SIZE)]
    assert got == ["first", event("b"), event("c"), event("d"), event("d"), "load a again"]
    peer.outbox.put("more")
    assert len(reports) == 1


async def test_what_is_dropped_as_that_is_said_is_said_the_next_time() -> None:
    peer = await blocked(2 * SIZE, drop_events=True)
    reports: list[Any] = []

    def report(lost: Any) -> None:
        reports.append(lost)
        if len(reports) == 1:
            for route in "cdef":
                peer.outbox.put(event(route))

    peer.outbox.on_lost = report
    for route in "abc":
        peer.outbox.put(event(route))
    await peer.read_all()
    assert reports == [{"a"}, {"c", "d"}]


async def test_an_event_larger_than_the_bound_is_reported_at_once() -> None:
    peer = Peer(SIZE - 1, drop_events=True)
    peer.outbox.put(event("a"))  # without a callback
    reports: list[Any] = []
    peer.outbox.on_lost = reports.append
    peer.outbox.put(event("b"))
    assert (reports, peer.outbox.waiting, peer.breaches) == ([{"b"}], None, [])


async def test_routes_that_are_too_many_to_remember_are_all() -> None:
    peer = await blocked(SIZE, drop_events=True, max_lost=2)
    reports: list[Any] = []
    peer.outbox.on_lost = reports.append
    for route in "abcde":
        peer.outbox.put(event(route))
    peer.outbox.put('{"event":"e","data":"of no route"}')
    await peer.read_all()
    assert reports == [None]


async def test_queued_messages_are_sent_before_the_close_frame() -> None:
    peer = Peer(100)
    peer.reads.set()
    peer.outbox.put("last")
    peer.outbox.end()
    peer.outbox.put("too late")
    closed: list[Any] = []

    async def send(message: Any) -> None:
        closed.append(message.get("text", message["type"]))

    peer.outbox.asgi_send = send
    await peer.outbox.flush_and_close(1000, "")
    assert closed == ["last", "websocket.close"]


async def test_bytes_are_counted_not_characters() -> None:
    peer = await blocked(10)
    peer.outbox.put("é" * 5)
    assert peer.outbox.size == 10  # in bytes
    peer.outbox.put("x")
    assert peer.breaches
    await peer.read_all()


async def test_how_long_a_message_is_on_its_way() -> None:
    peer = await blocked(100)
    assert peer.outbox.busy
    assert [peer.outbox.stuck_for(now) for now in (5.0, 6.0, 9.0)] == [0.0, 1.0, 4.0]
    peer.outbox.put("second")
    await peer.read_all()
    assert not peer.outbox.busy
    assert peer.outbox.stuck_for(10.0) == 0.0


async def test_the_next_message_of_a_sender_does_not_count_as_stuck() -> None:
    peer = await blocked(100)
    peer.outbox.put("second")
    assert [peer.outbox.stuck_for(now) for now in (1.0, 2.0)] == [0.0, 1.0]
    sender = peer.outbox.sending_task(None)
    peer.outbox.sent += 1  # the sender has begun the next message
    assert peer.outbox.sending_task(None) is sender is not None
    assert peer.outbox.stuck_for(3.0) == 0.0
    await peer.read_all()


async def test_two_replies_are_told_apart() -> None:
    peer = Peer(100)
    one = asyncio.ensure_future(peer.outbox.send("one", new_frame({}, "act", "", None)))
    await asyncio.sleep(0)
    assert [peer.outbox.stuck_for(now) for now in (1.0, 2.0)] == [0.0, 1.0]
    peer.reads.set()
    await one
    peer.reads.clear()
    another = asyncio.ensure_future(peer.outbox.send("another", new_frame({}, "act", "", None)))
    await asyncio.sleep(0)
    assert peer.outbox.stuck_for(3.0) == 0.0
    peer.reads.set()
    await another


@pytest.mark.parametrize(
    ("reason", "cut"), [("short", "short"), ("x" * 200, "x" * 123), ("é" * 62, "é" * 61), ("\ud800", "?")]
)
def test_a_reason_is_cut_to_what_a_close_frame_holds(reason: str, cut: str) -> None:
    assert cut_reason(reason) == cut


async def test_room_is_waited_for_until_half_of_it_is_free() -> None:
    peer = await blocked(10)
    await peer.outbox.wait_for_space(100)  # if nothing waits, a message may have any size
    peer.outbox.put("123")
    await peer.outbox.wait_for_space(2)
    waiting = [asyncio.ensure_future(peer.outbox.wait_for_space(size)) for size in (3, 4)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    await peer.read_all()
    await asyncio.wait_for(asyncio.gather(*waiting), WAIT)
    assert peer.outbox.size == 0


async def test_nobody_waits_for_room_once_it_has_ended() -> None:
    peer = await blocked(10)
    peer.outbox.put("12345")
    waiting = asyncio.ensure_future(peer.outbox.wait_for_space(5))
    await asyncio.sleep(0)
    peer.outbox.end()
    await asyncio.wait_for(waiting, WAIT)
    await peer.outbox.wait_for_space(100)
    await peer.read_all()
