"""Attacks by one client on the others: each row of the README's table, on uvicorn in a process of its own.

A well-behaved client makes calls with and without an attack, in turns. The test checks the client's p99, the server's
memory and log, and that nothing of the attack is left afterwards.
"""

import json
import re
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.server import ServerProtocol

from tests.support import dos_client as attacking
from tests.support.dos_client import PLAIN, RUN, UNREADING, WAIT, Server, attacked_by, counts, left_of, p99
from wsaction.layers.memory import MAX_BYTES
from wsaction.limits import Limits

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="a process's peak is read in /proc"),
    pytest.mark.timeout(180),  # a few seconds each on a quiet machine
]

CALLS = 100  # of the well-behaved client, in each phase: the fewest of which the worst is the p99
ROUNDS = 3  # good rounds that are needed; each has a quiet phase and an attack
MOST_ROUNDS = 6  # rounds at most: a busy machine is slow at times, a slow server always

FLOOR = 0.005  # seconds; a lower p99 depends on the system's scheduler alone
# Seconds for `seconds_of_work` on the machine of `benchmarks/results.json`, where the times in this module hold. It is
# calculated: an action by hand takes 12.1 us there; where it took 31 us, this work took 0.0065 to 0.011.
WORK = 0.0031
READ = 262_144  # bytes that uvicorn reads at once, at most; it holds them raw and as messages
TRANSPORT = 65_536  # bytes that a transport buffers before it pauses writing
ALLOCATOR = 8_000_000  # bytes: first-time allocations, and memory that the allocator keeps


def seconds_of_work() -> float:
    """The seconds that this machine takes for a fixed piece of work that is like a server's: the median of five."""
    text = json.dumps({"action": "echo", "route": "cards/7/", "data": {"title": "x" * 50, "labels": ["a"] * 10}})
    took = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(1_000):
            json.dumps(json.loads(text))
        took.append(time.perf_counter() - started)
    return statistics.median(took)


@dataclass
class Seen:
    """The observations of a server under attack; times in seconds, sizes in bytes."""

    quiet: list[float] = field(default_factory=list)
    hit: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)  # `seconds_of_work`, in each round
    busy: int = 0  # rounds without a result, since other processes took most of the CPU
    told: list[dict[str, Any]] = field(default_factory=list)  # the attackers' reports
    grown: int = 0
    complaints: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)

    def kept(self, allowed: float) -> int:
        """The number of rounds whose p99 was within three times the quiet one, or within ``allowed``.

        On a slower machine, that is so many times as long: machines of CI differ by three, from hour to hour too.
        """
        slowness = max(1.0, statistics.median(self.work) / WORK)
        most = max(3 * statistics.median(self.quiet), allowed * slowness)
        return sum(hit <= most for hit in self.hit)

    def undecided(self, allowed: float) -> bool:
        """Whether the machine was too busy to measure the server."""
        return self.kept(allowed) < ROUNDS <= self.kept(allowed) + self.busy

    def problems(self, may_hold: int, allowed: float = FLOOR, may_log: str = r"(?!)") -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.kept(allowed) < ROUNDS and not self.undecided(allowed):
            found["slow"] = f"p99 was {self.quiet} without the attack, and {self.hit} under it, work {self.work}"
        if self.grown > may_hold:
            found["memory"] = f"{self.grown} bytes more; the bounds add up to {may_hold}"
        if log := [line for line in self.complaints if not re.search(may_log, line)]:
            found["log"] = log
        if self.left:
            found["left"] = self.left
        return found


def look_at(
    server: Server,
    attack: str,
    *,
    allowed: float = FLOOR,
    ends_it: bool = False,
    most: int = MOST_ROUNDS,
    calls: int = CALLS,
    within: float = WAIT,
) -> Seen:
    """Alternates quiet phases and attacks until three rounds were good, with ``most`` rounds at most.

    ``ends_it``: the server must free what the attacker opened while the attack still runs. Otherwise it must do so
    within ``within`` seconds after the attack.
    """
    seen = Seen()
    p99(server, calls)  # warm up
    before = counts(server)
    memory = server.memory()
    server.forget_peak()
    while not seen.left and len(seen.hit) < most and (not seen.hit or seen.kept(allowed) < ROUNDS):
        seen.work.append(seconds_of_work())
        seen.quiet.append(p99(server, calls)[0])
        with attacked_by(attack, server.port) as end:
            hit, stretch = p99(server, calls)
            seen.hit.append(hit)
            seen.busy += stretch > 2
            if ends_it:
                seen.left = left_of(server, before, within)
            seen.told.append(end())
        seen.left = seen.left or left_of(server, before, within)
    seen.grown = server.memory(peak=True) - memory
    seen.complaints = server.complaints
    return seen


def may_hold(*, connections: int = 1, frame: int = 0, item: int = 0, asks: bool = True) -> int:
    """The bytes that attacking connections may make a server hold: the sum of their limits.

    ``frame``: bytes of each waiting or running frame; ``item``: bytes of each stream, which waits with one encoded
    item. A connection without ``asks`` sends no requests, so nothing is sent to it.
    """
    limits = Limits()
    if not asks:
        return connections * (limits.max_frame_bytes + 2 * READ) + ALLOCATOR
    sending = 3 * limits.max_outbox_bytes + TRANSPORT  # what waits; the one on its way, as text and as bytes
    frames = (limits.max_queued_actions + limits.max_concurrency) * frame + limits.max_concurrency * item
    return connections * (sending + frames + 2 * READ) + ALLOCATOR


def seconds_to_parse(frames: bytes) -> float:
    """Seconds for plain uvicorn to parse one full read of such frames. It serves no one else meanwhile."""
    protocol = ServerProtocol()
    protocol.receive_data(attacking.handshake(0))
    (greeting,) = protocol.events_received()
    protocol.send_response(protocol.accept(greeting))
    started = time.perf_counter()
    protocol.receive_data(frames[:READ])
    assert len([event.data.decode() for event in protocol.events_received()]) > 100
    return time.perf_counter() - started


# ------------------------------------------------------------------------------------------------ the rows


def survives(
    attack: str, how: str, *flags: str, limits: dict[str, float] | None = None, may_log: str = r"(?!)",
    ends_it: bool = False, allowed: float = FLOOR, app: str = "tests.support.dos_app:app", kept: int = 0, **held: Any,
) -> Seen:  # fmt: skip
    """Attacks a server and checks the result. ``kept``: bytes that its app may keep besides its connections."""
    with Server(how, *flags, app=app, **{"drain_timeout": 0.2, **(limits or {})}) as server:
        seen = look_at(server, attack, ends_it=ends_it, allowed=allowed)
    assert seen.problems(may_hold(**held) + kept, allowed, may_log) == {}
    if seen.undecided(allowed):
        pytest.skip("the machine is too busy to tell how fast a server is; all else was well")
    return seen


on_both = pytest.mark.parametrize("how", [RUN, PLAIN])

# Where a client that is owed a close frame does not take it, it is let go so many seconds later; ten by default. Longer
# than a phase under attack, through which it shall be there.
LET_GO = {"close_timeout": 1.0}
# What a flood has sent is parsed in small shares, and that its peer is gone is found when all is, or when something is
# written: that is a ping. Nobody has to answer it: for that there are 20 seconds.
NOTICED = ("--ws-ping-interval", "1")


@on_both
def test_it_never_reads(how: str) -> None:
    survives("never_reads", how, limits=LET_GO, connections=UNREADING, ends_it=True)


@on_both
def test_it_sends_ten_megabytes_a_second(how: str) -> None:
    seen = survives("bulk", how, frame=60_000)
    assert all(told["sent"] > 0.8 * 10_000_000 * told["seconds"] for told in seen.told)  # it kept its rate


@on_both
def test_it_sends_brackets(how: str) -> None:
    survives("brackets", how)


@on_both
def test_it_sends_a_hundred_thousand_frames_at_once(how: str) -> None:
    reading = 0.0 if how == RUN else 3 * seconds_to_parse(attacking.request("echo", data=1) * 10_000)
    survives("pipelined", how, allowed=max(FLOOR, reading))


@on_both
def test_it_has_a_thousand_routes_in_flight(how: str) -> None:
    reading = 0.0 if how == RUN else 3 * seconds_to_parse(attacking.a_thousand_routes())
    survives("routes", how, frame=4_000, allowed=max(FLOOR, reading))


@on_both
def test_it_opens_and_aborts_two_thousand_connections(how: str) -> None:
    seen = survives("aborts", how, connections=8)
    assert sum(told["opened"] for told in seen.told) >= 2_000


def test_it_sends_headers_without_end() -> None:
    """Only with `wsaction run`: uvicorn's default parser, httptools, does not bound headers."""
    seen = survives("headers", RUN, may_log="Invalid HTTP request received", connections=4)
    assert all(told["longest"] < 20 * 300_000 for told in seen.told)  # each was cut off


PINGS = ("--ws-ping-interval", "0.3", "--ws-ping-timeout", "0.3")


@on_both
def test_it_is_gone_without_a_word(how: str) -> None:
    survives("half_open", how, *PINGS, ends_it=True)


@pytest.mark.parametrize("how", [RUN])
def test_it_is_gone_without_a_word_in_a_stream(how: str) -> None:
    survives("endless", how, *PINGS, ends_it=True, connections=UNREADING, item=60_000)


@on_both
def test_it_opens_a_hundred_connections_and_says_nothing(how: str) -> None:
    survives("silent", how, ends_it=True, limits={"idle_timeout": 1.0, **LET_GO}, connections=100)


@on_both
def test_it_asks_for_endless_streams_and_does_not_read(how: str) -> None:
    survives("endless", how, connections=UNREADING, item=60_000, limits={"send_timeout": 0.4, **LET_GO}, ends_it=True)


@on_both
def test_it_calls_what_swallows_its_cancellation(how: str) -> None:
    survives("stubborn", how, connections=UNREADING, may_log=r"(still runs|goes on) \S+ s after it was cancelled")


@on_both
def test_it_blocks_every_thread(how: str) -> None:
    survives("threads", how, connections=2)


FLOODED = 0.02  # seconds for a few iterations of the loop that parse and answer their share

one_and_forty = pytest.mark.parametrize("sockets", [1, 40])


@one_and_forty
def test_it_holds_a_message_of_65_000_fragments(sockets: int) -> None:
    survives(f"fragments:{sockets}", RUN, *NOTICED, allowed=FLOODED, connections=sockets, asks=False)


@one_and_forty
def test_it_holds_a_message_for_longer_than_message_timeout(sockets: int) -> None:
    limits = {"message_timeout": 0.5}
    survives(f"fragments:{sockets}", RUN, limits=limits, ends_it=True, connections=sockets, asks=False)


@one_and_forty
@pytest.mark.parametrize("kind", ["texts", "pings", "pongs", "empty_fragments"])
def test_it_floods_with_the_smallest_frames(kind: str, sockets: int) -> None:
    seen = survives(f"{kind}:{sockets}", RUN, *NOTICED, allowed=FLOODED, connections=sockets, asks=kind == "texts")
    assert all(told["sent"] > 100_000 for told in seen.told)


@one_and_forty
def test_it_floods_with_frames_that_end_its_sockets(sockets: int) -> None:
    survives(f"unknown_opcodes:{sockets}", RUN, *NOTICED, allowed=FLOODED, connections=sockets, asks=False)


@one_and_forty
def test_it_says_much_in_thousands_of_rooms_where_nobody_is(sockets: int) -> None:
    seen = survives(f"says:{sockets}", RUN, *NOTICED, allowed=FLOODED, connections=sockets, frame=4_000)
    assert all(told["sent"] > 1_000_000 for told in seen.told)


@one_and_forty
def test_it_says_much_in_thousands_of_rooms_that_are_kept(sockets: int) -> None:
    kept = 2 * MAX_BYTES  # the bodies and the allocator's overhead
    survives(f"says_to_be_kept:{sockets}", RUN, *NOTICED, allowed=FLOODED, kept=kept, connections=sockets, frame=4_000)


# Seconds, by sockets: a read has its turn at the pool, behind up to 16 writes of each socket, which read before they
# write. Ten sockets: up to 3 s; 40: mostly under 1 s, but 8 to 14 s in one server of eight, for reasons unknown.
READING = {1: 1.0, 4: 4.0}
PATIENT = ("--ws-ping-interval", "600")  # where a round takes long: the attackers answer no pings


@pytest.mark.parametrize("sockets", READING)
@pytest.mark.timeout(600)
def test_it_writes_all_the_time_where_others_read(sockets: int) -> None:
    app = "tests.support.dos_database_app:app"
    survives(f"writes:{sockets}", RUN, *PATIENT, app=app, allowed=READING[sockets], connections=sockets, frame=4_000)


# ------------------------------------------------------------------------------------------------ the checks themselves


@pytest.mark.parametrize(("attack", "problem"), [("hoards", "memory"), ("fails", "log"), ("leaves_a_task", "left")])
def test_and_an_app_that_does_it_wrong_is_noticed(attack: str, problem: str) -> None:
    with Server(PLAIN) as server:
        seen = look_at(server, attack, most=1, calls=50, within=0.2)
    assert problem in seen.problems(may_hold())


def test_and_one_that_blocks_the_loop_is_noticed() -> None:
    with Server(PLAIN) as server:
        seen = look_at(server, "blocks_the_loop", most=1, calls=20)
    assert seen.kept(FLOOR) == 0
