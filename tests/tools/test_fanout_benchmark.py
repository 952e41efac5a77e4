"""The fan-out benchmark verifies its results, and a client that does not read does not slow down the others."""

import asyncio
import json
from typing import Any

import pytest

from benchmarks import fanout_in_process, fanout_over_uvicorn
from benchmarks.driver import Unfit
from benchmarks.fanout import BY_HAND, OURS, TALKS, in_process
from benchmarks.fanout_in_process import Hall, Talk, number_in, open_hall, payload

WAIT = 20.0


@pytest.mark.parametrize("contestant", [OURS, BY_HAND], ids=["ours", "by-hand"])
async def test_every_contestant_reaches_all_listeners(contestant: Any) -> None:
    async with open_hall(contestant, TALKS[contestant], 120) as one, open_hall(contestant, TALKS[contestant], 3) as two:
        assert await one.event() > 0
        assert len(await one.waits(2)) == 240
        await two.event()
        one.verify()
        two.verify()  # no client receives the events of the other app
        assert (one.number, two.number) == (6, 4)


async def test_a_client_that_does_not_read_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for contestant in (OURS, BY_HAND):
        async with open_hall(contestant, TALKS[contestant], 50) as full:
            full.listeners[7].deaf = True
            if contestant is BY_HAND:  # a plain loop of sends waits for the deaf client
                monkeypatch.setattr(fanout_in_process, "PATIENCE", 1.0)
                with pytest.raises(Unfit, match="42 of 50 were not told"):
                    await full.event(deaf=1)
            else:
                assert len(await full.waits(5, deaf=1)) == 5 * 49


async def lies(scope: Any, receive: Any, send: Any) -> None:
    """An app that replies to ``subscribe`` and delivers only the first event."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        data = json.loads(message["text"]).get("data")
        text = '{"status":200}' if data is None else f'"told {payload(1)}"'
        for to in listening if data is not None else (send,):
            await to({"type": "websocket.send", "text": text})
        if data is None:
            listening.append(send)


listening: list[Any] = []


async def test_a_contestant_that_repeats_events_is_not_timed() -> None:
    talk: Talk = TALKS[OURS]
    full = Hall(lies, talk, 5)
    try:
        await asyncio.wait_for(full.fill(), WAIT)
        await full.event()
        full.verify()
        await full.event()
        with pytest.raises(Unfit, match="expected event 2 as the last message, got "):
            full.verify()
    finally:
        await full.close()


def test_an_event_has_its_number() -> None:
    assert number_in(f'{{"event":"told","data":"{payload(42)}"}}') == 42
    assert number_in('{"status":200}') is None


async def test_a_figure_that_cannot_be_measured_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.fanout.TURN", 0.0)
    monkeypatch.setattr("benchmarks.fanout.LISTENERS", 20)
    monkeypatch.setattr(fanout_in_process, "PATIENCE", 1.0)
    notes: list[str] = []
    figures = await in_process(BY_HAND, TALKS[BY_HAND], 1, (20,), notes)
    assert set(figures) == {"in process at 20", "events/s at 20", "p50", "p99", "p99 beside a deaf client"}
    assert figures["p99 beside a deaf client"] is None
    assert not notes


@pytest.mark.slow
def test_a_real_server_reaches_all_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout_over_uvicorn, "LISTENERS", 30)
    with fanout_over_uvicorn.Crowd.of(OURS, TALKS[OURS]) as sockets:
        seconds, cpu = sockets.turn(50)
        assert seconds > 0
        assert 0 <= cpu <= seconds + 0.001  # of one process on one core; the clock of its CPU counts hundredths
        assert sockets.number == 55
    with pytest.raises(Unfit, match="its server ended with 1"):
        fanout_over_uvicorn.Crowd.of(fanout_over_uvicorn.Contestant("nobody", "nobody"), TALKS[OURS]).__enter__()
