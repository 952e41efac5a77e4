"""What the connections of an app share, on whichever loop."""

import asyncio

from wsaction.limits import Limits
from wsaction.origins import OriginPolicy
from wsaction.runtime import Runtime


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
