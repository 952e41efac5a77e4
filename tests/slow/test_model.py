"""Random clients on real uvicorn, checked against a model of the allowed replies (DESIGN 2.1 and 2.4)."""

import asyncio
import contextlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.dos_client import PLAIN, RUN, WAIT, Server, counts, left_of

CLIENTS = 20  # at once
FRAMES = 160  # of each
ORDERED = ("act", "act_in_a_thread")
ACTIONS = (*ORDERED, "act_any_time", "stream")
STEPS = ("turn", "pause", "item", "swallow", "fail")


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of the clients; the server has its own."""
    return "asyncio"


@pytest.fixture(scope="module", params=[RUN, pytest.param(PLAIN, marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, max_queued_actions=24, max_concurrency=4, max_threads=3) as server:
        yield server


@dataclass
class Request:
    number: int
    action: str
    route: str
    steps: list[str]
    cancels: int | None = None
    items: int = 0
    status: int | None = None  # of its final reply


@dataclass
class Model:
    """The requests of one connection. Checks whether each reply is allowed."""

    asked: dict[int, list[Request]] = field(default_factory=lambda: defaultdict(list))  # by request_id
    open: int = 0
    reached: Counter[str] = field(default_factory=Counter)  # the highest number answered in order, by route

    def ask(self, request_id: int, request: Request) -> None:
        self.asked[request_id].append(request)
        self.open += 1

    def answered(self, reply: dict[str, Any]) -> None:
        """Takes one reply. Raises if no open request can have it."""
        assert list(reply) == ["errors", "data", "action", "route", "status", "request_id"]
        told = (reply["action"], reply["route"])
        at_fault = reply["status"] == 409
        mine = [
            one for one in self.asked[reply["request_id"]] if one.status is None and told == (one.action, one.route)
        ]
        assert mine, f"nothing that is open was answered {reply}"
        request = mine[-1] if at_fault else mine[0]  # of two requests with one id, the later is refused
        if reply["status"] == 206:
            assert (request.action, reply["data"]) == ("stream", request.items)
            request.items += 1
            return
        request.status = reply["status"]
        self.open -= 1
        self._check_final(request, reply)

    def _check_final(self, request: Request, reply: dict[str, Any]) -> None:
        if request.action.startswith("$"):
            assert request.status in (200, 404, 409)
        elif request.status == 200:
            assert "fail" not in request.steps
            count = len(request.steps)
            assert (request.items, reply["data"]) == ((count, None) if request.action == "stream" else (0, count))
        elif request.status == 500:
            assert "fail" in request.steps
            assert request.items in (0, request.steps.index("fail"))
        else:
            assert request.status in (409, 499, 503)
            assert request.items == 0 or request.status == 499
        if request.action in ORDERED and request.status in (200, 500):
            assert request.number > self.reached[request.route], f"{request} was answered before one that was earlier"
            self.reached[request.route] = request.number

    def at_the_end(self) -> None:
        """The checks after all replies."""
        assert self.open == 0
        cancelled = {
            one.cancels for requests in self.asked.values() for one in requests if one.cancels and one.status == 200
        }
        for request_id, requests in self.asked.items():
            if len(requests) == 1 and not requests[0].action.startswith("$"):
                assert (requests[0].status == 499) == (request_id in cancelled), f"{request_id}: {requests}"


class RandomClient:
    """A client that sends requests, cancels, repeats ids, pauses reading, and may end by RST."""

    def __init__(self, ws: ClientConnection, rng: random.Random) -> None:
        self.ws, self.rng, self.model = ws, rng, Model()
        self.may_read = asyncio.Event()
        self.all_answered = asyncio.Event()

    def frame(self, number: int) -> tuple[int, Request]:
        rng, known = self.rng, list(self.model.asked)
        if known and rng.random() < 0.3:
            cancels = rng.choice(known[-12:])
            return number, Request(number, "$cancel", "", [], cancels)
        if rng.random() < 0.03:
            return number, Request(number, "$ping", "", [])
        steps = rng.choices(STEPS, (6, 3, 6, 1, 1), k=rng.randrange(5))
        request_id = rng.choice(known[-6:]) if known and rng.random() < 0.05 else number
        return request_id, Request(number, rng.choice(ACTIONS), f"rooms/{rng.randrange(4)}/", steps)

    async def ask(self) -> None:
        for number in range(1, FRAMES + 1):
            request_id, request = self.frame(number)
            self.model.ask(request_id, request)
            frame = {"action": request.action, "route": request.route, "request_id": request_id}
            await self.ws.send(json.dumps({**frame, "steps": request.steps, "data": request.cancels}))
            if self.rng.random() < 0.05:
                (self.may_read.clear if self.may_read.is_set() else self.may_read.set)()
            if self.rng.random() < 0.1:
                await self.catch_up()
        await self.catch_up()

    async def catch_up(self) -> None:
        """Waits at times until the server has answered all requests."""
        self.may_read.set()
        self.all_answered.clear()
        if self.model.open:
            await self.all_answered.wait()

    async def read(self) -> None:
        self.may_read.set()
        while True:
            await self.may_read.wait()
            self.model.answered(json.loads(await self.ws.recv()))
            if not self.model.open:
                self.all_answered.set()

    async def run(self) -> None:
        """Sends all requests and reads all replies; at times, ends early by RST."""
        reading = asyncio.create_task(self.read())
        asking = asyncio.create_task(self.ask())
        loop, aborts = asyncio.get_running_loop(), self.rng.random() < 0.3
        aborting = loop.call_later(self.rng.random() / 2, self.ws.transport.abort) if aborts else None
        await asyncio.wait([asking, reading], return_when=asyncio.FIRST_COMPLETED)
        if aborting is not None:
            aborting.cancel()
        ended = asking.done() and asking.exception() is None
        for task in (asking, reading):
            task.cancel()
        for outcome in await asyncio.gather(asking, reading, return_exceptions=True):
            if isinstance(outcome, Exception) and not (aborts and isinstance(outcome, ConnectionClosed)):
                raise outcome
        if ended:
            with contextlib.suppress(ConnectionClosed) if aborts else contextlib.nullcontext():
                await self.finish()

    async def finish(self) -> None:
        self.model.at_the_end()
        await self.ws.send('{"action": "$ping"}')
        assert json.loads(await self.ws.recv())["action"] == "$ping"  # with no message before it


async def talk(server: Server, seed: int) -> int:
    """Runs random clients, many at once. Returns the number of answered frames."""

    async def one(number: int) -> int:
        async with connect(f"ws://127.0.0.1:{server.port}/ws/", proxy=None, compression=None, max_queue=4) as ws:
            client = RandomClient(ws, random.Random(seed * 1_000 + number))
            await client.run()
        return sum(request.status is not None for requests in client.model.asked.values() for request in requests)

    async with asyncio.timeout(WAIT * 2):
        return sum(await asyncio.gather(*map(one, range(CLIENTS))))


async def check(server: Server, seeds: range) -> None:
    before = await asyncio.to_thread(counts, server)
    answered = sum([await talk(server, seed) for seed in seeds])
    assert answered > len(seeds) * CLIENTS * FRAMES // 2
    assert await asyncio.to_thread(left_of, server, before) == {}
    raised = {line for line in server.log if re.match(r"^(\w+\.)*\w*(Error|Exception|Mishap|Exit)\b", line)}
    assert raised == {"tests.support.dos_app.Mishap"}


async def test_each_request_has_one_final_reply(server: Server) -> None:
    await check(server, range(2))


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_each_request_has_one_final_reply_many_times_over(server: Server) -> None:
    await check(server, range(2, 12))


@pytest.mark.parametrize(
    "replies",
    [
        [(1, 200, 2), (1, 200, 2)],  # a second final reply
        [(2, 200, 2), (1, 200, 2)],  # out of the route's order
        [(1, 206, 0), (1, 200, 2)],  # a partial reply to an action that is not a stream
        [(3, 206, 1)],  # an item is missing
        [(3, 206, 0), (3, 200, None)],  # the last item is missing
        [(1, 200, 2), (4, 200, None), (2, 200, 2), (3, 499, None)],  # cancelled, but answered
        [(1, 200, 2), (4, 404, None), (2, 499, None), (3, 499, None)],  # not cancelled, but not answered
        [(9, 200, None)],  # to no request
    ],
)
def test_the_model_notices(replies: list[tuple[int, int, Any]]) -> None:
    model = Model()
    for number, action in ((1, "act"), (2, "act"), (3, "stream"), (4, "$cancel")):
        model.ask(number, Request(number, action, "", ["item", "item"], 1 if action == "$cancel" else None))
    with pytest.raises(AssertionError):  # noqa: PT012  # any of them may raise
        for request_id, status, data in replies:
            action = {3: "stream", 4: "$cancel"}.get(request_id, "act")
            told = {"errors": [], "data": data, "action": action, "route": "", "status": status}
            model.answered({**told, "request_id": request_id})
        model.at_the_end()
