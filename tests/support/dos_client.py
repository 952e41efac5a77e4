"""For the tests of attacks: uvicorn in one process, attackers in another, a well-behaved client in the test.

``python -m tests.support.dos_client NAME PORT`` runs one attacker. It prints "begun" once it attacks, and ends when its
standard input closes. ``NAME:40`` uses forty sockets.
"""

import contextlib
import json
import os
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WAIT = 20.0  # seconds; the longest wait for anything
ROOT = Path(__file__).parents[2]
RUN = "wsaction run"  # as in `make run`
PLAIN = "uvicorn"  # without wsaction's protocol class

# ------------------------------------------------------------------------------------------------ a raw client


def ws_frame(payload: bytes, opcode: int = 1) -> bytes:
    """A masked WebSocket frame. Its mask is zero, which leaves the payload unchanged and is cheap for an attacker."""
    size = len(payload)
    if size < 126:
        told = struct.pack("!B", 0x80 | size)
    else:
        told = struct.pack("!BH", 0xFE, size) if size < 65_536 else struct.pack("!BQ", 0xFF, size)
    return bytes([0x80 | opcode]) + told + b"\0\0\0\0" + payload


def request(action: str, route: str = "", **keys: Any) -> bytes:
    return ws_frame(json.dumps({"action": action, "route": route, **keys}).encode())


class Client:
    """A blocking WebSocket client without threads or an event loop, so that measurements show only the server.

    ``receive_buffer`` is how many bytes its kernel accepts while it does not read.
    """

    def __init__(self, port: int, path: str = "/ws/", receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(WAIT)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(handshake(port, path))
        self._in = self.socket.makefile("rb")
        status = self._in.readline()
        if b" 101 " not in status:
            self.abort()
            raise ConnectionError(f"the handshake was answered {status!r}")
        while self._in.readline() not in (b"\r\n", b""):
            pass

    def send(self, frames: bytes) -> None:
        self.socket.sendall(frames)

    def receive(self) -> tuple[int, bytes]:
        """The opcode and payload of the next message; answers pings. Raises `ConnectionError` at the end."""
        while True:
            head = self._in.read(2)
            if len(head) < 2:
                raise ConnectionError("the server has closed")
            size = head[1]
            if size > 125:
                (size,) = struct.unpack("!H" if size == 126 else "!Q", self._in.read(2 if size == 126 else 8))
            payload, opcode = self._in.read(size), head[0] & 15
            if opcode != 9:
                return opcode, payload
            self.send(ws_frame(payload, 10))

    def reply(self) -> dict[str, Any]:
        opcode, payload = self.receive()
        if opcode != 1:
            raise ConnectionError(f"closed, {payload!r}")
        reply: dict[str, Any] = json.loads(payload)
        return reply

    def call(self, action: str, route: str = "", **keys: Any) -> dict[str, Any]:
        self.send(request(action, route, **keys))
        return self.reply()

    def swallow(self) -> None:
        """Reads and discards what has arrived."""
        with contextlib.suppress(BlockingIOError):
            while self.socket.recv(1 << 20, socket.MSG_DONTWAIT):
                pass

    def abort(self) -> None:
        """Ends the connection with RST."""
        if self.socket.fileno() < 0:
            return
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._in.close()
        self.socket.close()


def handshake(port: int, path: str = "/ws/") -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


# ------------------------------------------------------------------------------------------------ the server


class Server:
    """`tests.support.dos_app`, or another app, on uvicorn in a process of its own. Keeps the log."""

    def __init__(self, how: str, *flags: str, app: str = "tests.support.dos_app:app", **limits: float) -> None:
        command = ["wsaction", "run", app, "--port", "0", *flags]
        if how == PLAIN:
            command = ["uvicorn", *command[2:], "--ws", "websockets-sansio", "--ws-max-size", "65536"]
            command += ["--ws-per-message-deflate", "false", "--timeout-graceful-shutdown", "2"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**os.environ, "ATTACKED_LIMITS": json.dumps(limits)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self.port = 0
        self._up = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip())
            if "Uvicorn running on" in line:
                self.port = int(line.split("http://127.0.0.1:")[1].split()[0])
                self._up.set()
        self._up.set()

    def __enter__(self) -> "Server":
        if not self._up.wait(WAIT) or not self.port:
            self.__exit__()
            raise RuntimeError("uvicorn did not start:\n" + "\n".join(self.log))
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._reader.join(WAIT)
            self.process.stderr.close()  # type: ignore[union-attr]

    def memory(self, peak: bool = False) -> int:
        """The resident bytes of the process, or their peak since `forget_peak`."""
        name = "VmHWM:" if peak else "VmRSS:"
        (line,) = (line for line in self._proc("status").read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024

    def forget_peak(self) -> None:
        self._proc("clear_refs").write_text("5")

    def processor(self) -> tuple[float, float]:
        """The seconds that the loop's thread has run, and the seconds that it waited for a processor."""
        ran, waited, _ = self._proc("schedstat").read_text().split()
        return int(ran) / 1e9, int(waited) / 1e9

    def _proc(self, name: str) -> Path:
        return Path(f"/proc/{self.process.pid}/{name}")

    @property
    def complaints(self) -> list[str]:
        """The lines of the log that are not INFO."""
        return [line for line in self.log if not line.startswith("INFO:")]


def counts(server: Server) -> dict[str, int]:
    """The counts of objects in the server's process, with this one connection."""
    watch = Client(server.port, "/watch/")
    data: dict[str, int] = watch.call("counts")["data"]
    watch.abort()
    return data


def left_of(server: Server, before: dict[str, int], within: float = WAIT) -> dict[str, int]:
    """The counts above ``before``: empty as soon as there are none, or those left after this many seconds."""
    deadline = time.monotonic() + within
    while True:
        now = counts(server)
        left = {kind: now[kind] - before.get(kind, 0) for kind in now if now[kind] > before.get(kind, 0)}
        if not left or time.monotonic() > deadline:
            return left


# ------------------------------------------------------------------------------------------------ attackers


class Attack:
    """The context of an attack, in the attacker's process."""

    def __init__(self, port: int) -> None:
        self.port = port

    def begun(self) -> None:
        print("begun", flush=True)

    @property
    def over(self) -> bool:
        """Whether the test has ended the attack."""
        return bool(select.select([sys.stdin], [], [], 0)[0])

    def until_over(self) -> None:
        select.select([sys.stdin], [], [])

    def flood(self, frames: bytes, per_second: float | None = None, reads: bool = True) -> None:
        """Sends the same data repeatedly, as fast as the server takes it or at this many bytes per second."""
        client = Client(self.port)
        client.send(frames)
        self.begun()
        client.socket.setblocking(False)
        rest, started, sent = memoryview(frames), time.monotonic(), 0
        while not self.over:
            ahead = sent / per_second - (time.monotonic() - started) if per_second else 0
            writable = [] if ahead > 0 else [client.socket]
            readable, writable, _ = select.select([client.socket] if reads else [], writable, [], max(ahead, 0.001))
            if readable and not client.socket.recv(1 << 20):
                raise ConnectionError("the server closed a client that reads what it gets")
            if writable:
                count = client.socket.send(rest)
                rest, sent = rest[count:] or memoryview(frames), sent + count
        print(json.dumps({"sent": sent, "seconds": time.monotonic() - started}), flush=True)
        client.abort()

    def flood_all(self, sockets: int, frames: bytes) -> None:
        """Sends the same data repeatedly over several sockets, as fast as the server takes it from each."""
        clients = {client.socket: client for client in (Client(self.port) for _ in range(sockets))}
        rest = dict.fromkeys(clients, memoryview(frames))
        sent, last = 0, dict[Any, bytes | None]()
        for one in clients:
            one.setblocking(False)
        self.begun()
        while not self.over:
            readable, writable, _ = select.select(clients, clients, [], 0.1)
            for one in readable:
                try:
                    got = one.recv(1 << 20)
                except ConnectionError as exc:
                    raise ConnectionError(f"{exc}, after {last.get(one)!r}") from exc
                last[one] = got[-300:] or last.get(one)
                if not got:
                    raise ConnectionError(f"the server closed a client that reads what it gets, after {last[one]!r}")
            for one in writable:
                count = one.send(rest[one])
                rest[one], sent = rest[one][count:] or memoryview(frames), sent + count
        print(json.dumps({"sent": sent}), flush=True)
        for client in clients.values():
            client.abort()


def fragment(payload: bytes, opcode: int = 0) -> bytes:
    """A continuation frame that does not end its message."""
    frame = bytearray(ws_frame(payload, opcode))
    frame[0] &= 0x7F
    return bytes(frame)


def fragments(attack: Attack, sockets: int) -> None:
    """Each socket begins a message, continues it with 65,000 fragments of one byte, and never ends it."""
    clients = [Client(attack.port) for _ in range(sockets)]
    left = {client.socket: memoryview(fragment(b"x", 1) + fragment(b"x") * 65_000) for client in clients}
    for one in left:
        one.setblocking(False)
    attack.begun()
    while left and not attack.over:
        for one in select.select([], left, [], 0.1)[1]:
            try:
                left[one] = left[one][one.send(left[one]) :]
            except ConnectionError:  # the server closed it after its time limit
                left[one] = memoryview(b"")
            if not left[one]:
                del left[one]
    attack.until_over()
    for client in clients:
        client.abort()


def texts(attack: Attack, sockets: int) -> None:
    attack.flood_all(sockets, ws_frame(b"{}") * 5_000)


def pings(attack: Attack, sockets: int) -> None:
    attack.flood_all(sockets, ws_frame(b"", 9) * 5_000)


def pongs(attack: Attack, sockets: int) -> None:
    attack.flood_all(sockets, ws_frame(b"", 10) * 5_000)


def empty_fragments(attack: Attack, sockets: int) -> None:
    attack.flood_all(sockets, fragment(b"x", 1) + fragment(b"") * 5_000 + ws_frame(b"", 0))


def unknown_opcodes(attack: Attack, sockets: int) -> None:
    """Sends frames with unknown opcodes, which end the socket, and reconnects at once."""
    attack.begun()
    opened = 0
    frames = ws_frame(b"x", 3) * 1_000
    while not attack.over:
        clients = [Client(attack.port) for _ in range(sockets)]
        for client in clients:
            with contextlib.suppress(ConnectionError):
                client.send(frames)
            client.abort()
        opened += sockets
    print(json.dumps({"opened": opened}), flush=True)


def says(attack: Attack, sockets: int) -> None:
    """Publishes 4 KB in each of 3,000 rooms without subscribers, repeatedly."""
    attack.flood_all(sockets, b"".join(request("say", f"talks/{room}/", text="x" * 4_000) for room in range(3_000)))


def says_to_be_kept(attack: Attack, sockets: int) -> None:
    """Publishes the same in rooms whose handler always keeps events."""
    attack.flood_all(sockets, b"".join(request("say", f"kept/{room}/", text="x" * 4_000) for room in range(3_000)))


def writes(attack: Attack, sockets: int) -> None:
    """Changes 16 rows repeatedly, each by an action of its own."""
    changes = (request("partial_update", f"items/{row}/", data={"title": "new"}) for row in range(1, 17))
    attack.flood_all(sockets, b"".join(changes) * 50)


def bulk(attack: Attack) -> None:
    attack.flood(request("echo", data="x" * 60_000), per_second=10_000_000)


def brackets(attack: Attack) -> None:
    attack.flood(ws_frame(b"[" * 65_535))


def pipelined(attack: Attack) -> None:
    attack.flood(request("echo", data=1) * 100_000)


def a_thousand_routes() -> bytes:
    return b"".join(request("wait", f"rooms/{number}/", request_id=number) for number in range(1_000))


def routes(attack: Attack) -> None:
    """Keeps a thousand routes in flight."""
    told = False
    while not attack.over:
        client = Client(attack.port)
        client.send(a_thousand_routes())
        busy = [client.reply()["errors"][0]["ctx"]["limit"] for _ in range(1_000 - 16 - 256)]
        if set(busy) != {"max_queued_actions"}:
            raise RuntimeError(f"something else than busy: {set(busy)}")
        if not told:
            attack.begun()
            told = True
        client.abort()


def aborts(attack: Attack) -> None:
    """Opens at least 700 connections and ends each with RST, at different points."""
    attack.begun()
    opened = 0
    greeting = handshake(attack.port)
    while opened < 700 or not attack.over:
        way = opened % 4
        if way == 0:  # during the handshake request
            with socket.create_connection(("127.0.0.1", attack.port)) as half:
                half.sendall(greeting[:50])
                half.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif way == 1:  # before the answer to the handshake
            with socket.create_connection(("127.0.0.1", attack.port)) as early:
                early.sendall(greeting)
                early.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            client = Client(attack.port)
            if way == 2:  # in the middle of a frame
                client.send(request("echo", data="x" * 1_000)[:500])
            else:  # with one action running, one queued and one in a thread
                client.send(request("wait", "rooms/1/") * 2 + request("block_a_thread_for_a_moment"))
            client.abort()
        opened += 1
    print(json.dumps({"opened": opened}), flush=True)


def hold(attack: Attack, *clients: Client) -> None:
    """Keeps connections unchanged until the attack ends, then drops them."""
    attack.begun()
    attack.until_over()
    for client in clients:
        client.abort()


def headers(attack: Attack) -> None:
    """Sends handshakes whose headers never end."""
    attack.begun()
    lines, longest = b"X: 1\r\n" * 50_000, 0
    while not attack.over:
        with socket.create_connection(("127.0.0.1", attack.port)) as half, contextlib.suppress(ConnectionError):
            half.sendall(handshake(attack.port)[:-2])
            for count in range(1, 21):
                half.sendall(lines)
                longest = max(longest, count * len(lines))
    print(json.dumps({"longest": longest}), flush=True)


CLOSED_WINDOW = 4_096  # receive buffer, in bytes, of a client that does not read; the kernel may use a few times that
UNREADING = 4  # connections of a client that does not read


def never_reads(attack: Attack) -> None:
    """Requests large replies and reads none."""
    clients = [Client(attack.port, receive_buffer=CLOSED_WINDOW) for _ in range(UNREADING)]
    for client in clients:
        client.send(request("large", size=60_000) * 100)
    hold(attack, *clients)


def endless(attack: Attack) -> None:
    """Starts as many endless streams as allowed and reads none."""
    clients = [Client(attack.port, receive_buffer=CLOSED_WINDOW) for _ in range(UNREADING)]
    for client in clients:
        client.send(request("endless") * 16)
    hold(attack, *clients)


def half_open(attack: Attack) -> None:
    """Leaves connections half open: no pong, no FIN."""
    clients = [Client(attack.port) for _ in range(UNREADING)]
    for client in clients:
        client.send(request("wait", "rooms/1/"))
    hold(attack, *clients)


def silent(attack: Attack) -> None:
    """Opens a hundred connections and sends nothing."""
    hold(attack, *[Client(attack.port) for _ in range(100)])


def stubborn(attack: Attack) -> None:
    """Starts an action that ignores its cancellation, cancels it, starts it again and disconnects."""
    clients = [Client(attack.port) for _ in range(UNREADING)]
    for client in clients:
        for number in range(16):
            client.send(request("stubborn", request_id=number) + request("$cancel", data=number, request_id="c"))
            if (reply := client.reply())["status"] != 200:
                raise RuntimeError(f"$cancel was answered {reply}")
    attack.begun()
    for client in clients:
        statuses = {client.reply()["status"] for _ in range(16)}
        if statuses != {499}:
            raise RuntimeError(f"the cancelled were answered {statuses}")
        client.send(request("stubborn") * 16)
        client.abort()
    attack.until_over()


def threads(attack: Attack) -> None:
    """Runs twice as many sync actions as there are threads."""
    clients = [Client(attack.port) for _ in range(2)]
    for client in clients:
        client.send(request("block_a_thread") * 16)
    hold(attack, *clients)


# Faults that the tests must notice.


def blocks_the_loop(attack: Attack) -> None:
    client = Client(attack.port)
    attack.begun()
    while not attack.over:
        client.call("block_the_loop")
    client.abort()


def hoards(attack: Attack) -> None:
    client = Client(attack.port)
    client.call("hoard", size=100_000_000)
    hold(attack, client)


def fails(attack: Attack) -> None:
    client = Client(attack.port)
    client.call("fail")
    hold(attack, client)


def leaves_a_task(attack: Attack) -> None:
    client = Client(attack.port)
    client.call("leave_a_task")
    hold(attack, client)


@contextlib.contextmanager
def attacked_by(name: str, port: int) -> Iterator[Callable[[], dict[str, Any]]]:
    """Runs an attacker in a process with low priority, because in reality it has a machine of its own.

    Yields a function that ends the attack and returns its output. Raises an error with that output if it fails.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.dos_client", name, str(port)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told: list[dict[str, Any]] = []

    def end() -> dict[str, Any]:
        if not told:
            out, err = process.communicate("", WAIT)
            if process.returncode:
                raise RuntimeError(f"the attacker {name} failed: {err}")
            told.append(json.loads(out or "{}"))
        return told[0]

    try:
        if process.stdout.readline() != "begun\n":
            end()
        yield end
        end()
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------ measurements

PACE = 0.001  # seconds between two calls of a well-behaved client


def call_paced(client: Client, count: int) -> list[float]:
    """The seconds of each of ``count`` calls, one after the other at a steady pace."""
    took = []
    for number in range(count):
        time.sleep(PACE)  # the pace, not a wait for anything
        started = time.perf_counter()
        if client.call("echo", data=number)["data"] != number:
            raise RuntimeError("a reply to somebody else's call")
        took.append(time.perf_counter() - started)
    return took


def p99(server: Server, count: int) -> tuple[float, float]:
    """The p99 of a new client's calls, in seconds, corrected for a busy machine; and the factor of that correction.

    Other processes, such as other tests, slow the server down. The p99 is what it would be if the server's loop had run
    whenever it could.
    """
    client = Client(server.port)
    ran, waited = server.processor()
    took = statistics.quantiles(call_paced(client, count), n=100)[98]
    now_ran, now_waited = server.processor()
    client.abort()
    ran, waited = now_ran - ran, now_waited - waited
    stretch = (ran + waited) / ran
    return took / stretch, stretch


if __name__ == "__main__":
    os.nice(10)
    name, _, sockets = sys.argv[1].partition(":")
    globals()[name](Attack(int(sys.argv[2])), *([int(sockets)] if sockets else []))
