"""`wsaction.consumers`: one instance serves a connection, and each task sees the frame that it runs for."""

import asyncio
import contextvars
from typing import Any

import pytest

from tests.support.driving import ask, talking
from wsaction._protocol.scope import SESSION_KEY
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.routing import path, re_path
from wsaction.testing import connect


def look(consumer: AsyncAPIConsumer) -> list[Any]:
    """The values that a consumer has of the current frame."""
    return [
        consumer.action,
        consumer.route,
        consumer.request_id,
        list(consumer.args),
        dict(consumer.kwargs),
        dict(consumer.query_params),
    ]


# ------------------------------------------------------------------------------------------------- mounting
def test_as_asgi_is_a_view_and_takes_initkwargs() -> None:
    class Consumer(AsyncAPIConsumer):
        size = 1

        @async_action
        async def act(self) -> int:
            return self.size

        @async_action
        async def other(self) -> None: ...

    view = Consumer.as_asgi(size=2, actions={"do": "act"})
    assert (view.handler_class, view.initkwargs, list(view.actions)) == (Consumer, {"size": 2}, ["do"])
    assert repr(view) == "<Consumer as a view>"
    with pytest.raises(ImproperlyConfigured, match=r"got 'sise'; did you mean 'size'\?"):
        Consumer.as_asgi(sise=2)


def test_unmountable_patterns_are_refused_by_as_asgi() -> None:
    class Consumer(AsyncAPIConsumer):
        routepatterns = [path("x", print)]

    with pytest.raises(ImproperlyConfigured, match=r"Consumer\.routepatterns, 'x'"):
        Consumer.as_asgi()


async def test_a_consumer_has_initkwargs_and_limits_of_its_own() -> None:
    class Consumer(AsyncAPIConsumer):
        limits = Limits(max_route_length=5)
        size = 1

        @async_action
        async def act(self) -> int:
            return self.size

    async with talking(Consumer.as_asgi(size=2), limits=Limits(max_route_length=10)) as ws:
        assert (await ws.call("act"))["data"] == 2
        assert (await ws.call("act", "x" * 6))["errors"][0]["ctx"] == {"limit": "max_route_length", "value": 5}


async def test_a_consumer_served_alone_sets_all_limits() -> None:
    class Consumer(AsyncAPIConsumer):
        limits = Limits(max_threads=1, drain_timeout=3)

        @async_action
        async def limits_of_the_app(self) -> list[float]:
            runtime = self.scope[SESSION_KEY].runtime
            return [runtime.limits.max_threads, runtime.limits.drain_timeout]

    async with connect(Consumer.as_asgi()) as ws:
        assert (await ws.call("limits_of_the_app"))["data"] == [1, 3]


# ------------------------------------------------------------------------------------------------- of the connection
async def test_one_instance_serves_one_connection() -> None:
    class Consumer(AsyncAPIConsumer):
        count = 0

        @async_action
        async def add(self) -> Any:
            self.count += 1
            return [self.count, self.consumer is self]

    view = Consumer.as_asgi()
    async with connect(view) as one, connect(view) as two:
        assert [(await one.call("add"))["data"] for _ in range(3)] == [[1, True], [2, True], [3, True]]
        assert (await two.call("add"))["data"] == [1, True]
    assert Consumer.count == 0


async def test_outside_a_frame_a_consumer_has_connection_values() -> None:
    seen: list[Any] = []

    class Consumer(AsyncAPIConsumer):
        async def connect(self) -> None:
            seen.append(look(self))
            self.kwargs["seen"] = True

        async def disconnect(self, code: int) -> None:
            seen.append(look(self))

        @async_action
        async def act(self) -> Any:
            return look(self)

    async with talking(Consumer.as_asgi(), "/rooms/7/?token=a%20b&x=1", at="rooms/<int:room>/") as ws:
        reply = await ws.call("act", request_id=5)
    assert reply["data"] == ["act", "", 5, [], {"room": 7}, {}]
    outside: list[Any] = [None, "", None, [], {"room": 7}, {"token": "a b", "x": "1"}]
    assert seen == [outside, [*outside[:4], {"room": 7, "seen": True}, outside[5]]]


async def test_connection_args_come_before_route_args() -> None:
    class Handler(AsyncAPIActionHandler):
        @async_action
        async def act(self) -> Any:
            return [list(self.args), self.kwargs]

    class Consumer(AsyncAPIConsumer):
        routepatterns = [re_path(r"^(\d)$", Handler.as_aaah()), path("<int:room>/", Handler.as_aaah())]

    app = Consumer.as_asgi()

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        url_route = {"args": ("x",), "kwargs": {"room": "ours"}}
        await app({**scope, "path_params": {"room": "starlette's", "org": 1}, "url_route": url_route}, receive, send)

    async with connect(outer) as ws:
        assert (await ws.call("act", "7"))["data"] == [["x", "7"], {"room": "ours", "org": 1}]
        assert (await ws.call("act", "7/"))["data"] == [["x"], {"room": 7, "org": 1}]


# ------------------------------------------------------------------------------------------------- of the frame
async def test_concurrent_frames_each_see_their_own_values() -> None:
    class Handler(AsyncAPIActionHandler):
        @async_action
        async def wait(self, name: str) -> Any:
            assert self.consumer.route == self.route
            return await self.consumer.meet(name)

    class Consumer(AsyncAPIConsumer):
        routepatterns = [path("<name>/", Handler.as_aaah())]

        def __init__(self) -> None:
            self.gate = asyncio.Event()
            self.waiting = 0

        async def meet(self, name: str) -> Any:
            before = look(self)
            self.waiting += 1
            if self.waiting == 3:
                self.gate.set()
            await self.gate.wait()
            assert look(self) == before
            return before

        @async_action(name="wait")
        async def wait_here(self) -> Any:
            return await self.meet("here")

    async with talking(Consumer.as_asgi()) as ws:
        replies = await asyncio.gather(
            ws.call("wait", "a/?q=1", request_id=1),
            ws.call("wait", "b/?q=2", request_id="1"),
            ws.call("wait", "", request_id=2),
        )
    assert [reply["data"] for reply in replies] == [
        ["wait", "a/?q=1", 1, [], {"name": "a"}, {"q": "1"}],
        ["wait", "b/?q=2", "1", [], {"name": "b"}, {"q": "2"}],
        ["wait", "", 2, [], {}, {}],
    ]


async def test_a_background_task_keeps_the_frame_that_started_it() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    class Consumer(AsyncAPIConsumer):
        async def connect(self) -> None:
            self.go = asyncio.Event()
            self.tasks = [asyncio.create_task(self.look_later())]

        async def disconnect(self, code: int) -> None:
            for task in self.tasks:
                task.cancel()

        async def look_later(self) -> Any:
            await self.go.wait()
            return [self.action, self.request_id, variable.get()]

        @async_action
        async def start(self) -> None:
            variable.set(f"of {self.request_id}")
            self.tasks.append(asyncio.create_task(self.look_later()))

        @async_action
        async def collect(self) -> Any:
            self.go.set()
            return [self.action, variable.get(), await asyncio.gather(*self.tasks)]

    async with talking(Consumer.as_asgi()) as ws:
        await ws.call("start", request_id=1)
        await ws.call("start", request_id=2)
        reply = await ws.call("collect", request_id=3)
    tasks = [[None, None, "unset"], ["start", 1, "of 1"], ["start", 2, "of 2"]]
    assert reply["data"] == ["collect", "unset", tasks]


async def test_a_sync_action_sees_its_frame_in_its_thread() -> None:
    class Consumer(AsyncAPIConsumer):
        @async_action
        def act(self) -> Any:
            return look(self)

    assert (await ask(Consumer.as_asgi(), "act", request_id=7))["data"] == ["act", "", 7, [], {}, {}]


async def test_a_frame_of_another_connection_is_not_visible() -> None:
    class Consumer(AsyncAPIConsumer):
        others: list["Consumer"] = []

        async def connect(self) -> None:
            self.others.append(self)

        @async_action
        async def act(self) -> Any:
            return [look(consumer)[:3] for consumer in self.others]

    view = Consumer.as_asgi()
    async with connect(view), connect(view) as two:
        assert (await two.call("act", request_id=7))["data"] == [[None, "", None], ["act", "", 7]]


@pytest.mark.parametrize(("code", "reason"), [(999, ""), (1006, ""), (5000, ""), ("4000", ""), (4000, None)])
async def test_close_refuses_an_invalid_code_or_reason(code: Any, reason: Any) -> None:
    refused: list[str] = []

    class Closing(AsyncAPIConsumer):
        @async_action
        async def leave(self) -> None:
            try:
                await self.close(code, reason)
            except ValueError as error:
                refused.append(str(error))

    async with talking(Closing.as_asgi()) as ws:
        assert (await ws.call("leave"))["status"] == 200
        assert (await ws.call("$ping"))["status"] == 200
    assert refused[0].startswith(f"close({code!r}, {reason!r}): expected a code of 1000 to 1014")
