"""A load generator of WebSocket clients in a process of its own, with bare sockets and prepared frames.

    python -m benchmarks.load '{"contestant": "wsaction", "port": 8000, ...}'

It prints one line of JSON. `idle`, the share of time that it waited, or `late`, the delay of its own sends, shows
whether the load was itself the bottleneck.
"""

import json
import math
import os
import resource
import select
import socket
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.contestants import ECHO, Contestant, by_name
from benchmarks.driver import Unfit
from benchmarks.job import Speech, expected, frame, number_of
from benchmarks.server import pin

__all__ = ("Client", "at_rate", "flood", "hold", "start")

PATIENCE = 120  # seconds for one load
FRAMES = 128  # prepared for each connection and sent in a cycle


def masked(text: str) -> bytes:
    """A text message as a masked client frame."""
    payload, mask = text.encode(), os.urandom(4)
    size = len(payload)
    head = bytes([0x81, 0x80 | size]) if size < 126 else bytes([0x81, 0xFE]) + size.to_bytes(2, "big")
    key = (mask * (size // 4 + 1))[:size]
    return head + mask + (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def made(speech: Speech, numbers: range) -> list[bytes]:
    return [masked(speech.wrap(frame(number), number)) for number in numbers]


class Client:
    """One connection: its socket, and the start of an incomplete message."""

    def __init__(self, port: int, speech: Speech) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.speech, self.unread = speech, b""
        self._shake_hands()
        for text in speech.hello:
            self.socket.sendall(masked(text))
        greeted = 0
        while greeted < speech.greetings:
            greeted += sum(1 for _ in self.replies())

    def _shake_hands(self) -> None:
        query = f"?{self.speech.query.decode()}" if self.speech.query else ""
        lines = (
            f"GET {self.speech.path}{query} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "\r\n",
        )  # fmt: skip
        self.socket.sendall("\r\n".join(lines).encode())
        while b"\r\n\r\n" not in self.unread:
            if not (read := self.socket.recv(65536)):
                raise Unfit(f"the handshake was not answered: {self.unread!r}")
            self.unread += read
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        if b" 101 " not in head:
            raise Unfit(f"the handshake was refused: {head!r}")

    def replies(self) -> Iterator[bytes]:
        """Reads once, and yields the payload of each complete text message."""
        read = self.socket.recv(262_144)
        if not read:
            raise Unfit("the server closed the connection")
        data = self.unread + read if self.unread else read
        at, end = 0, len(data)
        while end - at >= 2:
            size, begin = data[at + 1], at + 2
            if size == 126:
                if end - at < 4:
                    break
                size, begin = data[at + 2] << 8 | data[at + 3], at + 4
            elif size == 127:
                raise Unfit("a reply of more than 65,535 bytes")
            if begin + size > end:
                break
            if data[at] == 0x81:
                yield data[begin : begin + size]
            elif data[at] == 0x88:
                raise Unfit(f"the server closed the connection: {data[begin : begin + size]!r}")
            at = begin + size
        self.unread = data[at:]


def verify(contestant: Contestant, payload: bytes) -> None:
    """Checks that a reply belongs to its frame, by the keys that it has."""
    if contestant == ECHO:
        return
    reply, wanted = contestant.speech.read(payload.decode()), expected(number_of(payload))
    if reply["data"] != wanted["data"] or any(reply.get(key, value) != value for key, value in wanted.items()):
        raise Unfit(f"expected the reply {wanted}, got {reply}")


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used; nan if the system does not provide it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def flood(
    contestant: Contestant, port: int, pid: int, connections: int, in_flight: int, seconds: float
) -> dict[str, float]:
    """Keeps ``in_flight`` frames in flight on each connection.

    Returns actions per second, the server's share of a CPU, and the share of time that the load was idle. The first
    fifth of the time is a warm-up.
    """
    poll, states = select.poll(), {}
    for at in range(connections):
        client, ring = Client(port, contestant.speech), made(contestant.speech, range(at * FRAMES, (at + 1) * FRAMES))
        states[client.socket.fileno()] = client, ring * 2, in_flight
        poll.register(client.socket, select.POLLIN)
    for client, ring, _ in states.values():
        client.socket.sendall(b"".join(ring[:in_flight]))
    turn(contestant, poll, states, seconds * 0.2)
    used, server, began = time.process_time(), cpu_of(pid), time.perf_counter()
    answered = turn(contestant, poll, states, seconds * 0.8)
    took = time.perf_counter() - began
    return {
        "rate": answered / took,
        "server": (cpu_of(pid) - server) / took,
        "idle": 1 - (time.process_time() - used) / took,
    }


def turn(contestant: Contestant, poll: Any, states: dict[int, tuple[Client, list[bytes], int]], seconds: float) -> int:
    """Answers each reply with the next frame for a time. Returns the number of replies, and verifies the last one."""
    answered, last, end = 0, b"", time.perf_counter() + seconds
    while time.perf_counter() < end:
        ready = poll.poll(5_000)
        if not ready:
            raise Unfit("no reply within 5 s")
        for fd, _ in ready:
            client, ring, at = states[fd]
            came = 0
            for last in client.replies():  # noqa: B007  # the last one is verified
                came += 1
            if came:
                client.socket.sendall(b"".join(ring[at : at + came]))
                states[fd] = client, ring, (at + came) % FRAMES
                answered += came
    verify(contestant, last)
    return answered


def at_rate(contestant: Contestant, port: int, connections: int, rate: float, seconds: float) -> dict[str, float]:
    """Sends ``rate`` frames per second, each when it is due. Returns milliseconds from then to the replies.

    A frame that cannot be sent in time still counts from the time when it was due.
    """
    speech, total = contestant.speech, int(rate * seconds)
    clients = [Client(port, speech) for _ in range(connections)]
    messages = made(speech, range(total))
    poll = select.poll()
    by_fd = {client.socket.fileno(): client for client in clients}
    for client in clients:
        poll.register(client.socket, select.POLLIN)
    latencies: list[float] = []
    late: list[float] = []
    warm_up, sent, answered = total // 5, 0, 0
    start = time.perf_counter() + 0.01
    while answered < total:
        now = time.perf_counter()
        if now > start + seconds + 5:
            raise Unfit(f"{total - answered} of {total} frames were not answered within 5 s")
        while sent < total and start + sent / rate <= now:
            clients[sent % connections].socket.sendall(messages[sent])
            late.append(time.perf_counter() - start - sent / rate)
            sent += 1
        for fd, _ in poll.poll(0):
            for payload in by_fd[fd].replies():
                number = number_of(payload)
                if number >= warm_up:
                    latencies.append(time.perf_counter() - start - number / rate)
                answered += 1
    for client in clients:
        client.socket.close()
    return {"p50": percentile(latencies, 50), "p99": percentile(latencies, 99), "late": percentile(late, 99)}


def percentile(seconds: list[float], percent: int) -> float:
    """Percentiles in milliseconds."""
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1] * 1e3


def hold(contestant: Contestant, port: int, connections: int) -> None:
    """Opens idle connections, prints a line, and keeps them until its input has a line."""
    held = deque(Client(port, contestant.speech) for _ in range(connections))
    print("{}", flush=True)
    sys.stdin.readline()
    held.clear()


def start(cpu: int | None = None, **plan: Any) -> "subprocess.Popen[str]":
    """Starts the load in another process: ``kind`` is one of `KINDS`, followed by its arguments."""
    command = [sys.executable, "-m", "benchmarks.load", json.dumps({"cpu": cpu, **plan})]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(cpu: int | None = None, **plan: Any) -> dict[str, float]:
    """The result of the load. Raises `Unfit`."""
    with start(cpu, **plan) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Unfit(f"the load was not done in {PATIENCE} s") from None
    if process.returncode:
        raise Unfit((err.strip().splitlines() or [f"the load ended with {process.returncode}"])[-1])
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def may_open(files: int) -> int:
    """Raises the limit of open files if possible. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        soft = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


KINDS: dict[str, Any] = {"flood": flood, "at_rate": at_rate, "hold": hold}


def main() -> None:
    plan = json.loads(sys.argv[1])
    pin(plan.pop("cpu"))
    may_open(plan["connections"] + 100)
    found = KINDS[plan.pop("kind")](by_name(plan.pop("contestant")), **plan)
    if found is not None:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
