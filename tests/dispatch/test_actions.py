"""`wsaction._handlers.action`: how methods become actions, get their parameters and return results."""

import dataclasses
import datetime as dt
import enum
import functools
import threading
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from http import HTTPStatus
from typing import Annotated, Any, Literal, NamedTuple, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from tests.support.driving import ask, talking, types_and_locs
from wsaction._handlers.action import is_final_status
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured, NotFound
from wsaction.handlers import ActionView, AsyncAPIActionHandler
from wsaction.routing import path, re_path
from wsaction.testing import connect


def view_of(function: Callable[..., Any], *patterns: str, **options: Any) -> ActionView:
    """A consumer whose action ``act`` is ``function``, also mounted at ``patterns``; one with a "^" is a regex."""
    act = async_action(name="act", **options)(function)
    handler: Any = type("Handler", (AsyncAPIActionHandler,), {"act": act})
    view = handler.as_aaah()
    routes = [re_path(text, view) if text.startswith("^") else path(text, view) for text in patterns]
    consumer: Any = type("Consumer", (AsyncAPIConsumer,), {"act": act, "routepatterns": routes})
    served: ActionView = consumer.as_asgi()
    return served


def declaration_error(function: Callable[..., Any], **options: Any) -> str:
    """The error of declaring a class with this action."""
    with pytest.raises(ImproperlyConfigured) as caught:
        type("Cards", (AsyncAPIActionHandler,), {"act": async_action(**options)(function)})
    return str(caught.value)


def names(cls: type[AsyncAPIActionHandler]) -> list[str]:
    return list(cls.available_actions)


# ------------------------------------------------------------------------------------------------- what is an action
class Base(AsyncAPIActionHandler):
    @async_action(status=201)
    async def create(self) -> str:
        return "base"

    @async_action(name="list")
    async def list_(self) -> str:
        return "base"

    async def helper(self) -> str:
        return "helper"


def test_only_decorated_methods_are_actions() -> None:
    assert names(AsyncAPIActionHandler) == []
    assert names(Base) == ["create", "list"]


async def test_an_override_without_the_decorator_keeps_its_options() -> None:
    class Undecorated(Base, AsyncAPIConsumer):
        async def create(self) -> str:
            return "undecorated"

        async def list_(self) -> str:
            return f"{await super().list_()}, then ours"

    class Decorated(Base, AsyncAPIConsumer):
        @async_action(name="add")
        async def create(self) -> str:
            return "decorated"

    view = Undecorated.as_asgi()
    reply = await ask(view, "create")
    assert (reply["data"], reply["status"]) == ("undecorated", 201)
    assert (await ask(view, "list"))["data"] == "base, then ours"
    view = Decorated.as_asgi()
    assert (await ask(view, "create"))["status"] == 405
    reply = await ask(view, "add")
    assert (reply["data"], reply["status"]) == ("decorated", 200)


def test_none_removes_an_action_until_it_is_declared_again() -> None:
    class Without(Base):
        create = None  # type: ignore[assignment]

    class Again(Without):
        async def create(self) -> str:  # type: ignore[override]
            return "no action any more"

    class Declared(Without):
        @async_action
        async def create(self) -> str:  # type: ignore[override]
            return "declared"

    assert names(Without) == names(Again) == ["list"]
    assert sorted(names(Declared)) == ["create", "list"]
    assert Declared.available_actions["create"].options.status == 200


async def test_mixins_bring_actions_and_may_be_plain_classes() -> None:
    class Mixin:
        @async_action
        async def mixed(self) -> str:
            return f"mixed {self.word()}"

        def word(self) -> str:
            return "mixin"

    class Plain:
        async def create(self) -> str:
            return "plain"

    class Consumer(Mixin, Plain, Base, AsyncAPIConsumer):
        def word(self) -> str:
            return "consumer"

    assert sorted(names(Consumer)) == ["create", "list", "mixed"]
    view = Consumer.as_asgi()
    assert (await ask(view, "mixed"))["data"] == "mixed consumer"
    assert (await ask(view, "create"))["data"] == "plain"


@pytest.mark.parametrize("name", ["", "$ping", "$", 5, b"x"], ids=repr)
def test_an_invalid_action_name_is_refused(name: Any) -> None:
    async def act(self: Any) -> None: ...

    assert "not empty and does not begin with '$' (reserved for the protocol), got " + repr(name) in declaration_error(
        act, name=name
    )


async def test_any_other_action_name_is_accepted() -> None:
    class Consumer(AsyncAPIConsumer):
        @async_action(name="é/b c\n$")
        async def act(self) -> int:
            return 1

    assert (await ask(Consumer.as_asgi(), "é/b c\n$"))["data"] == 1


def test_two_actions_of_one_name_are_refused() -> None:
    async def act(self: Any) -> None: ...

    with pytest.raises(
        ImproperlyConfigured, match="Twice declares the action 'create' twice, as create and other; give"
    ):
        type("Twice", (Base,), {"other": async_action(name="create")(act)})


@pytest.mark.parametrize(
    "name",
    ["route", "args", "kwargs", "user", "scope", "frame", "consumer", "connection", "close", "connect", "disconnect",
     "permission_classes", "check_permissions", "as_aaah", "available_actions", "routepatterns", "limits", "action"],
)  # fmt: skip
def test_an_action_must_not_hide_a_handler_attribute(name: str) -> None:
    async def act(self: Any) -> None: ...

    cure = rf"Cards\.{name} hides an attribute of the handler itself; .* @async_action\(name='{name}'\)"
    for kind in (AsyncAPIActionHandler, AsyncAPIConsumer):
        with pytest.raises(ImproperlyConfigured, match=cure):
            type("Cards", (kind,), {name: async_action(act)})
        assert names(type("Cards", (kind,), {f"{name}_": async_action(name=name)(act)})) == [name]


def test_an_attribute_with_a_catch_all_getattr_is_not_an_action() -> None:
    class Proxy:
        def __getattr__(self, name: str) -> str:
            return name

    class Handler(Base):
        proxy = Proxy()

    assert names(Handler) == ["create", "list"]


# ------------------------------------------------------------------------------------------------- signatures
def no_self() -> None: ...


def only_keywords(**kwargs: Any) -> None: ...


def keyword_self(*, self: Any) -> None: ...


def positional_only(self: Any, a: int, /) -> None: ...


def generator(self: Any) -> Iterator[int]:
    yield 1


def unresolvable(self: Any, a: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821


def unresolvable_return(self: Any) -> "Nowhere": ...  # type: ignore[name-defined]  # noqa: F821


def raising(self: Any, a: "1 // 0") -> None: ...  # type: ignore[valid-type]


def unsupported(self: Any, a: threading.Lock) -> None: ...


def unsupported_return(self: Any) -> threading.Event: ...  # type: ignore[empty-body]


def field_default(self: Any, a: int = Field(default=5, ge=1)) -> None: ...


def default_in_annotation(self: Any, a: Annotated[int, Field(default=5)]) -> None: ...


def alias_in_annotation(self: Any, a: Annotated[int, Field(alias="pageSize")] = 0) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (default_in_annotation, "Cards.act: the Field() of a sets a default or an alias, which has no effect; write"),
        (alias_in_annotation, "Cards.act: the Field() of a sets a default or an alias"),
        (no_self, "Cards.act takes no self; an action is a method of its handler"),
        (only_keywords, "Cards.act takes no self"),
        (keyword_self, "Cards.act takes no self"),
        (positional_only, "Cards.act: a is positional-only, but parameters are filled by name; drop the /"),
        (generator, "Cards.act is a sync generator; a stream is an async one: async def, with yield"),
        (unresolvable, "the annotations of Cards.act cannot be read (NameError: name 'Nowhere' is not defined); they"),
        (unresolvable_return, "the annotations of Cards.act cannot be read (NameError"),
        (raising, "the annotations of Cards.act cannot be read (ZeroDivisionError"),
        (unsupported, "Cards.act: parameter a is annotated <built-in function allocate_lock>, which pydantic cannot"),
        (
            unsupported_return,
            "Cards.act: what it returns is annotated <class 'threading.Event'>, which pydantic cannot",
        ),
        (
            field_default,
            "Cards.act: the default of a is a pydantic Field(), which would be its value; write a: Annotated[",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_unfillable_signature_is_refused_at_class_creation(function: Any, message: str) -> None:
    assert message in declaration_error(function)


@dataclasses.dataclass
class Box:
    n: int = 0


class Colour(enum.Enum):
    RED = "red"


class Card(BaseModel):
    title: str = Field(max_length=5)
    tags: list[int] = []


class Strictly(BaseModel):
    model_config = ConfigDict(strict=True)

    id: uuid.UUID
    pair: tuple[int, int]


class Aliased(BaseModel):
    card_id: int = Field(alias="cardId")


# ------------------------------------------------------------------------------------------------- parameters
@pytest.mark.parametrize(
    ("annotation", "value", "wanted"),
    [
        (int, 5, 5),
        (int, "5", 5),
        (int, 5.0, 5),
        (str, "é", "é"),
        (bool, True, True),
        (float, 5, 5.0),
        (Optional[int], None, None),  # noqa: UP045  # the old way to write it works too
        (int | None, 5, 5),
        (Literal["a", "b"], "a", "a"),
        (Annotated[int, Field(gt=1)], 2, 2),
        (dt.date, "2026-11-23", dt.date(2026, 11, 23)),
        (Annotated[dt.date, Field(strict=True)], "2026-11-23", dt.date(2026, 11, 23)),
        (Decimal, "1.50", Decimal("1.50")),
        (uuid.UUID, str(uuid.UUID(int=7)), uuid.UUID(int=7)),
        (uuid.UUID | str, str(uuid.UUID(int=7)), uuid.UUID(int=7)),
        (Colour, "red", Colour.RED),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 1], {1}),
        (bytes, "é", "é".encode()),
        (Box, {"n": "3"}, Box(3)),
        (Card, {"title": "a"}, Card(title="a")),
        (list[Card], [{"title": "a"}], [Card(title="a")]),
        (Strictly, {"id": str(uuid.UUID(int=7)), "pair": [1, 2]}, Strictly(id=uuid.UUID(int=7), pair=(1, 2))),
        (Aliased, {"cardId": 5}, Aliased(cardId=5)),
        (Any, {"a": [1, None]}, {"a": [1, None]}),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["data", "value"])
async def test_an_annotated_parameter_is_validated(name: str, annotation: Any, value: Any, wanted: Any) -> None:
    seen: list[Any] = []

    async def of_data(self: Any, data: annotation) -> None:
        seen.append(data)

    async def of_value(self: Any, *, value: annotation) -> None:
        seen.append(value)

    view = view_of(of_data if name == "data" else of_value)
    reply = await ask(view, "act", **{name: value})
    assert reply["errors"] == []
    assert seen == [wanted]
    assert type(seen[0]) is type(wanted)


@pytest.mark.parametrize("value", [None, 5, "x", [1], {"a": 1}, True, 1.5, 10**40], ids=repr)
async def test_an_unannotated_parameter_is_passed_unvalidated(value: Any) -> None:
    async def act(self, data, other):  # type: ignore[no-untyped-def]
        return [data, other]

    assert (await ask(view_of(act), "act", data=value, other=value))["data"] == [value, value]


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        ({}, [("missing", ["data"]), ("missing", ["n"]), ("missing", ["bare"])]),
        ({"data": {}, "bare": None}, [("missing", ["data", "title"]), ("missing", ["n"])]),
        (
            {"data": {"title": "too long", "tags": [1, "x"]}, "n": 0, "bare": 1, "day": "x"},
            [
                ("string_too_long", ["data", "title"]),
                ("int_parsing", ["data", "tags", 1]),
                ("greater_than_equal", ["n"]),
                ("date_from_datetime_parsing", ["day"]),
            ],
        ),
        ({"data": [], "n": True, "bare": 1}, [("model_type", ["data"])]),
        ({"data": None, "n": None, "bare": 1}, [("model_type", ["data"]), ("int_type", ["n"])]),
    ],
)
async def test_all_parameter_errors_are_reported_together(sent: Any, wanted: Any) -> None:
    ran: list[int] = []

    async def act(self, data: Card, n: Annotated[int, Field(ge=1)], bare, day: dt.date = dt.date.min) -> None:  # type: ignore[no-untyped-def]
        ran.append(1)

    reply = await ask(view_of(act), "act", **sent)
    assert types_and_locs(reply) == wanted
    assert not ran
    assert reply["errors"][0]["msg"] in {
        "Field required",
        "String should have at most 5 characters",
        "Input should be an object",
    }


async def test_an_error_loc_uses_the_alias() -> None:
    async def act(self: Any, data: Aliased) -> None: ...

    assert types_and_locs(await ask(view_of(act), "act", data={"cardId": "x"})) == [("int_parsing", ["data", "cardId"])]


async def test_defaults_are_not_validated() -> None:
    default = object()

    async def act(
        self: Any,
        a: int = 1,
        b: str = None,  # type: ignore[assignment]  # noqa: RUF013  # a default need not be what is annotated
        *,
        c: Any = default,
        data: Card | None = None,
    ) -> Any:
        return [a, b, c is default, data]

    view = view_of(act)
    assert (await ask(view, "act"))["data"] == [1, None, True, None]
    assert (await ask(view, "act", a="5", c=None))["data"] == [5, None, False, None]
    assert types_and_locs(await ask(view, "act", b=None)) == [("string_type", ["b"])]


async def test_unknown_keys_are_ignored() -> None:
    async def act(self: Any, a: int) -> int:
        return a

    assert (await ask(view_of(act), "act", a=1, b=2, data=3, self=4, cls=5))["data"] == 1


async def test_action_route_and_request_id_come_from_the_protocol() -> None:
    async def act(self: Any, action: int, route: bytes, request_id: list[int], kwargs: Any = None) -> Any:
        return [action, route, request_id]

    async with talking(view_of(act, "r/<int:pk>/")) as ws:  # the annotations of protocol parameters are ignored
        assert (await ws.call("act", "r/07/?x=1", request_id="7"))["data"] == ["act", "r/07/?x=1", "7"]
        await ws.send_json({"action": "act"})
        assert (await ws.receive_json())["data"] == ["act", "", None]


async def test_a_capture_cannot_be_shadowed_by_the_frame() -> None:
    async def act(self: Any, pk: int, slug: str = "default", data: Any = None, **kwargs: Any) -> Any:
        return [pk, slug, data, kwargs]

    view = view_of(act, "c/<int:pk>/", "s/<slug>/<int:pk>/<extra>/", "d/<int:pk>/<data>/")
    rest = {"action": "act", "request_id": 1}
    frame: dict[str, Any] = {"request_id": 1, "pk": 666, "slug": "evil", "extra": "evil", "data": "frame"}
    assert (await ask(view, "act", "c/7/", **frame))["data"] == [7, "evil", "frame", {"extra": "evil", **rest}]
    assert (await ask(view, "act", "s/a/7/x/", **frame))["data"] == [7, "a", "frame", {"extra": "x", **rest}]
    assert (await ask(view, "act", "d/7/x/", **frame))["data"][2] == "x"


def by_keyword_only(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(self: Any, **kwargs: Any) -> Any:
        return await function(self, **kwargs)

    return wrapper


async def open_first(self: Any, x: int, a: int, b: int) -> list[int]:
    return [a, x, b]


async def open_between(self: Any, a: int, x: int, b: int) -> list[int]:
    return [a, x, b]


async def open_last(self: Any, a: int, b: int, x: int) -> list[int]:
    return [a, x, b]


async def open_by_keyword(self: Any, b: int, *, x: int, a: int) -> list[int]:
    return [a, x, b]


@pytest.mark.parametrize(
    "function",
    [open_first, open_between, open_last, open_by_keyword, by_keyword_only(open_last)],
    ids=["first", "between", "last", "by keyword", "keywords only"],
)
async def test_parameters_without_a_capture_are_filled_from_the_frame(function: Any) -> None:
    view = view_of(function, "<int:b>/<int:a>/")
    assert (await ask(view, "act", "2/1/", x=7))["data"] == [1, 7, 2]
    assert (await ask(view, "act", "2/1/", x="8"))["data"] == [1, 8, 2]
    assert types_and_locs(await ask(view, "act", "2/1/", x="no")) == [("int_parsing", ["x"])]
    assert types_and_locs(await ask(view, "act", "2/1/")) == [("missing", ["x"])]


async def test_a_capture_is_validated_and_its_error_names_it() -> None:
    async def act(self: Any, pk: Annotated[int, Field(gt=5)], day: dt.date, n: int) -> Any:
        return [pk, day, n]

    view = view_of(act, "<pk>/<day>/")
    assert (await ask(view, "act", "7/2026-11-23/", n=1))["data"] == [7, "2026-11-23", 1]
    reply = await ask(view, "act", "x/y/", n="z")  # the captures come first
    assert types_and_locs(reply) == [("int_parsing", ["pk"]), ("date_from_datetime_parsing", ["day"])]


async def test_default_kwargs_of_a_pattern_are_captures() -> None:
    class Handler(AsyncAPIActionHandler):
        @async_action
        async def act(self, kind: str, n: int = 0, **kwargs: Any) -> Any:
            return [kind, n, kwargs["more"]]

    class Consumer(AsyncAPIConsumer):
        routepatterns = [path("<int:n>/", Handler.as_aaah(), {"kind": "fixed", "more": [1]})]

    assert (await ask(Consumer.as_asgi(), "act", "5/", kind="evil", more="evil"))["data"] == ["fixed", 5, [1]]


async def test_a_mutable_capture_is_validated_again_for_each_frame() -> None:
    class Handler(AsyncAPIActionHandler):
        @async_action
        async def act(self, tags: list[int]) -> list[int]:
            tags.append(len(tags))
            return tags

    class Consumer(AsyncAPIConsumer):
        routepatterns = [path("r", Handler.as_aaah(), {"tags": [7]})]

    async with talking(Consumer.as_asgi()) as ws:
        for _ in range(3):
            assert (await ws.call("act", "r"))["data"] == [7, 1]


async def test_kwargs_receive_the_remaining_keys_and_the_action() -> None:
    async def act(self: Any, a: int, data: Any = None, **kwargs: Any) -> dict[str, Any]:
        return kwargs

    view = view_of(act, "r/<x>/")
    reply = await ask(view, "act", "r/7/", request_id=1, a=1, data=2, b=3, x=4)
    assert reply["data"] == {"x": "7", "request_id": 1, "b": 3, "action": "act"}

    async def data_too(self: Any, **kwargs: Any) -> dict[str, Any]:
        return kwargs

    assert (await ask(view_of(data_too), "act", data=[1]))["data"]["data"] == [1]


HOSTILE = ["self", "cls", "scope", "handler", "obj", "args", "kwargs", "function", "frame", "__class__", "", "1", "a b",
           "bound", "binding", "key", "this", "é", "data", "lambda"]  # fmt: skip


@pytest.mark.parametrize("route", ["", "1/2"])
async def test_hostile_frame_keys_are_passed_as_plain_keys(route: str) -> None:
    async def act(self: Any, *args: Any, **kwargs: Any) -> Any:
        return [self.route, list(args), kwargs]

    def sync(this: Any, *args: Any, **kwargs: Any) -> Any:
        return [this.route, list(args), kwargs]

    hostile = dict.fromkeys(HOSTILE, "evil")
    for function, self_name in ((act, "self"), (sync, "this")):
        async with talking(view_of(function, r"^(\d)/(\d)$")) as ws:
            await ws.send_json({"action": "act", "route": route, **hostile})
            reply = await ws.receive_json()
        wanted = {**hostile, "action": "act"}
        del wanted[self_name]
        assert reply["errors"] == []
        assert reply["data"] == [route, route.split("/") if route else [], wanted]


async def test_captures_named_self_action_or_route_are_not_passed() -> None:
    async def act(self: Any, **kwargs: Any) -> Any:
        return [self.kwargs, kwargs]

    reply = await ask(view_of(act, "<self>/<action>/<route>/<x>"), "act", "1/2/3/4", request_id=1)
    assert reply["data"] == [
        {"self": "1", "action": "2", "route": "3", "x": "4"},
        {"x": "4", "request_id": 1, "action": "act"},
    ]


async def test_a_positional_only_self_is_accepted() -> None:
    async def act(self: Any, /, n: int, **kwargs: Any) -> Any:
        return n

    assert (await ask(view_of(act), "act", n=5, self=1))["data"] == 5


class Unnamed:
    """Actions at a route with two unnamed captures, "1" and "a"."""

    @staticmethod
    async def by_name(self: Any, n: int, word: str, more: int = 0) -> Any:
        return [n, word, more]

    @staticmethod
    async def one(self: Any, n: int) -> Any:
        return n

    @staticmethod
    async def none(self: Any) -> Any:
        return list(self.args)

    @staticmethod
    async def beside_data(self: Any, data: Any, action: str, n: int, *, word: str) -> Any:
        return [data, action, n, word]

    @staticmethod
    async def star(self: Any, *args: Any) -> Any:
        return list(args)

    @staticmethod
    async def before_star(self: Any, n: int, *args: Any, k: int = 5) -> Any:
        return [n, list(args), k]

    @staticmethod
    async def all_before_star(self: Any, n: int, word: str, *args: Any, **kwargs: Any) -> Any:
        return [n, word, list(args), sorted(kwargs)]

    @staticmethod
    async def mixed_before_star(self: Any, data: Any, route: str, n: int, *args: Any, action: str) -> Any:
        return [data, route, n, list(args), action]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("by_name", [1, "a", 7]),
        ("one", 1),
        ("none", ["1", "a"]),
        ("beside_data", ["d", "act", 1, "a"]),
        ("star", ["1", "a"]),
        ("before_star", [1, ["a"], 9]),
        ("all_before_star", [1, "a", [], ["action", "data", "k", "more", "request_id"]]),
        ("mixed_before_star", ["d", "1/a", 1, ["a"], "act"]),
    ],
)
async def test_unnamed_captures_fill_parameters_in_order(name: str, wanted: Any) -> None:
    view = view_of(getattr(Unnamed, name), r"^(\d)/(\w)$")
    frame: dict[str, Any] = {"data": "d", "more": 7, "k": 9, "n": 666, "word": "evil"}
    async with talking(view) as ws:
        for _ in range(2):
            assert (await ws.call("act", "1/a", **frame))["data"] == wanted


async def test_without_captures_the_frame_fills_parameters_before_star() -> None:
    view = view_of(Unnamed.all_before_star)
    assert (await ask(view, "act", n=1, word="a", request_id=1))["data"] == [1, "a", [], ["action", "request_id"]]
    assert types_and_locs(await ask(view, "act", n=1)) == [("missing", ["word"])]


async def test_unnamed_captures_skip_parameters_filled_by_named_ones() -> None:
    class Handler(AsyncAPIActionHandler):
        @async_action
        async def act(self, pk: int, room: str, *args: Any) -> Any:
            return [pk, room, list(args)]

    class Consumer(AsyncAPIConsumer):
        routepatterns = [path("<int:pk>/", Handler.as_aaah())]

    scope = {"url_route": {"args": ("lobby", "x"), "kwargs": {}}}
    app = Consumer.as_asgi()

    async def outer(asgi_scope: Any, receive: Any, send: Any) -> None:
        await app({**asgi_scope, **scope}, receive, send)  # as an outer app that has unnamed captures

    async with connect(outer) as ws:
        assert (await ws.call("act", "7/"))["data"] == [7, "lobby", ["x"]]


# ------------------------------------------------------------------------------------------------- sync and wrapped
async def test_a_sync_action_runs_in_a_thread_with_the_frames_context() -> None:
    def act(self: Any, n: int, **kwargs: Any) -> Any:
        return [threading.get_ident(), self.route, self.request_id, n]

    reply = await ask(view_of(act), "act", request_id=7, n="5")
    assert reply["data"][0] != threading.get_ident()
    assert reply["data"][1:] == ["", 7, 5]


async def test_an_error_of_a_sync_action_is_an_error_reply() -> None:
    def act(self: Any, how: str) -> Any:
        if how == "stop":
            raise StopIteration
        raise NotFound("No such card.")

    view = view_of(act)
    assert (await ask(view, "act", how="x"))["errors"] == [{"type": "not_found", "msg": "No such card."}]
    assert (await ask(view, "act", how="stop"))["status"] == 500


async def test_a_plain_wrapper_of_a_coroutine_function_runs_on_the_loop() -> None:
    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            return function(self, *args, **kwargs)

        return wrapper

    @logged
    async def act(self: Any, n: int) -> Any:
        return [n, threading.get_ident()]

    assert (await ask(view_of(act), "act", n="5"))["data"] == [5, threading.get_ident()]


# ------------------------------------------------------------------------------------------------- returns
class Pair(NamedTuple):
    value: str
    n: int


def returning(value: Any, annotation: Any = None) -> ActionView:
    async def act(self):  # type: ignore[no-untyped-def]
        return value

    if annotation is not None:
        act.__annotations__["return"] = annotation
    return view_of(act)


@pytest.mark.parametrize(
    ("value", "annotation", "data", "status"),
    [
        (None, None, None, 200),
        ("x", None, "x", 200),
        (("x", 201), None, "x", 201),
        ((None, 204), None, None, 204),
        (({"a": 1}, 404), None, {"a": 1}, 404),
        (("x", HTTPStatus.CREATED), None, "x", 201),
        (("x", True), None, ["x", True], 200),
        (("x", False), None, ["x", False], 200),
        (("x", "y"), None, ["x", "y"], 200),
        (("x", 2.0), None, ["x", 2.0], 200),
        (("x", None), None, ["x", None], 200),
        ((1, 2, 201), None, [1, 2, 201], 200),
        ((201,), None, [201], 200),
        (["x", 201], None, ["x", 201], 200),
        (Pair("x", 201), None, ["x", 201], 200),
        (("x", 201), Any, "x", 201),
        # with an annotation
        (("x", 201), tuple[str, int], "x", 201),
        ((["1"], 200), tuple[list[int], int], [1], 200),
        ((Card(title="a"), 201), Annotated[tuple[Card, int], "said"], {"title": "a", "tags": []}, 201),
        (("x", HTTPStatus.ACCEPTED), tuple[str, int], "x", 202),
        ((1, 2), tuple[int, float], [1, 2.0], 200),
        ((1, 2), tuple[int, ...], [1, 2], 200),
        ((1, 2, 3), tuple[int, int, int], [1, 2, 3], 200),
        ((1, 201), tuple, [1, 201], 200),
        ((1, 201), list[int], [1, 201], 200),
        (Pair("x", 201), Pair, ["x", 201], 200),
        (Card(title="a"), Card, {"title": "a", "tags": []}, 200),
        (Box(5), Card | Box, {"n": 5}, 200),
        (Decimal("1.50"), Decimal, "1.50", 200),
        (float("nan"), None, None, 200),
    ],
)
async def test_a_return_value_is_data_or_data_with_a_status(
    value: Any, annotation: Any, data: Any, status: int
) -> None:
    reply = await ask(returning(value, annotation), "act")
    assert reply == {"errors": [], "data": data, "action": "act", "route": "", "status": status}


async def test_a_return_annotation_of_none_gives_null() -> None:
    async def act(self: Any) -> None: ...

    assert (await ask(view_of(act), "act"))["data"] is None


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        (("x", 99), None, "act returned the status 99; a final status is an int of 200 to 599"),
        (("x", 206), None, "act returned the status 206"),
        (("x", -1), None, "act returned the status -1"),
        (("x", True), tuple[str, int], "act returned the status True"),
        (("x", "201"), tuple[str, int], "act returned the status '201'"),
        (
            "x",
            tuple[str, int],
            "act: expected (value, status), as it is annotated, got 'x'; return both, or annotate the value alone",
        ),
        (5, tuple[str, int], "act: expected (value, status), as it is annotated, got 5"),
        (("x", 1, 2), tuple[str, int], "act: expected (value, status), as it is annotated, got ('x', 1, 2)"),
        ((object(), 200), None, "object cannot be written as JSON"),
        ("x", Card, "str was returned where Card is announced"),
    ],
)
async def test_an_invalid_return_value_is_a_500_explained_in_debug(value: Any, annotation: Any, message: str) -> None:
    view = returning(value, annotation)
    reply = await ask(view, "act", debug=True)
    assert (reply["status"], reply["data"]) == (500, None)
    (error,) = reply["errors"]
    assert error["type"] == "server_error"
    assert message in error["ctx"]["exception"]
    assert list((await ask(view, "act"))["errors"][0]["ctx"]) == ["error_id"]


@given(st.integers() | st.booleans() | st.none() | st.text() | st.floats())
def test_final_statuses_are_200_to_599_without_206(status: Any) -> None:
    assert is_final_status(status) == (type(status) is int and status in {*range(200, 206), *range(207, 600)})


async def test_mode_none_replies_only_on_failure() -> None:
    class Consumer(AsyncAPIConsumer):
        @async_action(mode="none")
        async def note(self, n: int) -> Any:
            return object()  # never serialized

        @async_action(mode="none")
        def sync_note(self, n: int) -> Any:
            if n == 7:
                raise NotFound

        @async_action
        async def ping(self) -> str:
            return "pong"

    async with talking(Consumer.as_asgi()) as ws:
        for action in ("note", "sync_note"):
            await ws.send_json({"action": action, "n": 1})
            assert types_and_locs(await ws.call(action)) == [("missing", ["n"])]
        assert (await ws.call("sync_note", n=7))["status"] == 404
        await ws.send_json({"action": "note", "n": 2})
        await ws.send_json({"action": "ping"})
        assert (await ws.receive_json())["data"] == "pong"
