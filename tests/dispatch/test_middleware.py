"""Action middleware and exception handlers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from wsaction.applications import CallNext, WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import APIError, Conflict, ImproperlyConfigured, NotFound
from wsaction.permissions import DenyAll
from wsaction.routing import path
from wsaction.testing import connect


class Card(BaseModel):
    title: str


class Root(AsyncAPIConsumer):
    ran: list[str] = []

    @async_action
    async def plain(self, title: str = "a") -> Card:
        self.ran.append("plain")
        return Card(title=title)

    @async_action
    def threaded(self) -> str:
        return "threaded"

    @async_action
    async def with_args(self, *args: Any, **kwargs: Any) -> list[Any]:
        return [args, kwargs["action"]]

    @async_action
    async def numbers(self) -> AsyncIterator[int]:
        yield 1
        yield 2

    @async_action(permission_classes=[DenyAll])
    async def denied(self) -> None: ...

    @async_action
    async def fail(self, how: str) -> None:
        raise {"key": KeyError("k"), "index": IndexError(), "api": NotFound("none"), "zero": ZeroDivisionError()}[how]

    @async_action
    async def hang(self) -> None:
        await asyncio.get_running_loop().create_future()


def app(*middleware: Any, **options: Any) -> WSAction:
    return WSAction([path("", Root.as_asgi(ran=[]))], middleware=middleware, **options)


class Noting:
    """Middleware that notes when a call enters and leaves it."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    async def __call__(self, handler: Any, call_next: CallNext) -> Any:
        self.notes.append(f"{self.name} before {handler.action}")
        try:
            return await call_next(handler)
        finally:
            self.notes.append(f"{self.name} after {handler.action}")


async def test_the_first_middleware_is_outermost_for_every_action() -> None:
    notes: list[str] = []
    async with connect(app(Noting("one", notes), Noting("two", notes))) as ws:
        assert (await ws.call("plain", title="b"))["data"] == {"title": "b"}
        assert notes == ["one before plain", "two before plain", "two after plain", "one after plain"]
        assert (await ws.call("threaded"))["data"] == "threaded"
        assert (await ws.call("with_args"))["data"] == [[], "with_args"]
        assert [item async for item in ws.stream("numbers")] == [1, 2]
        assert notes[4::4] == ["one before threaded", "one before with_args", "one before numbers"]


async def test_middleware_runs_only_for_allowed_and_valid_actions() -> None:
    notes: list[str] = []
    async with connect(app(Noting("one", notes))) as ws:
        assert (await ws.call("denied"))["status"] == 403
        assert (await ws.call("fail"))["status"] == 400
        assert (await ws.call("$ping"))["status"] == 200
        assert (await ws.call("nothing"))["status"] == 405
    assert notes == []


async def test_middleware_may_change_the_result_or_raise() -> None:
    async def mw(handler: Any, call_next: CallNext) -> Any:
        card = await call_next(handler)
        if card.title == "refuse":
            raise Conflict("No.")
        return Card(title=card.title.upper()) if card.title != "cached" else {"title": "from the cache"}

    async with connect(app(mw)) as ws:
        assert (await ws.call("plain", title="b"))["data"] == {"title": "B"}
        assert (await ws.call("plain", title="cached"))["data"] == {"title": "from the cache"}
        assert (await ws.call("plain", title="refuse"))["status"] == 409


async def test_middleware_need_not_call_the_action() -> None:
    async def mw(handler: Any, call_next: CallNext) -> Any:
        return Card(title="instead")

    ran: list[str] = []
    async with connect(WSAction([path("", Root.as_asgi(ran=ran))], middleware=[mw])) as ws:
        assert (await ws.call("plain"))["data"] == {"title": "instead"}
    assert ran == []


@pytest.mark.parametrize("returns", [True, False])
async def test_middleware_that_does_not_await_the_action_is_a_500(returns: bool) -> None:
    async def forgetful(handler: Any, call_next: CallNext) -> Any:
        coroutine = call_next(handler)
        return coroutine if returns else None

    async def outer(handler: Any, call_next: CallNext) -> Any:
        return await call_next(handler)

    ran: list[str] = []
    root = Root.as_asgi(ran=ran)
    for middleware in ([forgetful], [outer, forgetful], [forgetful, outer]):
        async with connect(WSAction([path("", root)], middleware=middleware, debug=True)) as ws:
            reply = await ws.call("plain")
            assert reply["status"] == 500
            message = reply["errors"][0]["ctx"]["exception"]
            assert "forgetful called call_next() and did not await it" in message
            assert "write return await call_next(handler)" in message
    assert ran == []


async def test_middleware_may_call_the_action_again_and_in_a_task() -> None:
    async def again(handler: Any, call_next: CallNext) -> Any:
        await call_next(handler)
        return await asyncio.create_task(call_next(handler))  # type: ignore[arg-type]  # it is a coroutine

    def plain(handler: Any, call_next: CallNext) -> Any:
        return call_next(handler)

    ran: list[str] = []
    async with connect(WSAction([path("", Root.as_asgi(ran=ran))], middleware=[plain, again])) as ws:
        assert (await ws.call("plain"))["data"] == {"title": "a"}
    assert ran == ["plain", "plain"]


async def test_middleware_sees_exceptions_and_cancellation() -> None:
    seen: list[str] = []

    async def mw(handler: Any, call_next: CallNext) -> Any:
        try:
            return await call_next(handler)
        except BaseException as exc:
            seen.append(type(exc).__name__)
            raise

    async with connect(app(mw)) as ws:
        assert (await ws.call("fail", how="api"))["status"] == 404
        await ws.send_json({"action": "hang", "request_id": 1})
        assert (await ws.call("$cancel", data=1))["status"] == 200
        assert (await ws.receive_json())["status"] == 499
    assert seen == ["NotFound", "CancelledError"]


# ------------------------------------------------------------------------------------------------ exception handlers
async def handle_lookup(handler: Any, exc: Any) -> APIError:
    await asyncio.sleep(0)
    return NotFound(f"{handler.action}: {exc!r}")


def teapot(handler: Any, exc: Any) -> APIError:
    return APIError(418, "teapot", str(exc))


async def test_the_handler_of_the_nearest_class_makes_the_reply(caplog: pytest.LogCaptureFixture) -> None:
    handlers: Any = {LookupError: handle_lookup, KeyError: teapot, NotFound: teapot}
    async with connect(app(exception_handlers=handlers)) as ws:
        reply = await ws.call("fail", how="key")
        assert (reply["status"], reply["errors"]) == (418, [{"type": "teapot", "msg": "'k'"}])
        assert (await ws.call("fail", how="index"))["errors"][0]["msg"] == "fail: IndexError()"
        assert (await ws.call("fail", how="api"))["status"] == 418
        assert not caplog.records
        assert (await ws.call("fail", how="zero"))["status"] == 500
        assert (await ws.call("fail"))["status"] == 400


@pytest.mark.parametrize("behaviour", ["raises", "an error", "nothing"])
async def test_the_error_of_a_failing_exception_handler_is_replied(
    behaviour: str, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(handler: Any, exc: Any) -> Any:
        if behaviour == "raises":
            raise ZeroDivisionError
        if behaviour == "an error":
            raise NotFound("by the handler")

    async with connect(app(exception_handlers={KeyError: handle})) as ws:
        reply = await ws.call("fail", how="key")
    assert reply["status"] == (404 if behaviour == "an error" else 500)
    if behaviour == "nothing":
        assert "returned None; it is to return an APIError" in caplog.text


@pytest.mark.parametrize("ending", ["$cancel", "left"])
async def test_cancellation_skips_or_cancels_exception_handlers(ending: str) -> None:
    handled: list[str] = []
    inside = asyncio.Event()

    async def handle(handler: Any, exc: Any) -> Any:
        handled.append(type(exc).__name__)
        inside.set()
        await asyncio.get_running_loop().create_future()

    async with connect(app(exception_handlers={Exception: handle})) as ws:
        await ws.send_json({"action": "hang", "request_id": 1})
        await ws.call("$cancel", data=1)
        assert (await ws.receive_json())["status"] == 499
        assert handled == []
        await ws.send_json({"action": "fail", "how": "key", "request_id": 2})
        await asyncio.wait_for(inside.wait(), 5)
        if ending == "$cancel":
            await ws.call("$cancel", data=2)
            assert (await ws.receive_json())["status"] == 499
    assert handled == ["KeyError"]


# ------------------------------------------------------------------------------------------------ misuse
async def one_argument(handler: Any) -> None: ...


async def test_protocol_errors_skip_exception_handlers() -> None:
    handled: list[Any] = []

    async def handle(handler: Any, exc: APIError) -> APIError:
        handled.append(exc)
        return APIError(418, "teapot", "Another error.")

    async with connect(app(exception_handlers={APIError: handle})) as ws:
        assert (await ws.call("$cancel", data="unknown"))["errors"][0]["type"] == "not_found"
        assert (await ws.call("$cancel"))["errors"][0]["type"] == "missing"
        assert (await ws.call("$unknown"))["errors"][0]["type"] == "action_not_allowed"
        assert handled == []
        assert (await ws.call("unknown"))["status"] == 418


@pytest.mark.parametrize("middleware", [[5], [one_argument], [Noting], ["name"]])
def test_invalid_middleware_is_refused(middleware: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"expected functions like `async def mw\(.*\)`, got"):
        app(*middleware)


@pytest.mark.parametrize(
    ("handlers", "message"),
    [
        ({5: teapot}, "expected subclasses of Exception as keys, got 5"),
        ({BaseException: teapot}, "expected subclasses of Exception as keys, got <class 'BaseException'>"),
        ({KeyError: 5}, r"exception_handlers\[KeyError\]: expected a function like .* got 5"),
        ({KeyError: one_argument}, r"exception_handlers\[KeyError\]: expected a function"),
    ],
)
def test_invalid_exception_handlers_are_refused(handlers: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        app(exception_handlers=handlers)


def test_an_exception_handler_without_a_signature_is_accepted() -> None:
    assert app(exception_handlers={KeyError: max}).runtime.exception_handlers == {KeyError: max}
