"""`wsaction._server.runtime`: what the connections of an app share on each event loop."""

import asyncio

import pytest

from wsaction._protocol.event_frames import encode_event
from wsaction._server.origins import OriginPolicy
from wsaction._server.runtime import Runtime
from wsaction.exceptions import LayerUnavailable
from wsaction.layers.base import History
from wsaction.layers.memory import MemoryLayer
from wsaction.limits import Limits


def test_a_runtime_without_arguments_has_the_defaults() -> None:
    runtime = Runtime()
    assert (runtime.limits, runtime.origins, runtime.debug) == (Limits(), OriginPolicy(), False)


def test_a_runtime_keeps_what_it_is_given() -> None:
    limits, origins = Limits(max_threads=1), OriginPolicy(["https://a.example"])
    runtime = Runtime(limits=limits, origins=origins, debug=True)
    assert (runtime.limits, runtime.origins, runtime.debug) == (limits, origins, True)


def test_each_loop_has_threads_of_its_own() -> None:
    runtime = Runtime()

    async def use() -> object:
        threads = runtime.threads
        assert runtime.threads is threads
        assert await threads.run(lambda: 7) == 7
        return threads

    assert asyncio.run(use()) is not asyncio.run(use())


async def test_each_loop_has_a_hub_of_its_own_until_it_is_closed() -> None:
    runtime = Runtime()
    await runtime.close()  # there is no hub, and none is created
    assert runtime.loop_state.hub is None
    hub = runtime.hub
    assert runtime.hub is hub
    assert await hub.publish("t", encode_event("moved", "t", "1"), History(always=True)) is not None
    runtime.reopen()
    assert runtime.hub is hub
    await runtime.close()
    with pytest.raises(LayerUnavailable):
        await runtime.hub.publish("t", encode_event("moved", "t", "1"))
    runtime.reopen()
    assert runtime.hub is not hub
    await runtime.close()


async def test_the_layer_is_the_one_given() -> None:
    layer = MemoryLayer()
    assert Runtime(layer=layer).hub.layer is layer
