"""Benchmark of fan-out: one event to 1,000 and to 10,000 subscribers. A loop of `send` by hand is 1.

    python -m benchmarks.fanout [--quick]

It first runs in process, where `send` does almost nothing, to measure the cost of reaching every connection. Then it
runs over uvicorn with real sockets, see `benchmarks.fanout_over_uvicorn`. One client that does not read must not delay
the others.
"""

import argparse
import asyncio
import statistics
from collections.abc import Sequence
from functools import partial

from benchmarks import fanout_over_uvicorn
from benchmarks.contestants import Contestant
from benchmarks.driver import Unfit
from benchmarks.fanout_in_process import Hall, Talk, json_talk, lifespan, open_hall
from benchmarks.job import JSON, SOCKET_IO
from benchmarks.load import percentile
from benchmarks.report import Aim, Answer, Row, rounded

__all__ = ("BY_HAND", "OURS", "TALKS", "answer")

_PLAIN = Talk(JSON, partial(json_talk, "subscribe"), partial(json_talk, "tell"))
OURS, BY_HAND = Contestant("wsaction", "fan_ours", "wsaction"), Contestant("by hand", "fan_by_hand")
TALKS = {
    OURS: _PLAIN,
    BY_HAND: _PLAIN,
    Contestant("litestar", "fan_litestar", "litestar"): Talk(JSON, _PLAIN.join, _PLAIN.tell, lifespan=True),
    Contestant("python-socketio", "fan_socketio", "python-socketio"): Talk(
        SOCKET_IO,
        lambda room: f'420["subscribe","{room}"]',
        lambda room, data: f'42["tell","{room}","{data}"]',
        SOCKET_IO.greetings + 1,
    ),
    Contestant("channels, in memory", "fan_channels", "channels"): _PLAIN,
    Contestant("chanx", "fan_chanx", "chanx"): Talk(
        JSON,
        lambda room: f'{{"action":"subscribe","payload":"{room}"}}',
        lambda room, data: f'{{"action":"tell","payload":{{"room":"{room}","text":"{data}"}}}}',
    ),
}
SIZES = (1_000, 10_000)
QUICK = ("wsaction", "by hand")
SOCKETS, DEAF = "over uvicorn", "p99 beside a deaf client"
AIMS = (Aim(SOCKETS, 0.8, at_least=True), Aim(DEAF, 1.5))
SLOW = 20.0  # events per second to 1,000 listeners, below which more listeners are not measured
EVENTS = 3  # measured for delays in one round
TURN = 0.2  # seconds for one contestant's turn
LISTENERS = SIZES[0]  # number of listeners whose delays are measured


def answer(quick: bool = False) -> Answer:
    """Answers the question. Leaves out contestants that cannot take part, with a note."""
    rows: list[Row] = []
    notes: list[str] = []
    for contestant, talk in TALKS.items():
        if quick and contestant.name not in QUICK:
            continue
        try:
            if contestant.version is None:
                raise Unfit(f"{contestant.distribution} is not installed")
            figures = asyncio.run(in_process(contestant, talk, 3, SIZES[:1] if quick else SIZES, notes))
            figures |= over_sockets(contestant, talk, quick, notes)
        except Unfit as exc:
            if contestant in (OURS, BY_HAND):
                raise
            notes.append(f"left out: {contestant.name}: {exc}")
            continue
        rows.append(Row(contestant.name, figures, AIMS if contestant is OURS else ()))
    notes += [
        "In process: events/s, by hand = 1 just before, one event after the other. p50, p99: milliseconds "
        "from the publisher's frame to each of 1,000 recipients.",
        f"{DEAF}: of all others when the send of one never returns, as a factor; none: they are told nothing any more.",
        f"{SOCKETS}: events that a server tells 1,000 sockets in a second of its CPU, by hand = 1; µs: of its CPU for "
        "each recipient; the same by the clock counts what else the machine does, and the sockets' own reader.",
    ]
    return Answer("fanout", "One event to all who are subscribed; events a second", rows, notes)


# ---------------------------------------------------------------------------------------------------------- in process
async def in_process(
    contestant: Contestant, talk: Talk, rounds: int, sizes: Sequence[int], notes: list[str]
) -> dict[str, float | None]:
    """The figures measured without sockets."""
    figures: dict[str, float | None] = {}
    async with lifespan(contestant.app(), talk.lifespan):
        figures |= await events(contestant, talk, rounds, sizes[0])
        for size in sizes[1:]:
            if (rate := figures[f"events/s at {sizes[0]:,}"]) is not None and rate < SLOW:
                notes.append(f"{contestant.name}: not asked at {size:,}, with {rate:g} events a second at {sizes[0]:,}")
                continue
            try:
                figures |= await events(contestant, talk, rounds, size)
            except Unfit as exc:
                notes.append(f"{contestant.name} at {size:,}: {exc}")
        return figures | await delays(contestant, talk, rounds)


async def events(contestant: Contestant, talk: Talk, rounds: int, size: int) -> dict[str, float | None]:
    """Throughput, in proportion to by hand, which runs just before.

    They do not run at the same time, since some contestants still work after an event is delivered. Raises `Unfit`.
    """
    async with open_hall(BY_HAND, TALKS[BY_HAND], size) as hall:
        base = statistics.median([await turn(hall) for _ in range(rounds)])
    async with open_hall(contestant, talk, size) as hall:
        seconds = statistics.median([await turn(hall) for _ in range(rounds)])
        hall.verify()
    return {f"in process at {size:,}": rounded(base / seconds, 3), f"events/s at {size:,}": rounded(1 / seconds, 3)}


def over_sockets(contestant: Contestant, talk: Talk, quick: bool, notes: list[str]) -> dict[str, float | None]:
    """The figures measured over uvicorn; empty if the peer cannot do it."""
    try:
        return fanout_over_uvicorn.figures(contestant, talk, BY_HAND, TALKS[BY_HAND], quick)
    except Unfit as exc:
        if contestant in (OURS, BY_HAND):
            raise
        notes.append(f"{contestant.name} {SOCKETS}: {exc}")
        return {}


async def turn(hall: Hall) -> float:
    """Seconds for one event, averaged over as many as fit into a turn."""
    spent = [await hall.event()]
    while sum(spent) < TURN:
        spent.append(await hall.event())
    return statistics.fmean(spent)


async def delays(contestant: Contestant, talk: Talk, rounds: int) -> dict[str, float | None]:
    """The delays of 1,000 recipients, with and without one that does not read."""
    waits: list[float] = []
    factors: list[float] = []
    async with open_hall(contestant, talk, LISTENERS) as calm, open_hall(contestant, talk, LISTENERS + 1) as with_deaf:
        with_deaf.listeners[LISTENERS // 3].deaf = True
        for _ in range(rounds):
            alone = await calm.waits(EVENTS)
            waits += alone
            try:
                beside = await with_deaf.waits(EVENTS, deaf=1)
            except Unfit:
                factors.clear()
                break
            factors.append(percentile(beside, 99) / percentile(alone, 99))
    told = {f"p{part}": rounded(percentile(waits, part), 3) for part in (50, 99)}
    return {**told, DEAF: rounded(statistics.median(factors), 3) if factors else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 subscribers, fewer rounds and contestants")
    print(answer(parser.parse_args().quick).table())


if __name__ == "__main__":
    main()
