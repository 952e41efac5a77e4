"""`wsaction.dependencies`: values that are prepared before an action runs, and closed after it."""

import asyncio
import contextlib
import contextvars
import dataclasses
import functools
import inspect
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, NamedTuple, NewType, Optional

import fastapi
import pydantic
import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, field_serializer, model_validator
from typing_extensions import TypeAliasType

from tests.support.driving import ask, talking, types_and_locs
from wsaction._handlers.parameters import EMPTY, Input
from wsaction._handlers.signatures import depends_of
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dependencies import Depends
from wsaction.exceptions import APIError, ImproperlyConfigured, NotFound
from wsaction.handlers import ActionView, AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.permissions import IsAuthenticated
from wsaction.routing import path, re_path
from wsaction.testing import connect

WAIT = 5.0  # the timeout of a thread's waits, in seconds


def view_of(function: Callable[..., Any], *patterns: str, **options: Any) -> ActionView:
    """A consumer whose action ``act`` is ``function``, also mounted at ``patterns``; one with a "^" is a regex."""
    act = async_action(name="act", **options)(function)
    handler: Any = type("Handler", (AsyncAPIActionHandler,), {"act": act})
    view = handler.as_aaah()
    routes = [re_path(text, view) if text.startswith("^") else path(text, view) for text in patterns]
    consumer: Any = type("Consumer", (AsyncAPIConsumer,), {"act": act, "routepatterns": routes})
    served: ActionView = consumer.as_asgi()
    return served


async def act(function: Callable[..., Any], **parameters: Any) -> Any:
    """The data of the action's reply to one frame; the reply must not be an error."""
    reply = await ask(view_of(function), "act", **parameters)
    assert reply["errors"] == []
    return reply["data"]


async def parameter_errors(function: Callable[..., Any], **parameters: Any) -> list[tuple[str, list[Any]]]:
    return types_and_locs(await ask(view_of(function), "act", **parameters))


def declaration_error(function: Callable[..., Any]) -> str:
    """The error of declaring a class with this action."""
    with pytest.raises(ImproperlyConfigured) as caught:
        type("Cards", (AsyncAPIActionHandler,), {"act": async_action(function)})
    return str(caught.value)


class Log:
    """Collects what happened, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> str:
        self.lines.append(line)
        return line

    def resource(self, name: str, *needs: Callable[..., Any]) -> Callable[..., Any]:
        """A dependency that yields ``name``; it notes when it opens, which exception it sees, and when it closes."""

        async def generator(below: Any = None) -> AsyncIterator[str]:
            self.note(f"open {name}")
            try:
                yield name
            except BaseException as exc:
                self.note(f"{name} sees {type(exc).__name__}")
                raise
            finally:
                self.note(f"close {name}")

        if needs:
            generator.__annotations__["below"] = Annotated[str, Depends(needs[0])]
            generator.__defaults__ = None
        return generator


# ------------------------------------------------------------------------------------------------- callables
async def by_coroutine() -> str:
    await asyncio.sleep(0)
    return "coroutine"


def by_function() -> str:
    return "function"


async def by_async_generator() -> AsyncIterator[str]:
    yield "async generator"


def by_generator() -> Iterator[str]:
    yield "generator"


class Called:
    def __call__(self, times: int = 1) -> str:
        return "called" * times


class AwaitedWhenCalled:
    async def __call__(self) -> str:
        return "awaited when called"


class GeneratorWhenCalled:
    async def __call__(self) -> AsyncIterator[str]:
        yield "entered when called"


@dataclasses.dataclass
class Unhashable:
    word: str

    def __call__(self) -> str:
        return self.word


class Methods:
    def method(self, word: str = "method") -> str:
        return word

    @classmethod
    async def of_class(cls) -> str:
        return cls.__name__

    @staticmethod
    async def static() -> str:
        return "static"


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


async def collected() -> str:
    return "".join([item async for item in by_async_generator()])


collected.__wrapped__ = by_async_generator  # type: ignore[attr-defined]  # as functools.wraps leaves it


def dynamic(**kwargs: Any) -> str:
    return kwargs["below"]


dynamic.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [inspect.Parameter("below", inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[str, Depends(by_coroutine)])]
)


@pytest.mark.parametrize(
    ("fn", "value"),
    [
        (by_coroutine, "coroutine"),
        (by_function, "function"),
        (by_async_generator, "async generator"),
        (by_generator, "generator"),
        (Called(), "called"),
        (AwaitedWhenCalled(), "awaited when called"),
        (GeneratorWhenCalled(), "entered when called"),
        (Unhashable("unhashable"), "unhashable"),
        (Methods().method, "method"),
        (Methods.of_class, "Methods"),
        (Methods.static, "static"),
        (functools.partial(by_coroutine), "coroutine"),
        (functools.partial(by_generator), "generator"),
        (functools.partial(Methods().method, "given"), "given"),
        (functools.partial(Methods().method, word="set"), "set"),
        (functools.lru_cache(by_function), "function"),
        (traced(by_coroutine), "coroutine"),
        (traced(by_async_generator), "async generator"),
        (traced(by_generator), "generator"),
        (lambda: "lambda", "lambda"),
        (collected, "async generator"),
        (dynamic, "coroutine"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_any_callable_may_be_a_dependency(fn: Any, value: str) -> None:
    async def action(self, made: Annotated[str, Depends(fn)]) -> str:
        return made

    assert await act(action) == value
    assert await act(action, made="by the client", below="by the client") == value


async def test_clients_cannot_override_arguments_of_a_partial() -> None:
    async def allowed(role: str, word: str = "none") -> str:
        return f"{role} {word}"

    async def action(self, made: Annotated[str, Depends(functools.partial(allowed, role="user"))]) -> str:
        return made

    assert await act(action, role="admin", word="yes") == "user yes"


class Common:
    def __init__(self, skip: int = 0, limit: Annotated[int, Field(le=100)] = 10) -> None:
        self.skip, self.limit = skip, limit


@dataclasses.dataclass
class CommonDataclass:
    limit: "int"
    skip: int = 0


class CommonTuple(NamedTuple):
    limit: int
    skip: int = 0


class CommonModel(BaseModel):
    model_config = ConfigDict(strict=True)
    limit: int
    skip: int = 0
    tags: list[str] = Field(default_factory=list)
    data: int = 1

    @model_validator(mode="after")
    def in_order(self) -> "CommonModel":
        if self.skip > self.limit:
            raise ValueError("skip is past the limit")
        return self


class Bare:
    skip, limit = 0, 5


@pytest.mark.parametrize("cls", [Common, CommonDataclass, CommonTuple, CommonModel])
async def test_a_class_is_built_from_its_init_parameters(cls: Any) -> None:
    async def named(self, page: Annotated[Any, Depends(cls)]) -> list[int]:
        return [page.skip, page.limit]

    async def itself(self, page: Annotated[cls, Depends()]) -> list[int]:
        return [type(page) is cls, page.limit]

    assert await act(named, limit=7) == [0, 7]
    assert await act(named, limit=7, skip=3) == [3, 7]
    assert await act(itself, limit=7) == [True, 7]
    wrong = "int_type" if cls is CommonModel else "int_parsing"  # the model is strict
    assert sorted(await parameter_errors(named, limit="7x", skip="x")) == [(wrong, ["limit"]), (wrong, ["skip"])]


async def test_a_class_without_an_init_is_built_too() -> None:
    async def action(self, page: Annotated[Bare, Depends()]) -> int:
        return page.limit

    assert await act(action) == 5


class Search(BaseModel):
    model_config = ConfigDict(extra="forbid")
    words: str = Field(alias="q")
    page: int = Field(1, validation_alias=AliasChoices("p", AliasPath("at", 0)))
    user: str = "anybody"


@pydantic.dataclasses.dataclass
class SearchDataclass:
    words: str


async def test_a_model_is_filled_by_alias_from_its_own_keys_only() -> None:
    class Cards(AsyncAPIConsumer):
        @async_action
        async def act(self, search: Annotated[Search, Depends()]) -> list[Any]:
            return [search.words, search.page, search.user]

    view = Cards.as_asgi()
    assert (await ask(view, "act", q="a", p=2, more=1))["data"] == ["a", 2, "anybody"]
    assert (await ask(view, "act", q="a", at=[3], user="ada"))["data"] == ["a", 3, "ada"]
    assert types_and_locs(await ask(view, "act", q=1, p="x")) == [("string_type", ["q"]), ("int_parsing", ["p"])]
    assert Cards.available_actions["act"].inputs == (
        Input("q", str),
        Input("p", int, 1, required=False),
        Input("user", str, "anybody", required=False),
    )


async def test_a_pydantic_dataclass_is_validated_too() -> None:
    async def action(self, search: Annotated[SearchDataclass, Depends()]) -> str:
        return search.words

    assert await act(action, words="a") == "a"
    assert await parameter_errors(action) == [("missing", ["words"])]


async def test_route_captures_fill_the_fields_of_a_model() -> None:
    async def action(self, page: Annotated[CommonModel, Depends()]) -> int:
        return page.limit

    async with talking(view_of(action, "first/<int:limit>/")) as ws:
        assert (await ws.call("act", "first/5/", limit=9))["data"] == 5


async def test_an_error_of_a_model_validator_is_a_400() -> None:
    async def action(self, page: Annotated[CommonModel, Depends()]) -> dict[str, Any]:
        return page.model_dump()

    assert await act(action, limit=1) == {"limit": 1, "skip": 0, "tags": [], "data": 1}
    assert await act(action, limit=1, tags=["a"], data=2) == {"limit": 1, "skip": 0, "tags": ["a"], "data": 2}
    assert await parameter_errors(action) == [("missing", ["limit"])]
    reply = await ask(view_of(action), "act", limit=1, skip=2)
    assert (reply["status"], reply["errors"][0]["msg"]) == (400, "Value error, skip is past the limit")


async def test_a_validation_error_raised_in_an_init_is_a_500(caplog: Any) -> None:
    class Settings:
        def __init__(self) -> None:
            CommonModel(limit="no number")  # type: ignore[arg-type]

    async def action(self, settings: Annotated[Settings, Depends()]) -> None: ...

    assert (await ask(view_of(action), "act"))["status"] == 500
    assert "ValidationError" in caplog.text


async def test_classes_run_on_the_loop_and_functions_in_a_thread() -> None:
    class Made:
        def __init__(self) -> None:
            self.thread = threading.get_ident()

    async def action(
        self,
        made: Annotated[Made, Depends()],
        called: Annotated[int, Depends(lambda: threading.get_ident())],
    ) -> list[bool]:
        return [made.thread == threading.get_ident(), called == threading.get_ident()]

    assert await act(action) == [True, False]


async def test_functions_run_within_max_threads() -> None:
    loop, gate = asyncio.get_running_loop(), threading.Event()
    started: asyncio.Queue[None] = asyncio.Queue()

    def work() -> None:
        loop.call_soon_threadsafe(started.put_nowait, None)
        assert gate.wait(WAIT)

    async def action(self, made: Annotated[None, Depends(work)]) -> None: ...

    async with talking(view_of(action, ordered=False), limits=Limits(max_threads=2)) as ws:
        calls = [asyncio.create_task(ws.call("act")) for _ in range(5)]
        for _ in range(2):
            await asyncio.wait_for(started.get(), WAIT)
        for _ in range(20):  # enough time for a third thread to begin, if there were one
            await asyncio.to_thread(int)
        assert started.empty()
        gate.set()
        assert [(await call)["status"] for call in calls] == [200] * 5


# ------------------------------------------------------------------------------------------------- parameters
class User:
    is_authenticated = True
    pk = id = 7


async def test_scope_handler_user_and_protocol_keys_are_passed() -> None:
    async def asked(scope, handler, user, action: str, route: str, request_id: int) -> list[Any]:
        return [scope["path"], type(handler).__name__, user.pk, action, route, request_id]

    async def action(self, made: Annotated[list[Any], Depends(asked)]) -> list[Any]:
        return made

    async with talking(view_of(action, "cards/<int:pk>/"), "/", user=User()) as ws:
        reply = await ws.call("act", "cards/7/?page=2", request_id=5, scope={}, handler="h", user="admin")
        assert reply["data"] == ["/", "Handler", 7, "act", "cards/7/?page=2", 5]
        assert (await ws.call("act", request_id=6))["data"] == ["/", "Consumer", 7, "act", "", 6]


async def test_parameters_with_reserved_names_may_be_dependencies() -> None:
    async def current(user) -> str:
        return f"user {user.pk}"

    async def board(user: Annotated[str, Depends(current)], action: Annotated[str, Depends(current)]) -> str:
        return f"board of {user}, {action}"

    async def action(
        self,
        user: Annotated[str, Depends(current)],
        board: Annotated[str, Depends(board)],
        request_id: Annotated[str, Depends(current)],
        **kwargs: Any,
    ) -> list[Any]:
        return [user, board, request_id, sorted(kwargs)]

    async with talking(view_of(action), user=User()) as ws:
        reply = await ws.call("act", user="admin", board=1, more=2)
    assert reply["data"] == ["user 7", "board of user 7, user 7", "user 7", ["action", "more"]]


async def get_row(pk: int, title: str = "untitled") -> str:
    return f"{pk} {title}"


async def test_parameters_come_from_captures_then_from_frame_keys() -> None:
    async def action(self, row: Annotated[str, Depends(get_row)], pk: int) -> list[Any]:
        return [row, pk]

    async with talking(view_of(action, "cards/<int:pk>/", r"^old/(?P<pk>\w+)/$")) as ws:
        assert (await ws.call("act", "cards/7/", pk=8, title="a"))["data"] == ["7 a", 7]
        assert (await ws.call("act", "old/7/", pk=8))["data"] == ["7 untitled", 7]
        assert (await ws.call("act", pk="8"))["data"] == ["8 untitled", 8]
        assert types_and_locs(await ws.call("act", "old/x/")) == [("int_parsing", ["pk"])]


async def test_a_capture_that_only_a_dependency_uses_is_validated() -> None:
    async def action(self, row: Annotated[str, Depends(get_row)]) -> str:
        return row

    async with talking(view_of(action, r"^old/(?P<pk>\w+)/$")) as ws:
        assert (await ws.call("act", "old/7/", pk=8))["data"] == "7 untitled"
        assert types_and_locs(await ws.call("act", "old/x/", pk=8)) == [("int_parsing", ["pk"])]


async def test_unnamed_captures_fill_only_the_actions_parameters() -> None:
    async def action(self, row: Annotated[str, Depends(get_row)], first: int, *args: Any) -> list[Any]:
        return [row, first, args]

    async with talking(view_of(action, r"^old/(\d)/(\d)/$")) as ws:
        assert (await ws.call("act", "old/1/2/", pk=8))["data"] == ["8 untitled", 1, ["2"]]


async def test_the_parameter_data_is_the_frames_data() -> None:
    async def title(data: CommonDataclass) -> int:
        return data.limit

    async def action(self, made: Annotated[int, Depends(title)]) -> int:
        return made

    assert await act(action, data={"limit": "3"}) == 3
    assert await parameter_errors(action, data={}) == [("missing", ["data", "limit"])]
    assert await parameter_errors(action) == [("missing", ["data"])]


async def test_all_errors_are_reported_at_once_and_nothing_runs() -> None:
    log = Log()

    async def checked(limit: int, done: bool) -> AsyncIterator[None]:
        log.note("ran")
        yield

    async def more(checked: Annotated[None, Depends(checked)], limit: int, page: int = 1) -> None:
        log.note("ran")

    async def action(self, title: str, limit: int, made: Annotated[None, Depends(more)]) -> None:
        log.note("ran")

    assert await parameter_errors(action, limit="x", page="y") == [
        ("missing", ["title"]),
        ("int_parsing", ["limit"]),
        ("missing", ["done"]),
        ("int_parsing", ["page"]),
    ]
    assert log.lines == []


async def test_permissions_are_checked_before_parameters() -> None:
    async def action(self, made: Annotated[str, Depends(get_row)]) -> None: ...

    view = view_of(action, permission_classes=(IsAuthenticated,))
    assert (await ask(view, "act"))["status"] == 403


def test_inputs_lists_what_clients_send_for_an_action() -> None:
    Limit = Annotated[int, Field(le=9)]

    async def session(handler: Any) -> None: ...
    async def board(pk: int, session: Annotated[None, Depends(session)]) -> None: ...
    async def page(pk: int, limit: Limit = 5) -> None: ...
    async def loose(pk, route: str) -> None: ...

    class Cards(AsyncAPIActionHandler):
        @async_action
        async def act(
            self,
            title: str,
            board: Annotated[None, Depends(board)],
            page: Annotated[None, Depends(page)],
            loose: Annotated[None, Depends(loose)],
            request_id: int,
        ) -> None: ...

    inputs = Cards.available_actions["act"].inputs
    assert inputs == (
        Input("title", str),
        Input("pk", int),
        Input("limit", Limit, 5, required=False),
        Input("pk", Any, EMPTY),
    )
    assert [one.required for one in inputs] == [True, True, False, True]


# ------------------------------------------------------------------------------------------------- nesting and caching
async def test_a_dependency_runs_once_for_each_action_call() -> None:
    made: list[int] = []

    async def session() -> int:
        made.append(len(made))
        return made[-1]

    async def left(session: Annotated[int, Depends(session)]) -> int:
        return session

    async def right(left: Annotated[int, Depends(left)], session: Annotated[int, Depends(session)]) -> list[int]:
        return [left, session]

    async def action(
        self, right: Annotated[list[int], Depends(right)], session: Annotated[int, Depends(session)]
    ) -> list[Any]:
        return [*right, session]

    async with talking(view_of(action)) as ws:
        assert (await ws.call("act"))["data"] == [0, 0, 0]
        assert (await ws.call("act"))["data"] == [1, 1, 1]


async def test_use_cache_false_runs_again_for_that_parameter() -> None:
    made: list[int] = []

    async def number() -> int:
        made.append(len(made))
        return made[-1]

    async def action(
        self,
        one: Annotated[int, Depends(number, use_cache=False)],
        two: Annotated[int, Depends(number)],
        three: Annotated[int, Depends(number, use_cache=False)],
        four: Annotated[int, Depends(number)],
    ) -> list[int]:
        return [one, two, three, four]

    assert await act(action) == [0, 1, 2, 1]


async def test_unhashable_callables_are_distinguished() -> None:
    async def action(
        self, one: Annotated[str, Depends(Unhashable("a"))], two: Annotated[str, Depends(Unhashable("b"))]
    ) -> list[str]:
        return [one, two]

    assert await act(action) == ["a", "b"]


async def test_concurrent_actions_do_not_share_dependencies() -> None:
    both = asyncio.Barrier(2)

    async def session() -> AsyncIterator[object]:
        made = object()
        await both.wait()
        yield made
        await both.wait()

    async def inner(session: Annotated[object, Depends(session)]) -> object:
        await both.wait()
        return session

    async def action(
        self, inner: Annotated[object, Depends(inner)], session: Annotated[object, Depends(session)]
    ) -> list[Any]:
        assert inner is session
        await both.wait()
        return [id(session)]

    async with talking(view_of(action, ordered=False)) as ws:
        first, second = await asyncio.gather(ws.call("act"), ws.call("act"))
    assert first["errors"] == second["errors"] == []
    assert first["data"] != second["data"]


async def test_an_error_in_a_dependency_is_seen_by_open_generators() -> None:
    log = Log()

    async def missing(below: Annotated[str, Depends(log.resource("session"))]) -> None:
        raise NotFound("No such board.", loc=("pk",))

    async def action(self, made: Annotated[None, Depends(missing)]) -> None:
        log.note("ran")

    reply = await ask(view_of(action), "act")
    assert (reply["status"], reply["errors"]) == (
        404,
        [{"type": "not_found", "msg": "No such board.", "loc": ["pk"]}],
    )
    assert log.lines == ["open session", "session sees NotFound", "close session"]


async def test_a_bug_in_a_dependency_is_a_logged_500(caplog: Any) -> None:
    def bug() -> None:
        raise ZeroDivisionError

    async def action(self, made: Annotated[None, Depends(bug)]) -> None: ...

    assert (await ask(view_of(action), "act"))["errors"][0]["type"] == "server_error"
    assert "ZeroDivisionError" in caplog.text


# ------------------------------------------------------------------------------------------------- after yield
async def test_generators_finish_in_reverse_order_before_the_reply() -> None:
    log = Log()

    class Out(BaseModel):
        title: str

        @field_serializer("title")
        def written(self, title: str) -> str:
            return log.note("written")

    inner = log.resource("inner")

    async def action(self, outer: Annotated[str, Depends(log.resource("outer", inner))]) -> Out:
        log.note(f"run with {outer}")
        return Out(title="a card")

    async with talking(view_of(action)) as ws:
        assert (await ws.call("act"))["data"] == {"title": "written"}
        assert log.lines == [
            "open inner", "open outer", "run with outer", "written", "close outer", "close inner",
        ]  # fmt: skip


@pytest.mark.parametrize("how", ["returned", "announced"])
async def test_a_returned_status_is_kept(how: str) -> None:
    async def returned(self, made: Annotated[str, Depends(by_coroutine)]):
        return made, 201

    async def announced(self, made: Annotated[str, Depends(by_coroutine)]) -> tuple[str, int]:
        return made, 201

    reply = await ask(view_of({"returned": returned, "announced": announced}[how]), "act")
    assert (reply["status"], reply["data"]) == (201, "coroutine")


async def test_generators_see_the_error_of_an_unserializable_result(caplog: Any) -> None:
    log = Log()

    async def action(self, session: Annotated[str, Depends(log.resource("session"))]) -> Any:
        return object()

    assert (await ask(view_of(action), "act"))["status"] == 500
    assert log.lines == ["open session", "session sees TypeError", "close session"]
    assert "cannot be written as JSON" in caplog.text


async def test_generators_see_an_actions_error_but_cannot_swallow_it() -> None:
    seen: list[str] = []

    async def swallows() -> AsyncIterator[None]:
        try:
            yield
        except NotFound:
            seen.append("async")

    def swallows_too() -> Iterator[None]:
        try:
            yield
        except NotFound:
            seen.append("sync")

    async def action(
        self, one: Annotated[None, Depends(swallows)], two: Annotated[None, Depends(swallows_too)]
    ) -> None:
        raise NotFound("No such card.")

    reply = await ask(view_of(action), "act")
    assert (reply["status"], reply["errors"][0]["msg"]) == (404, "No such card.")
    assert seen == ["sync", "async"]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_generator_may_replace_an_error(kind: str) -> None:
    async def by_loop() -> AsyncIterator[None]:
        try:
            yield
        except LookupError as exc:
            raise NotFound("Not here.") from exc

    def by_thread() -> Iterator[None]:
        try:
            yield
        except LookupError as exc:
            raise NotFound("Not here.") from exc

    async def action(self, made: Annotated[None, Depends({"async": by_loop, "sync": by_thread}[kind])]) -> None:
        raise KeyError("card")

    reply = await ask(view_of(action), "act")
    assert (reply["status"], reply["errors"][0]["msg"]) == (404, "Not here.")


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_an_error_after_yield_is_the_only_reply(kind: str) -> None:
    log = Log()

    async def by_loop() -> AsyncIterator[None]:
        yield
        raise APIError(409, "stale", "It changed meanwhile.")

    def by_thread() -> Iterator[None]:
        yield
        raise APIError(409, "stale", "It changed meanwhile.")

    async def action(
        self,
        session: Annotated[str, Depends(log.resource("session"))],
        unit: Annotated[None, Depends({"async": by_loop, "sync": by_thread}[kind])],
    ) -> str:
        return "never sent"

    async with talking(view_of(action)) as ws:
        reply = await ws.call("act")
        assert (reply["status"], reply["data"], reply["errors"][0]["type"]) == (409, None, "stale")
        await ws.nothing()
    assert log.lines == ["open session", "session sees APIError", "close session"]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_generator_that_does_not_yield_once_is_a_500(kind: str, caplog: Any) -> None:
    async def never() -> AsyncIterator[None]:
        if kind == "neither":
            yield

    def twice() -> Iterator[None]:
        yield
        yield

    async def action(self, made: Annotated[None, Depends({"async": never, "sync": twice}[kind])]) -> None: ...

    assert (await ask(view_of(action), "act"))["status"] == 500
    assert {"async": "didn't yield", "sync": "didn't stop"}[kind] in caplog.text


async def test_an_action_without_replies_has_dependencies_too() -> None:
    log = Log()

    async def action(self, session: Annotated[str, Depends(log.resource("session"))]) -> str:
        return log.note(f"run with {session}")

    async with talking(view_of(action, mode="none")) as ws:
        await ws.send_json({"action": "act"})
        await ws.call("$ping")
    assert log.lines == ["open session", "run with session", "close session"]


async def test_a_sync_action_has_dependencies_too() -> None:
    log = Log()

    def action(self, session: Annotated[str, Depends(log.resource("session"))]) -> bool:
        log.note(f"run with {session}")
        return threading.current_thread() is threading.main_thread()

    assert await act(action) is False
    assert log.lines == ["open session", "run with session", "close session"]


async def test_both_ends_of_a_sync_generator_share_context_variables() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    ends: list[Any] = []

    def generator() -> Iterator[str]:
        token = variable.set("resource")
        ends.append(threading.current_thread() is threading.main_thread())
        yield variable.get()
        ends.append(threading.current_thread() is threading.main_thread())
        variable.reset(token)

    async def action(self, made: Annotated[str, Depends(generator)]) -> list[str]:
        return [made, variable.get()]

    assert await act(action) == ["resource", "unset"]
    assert ends == [False, False]


async def test_context_set_by_an_async_generator_stays_in_its_action() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    before: list[str] = []

    async def set_it() -> AsyncIterator[None]:
        before.append(variable.get())
        token = variable.set("set")
        yield
        variable.reset(token)

    async def action(self, made: Annotated[None, Depends(set_it)]) -> str:
        return variable.get()

    async with talking(view_of(action)) as ws:
        assert [(await ws.call("act"))["data"] for _ in range(3)] == ["set"] * 3
    assert before == ["unset"] * 3


async def test_one_thread_is_enough_for_generators_sharing_a_pool() -> None:
    """Closing a dependency needs no thread slot: the call that holds the slot may wait for the closing."""
    pool = threading.Semaphore(1)

    def connection() -> Iterator[None]:
        assert pool.acquire(timeout=WAIT)
        try:
            yield
        finally:
            pool.release()

    async def action(self, made: Annotated[None, Depends(connection)]) -> str:
        return "done"

    async with talking(view_of(action, ordered=False), limits=Limits(max_threads=1)) as ws:
        replies = await asyncio.gather(*(ws.call("act") for _ in range(8)))
    assert [reply["data"] for reply in replies] == ["done"] * 8


# ------------------------------------------------------------------------------------------------- streams
async def test_dependencies_of_a_stream_finish_when_it_ends() -> None:
    log = Log()

    async def action(self, session: Annotated[str, Depends(log.resource("session"))], fail: bool = False) -> Any:
        for number in (1, 2):
            yield log.note(f"{session} {number}")
        if fail:
            raise NotFound

    async with talking(view_of(action)) as ws:
        assert [item async for item in ws.stream("act")] == ["session 1", "session 2"]
        assert log.lines == ["open session", "session 1", "session 2", "close session"]
        log.lines.clear()
        await ws.send_json({"action": "act", "fail": True})
        assert [(await ws.receive_json())["status"] for _ in range(3)] == [206, 206, 404]
    assert log.lines[2:] == ["session 2", "session sees NotFound", "close session"]


async def test_a_cancelled_stream_closes_dependencies_before_replying() -> None:
    log = Log()

    async def action(self, session: Annotated[str, Depends(log.resource("session"))]) -> Any:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            log.note("stream closed")

    async with talking(view_of(action)) as ws:
        await ws.send_json({"action": "act", "request_id": 1})
        assert (await ws.receive_json())["data"] == "first"
        assert (await ws.call("$cancel", data=1))["status"] == 200
        assert (await ws.receive_json())["status"] == 499
        assert log.lines == ["open session", "stream closed", "session sees CancelledError", "close session"]


# ------------------------------------------------------------------------------------------------- cancellation
class Waiting(AsyncAPIConsumer):
    """Each action waits at the place that its name says. Waits in a thread end when the test sets ``gate``."""

    async def connect(self) -> None:
        self.log, self.started = Log(), asyncio.Event()
        self.loop, self.gate = asyncio.get_running_loop(), threading.Event()

    def wait_in_thread(self) -> None:
        self.loop.call_soon_threadsafe(self.started.set)
        assert self.gate.wait(WAIT)

    async def wait(self) -> None:
        self.started.set()
        await asyncio.Event().wait()

    async def resource(handler: Any) -> AsyncIterator[str]:
        try:
            yield "resource"
        finally:
            handler.log.note("close resource")

    async def seeing(handler: Any) -> AsyncIterator[None]:
        try:
            yield
        except APIError as exc:
            handler.log.note(f"saw {exc.type}")
            raise

    def resource_by_thread(handler: Any) -> Iterator[str]:
        try:
            yield "resource"
        finally:
            handler.log.note("close resource by thread")

    async def opens_slowly(handler: Any, below: Annotated[str, Depends(resource)]) -> AsyncIterator[None]:
        try:
            await handler.wait()
            yield
        finally:
            handler.log.note("close slow")

    def opens_slowly_by_thread(handler: Any, below: Annotated[str, Depends(resource)]) -> Iterator[None]:
        try:
            handler.wait_in_thread()
            yield
        except asyncio.CancelledError:
            handler.log.note("cancelled")
            raise
        finally:
            handler.log.note("close slow")
            handler.loop.call_soon_threadsafe(handler.started.set)

    def closes_slowly_by_thread(handler: Any) -> Iterator[None]:
        yield
        handler.wait_in_thread()
        handler.log.note("close slow")

    def blocks(handler: Any, below: Annotated[str, Depends(resource)]) -> None:
        handler.wait_in_thread()
        handler.log.note("used resource")

    def blocks_alone(handler: Any) -> None:
        handler.wait_in_thread()

    @async_action
    async def in_opening(self, made: Annotated[None, Depends(opens_slowly)]) -> None: ...

    @async_action
    async def in_opening_by_thread(self, made: Annotated[None, Depends(opens_slowly_by_thread)]) -> None: ...

    @async_action
    async def in_closing_by_thread(
        self, resource: Annotated[str, Depends(resource)], made: Annotated[None, Depends(closes_slowly_by_thread)]
    ) -> None: ...

    @async_action
    async def in_action(
        self, one: Annotated[str, Depends(resource)], two: Annotated[str, Depends(resource_by_thread)]
    ) -> None:
        await self.wait()

    @async_action
    async def swallowed(self, one: Annotated[None, Depends(seeing)]) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await self.wait()
        return "swallowed"

    @async_action
    async def in_function(self, made: Annotated[None, Depends(blocks)]) -> None: ...

    @async_action
    async def in_function_alone(self, made: Annotated[None, Depends(blocks_alone)]) -> None: ...

    @async_action
    def in_sync_action(self, resource: Annotated[str, Depends(resource)]) -> None:
        self.wait_in_thread()
        self.log.note(f"used {resource}")


@contextlib.asynccontextmanager
async def waiting_in(action: str) -> AsyncIterator[tuple[Any, Waiting]]:
    """A connection whose call of ``action`` (request_id 1) has reached the place where it waits."""
    consumers: list[Waiting] = []

    class Met(Waiting):
        async def connect(self) -> None:
            await super().connect()
            consumers.append(self)

    async with talking(Met.as_asgi()) as ws:
        await ws.send_json({"action": action, "request_id": 1})
        (consumer,) = consumers
        await asyncio.wait_for(consumer.started.wait(), WAIT)
        consumer.started.clear()
        yield ws, consumer


@pytest.mark.parametrize(
    ("action", "noted"),
    [
        ("in_opening", ["close slow", "close resource"]),
        ("in_action", ["close resource by thread", "close resource"]),
        ("swallowed", ["saw cancelled"]),
        ("in_function_alone", []),
    ],
)
async def test_cancellation_closes_open_dependencies(action: str, noted: list[str]) -> None:
    async with waiting_in(action) as (ws, consumer):
        assert (await ws.call("$cancel", data=1))["status"] == 200
        assert (await ws.receive_json())["status"] == 499
        assert consumer.log.lines == noted
        consumer.gate.set()


async def test_a_thread_closes_what_it_opens_after_a_cancellation() -> None:
    async with waiting_in("in_opening_by_thread") as (ws, consumer):
        assert (await ws.call("$cancel", data=1))["status"] == 200
        assert (await ws.receive_json())["status"] == 499
        assert consumer.log.lines == ["close resource"]
        consumer.gate.set()
        await asyncio.wait_for(consumer.started.wait(), WAIT)
        assert consumer.log.lines == ["close resource", "cancelled", "close slow"]


@pytest.mark.parametrize("action", ["in_function", "in_sync_action"])
async def test_cancellation_waits_for_a_thread_that_uses_a_dependency(action: str) -> None:
    async with waiting_in(action) as (ws, consumer):
        assert (await ws.call("$cancel", data=1))["status"] == 200
        assert consumer.log.lines == []
        consumer.gate.set()
        assert (await ws.receive_json())["status"] == 499
        assert consumer.log.lines == ["used resource", "close resource"]


async def test_cancellation_waits_for_a_thread_that_closes_a_dependency() -> None:
    async with waiting_in("in_closing_by_thread") as (ws, consumer):
        assert (await ws.call("$cancel", data=1))["status"] == 200
        assert consumer.log.lines == []
        consumer.gate.set()
        assert (await ws.receive_json())["status"] == 499
        assert consumer.log.lines == ["close slow", "close resource"]


@pytest.mark.parametrize("action", ["in_opening", "in_action"])
async def test_a_disconnect_closes_open_dependencies(action: str) -> None:
    async with waiting_in(action) as (ws, consumer):
        ws.drop()
    assert consumer.log.lines[-1] == "close resource"


@pytest.mark.parametrize("seed", range(8))
async def test_random_cancellations_close_everything_opened(seed: int) -> None:
    rng, counted = random.Random(seed), threading.Condition()
    count = {"opened": 0, "closed": 0}

    def note(event: str) -> None:
        with counted:
            count[event] += 1
            counted.notify_all()

    def by_thread() -> Iterator[str]:
        note("opened")
        try:
            yield "thread"
        finally:
            note("closed")

    async def by_loop(below: Annotated[str, Depends(by_thread)]) -> AsyncIterator[str]:
        note("opened")
        try:
            await asyncio.sleep(0)
            yield below
            await asyncio.sleep(0)
        finally:
            note("closed")

    def used(below: Annotated[str, Depends(by_loop)]) -> str:
        with counted:
            assert count["closed"] < count["opened"]
        return below

    async def action(
        self,
        turns: int,
        used: Annotated[str, Depends(used)],
        again: Annotated[str, Depends(by_thread, use_cache=False)],
    ) -> str:
        for _ in range(turns):
            await asyncio.sleep(0)
        return used + again

    async with talking(view_of(action, ordered=False), limits=Limits(max_threads=3, max_concurrency=8)) as ws:
        for number in range(40):
            await ws.send_json({"action": "act", "turns": rng.randrange(4), "request_id": number})
            for _ in range(rng.randrange(30)):
                await asyncio.sleep(0)
            if rng.random() < 0.7:
                await ws.send_json({"action": "$cancel", "data": rng.randint(max(0, number - 4), number)})
        answered: list[int] = []
        while len(answered) < 30:
            reply = await ws.receive_json()
            if reply["action"] == "act":
                assert reply["status"] in (200, 499)
                answered.append(reply["request_id"])
        assert len(set(answered)) == 30
        ws.drop()

    def all_is_closed() -> bool:  # at once, or when the abandoned threads have ended
        with counted:
            return counted.wait_for(lambda: count["opened"] == count["closed"] > 0, WAIT)

    assert await asyncio.to_thread(all_is_closed)


# ------------------------------------------------------------------------------------------------- nested handlers
async def test_nested_handlers_and_consumers_have_dependencies() -> None:
    async def whose(handler: Any, board: int = 0, card: int = 0) -> list[Any]:
        return [type(handler).__name__, board, card]

    Whose = Annotated[list[Any], Depends(whose)]

    class Card(AsyncAPIActionHandler):
        @async_action
        async def act(self, whose: Whose) -> list[Any]:
            return whose

    class Board(AsyncAPIActionHandler):
        routepatterns = [path("cards/<int:card>/", Card.as_aaah())]

        @async_action
        async def act(self, whose: Whose) -> list[Any]:
            return whose

    class Root(AsyncAPIConsumer):
        routepatterns = [path("boards/<int:board>/", Board.as_aaah())]

        @async_action
        async def act(self, whose: Whose) -> list[Any]:
            return whose

    async with talking(Root.as_asgi(), "/3/", at="<int:board>/") as ws:
        assert (await ws.call("act"))["data"] == ["Root", 3, 0]
        assert (await ws.call("act", "boards/7/"))["data"] == ["Board", 7, 0]
        assert (await ws.call("act", "boards/7/cards/1/"))["data"] == ["Card", 7, 1]
    assert (await ask(Card.as_aaah(), "act", card=2))["data"] == ["Card", 0, 2]


async def test_an_override_has_only_the_dependencies_it_declares() -> None:
    class Base(AsyncAPIConsumer):
        @async_action
        async def act(self, made: Annotated[str, Depends(by_coroutine)]) -> str:
            return made

    class Without(Base):
        async def act(self, made: str = "default") -> str:  # type: ignore[override]
            return made

    assert (await ask(Base.as_asgi(), "act", made="x"))["data"] == "coroutine"
    assert (await ask(Without.as_asgi(), "act", made="x"))["data"] == "x"


async def test_a_type_alias_may_hold_a_dependency() -> None:
    Made = Annotated[str, Depends(by_coroutine)]
    Named = TypeAliasType("Named", Annotated[str, Depends(by_function)])

    async def action(self, one: Made, two: Named) -> list[str]:
        return [one, two]

    assert await act(action, one="x", two="x") == ["coroutine", "function"]


async def test_middleware_runs_between_dependencies_and_the_action() -> None:
    log = Log()

    async def middleware(handler: Any, call_next: Any) -> Any:
        log.note("before")
        result = await call_next(handler)
        log.note(f"saw {result}")
        return [*result, "more"]

    async def action(self, session: Annotated[str, Depends(log.resource("session"))]) -> list[str]:
        return [session]

    app = WSAction([path("", view_of(action))], middleware=[middleware])
    async with connect(app, "/") as ws:
        assert (await ws.call("act"))["data"] == ["session", "more"]
    assert log.lines == ["open session", "before", "saw ['session']", "close session"]


@pytest.mark.parametrize("where", ["action", "dependency"])
async def test_a_timeout_closes_dependencies_before_the_reply(where: str) -> None:
    log = Log()

    async def waits(wait: bool, below: Annotated[str, Depends(log.resource("session"))]) -> None:
        if wait:
            await asyncio.Event().wait()

    async def action(self, wait: bool, waits: Annotated[None, Depends(waits)]) -> None:
        await asyncio.Event().wait()

    async with talking(view_of(action), limits=Limits(action_timeout=0.05)) as ws:
        assert (await ws.call("act", wait=where == "dependency"))["status"] == 408
        assert log.lines == ["open session", "session sees CancelledError", "close session"]


@pytest.mark.parametrize("error", [ValueError("while closing"), NotFound("already replied")])
async def test_an_error_during_cancellation_is_logged(error: Exception, caplog: Any) -> None:
    async def fails() -> AsyncIterator[None]:
        try:
            yield
        finally:
            raise error

    async def action(self, fails: Annotated[None, Depends(fails)]) -> None:
        await asyncio.Event().wait()

    async with talking(view_of(action), limits=Limits(action_timeout=0.05)) as ws:
        assert (await ws.call("act"))["status"] == 408
    logged = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert logged == ([error] if isinstance(error, ValueError) else [])


# ------------------------------------------------------------------------------------------------- overrides
async def real(pk: int) -> str:
    return f"real {pk}"


async def test_dependency_overrides_replace_a_function() -> None:
    log = Log()

    async def outer(inner: Annotated[str, Depends(real)]) -> str:
        return f"outer of {inner}"

    async def action(self, made: Annotated[str, Depends(outer)]) -> str:
        return made

    async def fake(user: Any, word: str = "fake") -> AsyncIterator[str]:
        yield f"{word} for {type(user).__name__}"
        log.note("finished")

    app = WSAction([path("", view_of(action))])
    other = WSAction([path("", view_of(action))])
    async with connect(app, "/") as ws, connect(other, "/") as untouched:
        assert (await ws.call("act", pk=7))["data"] == "outer of real 7"
        app.dependency_overrides[real] = fake
        assert (await ws.call("act"))["data"] == "outer of fake for UnauthenticatedUser"
        assert (await ws.call("act", word="other"))["data"] == "outer of other for UnauthenticatedUser"
        assert types_and_locs(await ws.call("act", word=1)) == [("string_type", ["word"])]
        assert log.lines == ["finished"] * 2
        assert (await untouched.call("act", pk=7))["data"] == "outer of real 7"
        app.dependency_overrides = {outer: lambda: "all of it"}
        assert (await ws.call("act"))["data"] == "all of it"
        app.dependency_overrides.clear()
        assert (await ws.call("act", pk=8))["data"] == "outer of real 8"


async def test_dependency_overrides_replace_a_class() -> None:
    async def action(
        self, page: Annotated[Common, Depends()], word: Annotated[str, Depends(Unhashable("real"))]
    ) -> list[Any]:
        return [page.limit, word]

    app = WSAction([path("", view_of(action))])
    app.dependency_overrides[Common] = lambda: Common(limit=1)
    async with connect(app, "/") as ws:
        assert (await ws.call("act"))["data"] == [1, "real"]


async def test_an_override_that_depends_on_itself_is_a_500(caplog: Any) -> None:
    async def action(self, made: Annotated[str, Depends(real)]) -> str:
        return made

    async def again(made: Annotated[str, Depends(real)]) -> str:
        return made

    app = WSAction([path("", view_of(action))])
    app.dependency_overrides[real] = again
    async with connect(app, "/") as ws:
        assert (await ws.call("act", pk=7))["status"] == 500
    assert "Consumer.act → again → again depends on itself" in caplog.text


# ------------------------------------------------------------------------------------------------- misuse
def test_depends_requires_a_callable() -> None:
    with pytest.raises(
        ImproperlyConfigured, match=r"expected the function itself, as in Depends\(get_session\), got 7"
    ):
        Depends(7)  # type: ignore[arg-type]


def test_depends_has_a_readable_repr() -> None:
    assert repr(Depends(get_row)) == "Depends(get_row)"
    assert repr(Depends(functools.partial(get_row, pk=1))) == "Depends(get_row)"
    assert repr(Depends(Called())) == "Depends(Called)"
    assert repr(Depends()) == "Depends()"


def test_depends_is_allowed_only_in_the_outermost_annotated() -> None:
    async def default(self, row: str = Depends(get_row)) -> None: ...  # type: ignore[assignment]
    async def bare(self, row: Depends(get_row)) -> None: ...  # type: ignore[valid-type]
    async def deep(self, row: Optional[Annotated[str, Depends(get_row)]]) -> None: ...  # noqa: UP045
    async def deeper(self, row: Callable[[Annotated[str, Depends(get_row)]], str]) -> None: ...
    async def twice(self, row: Annotated[str, Depends(get_row), Depends(real)]) -> None: ...
    async def both(self, row: Annotated[str, Depends(get_row)] = "") -> None: ...

    assert declaration_error(default) == (
        "Cards.act: row has a Depends as its default; write row: Annotated[..., Depends(get_row)] without a "
        "default, with Depends from wsaction.dependencies"
    )
    for function in (bare, deep, deeper, twice):
        assert "write Depends once, in the outermost Annotated, as in row: Annotated" in declaration_error(function)
    assert (
        declaration_error(both)
        == "Cards.act: row has a default, which has no effect beside Depends(get_row); leave it out"
    )


def test_depends_of_fastapi_is_refused() -> None:
    async def foreign(self, row: Annotated[str, fastapi.Depends(get_row)]) -> None: ...
    async def security(self, row: Annotated[str, fastapi.Security(get_row)]) -> None: ...
    async def default(self, row: str = fastapi.Depends(get_row)) -> None: ...

    assert declaration_error(foreign) == (
        "Cards.act: the Depends of row is that of fastapi; import it from wsaction.dependencies"
    )
    assert "the Security of row is that of fastapi" in declaration_error(security)
    assert (
        "write row: Annotated[..., Depends(get_row)] without a default, with Depends from wsaction"
        in declaration_error(default)
    )


def test_depends_without_a_call_is_refused() -> None:
    async def itself(self, row: Annotated[str, Depends]) -> None: ...
    async def default(self, row: str = Depends) -> None: ...  # type: ignore[assignment]

    assert declaration_error(itself) == (
        "Cards.act: row is annotated with Depends itself, which has no effect; write Depends(fn) with the function "
        "that makes it, or Depends() for the annotated class"
    )
    assert "write row: Annotated[..., Depends()] without a default" in declaration_error(default)


def test_a_function_in_annotated_without_depends_is_refused() -> None:
    new_type = NewType("new_type", Annotated[str, Depends(get_row)])  # type: ignore[valid-newtype]

    async def function(self, row: Annotated[str, get_row]) -> None: ...
    async def partly(self, row: Annotated[str, functools.partial(get_row, pk=1)]) -> None: ...
    async def within(self, row: new_type) -> None: ...

    for one in (function, partly):
        assert declaration_error(one) == (
            "Cards.act: row is annotated with get_row itself, which nothing calls, so clients could send any row; "
            "write Depends(get_row)"
        )
    assert "write Depends once, in the outermost Annotated" in declaration_error(within)


async def test_mutable_defaults_are_copied_for_each_call() -> None:
    def collected(seen: list[int] = []) -> list[int]:  # noqa: B006  # as FastAPI users write it
        seen.append(1)
        return seen

    class Lists(AsyncAPIConsumer):
        @async_action
        async def add(
            self,
            seen: Annotated[list[int], Depends(collected)],
            to: list[int] = [],  # noqa: B006
        ) -> list[list[int]]:
            to.append(2)
            return [seen, to]

    async with connect(Lists.as_asgi(), "/") as ws:
        for _ in range(2):
            assert (await ws.call("add"))["data"] == [[1], [2]]


def test_depends_without_arguments_requires_a_concrete_class() -> None:
    async def union(self, row: Annotated[str | None, Depends()]) -> None: ...
    async def anything(self, row: Annotated[Any, Depends()]) -> None: ...

    for function in (union, anything):
        assert "expected a class as the annotation, got" in declaration_error(function)

    class Abstract(ABC):
        @abstractmethod
        def method(self) -> None: ...

    async def abstract(self, row: Annotated[Abstract, Depends()]) -> None: ...

    assert declaration_error(abstract) == "Cards.act → Abstract is an abstract class; depend on a concrete subclass"


def test_unfillable_parameters_are_refused_with_their_path() -> None:
    def positional(pk: int, /) -> None: ...
    def args(*args: int) -> None: ...
    def kwargs(**kwargs: int) -> None: ...

    for bad, parameter in ((positional, "pk: int"), (args, "*args: int"), (kwargs, "**kwargs: int")):

        async def middle(below: Annotated[None, Depends(bad)]) -> None: ...
        async def action(self, row: Annotated[None, Depends(middle)]) -> None: ...

        assert declaration_error(action) == (
            f"Cards.act → middle → {bad.__name__}: {parameter} cannot be filled by name; "
            "declare each parameter by name, without *, ** and /"
        )


def test_a_callable_without_a_signature_is_refused() -> None:
    async def action(self, row: Annotated[dict[str, int], Depends(dict)]) -> None: ...

    assert declaration_error(action).startswith("Cards.act → dict has no readable signature (")
    assert declaration_error(action).endswith("; wrap it in a function that names the parameters")


def test_unusable_annotations_are_refused() -> None:
    async def unknown(row: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821
    async def odd(row: threading.Thread) -> None: ...
    async def field(row: int = Field(1)) -> None: ...

    for bad, message in (
        (unknown, "the annotations of Cards.act → unknown cannot be read (NameError"),
        (odd, "Cards.act → odd: parameter row is annotated <class 'threading.Thread'>, which pydantic cannot handle"),
        (field, "Cards.act → field: the default of row is a pydantic Field()"),
    ):

        async def action(self, made: Annotated[None, Depends(bad)]) -> None: ...

        assert declaration_error(action).startswith(message)


def test_a_circular_dependency_is_refused() -> None:
    async def first(below: "Annotated[None, Depends(second)]") -> None: ...
    async def second(below: Annotated[None, Depends(first)]) -> None: ...
    async def itself(below: Any) -> None: ...

    first.__annotations__["below"] = Annotated[None, Depends(second)]
    itself.__annotations__["below"] = Annotated[None, Depends(itself, use_cache=False)]

    async def action(self, made: Annotated[None, Depends(first)]) -> None: ...
    async def again(self, made: Annotated[None, Depends(itself)]) -> None: ...

    end = "depends on itself; remove one of these dependencies"
    assert declaration_error(action) == f"Cards.act → first → second → first {end}"
    assert declaration_error(again) == f"Cards.act → itself → itself {end}"


def test_context_manager_functions_are_refused() -> None:
    for bad in (
        contextlib.asynccontextmanager(by_async_generator),
        contextlib.contextmanager(by_generator),
        contextlib.contextmanager(by_async_generator),  # type: ignore[arg-type]
    ):

        async def action(self, made: Annotated[str, Depends(bad)]) -> None: ...

        assert "leave out @contextmanager and @asynccontextmanager" in declaration_error(action)


def test_a_recursive_type_alias_is_searched_once() -> None:
    class Json:
        """Like Python 3.12's ``type Json = dict[str, Json]``."""

    Json.__value__ = dict[str, Json]  # type: ignore[attr-defined]
    parameter = inspect.Parameter("tree", inspect.Parameter.KEYWORD_ONLY)
    assert depends_of("Cards.act", parameter, Json) is None
    Json.__value__ = dict[str, Json | Annotated[str, Depends(get_row)]]  # type: ignore[attr-defined]
    with pytest.raises(ImproperlyConfigured, match="once, in the outermost Annotated"):
        depends_of("Cards.act", parameter, Json)
