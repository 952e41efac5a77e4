"""`wsaction._dispatch.session`: routes to handlers, the route cache, and one reply to each frame."""

import asyncio
import json
import logging
from typing import Any

import pytest

from tests.support.driving import ask, talking, untold
from wsaction._handlers.route_table import MAX_CACHED_ROUTES, MAX_CACHED_ROUTES_OF_A_CONNECTION, Targets
from wsaction._protocol.frames import encode_reply, reply_tail
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ActionNotAllowed, APIError, NotFound, RouteNotFound, ServerError
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.routing import path, re_path, register_converter
from wsaction.testing import connect


class Where(AsyncAPIActionHandler):
    name = ""

    @async_action
    async def where(self) -> Any:
        return [self.name, self.kwargs, dict(self.query_params)]

    @async_action(name="list")
    async def list_(self) -> None: ...


def consumer_of(*patterns: Any, **attributes: Any) -> Any:
    kind: Any = type("Consumer", (Where, AsyncAPIConsumer), {"name": "root", "routepatterns": patterns, **attributes})
    return kind.as_asgi()


BOARDS = [
    path("boards/", Where.as_aaah(name="boards")),
    path("boards/<int:pk>/", Where.as_aaah(name="board")),
    re_path(r"^r/(?P<x>.*)$", Where.as_aaah(name="r")),
]


# ------------------------------------------------------------------------------------------------- routes and queries
@pytest.mark.parametrize(
    ("route", "wanted"),
    [
        ("", ["root", {}, {}]),
        ("?page=4", ["root", {}, {"page": "4"}]),
        ("?", ["root", {}, {}]),
        ("boards/", ["boards", {}, {}]),
        ("boards/?page=4&q=", ["boards", {}, {"page": "4", "q": ""}]),
        ("boards/07/", ["board", {"pk": 7}, {}]),
        ("boards/7/?a=1?b=2", ["board", {"pk": 7}, {"a": "1?b=2"}]),
        ("boards/7/?a=%C3%A9+%2f", ["board", {"pk": 7}, {"a": "é /"}]),
        ("r/é /%20", ["r", {"x": "é /%20"}, {}]),
        ("r/?", ["r", {"x": ""}, {}]),
        ("/boards/", 404),
        ("boards", 404),
        ("boards/x/", 404),
        ("boards%2F", 404),
        (" ", 404),
        ("boards/\n", 404),
    ],
)
async def test_a_route_is_matched_without_its_query(route: str, wanted: Any) -> None:
    reply = await ask(consumer_of(*BOARDS), "where", route)
    assert (reply["data"] if reply["status"] == 200 else reply["status"]) == wanted
    assert reply["route"] == route


async def test_a_pattern_may_match_the_empty_route() -> None:
    assert (await ask(consumer_of(path("", Where.as_aaah(name="index"))), "where"))["data"][0] == "index"
    assert (await ask(consumer_of(re_path(r"^$", Where.as_aaah(name="regex"))), "where", "?x=1"))["data"][0] == "regex"


async def test_the_first_matching_pattern_wins() -> None:
    view = consumer_of(path("<slug:x>/", Where.as_aaah(name="first")), *BOARDS)
    assert (await ask(view, "where", "boards/"))["data"] == ["first", {"x": "boards"}, {}]


# ------------------------------------------------------------------------------------------------- unknown routes
async def test_an_unmatched_route_is_a_404_after_the_roots_permissions() -> None:
    reply = await ask(consumer_of(*BOARDS), "where", "lost/", request_id=1)
    assert reply == {
        "errors": [{"type": "route_not_found", "msg": RouteNotFound.code[2]}],
        "data": None,
        "action": "where",
        "route": "lost/",
        "status": 404,
    }

    async def refuse(scope: Any, handler: Any, action: str) -> bool:
        return False

    for action in ("where", "lost"):
        reply = await ask(consumer_of(*BOARDS, permission_classes=(refuse,)), action, "lost/")
        assert reply["errors"][0]["type"] == "permission_denied"


@pytest.mark.parametrize("debug", [False, True])
async def test_tried_patterns_are_logged_and_sent_only_in_debug(debug: bool, caplog: pytest.LogCaptureFixture) -> None:
    view = consumer_of(*BOARDS)
    with caplog.at_level(logging.INFO, "wsaction"):
        (lost,) = (await ask(view, "where", "board/7/?token=secret", debug=debug))["errors"]
        (wrong,) = (await ask(view, "wher", "boards/7/", debug=debug))["errors"]
        (other,) = (await ask(view, "zzz", "boards/7/", debug=debug))["errors"]
    no_route = "None of the 3 patterns matches the route 'board/7/'. Did you mean one of 'boards/', 'boards/<int:pk>/'?"
    near = "Where has no action 'wher' at 'boards/7/'; it has where"
    every = "Where has no action 'zzz' at 'boards/7/'; it has list, where"
    assert [record.getMessage() for record in caplog.records] == [no_route, near, every]
    assert lost == {"type": "route_not_found", "msg": no_route if debug else RouteNotFound.code[2]}
    assert wrong == {"type": "action_not_allowed", "msg": near if debug else ActionNotAllowed.code[2]}
    assert other == {"type": "action_not_allowed", "msg": every if debug else ActionNotAllowed.code[2]}


async def test_unknown_routes_are_not_logged_at_the_warning_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "wsaction"):
        assert (await ask(consumer_of(*BOARDS), "where", "lost/"))["status"] == 404
        assert (await ask(consumer_of(*BOARDS), "lost"))["status"] == 405
    assert not caplog.records


async def test_a_long_unknown_action_is_truncated_in_the_hint() -> None:
    view = consumer_of(path("<path:x>", Where.as_aaah()))
    (error,) = (await ask(view, "a" * 50_000, "r" * 2_000, debug=True))["errors"]
    assert error["msg"] == f"Where has no action '{'a' * 100}' at '{'r' * 2_000}'; it has list, where"


async def test_the_hint_for_a_handler_without_actions_says_so() -> None:
    class Empty(AsyncAPIActionHandler):
        pass

    (error,) = (await ask(Empty.as_aaah(), "x", debug=True))["errors"]
    assert error["msg"] == "Empty has no action 'x' at ''; it has none"


async def test_without_strict_routing_the_root_takes_every_route() -> None:
    view = consumer_of(*BOARDS, strict_routing=False)
    assert (await ask(view, "where", "lost/?q=1"))["data"] == ["root", {}, {"q": "1"}]
    assert (await ask(view, "lost", "lost/"))["status"] == 405
    assert view.table.nearest("boards/?x") == "no route 'boards/?x'"


# ------------------------------------------------------------------------------------------------- the route cache
def cached_routes(targets: Targets) -> list[str]:
    return list(targets._cache)


def test_the_route_cache_evicts_the_oldest_route() -> None:
    table = consumer_of(*BOARDS).table
    routes = [f"boards/{n}/" for n in range(MAX_CACHED_ROUTES + 10)]
    targets = [table.targets.resolve(route) for route in routes]
    assert cached_routes(table.targets) == routes[10:]
    assert table.targets.resolve(routes[-1]) is targets[-1]
    assert table.targets.resolve(routes[0]) is not targets[0]
    of_connection = Targets(table, (), {"room": 1}, MAX_CACHED_ROUTES_OF_A_CONNECTION)
    for route in routes:
        of_connection.resolve(route)
    assert cached_routes(of_connection) == routes[-MAX_CACHED_ROUTES_OF_A_CONNECTION:]
    assert (MAX_CACHED_ROUTES, MAX_CACHED_ROUTES_OF_A_CONNECTION) == (1_024, 32)


async def test_unknown_routes_and_actions_are_not_cached() -> None:
    view = consumer_of(*BOARDS)
    async with talking(view) as ws:
        for n in range(5):
            await ws.call("where", f"lost/{n}")
            await ws.call("where", f"boards/?page={n}")
            await ws.call("where", f"?page={n}")
            await ws.call(f"made up {n}", "boards/")
        await ws.call("where", "boards/")
    assert [route for route in cached_routes(view.table.targets) if route] == ["boards/"]
    assert list(view.table.targets.resolve("boards/").calls) == ["where"]


async def test_connections_with_captures_have_their_own_route_cache() -> None:
    view = consumer_of(*BOARDS)
    async with talking(view, "/ws/a/", at="ws/<room>/") as one, talking(view, "/ws/b/", at="ws/<room>/") as two:
        for _ in range(2):
            assert (await one.call("where", "boards/7/"))["data"] == ["board", {"room": "a", "pk": 7}, {}]
            assert (await two.call("where", "boards/7/"))["data"] == ["board", {"room": "b", "pk": 7}, {}]
            assert (await two.call("where"))["data"] == ["root", {"room": "b"}, {}]
    assert cached_routes(view.table.targets) == []
    async with connect(view) as one:
        assert (await one.call("where", "boards/7/"))["data"] == ["board", {"pk": 7}, {}]
    assert "boards/7/" in cached_routes(view.table.targets)


async def test_route_captures_win_over_connection_captures() -> None:
    async with talking(consumer_of(*BOARDS), "/1/", at="<int:pk>/") as ws:
        assert (await ws.call("where", "boards/2/"))["data"] == ["board", {"pk": 2}, {}]
        assert (await ws.call("where", "lost/"))["status"] == 404


class Counting:
    """A converter that returns a new value for the same text."""

    regex = "n"
    count = 0

    def to_python(self, value: str) -> int:
        type(self).count += 1
        return self.count

    def to_url(self, value: int) -> str:
        return "n"


register_converter(Counting, "counting_of_test_dispatch")


async def test_values_of_an_impure_converter_are_not_cached() -> None:
    view = consumer_of(path("<counting_of_test_dispatch:n>/", Where.as_aaah()))
    async with talking(view) as ws:
        values = [(await ws.call("where", "n/"))["data"][1]["n"] for _ in range(3)]
    assert values == [values[0], values[0] + 1, values[0] + 2]


# ------------------------------------------------------------------------------------------------- failures
class Failing(AsyncAPIConsumer):
    """Its actions fail in every way that an action can."""

    @async_action
    async def ping(self) -> str:
        return "pong"

    @async_action
    async def bug(self) -> None:
        raise ZeroDivisionError("secret")

    @async_action
    def sync_bug(self) -> None:
        raise ZeroDivisionError("secret")

    @async_action
    async def not_found(self) -> None:
        raise NotFound("No card.", {"pk": 7})

    @async_action
    async def api_error(self) -> None:
        raise APIError(402, "payment_required", "Pay.")

    @async_action
    async def group(self) -> None:
        raise ExceptionGroup("many", [ValueError(1), NotFound()])

    @async_action
    async def timeout(self) -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    @async_action
    async def cancelled(self) -> None:
        raise asyncio.CancelledError

    @async_action
    async def cancels_itself(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    @async_action
    async def cancels_itself_twice_later(self) -> None:
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        task.cancel()
        await asyncio.Event().wait()

    @async_action
    async def awaits_what_was_cancelled(self) -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    @async_action
    async def unserialisable(self) -> Any:
        return object()

    @async_action
    async def stop(self) -> Any:
        raise StopIteration

    @async_action
    async def stop_async(self) -> Any:
        raise StopAsyncIteration

    @async_action
    async def bad_ctx(self) -> Any:
        raise APIError(409, "odd", "Odd.", 5)  # type: ignore[arg-type]

    @async_action
    async def error_that_is_none(self) -> Any:
        raise NoError

    @async_action
    async def base_exception(self) -> Any:
        raise Odd

    @async_action
    def base_exception_in_a_thread(self) -> Any:
        raise Odd

    @async_action
    async def generator_exit(self) -> Any:
        raise GeneratorExit

    @async_action
    async def generator_exit_later(self) -> Any:
        for _ in range(3):
            await asyncio.sleep(0)
        raise GeneratorExit


class NoError(APIError):
    """An `APIError` that does not call ``super().__init__()``."""

    def __init__(self) -> None:
        pass


class Odd(BaseException):
    pass


STATUSES = {"not_found": 404, "api_error": 402}
FAILING = [name for name in Failing.available_actions if name != "ping"]


@pytest.mark.parametrize("debug", [False, True])
async def test_every_failure_is_one_reply_and_keeps_the_connection(
    debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with talking(Failing.as_asgi(), debug=debug) as ws:
        for name in FAILING:
            reply = await ws.call(name, request_id=name)
            assert (reply["data"], reply["action"], reply["request_id"]) == (None, name, name)
            assert reply["status"] == STATUSES.get(name, 500)
            (error,) = reply["errors"]
            if reply["status"] == 500:
                assert (error["type"], error["msg"]) == ("server_error", ServerError.code[2])
                shown = debug and name != "error_that_is_none"
                assert set(error["ctx"]) == ({"error_id", "exception", "traceback"} if shown else {"error_id"})
                assert error["ctx"]["error_id"] in caplog.text
                assert ("secret" in str(error)) == (debug and "bug" in name)
            assert untold(await ws.call("ping"))["data"] == "pong"
        for name in FAILING:  # all at once
            await ws.send_json({"action": name, "request_id": name})
        replies = [await ws.receive_json() for _ in FAILING]
        assert sorted(reply["request_id"] for reply in replies) == sorted(FAILING)
        await ws.send_json({"action": "ping"})
        assert (await ws.receive_json())["data"] == "pong"


async def test_the_log_names_the_action_and_the_route(caplog: pytest.LogCaptureFixture) -> None:
    class Handler(AsyncAPIActionHandler):
        @async_action
        async def bug(self) -> None:
            raise ZeroDivisionError

    await ask(consumer_of(path("<path:x>/", Handler.as_aaah())), "bug", f"boards/{'x' * 300}/")
    (record,) = caplog.records
    assert record.getMessage().startswith(f"bug boards/{'x' * 189} failed (error_id ")


async def test_a_closed_connection_cancels_its_actions() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    class Consumer(AsyncAPIConsumer):
        @async_action
        async def wait(self) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    async with talking(Consumer.as_asgi()) as ws:
        await ws.send_json({"action": "wait"})
        await started.wait()
    assert ended.is_set()


@pytest.mark.parametrize("character", ["x", "é", "€", "😀"])
async def test_max_outbox_bytes_is_exact_for_a_reply(character: str) -> None:
    class Consumer(AsyncAPIConsumer):
        @async_action
        async def fill(self, n: int) -> str:
            return character * n

    async with talking(Consumer.as_asgi(), limits=Limits(max_outbox_bytes=1_000)) as ws:

        async def size(n: int) -> tuple[int, dict[str, Any]]:
            await ws.send_json({"action": "fill", "n": n})
            text = await ws.receive_text()
            return len(text.encode()), json.loads(text)

        empty, _ = await size(0)
        fits = (1_000 - empty) // len(character.encode())
        length, reply = await size(fits)
        assert length <= 1_000
        assert reply["data"] == character * fits
        _, reply = await size(fits + 1)
    over = empty + (fits + 1) * len(character.encode())
    assert (reply["status"], reply["data"]) == (500, None)
    assert reply["errors"] == [
        {
            "type": "reply_too_large",
            "msg": f"The reply has {over} bytes; max_outbox_bytes is 1000.",
            "ctx": {"limit": "max_outbox_bytes", "value": 1_000},
        }
    ]


async def test_an_error_over_max_outbox_bytes_is_replaced() -> None:
    class Consumer(AsyncAPIConsumer):
        @async_action
        async def fail(self) -> None:
            raise NotFound("x" * 1_000)

    async with talking(Consumer.as_asgi(), limits=Limits(max_outbox_bytes=1_000)) as ws:
        reply = await ws.call("fail")
    assert (reply["status"], reply["errors"][0]["type"]) == (500, "reply_too_large")


class Exploding:
    """A converter that raises an unexpected exception."""

    regex = "[a-z]"

    def to_python(self, value: str) -> int:
        raise ZeroDivisionError

    def to_url(self, value: int) -> str:
        return "x"


register_converter(Exploding, "exploding_of_test_dispatch")


async def test_a_failing_converter_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    view = consumer_of(path("<exploding_of_test_dispatch:x>/", Where.as_aaah()))
    async with talking(view) as ws:
        reply = await ws.call("where", "x/", request_id=7)
        assert (reply["status"], reply["errors"][0]["type"], reply["request_id"]) == (500, "server_error", 7)
        assert (await ws.call("where"))["status"] == 200
    assert "where x/ failed" in caplog.text


@pytest.mark.parametrize("how", [KeyboardInterrupt, SystemExit])
def test_keyboard_interrupt_and_system_exit_are_not_swallowed(how: type[BaseException]) -> None:
    class Consumer(AsyncAPIConsumer):
        @async_action
        async def leave(self) -> None:
            raise how

    with asyncio.Runner() as runner:
        # Nothing retrieves the exception of the task; asyncio would log that in another test, as it collects the task
        runner.get_loop().set_exception_handler(lambda loop, context: None)
        with pytest.raises(how):
            runner.run(ask(Consumer.as_asgi(), "leave"))


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize("request_id", [None, 7, "seven", 'é"\\\n😀'])
async def test_the_inline_reply_equals_encode_reply(request_id: Any, status: int) -> None:
    """`Session.run` has an inline copy of `encode_reply`, for speed."""

    class Boards(AsyncAPIActionHandler):
        @async_action
        async def tell(self) -> tuple[str, int]:
            return "ö", status

    route = 'boards/é"/?q=1'
    frame = {"action": "tell", "route": route, **({} if request_id is None else {"request_id": request_id})}
    async with talking(consumer_of(re_path("^boards/", Boards.as_aaah()))) as ws:
        await ws.send_json(frame)
        assert await ws.receive_text() == encode_reply(reply_tail("tell", route), '"ö"', status, request_id)
