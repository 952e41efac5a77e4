"""`wsaction.hooks`: calls for logs and metrics."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest

from wsaction.applications import WSAction
from wsaction.authentication import BaseAuthentication, Credential
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import APIError, ImproperlyConfigured, NotFound
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.hooks import ActionInfo, HookList, Hooks
from wsaction.limits import Limits
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import ConnectionClosed, HandshakeRefused, connect


class Recorder(Hooks):
    """Records connections, actions and limits."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def on_connect(self, consumer: Any) -> None:
        self.calls.append(("connect", type(consumer).__name__))

    def on_disconnect(self, consumer: Any, code: int) -> None:
        self.calls.append(("disconnect", type(consumer).__name__, code))

    def on_action(self, info: ActionInfo) -> None:
        assert 0 <= info.seconds < 60
        self.calls.append(("action", info.handler, info.action, info.route, info.request_id, info.status))

    def on_limit(self, consumer: Any, limit: str, value: float) -> None:
        self.calls.append(("limit", type(consumer).__name__, limit, value))


class Cards(AsyncAPIActionHandler):
    @async_action(name="list")
    async def all(self) -> list[int]:
        return [1]

    @async_action
    async def numbers(self) -> AsyncIterator[int]:
        yield 1
        yield 2


class Root(AsyncAPIConsumer):
    routepatterns = [path("cards/<int:board>/", Cards.as_aaah())]
    refuses = False

    async def connect(self) -> None:
        if self.refuses:
            raise NotFound

    @async_action(status=202)
    async def hello(self) -> str:
        return "hello"

    @async_action(mode="none")
    async def silent(self) -> None: ...

    @async_action
    async def fail(self, how: str) -> Any:
        if how == "api":
            raise APIError(402, "payment_required", "Pay.")
        if how == "returned":
            return None, 418
        raise ZeroDivisionError

    @async_action(timeout=0.01)
    async def hang(self) -> None:
        await asyncio.get_running_loop().create_future()

    @async_action
    async def wait(self) -> None:
        await asyncio.get_running_loop().create_future()

    @async_action
    async def large(self) -> str:
        return "x" * 2_000


def app(*hooks: Hooks, **initkwargs: Any) -> WSAction:
    limits = Limits(max_outbox_bytes=1_000, max_frame_bytes=500, drain_timeout=1)
    return WSAction([path("", Root.as_asgi(**initkwargs))], hooks=hooks, limits=limits)


async def test_hooks_receive_connections_and_actions() -> None:
    recorder = Recorder()
    async with connect(app(recorder)) as ws:
        await ws.call("hello")
        await ws.call("list", "cards/7/")
        await ws.send_json({"action": "silent"})
        await ws.call("fail", how="api")
        await ws.call("fail", how="returned")
        await ws.call("hang")
        await ws.send_text("no JSON")
        await ws.receive_json()
        await ws.call("nothing", "cards/7/")
        await ws.call("list", "nowhere/")
    assert [call for call in recorder.calls if call[0] != "limit"] == [
        ("connect", "Root"),
        ("action", "Root", "hello", "", "test-1", 202),
        ("action", "Cards", "list", "cards/7/", "test-2", 200),
        ("action", "Root", "silent", "", None, 200),
        ("action", "Root", "fail", "", "test-3", 402),
        ("action", "Root", "fail", "", "test-4", 418),
        ("action", "Root", "hang", "", "test-5", 408),
        ("action", None, None, "", None, 400),
        ("action", "Cards", None, "cards/7/", "test-6", 405),
        ("action", None, None, "nowhere/", "test-7", 404),
        ("disconnect", "Root", 1000),
    ]


async def test_a_stream_is_reported_once() -> None:
    recorder = Recorder()
    async with connect(app(recorder)) as ws:
        assert [item async for item in ws.stream("numbers", "cards/7/")] == [1, 2]
    assert [call[1:4] + call[5:] for call in recorder.calls if call[0] == "action"] == [
        ("Cards", "numbers", "cards/7/", 200)
    ]


async def test_an_action_cut_short_by_a_disconnect_has_status_499() -> None:
    recorder = Recorder()
    async with connect(app(recorder)) as ws:
        await ws.send_json({"action": "wait", "request_id": "w"})
        await ws.call("$ping")
    assert ("action", "Root", "wait", "", "w", 499) in recorder.calls
    assert recorder.calls[-1] == ("disconnect", "Root", 1000)


async def test_on_limit_receives_the_name_and_value() -> None:
    recorder = Recorder()
    async with connect(app(recorder)) as ws:
        await ws.call("large")
        await ws.call("hang")
        await ws.send_text("[" * 501)
        with pytest.raises(ConnectionClosed):
            await ws.receive_json()
    assert [call[1:] for call in recorder.calls if call[0] == "limit"] == [
        ("Root", "max_outbox_bytes", 1_000),
        ("Root", "action_timeout", 0.01),
        ("Root", "max_frame_bytes", 500),
    ]


class Hangs(BaseAuthentication):
    async def authenticate(self, scope: Any) -> Credential | None:
        return await asyncio.get_running_loop().create_future() if scope["path"] == "/hangs/" else None  # type: ignore[no-any-return]

    async def authenticate_data(self, data: Any) -> Credential | None:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


async def test_on_limit_receives_auth_timeout() -> None:
    recorder, limits = Recorder(), Limits(auth_timeout=0.02)
    routes = [path("", Root.as_asgi()), path("hangs/", Root.as_asgi())]
    signed = WSAction(routes, hooks=[recorder], authentication_classes=[Hangs], limits=limits)
    with pytest.raises(HandshakeRefused):
        async with connect(signed, "/hangs/"):
            pass
    async with connect(signed) as ws:
        assert (await ws.call("$auth", data="x"))["errors"][0]["ctx"] == {"limit": "auth_timeout", "value": 0.02}
    assert [call for call in recorder.calls if call[0] == "limit"] == [("limit", "Root", "auth_timeout", 0.02)] * 2


@pytest.mark.parametrize(
    "ctx", [{"limit": 5}, {"limit": "max_cards"}, {"limit": [], "value": 1}, {"limit": "max_threads"}, {"value": 1}]
)
async def test_a_limit_in_the_applications_ctx_is_not_reported(ctx: dict[str, Any]) -> None:
    class Own(AsyncAPIConsumer):
        @async_action
        async def add(self) -> None:
            raise APIError(400, "quota", "No more.", ctx)

    recorder = Recorder()
    async with connect(WSAction([path("", Own.as_asgi())], hooks=[recorder])) as ws:
        assert (await ws.call("add"))["errors"] == [{"type": "quota", "msg": "No more.", "ctx": ctx}]
        assert (await ws.call("$ping"))["status"] == 200
    assert not [call for call in recorder.calls if call[0] == "limit"]


async def test_a_refused_handshake_calls_no_hook() -> None:
    recorder = Recorder()
    with pytest.raises(HandshakeRefused):
        async with connect(app(recorder, refuses=True)):
            pass
    assert recorder.calls == []


async def test_an_exception_of_a_hook_is_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Hooks):
        def on_connect(self, consumer: Any) -> None:
            raise ZeroDivisionError

        on_disconnect = on_action = on_limit = on_connect  # type: ignore[assignment]  # wrong arguments raise too

    recorder = Recorder()
    async with connect(app(Broken(), recorder)) as ws:
        assert (await ws.call("hello"))["data"] == "hello"
        assert (await ws.call("large"))["status"] == 500
    assert [call[0] for call in recorder.calls] == ["connect", "action", "limit", "action", "disconnect"]
    assert {record.getMessage() for record in caplog.records} == {
        f"the hook Broken.{name} failed" for name in ("on_connect", "on_action", "on_limit", "on_disconnect")
    }


def test_an_async_hook_is_refused() -> None:
    class Awaited(Hooks):
        async def on_connect(self, consumer: Any) -> None: ...  # type: ignore[override]

    with pytest.raises(ImproperlyConfigured, match=r"Awaited\.on_connect is a coroutine function.*a plain function"):
        app(Awaited())


class Words(BaseAuthentication):
    """Accepts one password."""

    first_frame = True

    async def authenticate_data(self, data: Any) -> Credential | None:
        return Credential(user="ada") if data == "sesame" else None


async def test_hooks_receive_auth_actions() -> None:
    recorder = Recorder()
    signed = WSAction([path("", Root.as_asgi())], hooks=[recorder], authentication_classes=[Words])
    async with connect(signed) as ws:
        await ws.call("hello")
        await ws.call("$auth", data="wrong")
        await ws.call("$auth", data="sesame")
        await ws.call("hello")
    assert [(*call[1:3], call[5]) for call in recorder.calls if call[0] == "action"] == [
        (None, None, 401),
        (None, "$auth", 401),
        (None, "$auth", 200),
        ("Root", "hello", 202),
    ]


def test_hooks_that_are_not_overridden_are_not_called() -> None:
    class One(Hooks):
        def on_limit(self, consumer: Any, limit: str, value: float) -> None: ...

    names = ("on_connect", "on_disconnect", "on_action", "on_event", "on_unpublished", "on_limit")
    assert [HookList([One()]).has(name) for name in names] == [False] * 5 + [True]
    assert not any(HookList().has(name) for name in names)
    hooks = Hooks()
    assert [hooks.on_connect(1), hooks.on_disconnect(1, 2), hooks.on_limit(1, "a", 2)] == [None] * 3  # type: ignore[func-returns-value]
    assert [hooks.on_action(None), hooks.on_event("a", "b", 1)] == [None] * 2  # type: ignore[arg-type,func-returns-value]


class Around(Hooks):
    """Records what is around what."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.calls: list[Any] = []

    @contextmanager
    def around_action(self, consumer: Any, frame: Mapping[str, Any]) -> Iterator[None]:
        self.calls.append((f"{self.name}begins", type(consumer).__name__, dict(frame)))
        try:
            yield
        finally:
            self.calls.append(f"{self.name}ends")

    def on_action(self, info: ActionInfo) -> None:
        self.calls.append((info.action, info.status))


async def test_around_action_is_open_while_a_frame_is_answered() -> None:
    around = Around()
    async with connect(app(around)) as ws:
        await ws.call("hello", extra=1)
        await ws.send_text("no JSON")
        await ws.receive_json()
    assert around.calls == [
        ("begins", "Root", {"action": "hello", "route": "", "extra": 1, "request_id": "test-1"}),
        ("hello", 202),
        "ends",
        ("begins", "Root", {}),
        (None, 400),
        "ends",
    ]


async def test_the_first_of_several_hooks_is_outermost() -> None:
    one, two = Around("one "), Around("two ")
    two.calls = one.calls
    async with connect(app(one, two)) as ws:
        await ws.call("hello")
    names = [call[0] if isinstance(call, tuple) else call for call in one.calls]
    assert names == ["one begins", "two begins", "hello", "hello", "two ends", "one ends"]


async def test_a_frame_that_does_not_end_has_two_blocks_and_one_on_action() -> None:
    class Stubborn(AsyncAPIConsumer):
        @async_action(timeout=0.01)
        async def stay(self) -> None:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                await released.wait()

    around, released = Around(), asyncio.Event()
    stubborn = WSAction([path("", Stubborn.as_asgi())], hooks=[around], limits=Limits(drain_timeout=0.05))
    async with connect(stubborn) as ws:
        assert (await ws.call("stay"))["status"] == 408
        released.set()
    names = [call[0] if isinstance(call, tuple) else call for call in around.calls]
    assert names == ["begins", "begins", "stay", "ends", "ends"]


async def test_an_action_info_has_the_pattern_and_the_error() -> None:
    infos: list[ActionInfo] = []

    class Infos(Hooks):
        def on_action(self, info: ActionInfo) -> None:
            infos.append(info)

    async with connect(app(Infos())) as ws:
        await ws.call("list", "cards/7/")
        await ws.call("fail", how="api")
        reply = await ws.call("fail", how="else")
    listed, refused, failed = infos
    assert (listed.pattern, listed.error, listed.exception) == ("cards/<int:board>/", None, None)
    assert (refused.pattern, refused.error and refused.error.type) == (None, "payment_required")
    assert refused.exception is refused.error
    assert failed.error is not None
    assert failed.error.ctx == reply["errors"][0]["ctx"]
    assert isinstance(failed.exception, ZeroDivisionError)


async def test_a_hook_that_fails_around_something_is_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    class FailsBefore(Hooks):
        def around_action(self, consumer: Any, frame: Mapping[str, Any]) -> Any:
            raise ZeroDivisionError

    class FailsAfter(Hooks):
        @contextmanager
        def around_action(self, consumer: Any, frame: Mapping[str, Any]) -> Iterator[None]:
            yield
            raise ZeroDivisionError

    class Swallows(Hooks):
        @contextmanager
        def around_action(self, consumer: Any, frame: Mapping[str, Any]) -> Iterator[None]:
            with suppress(BaseException):
                yield

    around = Around()
    async with connect(app(FailsBefore(), FailsAfter(), Swallows(), around)) as ws:
        assert (await ws.call("hello"))["data"] == "hello"
        assert (await ws.call("fail", how="api"))["status"] == 402
        await ws.send_json({"action": "wait", "request_id": "w"})
        await ws.call("$ping")
    assert around.calls.count("ends") == 4
    names = {record.getMessage() for record in caplog.records}
    assert names == {f"the hook {name}.around_action failed" for name in ("FailsBefore", "FailsAfter")}


def test_a_hook_around_something_is_no_bare_generator() -> None:
    class Bare(Hooks):
        def around_action(self, consumer: Any, frame: Mapping[str, Any]) -> Any:
            yield

    class Async(Hooks):
        @asynccontextmanager
        async def around_publish(self, topic: str, event: str) -> Any:  # type: ignore[override]
            yield

    for cls in (Bare, Async):
        with pytest.raises(ImproperlyConfigured, match=r"around_\w+: expected a function that returns a context"):
            app(cls())


async def test_hooks_that_carry_something_with_an_event() -> None:
    calls: list[Any] = []

    class Carrier(Hooks):
        @contextmanager
        def around_publish(self, topic: str, event: str) -> Iterator[Mapping[str, str]]:
            calls.append(("publishing", topic, event))
            yield {"traceparent": "sent", "tenant": "acme"}
            calls.append("published")

        def on_publish(self, topic: str, event: str) -> None:
            calls.append(("on_publish", topic, event))

        @contextmanager
        def around_delivery(self, topic: str, event: str, carried: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
            calls.append(("delivering", topic, event, dict(carried)))
            yield {"traceparent": "delivered"}

        def on_layer_state(self, is_available: bool) -> None:
            calls.append(is_available)

    class Room(SubscribeMixin, AsyncAPIConsumer):
        @async_action
        async def tell(self, event: str) -> None:
            await self.publish(event, {"n": 1})
            await self.push("pushed")

    async with connect(WSAction([path("ws/", Room.as_asgi())], hooks=[Carrier()]), "/ws/") as ws:
        position = (await ws.call("subscribe"))["data"]
        await ws.send_json({"action": "tell", "event": 'a",\n"b'})
        event = await ws.event()
        assert event == {"event": 'a",\n"b', "route": "", "data": {"n": 1}, "offset": 1, "traceparent": "delivered"}
        assert await ws.event() == {"event": "pushed", "route": "", "data": None, "traceparent": "sent"}
        await ws.call("unsubscribe")
        await ws.call("subscribe", since=position)
        assert await ws.event() == event
    assert calls == [
        False,
        True,
        ("publishing", "ws/?", 'a",\n"b'),
        ("delivering", "ws/?", 'a",\n"b', {"traceparent": "sent", "tenant": "acme"}),
        "published",
        ("on_publish", "ws/?", 'a",\n"b'),
        ("publishing", "$push", "pushed"),
        "published",
        ("on_publish", "$push", "pushed"),
    ]


async def test_a_broadcast_is_carried_too() -> None:
    class Carrier(Hooks):
        @contextmanager
        def around_publish(self, topic: str, event: str) -> Iterator[Mapping[str, str]]:
            yield {"traceparent": "sent"}

    class Room(AsyncAPIConsumer):
        @async_action(mode="broadcast")
        async def say(self, data: Any) -> Any:
            return data

    for hooks, traced in (([Carrier()], {"traceparent": "sent"}), ([], {})):
        async with connect(WSAction([path("ws/", Room.as_asgi())], hooks=hooks), "/ws/") as ws:
            said = {"traceparent": 1, "end": ',"traceparent":"x"}'}
            await ws.send_json({"action": "say", "data": said})
            await ws.receive_json()
            assert await ws.receive_json() == {"data": said, "status": 200, **traced}
