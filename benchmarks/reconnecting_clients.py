"""Clients of one feed that disconnect at random and return with `since`. Each records what it receives.

All run in one process, and implement the protocol by hand, since hundreds of them share two CPUs with the servers.
"""

import asyncio
import json
import random
import time
from collections import Counter
from typing import Any

from benchmarks.contestants.feed import PATH, ROUTE
from benchmarks.load import masked

__all__ = ("AWAY", "STAY", "Follower", "Ledger")

STAY = (0.5, 3.0)  # seconds that a client stays connected, at random
AWAY = 2.0  # seconds that it stays away, at most
MAX_FAULTS = 20  # reported in full

HELLO = "\r\n".join(
    (
        f"GET {PATH} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "\r\n",
    )
).encode()  # fmt: skip


class Ledger:
    """The published events, and the findings of all followers."""

    def __init__(self) -> None:
        self.kept: list[bool] = []  # by number: whether its publication was acknowledged
        self.counts: Counter[str] = Counter()
        self.workers: set[int] = set()  # processes that clients were connected to
        self.waits: list[float] = []  # seconds from `subscribe` to its reply after an absence
        self.faults: list[str] = []

    def fault(self, what: str) -> None:
        self.counts["wrong"] += 1
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(what)


class Follower:
    """One client. After a notice of loss, it is *excused*: events missed before the next one are no fault."""

    def __init__(self, name: int, port: int, ledger: Ledger) -> None:
        self.name, self.ledger = name, ledger
        self.last = -1  # number of the last event that it received
        self.drops = 0
        self.joined = asyncio.Event()
        self.restless = False  # whether it disconnects at random
        self._port, self._random = port, random.Random(name)
        self._at: dict[str, Any] | None = None  # its position
        self._excused = False
        self._asked = 0.0

    async def follow(self) -> None:
        """Connects, disconnects and reconnects for ever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, line = await loop.create_connection(lambda: _Line(self), "127.0.0.1", self._port)
            except OSError:
                self.ledger.counts["refused"] += 1
            else:
                if await self._listen(line):
                    self.drops += 1
                    await asyncio.sleep(self._random.uniform(0, AWAY))
                    continue
            await asyncio.sleep(self._random.uniform(0.05, 0.3))

    async def _listen(self, line: "_Line") -> bool:
        """Follows until the connection ends. Returns whether the client ended it."""
        try:
            while True:
                await asyncio.wait([line.lost], timeout=self._random.uniform(*STAY))
                if line.lost.done() or self.restless:
                    return not line.lost.done()
        finally:
            line.end(abruptly=self._random.random() < 0.5)

    @property
    def greeting(self) -> bytes:
        """The keys of its `subscribe` frame."""
        self._asked = time.perf_counter()
        since = {} if self._at is None else {"since": self._at}
        return masked(json.dumps({"action": "subscribe", "route": ROUTE, "request_id": 1, **since}))

    def hear(self, line: "_Line", payload: bytes) -> None:
        """Handles a message."""
        message = json.loads(payload)
        event, data = message.get("event"), message["data"]
        if event == "told":
            self._told(data, message["offset"])
        elif event == "here":
            self.ledger.workers.add(data)
        elif event is None:
            self._answered(line, message)
        else:
            self._at = dict(data)
            if event == "$resync":
                self._excuse()

    def _answered(self, line: "_Line", reply: Any) -> None:
        if reply["status"] != 200:
            self.ledger.counts["refused"] += 1
            line.end()
            return
        data = reply["data"]
        if self._at is None:
            self.joined.set()
        else:
            self.ledger.waits.append(time.perf_counter() - self._asked)
            self.ledger.counts["back"] += 1
            if not data["recovered"]:
                self._excuse()
            elif data["offset"] != self._at["offset"]:
                self._fault(f"came back at {self._at} and was answered {data}")
        self._at = {"epoch": data["epoch"], "offset": data["offset"]}

    def _excuse(self) -> None:
        self._excused = True
        self.ledger.counts["told"] += 1

    def _told(self, number: int, offset: int) -> None:
        """Checks that an event is the next one, by its offset and by its number among acknowledged events."""
        if self._at is None or offset != self._at["offset"] + 1:
            self._fault(f"stood at {self._at} and was told offset {offset}")
        if number <= self.last:
            self._fault(f"was told {number} after {self.last}")
        missing = [one for one in range(self.last + 1, number) if self.ledger.kept[one]]
        if missing and not self._excused:
            self._fault(f"was told {number} without {missing[:5]}")
        self.ledger.counts["deliveries"] += 1
        self._excused, self.last = False, number
        if self._at is not None:
            self._at["offset"] = offset

    def _fault(self, what: str) -> None:
        self.ledger.fault(f"client {self.name} {what}")


class _Line(asyncio.Protocol):
    """One connection of a follower."""

    def __init__(self, follower: Follower) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._follower: Follower | None = follower
        self._transport: Any = None
        self._unread = b""
        self._open = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(HELLO)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end()

    def end(self, *, abruptly: bool = True) -> None:
        """Ends the connection, with or without a close frame."""
        self._follower = None
        if not abruptly and self._open and not self.lost.done():
            self._transport.write(b"\x88\x82\0\0\0\0\x03\xe8")
            self._transport.close()
        else:
            self._transport.abort()
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        unread = self._unread + data if self._unread else data
        if not self._open:
            head, found, unread = unread.partition(b"\r\n\r\n")
            if not found:
                self._unread = head
                return
            if b" 101 " not in head:
                self.end()
                return
            self._open = True
            if self._follower is not None:
                self._transport.write(self._follower.greeting)
        self._unread = self._messages(unread)

    def _messages(self, data: bytes) -> bytes:
        """Handles each complete message, and returns the rest."""
        at, end = 0, len(data)
        while end - at >= 2 and self._follower is not None:
            size, begin = data[at + 1], at + 2
            if size == 126:
                if end - at < 4:
                    break
                size, begin = data[at + 2] << 8 | data[at + 3], at + 4
            if begin + size > end:
                break
            if data[at] == 0x81:
                self._follower.hear(self, data[begin : begin + size])
            elif data[at] == 0x88:
                self.end()
            at = begin + size
        return data[at:]
