"""The connection: order and concurrency of frames, isolation between them, sending, and all ways to end."""

import asyncio
import contextlib
import json
import logging
import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from wsaction._connection.connection import READS_IN_A_ROW, Connection
from wsaction._protocol.frames import Frame, current_frame, encode_reply, new_frame, reply_tail
from wsaction._utils.asgi import Message
from wsaction._utils.threads import Threads
from wsaction.limits import Limits
from wsaction.serializers._errors import encode_error
from wsaction.testing import connect

WAIT = 5.0  # seconds that a test waits at most
SILENT: Any = object()  # the result of an action without a reply

Work = Callable[[Frame], Awaitable[Any]]
Ids = list[Any]

var: ContextVar[Any] = ContextVar("tests.var", default="nothing")


class Link:
    """One connection whose server, peer and dispatcher the test controls.

    ``actions`` has the functions of the actions. ``echo`` returns at once; ``wait`` waits until ``let_go`` has its id.
    The key of a frame is its route. The action ``free`` is an unordered ``wait``.
    """

    def __init__(self, **limits: Any) -> None:
        self.inbox: deque[Message] = deque()
        self.sent: list[dict[str, Any]] = []  # what the peer received
        self.writable = asyncio.Event()
        self.writable.set()
        self.gone: Exception | None = None  # the exception that `send` raises
        self.sending = 0  # calls of `send` that have not returned yet
        self.gates: defaultdict[Any, asyncio.Event] = defaultdict(asyncio.Event)
        self.started: Ids = []
        self.finished: Ids = []
        self.under_way = 0
        self.peak = 0
        self.action_timeout = math.inf
        self.seen: list[Any] = []  # what the actions recorded
        self.actions: dict[str, Work] = {"echo": self.echo, "wait": self.wait, "free": self.wait, "quick": self.quick}
        self.connection = Connection(self.receive, self.send, Limits(**limits))
        self._changed = asyncio.Event()

    # ------------------------------------------------------------------------------------------- the server
    async def receive(self) -> Message:
        while not self.inbox:
            await self._change()
        message = self.inbox.popleft()
        self.notify()
        return message

    async def send(self, message: Message) -> None:
        self.sending += 1
        self.notify()
        try:
            while not self.writable.is_set():
                await self.writable.wait()
            if self.gone is not None:
                raise self.gone
            self.sent.append(dict(message))
        finally:
            self.sending -= 1
            self.notify()

    def notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self) -> None:
        await self._changed.wait()

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits until ``condition`` is true, which it checks after each event of the link."""
        try:
            async with asyncio.timeout(WAIT):
                while not condition():
                    await self._change()
        except TimeoutError:
            raise AssertionError(f"waited {WAIT} s: {self.started=} {self.finished=} {self.sent=}") from None

    # ------------------------------------------------------------------------------------------- the peer
    def feed(self, action: str = "echo", route: str = "", request_id: Any = SILENT, **keys: Any) -> None:
        frame = {"action": action, "route": route, **keys}
        self.feed_text(json.dumps(frame if request_id is SILENT else {**frame, "request_id": request_id}))

    def feed_text(self, text: str) -> None:
        self.feed_message({"type": "websocket.receive", "text": text})

    def feed_message(self, message: Message) -> None:
        self.inbox.append(message)
        self.notify()

    def leave(self, code: int = 1001) -> None:
        self.feed_message({"type": "websocket.disconnect", "code": code})

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.sent if message["type"] == "websocket.send"]

    @property
    def replies(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts]

    def answered(self) -> Ids:
        return [reply.get("request_id") for reply in self.replies]

    def statuses(self) -> list[tuple[Any, int]]:
        return [(reply.get("request_id"), reply["status"]) for reply in self.replies]

    async def reply_to(self, request_id: Any) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            same = [r for r in self.replies if r.get("request_id") == request_id]
            return [r for r in same if type(r["request_id"]) is type(request_id)]

        await self.until(found)
        return found()[-1]

    async def reader_is_past(self) -> None:
        """Waits until all earlier frames have been read: a malformed frame is answered as soon as it is read."""
        marker = f"marker {len(self.sent)}"
        self.feed_text(json.dumps({"request_id": marker}))
        await self.reply_to(marker)

    # ------------------------------------------------------------------------------------------- the dispatcher
    def route(self, frame: Frame) -> None:
        if frame.error is None:
            frame.key = None if frame.action == "free" else frame.route

    def timeout(self, frame: Frame) -> float:
        return self.action_timeout

    async def run(self, frame: Frame) -> str | None:
        if frame.error is not None:
            return encode_error(frame, frame.error)
        self.started.append(frame.request_id)
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        self.notify()
        try:
            data = await self.actions[frame.action or ""](frame)
        finally:
            self.under_way -= 1
            self.finished.append(frame.request_id)
            self.notify()
        if data is SILENT:
            return None
        return encode_reply(reply_tail(frame.action or "", frame.route), json.dumps(data), 200, frame.request_id)

    async def echo(self, frame: Frame) -> Any:
        return frame.body.get("data")

    async def quick(self, frame: Frame) -> Any:
        return "quick"

    async def wait(self, frame: Frame) -> Any:
        await self.gates[frame.request_id].wait()
        return frame.body.get("data")

    def let_go(self, *ids: Any) -> None:
        for request_id in ids:
            self.gates[request_id].set()

    # ------------------------------------------------------------------------------------------- its life
    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[asyncio.Task[int]]:
        """Serves the connection. At the end the peer disconnects, and nothing of the connection may be left."""
        before = asyncio.all_tasks()
        task = asyncio.create_task(self.connection.serve(self))
        await asyncio.sleep(0)  # the task starts
        try:
            yield task
            if not self.connection.is_closed:
                self.leave()
        finally:
            await asyncio.wait({task}, timeout=WAIT)
            task.cancel()
        assert task.done()
        self.assert_nothing_left()
        assert asyncio.all_tasks() <= before

    async def code(self, task: asyncio.Task[int]) -> int:
        async with asyncio.timeout(WAIT):
            return await task

    def assert_nothing_left(self) -> None:
        connection = self.connection
        assert connection.is_closed
        assert not connection._tasks
        assert lanes_are_empty(connection)
        assert not connection._lanes.under_way
        assert not connection.outbox.waiting


def lanes_are_empty(connection: Connection) -> bool:
    lanes = connection._lanes
    return not (lanes._lanes or lanes._ids or lanes._ready or lanes._waiting)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# ------------------------------------------------------------------------------------------------ order


async def test_frames_of_one_key_run_in_order_and_other_keys_do_not_wait() -> None:
    link = Link()
    async with link.serving():
        for request_id in (1, 2, 3):
            link.feed("wait", "a/", request_id)
        link.feed("wait", "b/", "other")
        await link.until(lambda: link.started == [1, "other"])
        link.let_go("other", 2, 3)  # 2 and 3 still wait for 1
        await link.reply_to("other")
        await link.reader_is_past()
        assert link.started == [1, "other"]
        link.let_go(1)
        await link.reply_to(3)
        assert link.started == [1, "other", 2, 3]
        assert [i for i in link.answered() if i in (1, 2, 3)] == [1, 2, 3]


async def test_a_frame_that_does_not_suspend_waits_for_earlier_ones_too() -> None:
    link = Link()
    async with link.serving():
        link.feed("wait", "a/", 1)
        link.feed("echo", "a/", 2)
        link.feed("echo", "b/", 3)
        await link.reply_to(3)
        assert link.answered() == [3]
        link.let_go(1)
        await link.reply_to(2)
        assert link.answered() == [3, 1, 2]
        link.feed("echo", "a/", 4)  # the lane has been removed with its last frame
        await link.reply_to(4)


async def test_frames_without_a_key_are_in_no_order() -> None:
    link = Link()
    async with link.serving():
        for request_id in (1, 2, 3):
            link.feed("free", "a/", request_id)
        link.feed("echo", "a/", 4)
        await link.until(lambda: link.started == [1, 2, 3, 4])
        for request_id in (3, 1, 2):
            link.let_go(request_id)
            await link.reply_to(request_id)
        assert link.answered() == [4, 3, 1, 2]


async def test_a_frame_waits_until_the_reply_to_the_previous_is_sent() -> None:
    link = Link()
    async with link.serving():
        link.writable.clear()
        link.feed("echo", "a/", 1)
        await link.until(lambda: link.sending)
        link.feed("echo", "a/", 2)
        link.feed("echo", "b/", 3)
        await link.until(lambda: 3 in link.finished)
        assert link.started == [1, 3]
        link.writable.set()
        await link.reply_to(2)
        assert link.answered() == [1, 3, 2]


# ------------------------------------------------------------------------------------------------ concurrency


@pytest.mark.parametrize("action", ["wait", "free"])
async def test_max_concurrency_is_never_exceeded_and_always_refilled(action: str) -> None:
    link = Link(max_concurrency=3)
    async with link.serving():
        for number in range(12):
            link.feed(action, f"route{number}/", number)
        await link.reader_is_past()
        assert link.started == [0, 1, 2]
        for done, number in enumerate((2, 0, 1, 5, 3, 4, 8, 7, 6, 10, 9, 11), start=1):
            link.let_go(number)
            expected = min(done + 3, 12)
            await link.until(lambda expected=expected: len(link.started) == expected)  # type: ignore[misc]
        await link.until(lambda: len(link.replies) == 13)  # 12 and the marker's
        assert link.started == list(range(12))
        assert link.peak == 3


async def test_of_each_lane_only_the_first_takes_a_place() -> None:
    link = Link(max_concurrency=2)
    async with link.serving():
        for request_id, route in enumerate(("a/", "a/", "a/", "b/", "c/", "c/", "b/")):
            link.feed("wait", route, request_id)
        await link.reader_is_past()
        assert link.started == [0, 3]
        link.let_go(0)  # the first frame of c was ready before the second of a
        await link.until(lambda: len(link.started) == 3)
        assert link.started == [0, 3, 4]
        link.let_go(*range(7))
        await link.until(lambda: len(link.replies) == 8)
        assert link.peak == 2
        for lane in ([0, 1, 2], [3, 6], [4, 5]):
            assert [i for i in link.answered() if i in lane] == lane


async def test_frames_that_do_not_suspend_need_no_task() -> None:
    link = Link()
    async with link.serving():
        link.feed("echo", "", 1)
        await link.reply_to(1)
        reader = link.connection.leader
        for request_id in range(2, 50):
            link.feed("echo", "", request_id)
        await link.reply_to(49)
        assert link.connection.leader is reader
        assert link.connection._tasks == {reader}


async def test_frames_that_suspend_for_one_loop_turn_need_no_task() -> None:
    link = Link()

    async def turns(frame: Frame) -> Any:
        for _ in range(frame.body["turns"]):
            await asyncio.sleep(0)

    link.actions["turns"] = turns
    async with link.serving():
        link.feed("echo", "", 0)
        await link.reply_to(0)
        reader = link.connection.leader
        for request_id in range(1, 50):
            link.feed("turns", "", request_id, turns=1)
        await link.reply_to(49)
        assert link.answered() == list(range(50))
        assert link.connection._tasks == {reader}
        link.feed("turns", "", 50, turns=3)
        await link.reply_to(50)
        assert link.connection.leader is not reader


async def test_a_connection_is_busy_from_the_first_step_of_an_action() -> None:
    link = Link()
    async with link.serving():
        assert not link.connection.busy
        link.feed("wait", "", 1)
        await link.until(lambda: link.started == [1])
        assert link.connection.busy
        link.let_go(1)
        await link.reply_to(1)
        await link.until(lambda: not link.connection.busy)


async def test_silent_frames_have_no_reply_and_are_over_all_the_same() -> None:
    link = Link(max_concurrency=1)

    async def silent(frame: Frame) -> Any:
        if frame.body.get("waits"):
            await link.wait(frame)
        return SILENT

    link.actions["silent"] = silent
    async with link.serving():
        link.feed("silent", "a/", 1)
        link.feed("silent", "a/", 2, waits=True)
        link.feed("silent", "a/", 3)
        link.feed("echo", "a/", 4)
        await link.reader_is_past()
        link.let_go(2)
        await link.reply_to(4)
        assert link.started == [1, 2, 3, 4]
        assert link.answered()[1:] == [4]


async def test_frames_beyond_max_queued_actions_are_refused_as_busy() -> None:
    link = Link(max_concurrency=2, max_queued_actions=3)
    async with link.serving():
        for request_id, route in enumerate(("a/", "b/", "a/", "c/", "c/", "a/", "d/")):
            link.feed("wait", route, request_id)
        refused = [await link.reply_to(5), await link.reply_to(6)]
        assert link.statuses() == [(5, 503), (6, 503)]
        for reply in refused:
            assert reply["errors"][0]["type"] == "busy"
            assert reply["errors"][0]["ctx"] == {"limit": "max_queued_actions", "value": 3}
            assert reply["data"] is None
        assert link.started == [0, 1]
        link.let_go(0)  # frees a place to run and one in the queue
        await link.until(lambda: len(link.started) == 3)
        link.feed("wait", "d/", 6)  # its id is free again
        link.let_go(*range(7))
        await link.until(lambda: {0, 1, 2, 3, 4, 6} <= set(link.finished))
        await link.until(lambda: len(link.replies) == 8)
        assert Counter(link.statuses()) == Counter(
            [(5, 503), (6, 503)] + [(request_id, 200) for request_id in (0, 1, 2, 3, 4, 6)]
        )


async def test_a_full_lane_is_refused_though_places_are_free() -> None:
    link = Link(max_queued_actions=1)
    async with link.serving():
        for request_id in (1, 2, 3):
            link.feed("wait", "a/", request_id)
        assert (await link.reply_to(3))["status"] == 503
        link.feed("echo", "b/", 4)  # no frame waits for a place to run
        assert (await link.reply_to(4))["status"] == 200
        link.let_go(1, 2)
        await link.reply_to(2)


# ------------------------------------------------------------------------------------------------ ids


@pytest.mark.parametrize("route", ["a/", "b/"], ids=["queued", "under way"])
async def test_an_id_in_flight_is_refused_and_free_after_its_reply(route: str) -> None:
    link = Link()
    async with link.serving():
        link.feed("wait", "a/", 1)
        link.feed("wait", route, 7)
        link.feed("echo", "c/", 7)
        refusal = await link.reply_to(7)
        assert refusal["status"] == 409
        assert refusal["errors"][0]["type"] == "duplicate_request_id"
        assert refusal["errors"][0]["ctx"] == {"request_id": 7}
        link.feed("echo", "c/", "7")  # a string is another id than an int
        assert (await link.reply_to("7"))["status"] == 200
        link.feed("echo", "c/", 7)  # refused again, as the refusal did not free the id
        await link.until(lambda: len(link.replies) == 3)
        assert link.statuses() == [(7, 409), ("7", 200), (7, 409)]
        link.let_go(1, 7)
        await link.until(lambda: (7, 200) in link.statuses())
        link.feed("echo", "c/", 7, data="again")
        await link.until(lambda: link.replies[-1]["data"] == "again")


async def test_a_duplicate_refused_during_a_slow_send_keeps_the_id_taken() -> None:
    link = Link()
    async with link.serving():
        link.feed("wait", "a/", 1)
        await link.until(lambda: link.started == [1])
        link.writable.clear()
        link.feed("echo", "b/", 1)
        await link.until(lambda: link.sending)
        link.writable.set()
        await link.reader_is_past()
        link.feed("echo", "b/", 1)
        await link.until(lambda: link.statuses().count((1, 409)) == 2)
        link.let_go(1)
        await link.until(lambda: link.statuses()[-1] == (1, 200))


async def test_ids_of_frames_that_do_not_suspend_may_repeat() -> None:
    link = Link()
    async with link.serving():
        for _ in range(3):
            link.feed("echo", "", 1)
        await link.until(lambda: len(link.replies) == 3)
        assert link.statuses() == [(1, 200)] * 3


async def test_frames_without_an_id_are_no_duplicates() -> None:
    link = Link()
    async with link.serving():
        link.feed("wait", "a/")
        link.feed("wait", "b/")
        link.feed("wait", "a/")
        await link.until(lambda: len(link.started) == 2)
        link.let_go(None)
        await link.until(lambda: len(link.replies) == 3)
        assert all("request_id" not in reply for reply in link.replies)


async def test_error_frames_are_answered_even_if_the_queue_is_full() -> None:
    link = Link(max_concurrency=1, max_queued_actions=1)
    async with link.serving():
        link.feed("wait", "a/", 1)
        link.feed("wait", "a/", 2)
        await link.until(lambda: link.started == [1])
        link.feed_text("{")
        link.feed_message({"type": "websocket.receive", "bytes": b"{}"})
        link.feed_text('{"action": 1, "route": "a/", "request_id": 3}')
        link.feed("echo", "a/", 2)  # a duplicate id
        link.feed("echo", "a/", 5)  # busy
        await link.until(lambda: len(link.replies) == 5)
        assert [reply["errors"][0]["type"] for reply in link.replies] == [
            "invalid_json",
            "invalid_frame",
            "invalid_frame",
            "duplicate_request_id",
            "busy",
        ]
        assert link.started == [1]
        link.let_go(1, 2)
        await link.reply_to(2)


async def test_an_unsent_error_reply_does_not_block_reading() -> None:
    link = Link(max_concurrency=1)
    async with link.serving():
        link.feed("wait", "a/", 1)
        await link.until(lambda: link.started == [1])
        link.writable.clear()
        link.feed_text("{")
        await link.until(lambda: link.sending)
        for _ in range(5):
            link.feed_text("{")
        link.feed("wait", "b/", 2)
        link.let_go(1)
        await link.until(lambda: not link.inbox)
        link.writable.set()
        link.let_go(2)
        await link.reply_to(2)
        assert Counter(link.statuses()) == Counter([(None, 400)] * 6 + [(1, 200), (2, 200)])
        assert link.peak == 1


# ------------------------------------------------------------------------------------------------ context variables


class Incomparable:
    """Compares as arrays and ORM columns do: the result is no bool."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth of this is ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("kind", ["at once", "suspending", "queued", "thread", "at once, then reset"])
async def test_frames_see_the_context_of_connect_and_not_each_others(kind: str) -> None:
    link = Link()
    threads = Threads(1)

    async def setting(frame: Frame) -> Any:
        link.seen.append((var.get(), current_frame.get() is frame))
        token = var.set(f"frame {frame.request_id}")
        if kind == "thread":
            link.seen.append(await threads.run(lambda: (var.get(), var.set("in a thread"))[0]))
        if kind == "suspending":
            await asyncio.sleep(0)
        if kind == "queued":
            await link.wait(frame)
        if kind == "at once, then reset":
            var.reset(token)
        return None

    link.actions["set"] = setting
    var.set("by connect")
    async with link.serving():
        for request_id in range(5):
            link.feed("set", "a/", request_id)
        if kind == "queued":
            await link.reader_is_past()
            link.let_go(*range(5))
        await link.reply_to(4)
        link.feed("set", "b/", 5)
        link.let_go(5)
        await link.reply_to(5)
    seen = [one for one in link.seen if isinstance(one, tuple)]
    assert seen == [("by connect", True)] * 6
    assert [one for one in link.seen if isinstance(one, str)] == (
        [f"frame {request_id}" for request_id in range(6)] if kind == "thread" else []
    )


async def test_values_of_context_variables_need_not_compare() -> None:
    link = Link()
    by_connect = Incomparable()

    async def setting(frame: Frame) -> Any:
        link.seen.append(var.get())
        var.set(Incomparable())

    link.actions["set"] = setting
    token = var.set(by_connect)
    async with link.serving():
        for request_id in range(3):
            link.feed("set", "", request_id)
        await link.reply_to(2)
    var.reset(token)
    assert len(link.seen) == 3
    assert all(one is by_connect for one in link.seen)


async def test_outside_of_frames_there_is_no_current_frame() -> None:
    link = Link()
    outside = new_frame({}, None, "", None)
    current_frame.set(outside)
    async with link.serving():
        link.connection.put("x")
        await link.until(lambda: link.texts == ["x"])
        assert link.connection._base_context[current_frame] is None


# ------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("flood", ["frames", "queued frames", "malformed", "setting variables"])
async def test_a_flood_of_frames_leaves_the_loop_its_turns(flood: str) -> None:
    link = Link(max_queued_actions=10_000)
    turns = 0
    counting = True
    loop = asyncio.get_running_loop()

    def turn() -> None:
        nonlocal turns
        turns += 1
        if counting:
            loop.call_soon(turn)

    async def setting(frame: Frame) -> Any:
        var.set(frame)

    link.actions["set"] = setting
    frames = 3_200
    if flood == "queued frames":
        link.feed("wait", "", 0)
    for _ in range(frames):
        if flood == "malformed":
            link.feed_text("{")
        else:
            link.feed("set" if flood == "setting variables" else "echo")
    async with link.serving():
        loop.call_soon(turn)
        await link.until(lambda: not link.inbox)
        counting = False
        assert turns >= frames // READS_IN_A_ROW
        link.let_go(0)
        await link.until(lambda: len(link.sent) >= frames)


# ------------------------------------------------------------------------------------------------ frames too large


def padded(size: int, letter: str) -> str:
    """A frame of exactly ``size`` bytes of UTF-8."""
    empty = json.dumps({"action": "echo", "data": "", "request_id": 1})
    room = size - len(empty)
    width = len(letter.encode())
    data = "." * (room % width) + letter * (room // width)
    text = json.dumps({"action": "echo", "data": data, "request_id": 1}, ensure_ascii=False)
    assert len(text.encode()) == size
    return text


@pytest.mark.parametrize("letter", ["x", "é", "€", "\N{GRINNING FACE}"])
async def test_a_text_frame_beyond_max_frame_bytes_closes_the_connection(letter: str) -> None:
    link = Link(max_frame_bytes=1_000)
    async with link.serving() as task:
        link.feed_text(padded(1_000, letter))
        assert (await link.reply_to(1))["status"] == 200
        link.feed_text(padded(1_001, letter))
        link.feed("echo", "", 2)
        assert await link.code(task) == 1009
    assert link.answered() == [1]
    assert link.sent[-1] == {
        "type": "websocket.close",
        "code": 1009,
        "reason": "a frame of 1001 bytes; max_frame_bytes is 1000",
    }


async def test_binary_frames_are_refused_or_close_if_they_are_too_large() -> None:
    link = Link(max_frame_bytes=1_000)
    async with link.serving() as task:
        link.feed_message({"type": "websocket.receive", "bytes": b"x" * 1_000})
        link.feed_message({"type": "websocket.receive", "bytes": b"", "text": None})
        link.feed_message({"type": "websocket.receive"})
        await link.until(lambda: len(link.replies) == 3)
        assert [reply["errors"][0]["type"] for reply in link.replies] == ["invalid_frame"] * 3
        link.feed_message({"type": "websocket.receive", "bytes": b"x" * 1_001})
        assert await link.code(task) == 1009


async def test_text_that_is_no_utf8_is_answered() -> None:
    link = Link(max_frame_bytes=20)
    async with link.serving():
        link.feed_text("\ud800" * 6)  # 18 bytes, with surrogates encoded
        await link.until(lambda: link.replies)
        assert link.replies[0]["errors"][0]["type"] == "invalid_json"


# ------------------------------------------------------------------------------------------------ sending


async def test_send_does_not_suspend_while_the_outbox_is_empty() -> None:
    link = Link()
    async with link.serving():
        await link.reader_is_past()
        sending = link.connection.outbox.send("x", new_frame({}, "act", "", None))
        with pytest.raises(StopIteration):
            sending.send(None)
        assert link.texts[-1] == "x"
        assert link.connection.outbox.waiting is None


async def test_send_and_put_keep_their_order() -> None:
    link = Link()
    async with link.serving():
        link.writable.clear()
        first = asyncio.create_task(link.connection.send("1"))
        await link.until(lambda: link.sending)
        link.connection.put("2")
        await link.connection.send("3")  # returns at once
        link.connection.put("4")
        link.feed("echo", "", 5)
        await link.until(lambda: link.finished == [5])
        assert link.texts == []
        link.writable.set()
        await link.until(lambda: len(link.texts) == 5)
        await first
        assert link.texts[:4] == ["1", "2", "3", "4"]
        link.connection.put("6")  # goes through the empty outbox, because put never sends by itself
        await link.connection.send("7")
        await link.until(lambda: len(link.texts) == 7)
        assert link.texts[5:] == ["6", "7"]
        assert link.connection.outbox.size == 0


async def test_what_is_sent_before_the_handshake_waits_for_it() -> None:
    link = Link()
    link.connection.put("1")
    await link.connection.send("2")
    assert link.sent == []
    async with link.serving():
        await link.until(lambda: link.texts == ["1", "2"])


async def test_the_outbox_is_bounded_in_bytes() -> None:
    link = Link(max_outbox_bytes=100)
    async with link.serving() as task:
        link.writable.clear()
        link.feed("echo", "", 1)
        await link.until(lambda: link.sending)  # it waits in the server, not in the outbox
        link.connection.put("x" * 60)
        link.connection.put("é" * 20)
        assert not link.connection.is_closed
        link.writable.set()
        await link.until(lambda: len(link.texts) == 3)
        link.writable.clear()
        link.feed("echo", "", 2)
        await link.until(lambda: link.sending)
        link.connection.put("€" * 33)
        link.connection.put("x")
        assert not link.connection.is_closed
        link.connection.put("y")
        link.connection.put("z")  # dropped
        assert link.connection.closing is not None
        link.writable.set()
        assert await link.code(task) == 1013
    assert link.sent[-1] == {
        "type": "websocket.close",
        "code": 1013,
        "reason": "slow consumer; max_outbox_bytes is 100",
    }
    assert not {"x", "y", "z"} & set(link.texts)


async def test_a_client_that_stopped_reading_does_not_stop_the_reader() -> None:
    link = Link()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        connection = link.connection = Connection(receive, send, Limits())
        await send({"type": "websocket.accept"})
        await connection.serve(link)

    async with connect(app) as ws:
        ws.pause_reading()
        for number in range(200):
            await ws.send_json({"action": "echo", "route": f"{number % 7}/", "request_id": number})
        await link.until(lambda: len(link.started) >= 200 - 200 // 7)  # the others wait behind the blocked reply
        await ws.send_json({"action": "echo", "route": "9/", "request_id": "last"})
        await link.until(lambda: "last" in link.finished)
        ws.resume_reading()
        replies = [(await ws.receive_json())["request_id"] for _ in range(201)]
        for lane in range(7):
            assert [i for i in replies if i != "last" and i % 7 == lane] == list(range(lane, 200, 7))


@pytest.mark.parametrize("error", [OSError("gone"), ConnectionResetError(), RuntimeError("after close")])
@pytest.mark.parametrize("way", ["send", "put", "reply", "reply of a follower"])
async def test_a_send_that_fails_means_that_the_peer_is_gone(error: Exception, way: str) -> None:
    link = Link()
    async with link.serving() as task:
        link.feed("wait", "a/", "running")
        await link.until(lambda: link.started == ["running"])
        link.gone = error
        if way == "send":
            await link.connection.send("x")
        elif way == "put":
            link.connection.put("x")
            link.connection.put("y")
        elif way == "reply":
            link.feed("echo", "b/", 1)
        else:
            link.let_go("running")
        assert await link.code(task) == 1006
    assert link.sent == []
    assert link.finished[-1] == "running"


# ------------------------------------------------------------------------------------------------ the end


@pytest.mark.parametrize("message", [{"code": 4000}, {"code": 1001, "reason": "away"}, {}])
async def test_a_disconnect_cancels_what_runs_and_forgets_what_waits(message: dict[str, Any]) -> None:
    link = Link(max_concurrency=2)
    async with link.serving() as task:
        for request_id, route in enumerate(("a/", "b/", "a/", "c/", "a/")):
            link.feed("wait", route, request_id)
        await link.reader_is_past()
        link.feed_message({"type": "websocket.disconnect", **message})
        assert await link.code(task) == message.get("code", 1005)
    assert link.started == [0, 1]
    assert sorted(link.finished) == [0, 1]
    assert link.answered()[1:] == []
    assert link.sent[-1]["type"] == "websocket.send"  # no close frame, because the peer is gone


async def test_an_action_that_ignores_cancellation_is_awaited_briefly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    link = Link(drain_timeout=0.05)
    ignored = asyncio.Event()

    async def stubborn(frame: Frame) -> Any:
        while not link.gates["stop"].is_set():
            try:
                await link.gates["stop"].wait()
            except asyncio.CancelledError:
                ignored.set()
        return "too late"

    link.actions["stubborn"] = stubborn
    task = asyncio.create_task(link.connection.serve(link))
    link.feed("stubborn", "a/", 1)
    link.feed("wait", "a/", 2)
    await link.until(lambda: link.started == [1])
    link.leave()
    assert await link.code(task) == 1001
    assert ignored.is_set()
    assert len(link.connection._tasks) == 1
    assert [m for m in errors(caplog) if "still runs 0.025 s after it was cancelled" in m]
    link.gone = OSError("gone")
    link.let_go("stop")
    await link.until(lambda: link.finished == [1])
    if link.connection._tasks:
        await asyncio.wait(link.connection._tasks, timeout=WAIT)
    assert link.texts == []
    link.assert_nothing_left()
    assert link.started == [1]  # queued frames never run


async def test_a_task_that_is_cancelled_before_it_began_is_forgotten() -> None:
    link = Link()
    async with link.serving():
        await asyncio.sleep(0)  # the reader waits for a message
        link.connection.close()
        link.connection.spawn(link.until, lambda: True)
    link.assert_nothing_left()


async def test_an_action_may_take_its_time_to_clean_up() -> None:
    link = Link()

    async def careful(frame: Frame) -> Any:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            link.seen.append("cleaned up")

    link.actions["careful"] = careful
    async with link.serving() as task:
        link.feed("careful", "", 1)
        await link.until(lambda: link.started == [1])
        link.leave()
        await link.code(task)
        assert link.seen == ["cleaned up"]


async def test_the_first_close_counts() -> None:
    link = Link()
    async with link.serving() as task:
        link.connection.close(4401, "first")
        link.connection.close(4403, "second")
        link.leave(1001)
        assert link.connection.is_closed
        assert link.connection.closing == (4401, "first")
        assert await link.code(task) == 4401
    assert link.sent == [{"type": "websocket.close", "code": 4401, "reason": "first"}]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("x" * 123, "x" * 123),
        ("x" * 124, "x" * 123),
        ("é" * 62, "é" * 61),
        ("€" * 41, "€" * 41),
        ("x" + "€" * 41, "x" + "€" * 40),
        ("xx" + "\N{GRINNING FACE}" * 40, "xx" + "\N{GRINNING FACE}" * 30),
        ("", ""),
    ],
)
async def test_a_reason_is_cut_to_what_a_close_frame_holds(reason: str, expected: str) -> None:
    link = Link()
    async with link.serving() as task:
        link.connection.close(4000, reason)
        await link.code(task)
    assert link.sent[-1]["reason"] == expected


@pytest.mark.parametrize("suspends", [False, True])
async def test_closing_inside_an_action(suspends: bool) -> None:
    link = Link()

    async def closing(frame: Frame) -> Any:
        if suspends:
            await asyncio.sleep(0)
        link.connection.close(4403, "kicked")
        return "bye"

    link.actions["close"] = closing
    async with link.serving() as task:
        link.feed("wait", "a/", "running")
        await link.until(lambda: link.started == ["running"])
        link.feed("close", "b/", 1)
        for request_id in range(2, 60):
            link.feed("echo", "c/", request_id)
        if suspends:
            link.inbox.popleft()
            link.inbox.clear()
            link.feed("close", "b/", 1)
        assert await link.code(task) == 4403
    assert link.started == ["running", 1]  # no other frame is read
    assert link.answered() == [1]
    assert link.sent[-1] == {"type": "websocket.close", "code": 4403, "reason": "kicked"}


async def test_closing_inside_an_action_that_then_waits_cancels_it() -> None:
    link = Link()

    async def closing(frame: Frame) -> Any:
        link.connection.close(4403, "kicked")
        await asyncio.get_running_loop().create_future()

    link.actions["close"] = closing
    async with link.serving() as task:
        link.feed("close", "", 1)
        assert await link.code(task) == 4403
    assert [message["type"] for message in link.sent] == ["websocket.close"]


async def test_the_next_frame_does_not_run_as_the_connection_closes() -> None:
    link = Link(max_concurrency=1)
    async with link.serving() as task:
        link.feed("wait", "a/", 1)
        link.feed("echo", "a/", 2)
        link.feed("echo", "b/", 3)
        await link.reader_is_past()
        loop = asyncio.get_running_loop()
        # Closes between the end of 1 and the start of the next frame.
        loop.call_soon(lambda: loop.call_soon(link.connection.close))
        link.let_go(1)
        await link.code(task)
    assert link.started == [1]


async def test_queued_replies_are_sent_before_the_close_frame() -> None:
    link = Link()
    async with link.serving() as task:
        link.writable.clear()
        for request_id in range(5):
            link.feed("echo", f"{request_id}/", request_id)
        await link.until(lambda: len(link.finished) == 5)
        link.connection.close(4000, "bye")
        await link.until(lambda: link.connection.is_closed)
        link.writable.set()
        assert await link.code(task) == 4000
    assert link.answered() == [0, 1, 2, 3, 4]
    assert link.sent[-1] == {"type": "websocket.close", "code": 4000, "reason": "bye"}


async def test_what_put_is_sending_is_sent_before_the_close_frame() -> None:
    link = Link()
    async with link.serving() as task:
        link.writable.clear()
        for text in "123":
            link.connection.put(text)
        await link.until(lambda: link.sending)
        link.connection.close(1012)
        link.writable.set()
        await link.code(task)
    assert link.texts == ["1", "2", "3"]


async def test_a_peer_that_reads_nothing_cannot_hold_up_the_end() -> None:
    link = Link(drain_timeout=0.05)
    async with link.serving() as task:
        link.writable.clear()
        link.feed("echo", "a/", 1)
        link.feed("echo", "b/", 2)
        await link.until(lambda: len(link.finished) == 2)
        link.connection.close(4000)
        assert await link.code(task) == 4000
    assert link.sent == []


async def test_a_peer_that_is_gone_needs_no_close_frame() -> None:
    link = Link()
    async with link.serving() as task:
        link.connection.close(4000)
        link.gone = OSError("gone")
        assert await link.code(task) == 4000
    assert link.sent == []


async def test_a_connection_closed_before_it_is_served_ends_at_once() -> None:
    link = Link()
    link.connection.put("x")
    link.connection.close(4000)
    async with link.serving() as task:
        assert await link.code(task) == 4000
    assert [message["type"] for message in link.sent] == ["websocket.send", "websocket.close"]


async def test_a_reader_that_its_action_cancels_is_followed_by_another() -> None:
    link = Link()

    async def suicidal(frame: Frame) -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "last words"

    link.actions["die"] = suicidal
    async with link.serving():
        link.feed("die", "", 1)
        await link.until(lambda: link.answered() == [1])
        link.feed("quick", "", 2)
        link.feed("die", "", 3)
        link.feed("quick", "", 4)
        await link.until(lambda: link.answered() == [1, 2, 3, 4])


async def test_a_cancelled_reader_is_replaced_by_another() -> None:
    link = Link()
    kept: list[asyncio.Task[Any]] = []

    async def keep(frame: Frame) -> Any:
        task = asyncio.current_task()
        assert task is not None
        kept.append(task)
        return "kept"

    async def stop(frame: Frame) -> Any:
        await asyncio.sleep(0)
        kept[0].cancel()
        return "stopped"

    link.actions |= {"keep": keep, "stop": stop}
    async with link.serving():
        for action, number in (("keep", 1), ("stop", 2), ("quick", 3)):
            link.feed(action, "", number)
            await link.until(lambda number=number: link.answered()[-1:] == [number])


@pytest.mark.parametrize("suspends", [True, False])
@pytest.mark.parametrize("waited", [True, False])
async def test_a_task_cancelled_during_its_send_closes_the_connection(suspends: bool, waited: bool) -> None:
    """Nobody knows whether the client has the reply, so the connection closes.

    If a send waited before, another task sends the reply.
    """
    link = Link()
    tasks: list[asyncio.Task[Any]] = []

    async def slow(frame: Frame) -> Any:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        if suspends:
            await link.wait(frame)
        return "answer"

    link.actions["slow"] = slow
    async with link.serving() as task:
        if waited:
            link.writable.clear()
            link.feed("echo", "b/", 0)
            await link.until(lambda: link.sending)
            link.connection.put('{"request_id": "put"}')
            link.writable.set()
            await link.until(lambda: link.answered() == [0, "put"])
            link.writable.clear()
            link.connection.put('{"request_id": "put"}')
            await link.until(lambda: link.sending)
        elif not suspends:
            link.writable.clear()
        link.feed("slow", "a/", 1)
        await link.until(lambda: link.started[-1:] == [1])
        link.writable.clear()
        link.let_go(1)
        await link.until(lambda: link.sending and link.finished[-1:] == [1])
        tasks[0].cancel()  # as a forgotten timer of the action does
        await asyncio.sleep(0)
        link.writable.set()
        if waited:
            await link.until(lambda: link.answered() == [0, "put", "put", 1])
        else:
            assert await link.code(task) == 1011
            assert link.texts == []


@pytest.mark.parametrize("action", ["at once", "suspended", "queued"])
async def test_a_dispatcher_that_raises_is_a_bug_and_closes(action: str, caplog: pytest.LogCaptureFixture) -> None:
    link = Link(max_concurrency=1)

    async def broken(frame: Frame) -> Any:
        if action == "suspended":
            await asyncio.sleep(0)
        raise ZeroDivisionError

    link.actions["broken"] = broken
    async with link.serving() as task:
        if action == "queued":
            link.feed("wait", "", 0)
        link.feed("broken", "", 1)
        if action == "queued":
            await link.reader_is_past()
            link.let_go(0)
        assert await link.code(task) == 1011
    assert link.sent[-1] == {"type": "websocket.close", "code": 1011, "reason": "internal error"}
    assert [record.levelname for record in caplog.records if record.exc_info] == ["CRITICAL"]


async def test_cancelling_the_app_closes_the_connection_with_1012() -> None:
    link = Link()
    async with link.serving() as task:
        link.feed("wait", "a/", 1)
        await link.until(lambda: link.started == [1])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert link.finished == [1]
    assert link.sent == [{"type": "websocket.close", "code": 1012, "reason": ""}]


async def test_the_apps_task_being_cancelled_ends_everything() -> None:
    link = Link(max_concurrency=2, drain_timeout=0.05)
    async with link.serving() as task:
        link.writable.clear()
        for request_id in range(4):
            link.feed("echo" if request_id % 2 else "wait", f"{request_id}/", request_id)
        await link.until(lambda: len(link.started) >= 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert link.connection.is_closed
        link.connection.put("too late")
        link.connection.close(4000)
        link.assert_nothing_left()
    assert link.sent == []


# ------------------------------------------------------------------------------------------------ random schedules


class Model:
    """The requests of one schedule, and the expected replies."""

    def __init__(self, link: "RandomLink") -> None:
        self.link = link
        self.requests: dict[Any, tuple[str, str | None]] = {}  # id -> (action, key), in the order of sending
        self.open: set[Any] = set()  # ids of waiting actions

    def feed(self, rng: random.Random) -> None:
        number = len(self.requests)
        action = rng.choice(("wait", "wait", "free", "echo", "set", "twice", "stream", "malformed", "duplicate"))
        route = rng.choice("abcd")
        if action == "malformed":
            self.requests[number] = action, None
            self.link.feed_text(json.dumps({"action": 1, "request_id": number}))
            return
        if action == "duplicate":
            if not self.requests:
                return
            self.link.feed("echo", route, rng.choice(list(self.requests)), duplicate=True)
            return
        self.requests[number] = action, None if action == "free" else route
        if action in ("wait", "free", "twice"):
            self.open.add(number)
        self.link.feed(action, route, number)

    def cancel(self, rng: random.Random) -> None:
        """Cancels as ``$cancel`` does: a frame that runs, is queued, or is sending an item or its reply."""
        number = rng.choice(list(self.requests)) if self.requests else None
        if number is not None and self.link.connection.cancel(number):
            self.link.cancelled.add(number)

    def release(self, rng: random.Random) -> None:
        if self.open:
            number = rng.choice(sorted(self.open))
            self.open.discard(number)
            self.link.let_go(number)

    def check(self, *, complete: bool) -> None:
        link = self.link
        assert link.peak <= link.connection.limits.max_concurrency
        assert all(one == ("by connect", True) for one in link.seen)
        runs = Counter(link.started)
        own = [reply for reply in link.replies if not (reply["action"] == "echo" and reply["data"] == "duplicate")]
        refused = Counter(r["request_id"] for r in own if r["status"] in (409, 499, 503))
        answers = Counter(r["request_id"] for r in own if r["status"] in (200, 400))
        for number, (action, _) in self.requests.items():
            fed = 1 + self.duplicates(number)
            final = refused[number] + answers[number]
            assert final <= fed, (number, action)
            items = [r["data"] for r in own if r["request_id"] == number and r["status"] == 206]
            assert items == list(range(len(items))), (number, action)
            if complete:
                assert final == fed, (number, action)
                if number not in link.cancelled:
                    assert runs[number] == fed - refused[number] - (action == "malformed"), (number, action)
                    assert action != "stream" or len(items) in (0, ITEMS), (number, action)
        for key in "abcd":
            arrived = [n for n, (_, k) in self.requests.items() if k == key]
            for happened in (link.started, [r["request_id"] for r in own if r["status"] == 200]):
                first = [n for n in dict.fromkeys(happened) if n in arrived and not self.duplicates(n)]
                assert first == sorted(first), key

    def duplicates(self, number: int) -> int:
        return self.link.duplicates[number]


ITEMS = 4  # per stream


class RandomLink(Link):
    """A link with actions for schedules, which record context variables that other frames have set.

    If it ``hands_over``, the peer has a message before `send` waits, as with granian and hypercorn. A message whose
    `send` is cancelled was sent then.
    """

    def __init__(self, *, hands_over: bool, **limits: Any) -> None:
        super().__init__(**limits)
        self.hands_over = hands_over
        self.duplicates: Counter[Any] = Counter()
        self.cancelled: set[Any] = set()
        self.actions |= {"set": self.setting, "twice": self.twice, "stream": self.stream}

    async def send(self, message: Message) -> None:
        if not self.hands_over:
            await super().send(message)
            return
        if self.gone is not None:
            raise self.gone
        self.sent.append(dict(message))
        self.sending += 1
        self.notify()
        try:
            await asyncio.sleep(0)
            await self.writable.wait()
        finally:
            self.sending -= 1
            self.notify()

    def feed(self, action: str = "echo", route: str = "", request_id: Any = SILENT, **keys: Any) -> None:
        if keys.pop("duplicate", False):
            self.duplicates[request_id] += 1
        super().feed(action, route, request_id, **keys)

    async def run(self, frame: Frame) -> str | None:
        """Answers a cancelled frame with its error, as the dispatcher does."""
        try:
            reply = await super().run(frame)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.connection.is_closed or frame.error is None or task is None:
                raise
            while task.cancelling():
                task.uncancel()
        return reply if frame.error is None else encode_error(frame, frame.error)

    async def setting(self, frame: Frame) -> Any:
        self.seen.append((var.get(), current_frame.get() is frame))
        var.set(frame.request_id)

    async def twice(self, frame: Frame) -> Any:
        await self.setting(frame)
        await asyncio.sleep(0)
        await self.wait(frame)
        await asyncio.sleep(0)

    async def stream(self, frame: Frame) -> Any:
        for number in range(ITEMS):
            tail = reply_tail("stream", frame.route)
            await self.connection.outbox.offer(encode_reply(tail, str(number), 206, frame.request_id))


async def one_schedule(seed: str) -> None:
    rng = random.Random(seed)
    bounds = {"max_concurrency": rng.choice((1, 2, 3, 16)), "max_queued_actions": rng.choice((1, 4, 100))}
    link = RandomLink(hands_over=rng.random() < 0.5, **bounds)
    model = Model(link)
    ending = rng.choice(("all answered", "all answered", "left", "closed", "cancelled", "lost"))
    token = var.set("by connect")
    async with link.serving() as task:
        for _ in range(rng.randrange(5, 60)):
            step = rng.random()
            if step < 0.45:
                model.feed(rng)
            elif step < 0.65:
                model.release(rng)
            elif step < 0.75:
                model.cancel(rng)
            elif step < 0.85:
                (link.writable.clear if link.writable.is_set() else link.writable.set)()
            else:
                for _ in range(rng.randrange(1, 6)):
                    await asyncio.sleep(0)
        if ending == "all answered":
            link.writable.set()
            total = len(model.requests) + link.duplicates.total()
            while model.open:
                model.release(rng)
                if rng.random() < 0.5:
                    await asyncio.sleep(0)
            await link.until(lambda: sum(reply["status"] != 206 for reply in link.replies) >= total)
            await link.reader_is_past()
            assert lanes_are_empty(link.connection)
            assert not link.connection._lanes.under_way
            model.check(complete=True)
        elif ending == "left":
            link.leave()
        elif ending == "closed":
            link.connection.close(4000)
            link.writable.set()
        elif ending == "lost":
            link.gone = OSError("gone")
            link.writable.set()
            link.connection.put("x")
        else:
            task.cancel()
            link.writable.set()
        if ending in ("left", "closed", "lost"):
            assert await link.code(task) in (1001, 1006, 4000)
    var.reset(token)
    model.check(complete=False)
    closes = [message for message in link.sent if message["type"] == "websocket.close"]
    assert closes == link.sent[len(link.sent) - len(closes) :]
    assert [message["code"] for message in closes] == {"closed": [4000], "cancelled": [1012]}.get(ending, [])


@pytest.mark.parametrize("block", [*range(8), *(pytest.param(n, marks=pytest.mark.slow) for n in range(8, 400))])
async def test_random_schedules_against_a_model(block: int) -> None:
    for number in range(25):
        seed = f"{block}:{number}"
        try:
            await one_schedule(seed)
        except BaseException as error:
            error.add_note(f"the schedule {seed!r}")
            raise
