"""`WriteOnly` fields are never sent and `ReadOnly` fields never read: every way in and out, with every kind of type."""

import dataclasses
import enum
import functools
import itertools
import json
import re
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple, NewType, TypeVar

import pydantic.dataclasses
import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SerializeAsAny,
    computed_field,
    field_serializer,
    model_serializer,
    model_validator,
)
from sqlalchemy import JSON
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from typing_extensions import TypeAliasType, TypedDict

from tests.support import shelves
from tests.support.driving import ask
from wsaction.applications import WSAction
from wsaction.codegen._typescript import typescript
from wsaction.consumers import AsyncAPIConsumer
from wsaction.contrib.sqlalchemy import SQLAlchemyQuerySet
from wsaction.decorators import async_action
from wsaction.dependencies import Depends
from wsaction.exceptions import APIError, ImproperlyConfigured
from wsaction.filters import FieldFilter, OrderingFilter, SearchFilter
from wsaction.generics import ModelAPIActionHandler
from wsaction.mixins import Output
from wsaction.pagination import CursorPagination, PageNumberPagination
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.serializers import ReadOnly, WriteOnly, input_model, output_model
from wsaction.serializers._models import json_encoder, json_validator
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect

pytestmark = pytest.mark.anyio

SECRET = "the-secret-text"
T = TypeVar("T")


class Account(BaseModel):
    name: str
    kind: Literal["account"] = "account"
    is_admin: Annotated[bool, ReadOnly] = False
    password: Annotated[str, WriteOnly]


class Unmarked(BaseModel):
    name: str
    kind: Literal["account"] = "account"
    is_admin: bool = False
    password: str


class Other(BaseModel):
    kind: Literal["other"] = "other"
    number: int


def ada(model: Any) -> Any:
    return model(name="ada", password=SECRET)


# ------------------------------------------------------------------------------------------------- kinds of types
@functools.cache
def both_ways(model: Any) -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """Annotations by kind, each with a function that puts an account, or its JSON, into such a value."""

    class Holder(BaseModel):
        account: model

    class Sub(model):  # type: ignore[misc]
        more: int = 1

    class Page(BaseModel, Generic[T]):
        results: list[T]

    class Tree(BaseModel):
        account: model
        below: "list[Tree]" = []

    class Rooted(RootModel[list[model]]):  # type: ignore[valid-type]
        pass

    @dataclasses.dataclass
    class Data:
        account: model

    @pydantic.dataclasses.dataclass
    class PydanticData:
        account: model

    class Typed(TypedDict):
        account: model

    class Named(NamedTuple):
        account: model

    class Aliased(BaseModel):
        model_config = ConfigDict(populate_by_name=True)
        account: model = Field(alias="theAccount")

    alias = TypeAliasType("alias", list[model])  # type: ignore[valid-type]

    def held(by: Any) -> Callable[[Any], Any]:
        """Makes an object of JSON data, and an instance of an account."""
        return lambda it: {"account": it} if isinstance(it, dict) else by(account=it)

    return {
        "plain": (model, lambda it: it),
        "annotated": (Annotated[model, "a remark"], lambda it: it),
        "optional": (model | None, lambda it: it),
        "list": (list[model], lambda it: [it]),
        "dict": (dict[str, model], lambda it: {"a": it}),
        "tuple": (tuple[str, model], lambda it: ("a", it)),
        "alias": (alias, lambda it: [it]),
        "union": (Other | model, lambda it: it),
        "tagged union": (
            Annotated[Other | model, Field(discriminator="kind")],
            lambda it: it | {"kind": "account"} if isinstance(it, dict) else it,
        ),
        "inherited": (Sub, lambda it: it if isinstance(it, dict) else ada(Sub)),
        "nested": (Holder, held(Holder)),
        "generic": (Page[model], lambda it: {"results": [it]} if isinstance(it, dict) else Page[model](results=[it])),
        "recursive": (
            Tree,
            lambda it: (
                {"account": it, "below": [{"account": it}]}
                if isinstance(it, dict)
                else Tree(account=it, below=[Tree(account=it)])
            ),
        ),
        "root": (Rooted, lambda it: [it] if isinstance(it, dict) else Rooted([it])),
        "dataclass": (Data, held(Data)),
        "pydantic dataclass": (PydanticData, held(PydanticData)),
        "typed dict": (Typed, lambda it: {"account": it}),
        "named tuple": (Named, lambda it: [it] if isinstance(it, dict) else Named(it)),
        "aliased": (Aliased, held(Aliased)),
        "list of dicts of holders": (list[dict[str, Holder]], lambda it: [{"a": held(Holder)(it)}]),
    }


@functools.cache
def ways_out_alone(model: Any) -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """The same for output alone: types that are vaguer than the returned value, and custom serializers."""

    kept = model.model_fields["password"].rebuild_annotation()

    class Base(BaseModel):
        name: str

    class Derived(Base):
        password: kept  # type: ignore[valid-type]

    class Polymorphic(Base):
        model_config = {"polymorphic_serialization": True}

    class DerivedPolymorphic(Polymorphic):
        password: kept  # type: ignore[valid-type]

    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")

    class TypedExtra(TypedDict):
        __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
        number: int

    class Page(BaseModel, Generic[T]):
        results: list[T]

    class Loose(BaseModel):
        it: Any
        more: dict[str, Any] = {}

    class Computing(BaseModel):
        @computed_field  # type: ignore[prop-decorator]
        @property
        def account(self) -> model:
            return ada(model)

    class Serializing(BaseModel):
        it: int = 1

        @field_serializer("it")
        def account(self, it: int):  # type: ignore[no-untyped-def]
            return ada(model)

    class Plainly(model):  # type: ignore[misc]
        @model_serializer
        def serialized(self):  # type: ignore[no-untyped-def]
            return dict(self)

    class Around(model):  # type: ignore[misc]
        @model_serializer(mode="wrap")
        def serialized(self, handler):  # type: ignore[no-untyped-def]
            return handler(self)

    @dataclasses.dataclass
    class Data:
        account: Any

    class Named(NamedTuple):
        account: Any

    return {
        "any": (Any, lambda it: it),
        "any, in a list of dicts": (Any, lambda it: [{"a": [it]}]),
        "any, in a dataclass": (Any, lambda it: {"a": Data(it)}),
        "any, in a named tuple": (Any, lambda it: [Named(it)]),
        "any, in a model": (Any, lambda it: Loose(it=it)),
        "any, in an enum": (Any, lambda it: [enum.Enum("Choice", {"one": it}).one]),  # type: ignore[attr-defined]
        "any, in a deque": (Any, lambda it: deque([it])),
        "any, from an iterator": (Any, lambda it: itertools.chain([it])),
        "mapping": (Mapping[str, model], lambda it: {"a": it}),
        "ordered dict": (OrderedDict[str, Any], lambda it: OrderedDict(a=it)),
        "more in a typed dict": (TypedExtra, lambda it: {"number": 1, "account": it}),
        "any, from a generator": (Any, lambda it: (item for item in [it])),
        "object": (object, lambda it: it),
        "dict of any": (dict[str, Any], lambda it: {"a": it, "b": [it]}),
        "bare dict": (dict, lambda it: {"a": {"b": it}}),
        "bare list": (list, lambda it: [it]),
        "any field": (Loose, lambda it: Loose(it=it, more={"a": [it]})),
        "extra": (Open, lambda it: Open(account=it)),
        "generic of nothing": (Page, lambda it: Page(results=[it])),
        "as any": (SerializeAsAny[Base], lambda it: ada(Derived)),
        "list of as any": (list[SerializeAsAny[Base]], lambda it: [ada(Derived)]),
        "subclass": (Base, lambda it: ada(Derived)),
        "polymorphic": (Polymorphic, lambda it: ada(DerivedPolymorphic)),
        "list of polymorphic": (list[Polymorphic], lambda it: [ada(DerivedPolymorphic)]),
        "computed": (Computing, lambda it: Computing()),
        "field serializer": (Serializing, lambda it: Serializing()),
        "plain model serializer": (Plainly, lambda it: ada(Plainly)),
        "wrapping model serializer": (Around, lambda it: ada(Around)),
    }


OUT = [*both_ways(Account), *ways_out_alone(Account)]


# ------------------------------------------------------------------------------------------------- ways out
def telling(annotation: Any, value: Callable[[], Any]) -> type[AsyncAPIConsumer]:
    """A consumer that sends a value in every possible way, each an action."""

    def made() -> Any:
        return value()

    a_default = value()

    class Telling(SubscribeMixin, AsyncAPIConsumer):
        events = {"told": annotation}

        @async_action
        async def reply(self) -> annotation:
            return value()

        @async_action
        async def with_status(self) -> tuple[annotation, int]:
            return value(), 202

        @async_action
        async def unannotated(self):  # type: ignore[no-untyped-def]
            return value()

        @async_action
        async def unannotated_with_status(self):  # type: ignore[no-untyped-def]
            return value(), 202

        @async_action
        def threaded(self) -> annotation:
            return value()

        @async_action
        async def depending(self, it: Annotated[Any, Depends(made)]) -> annotation:
            return it

        @async_action
        async def stream(self) -> AsyncIterator[annotation]:
            yield value()

        @async_action
        async def unannotated_stream(self):  # type: ignore[no-untyped-def]
            yield value()

        @async_action
        async def event(self) -> None:
            await self.publish("told", value())

        @async_action
        async def pushed(self) -> None:
            await self.push("told", value())

        @async_action(mode="broadcast")
        async def broadcast(self) -> annotation:
            return value()

        @async_action
        async def sent(self) -> None:
            await self.send_json({"sent": value()})

        @async_action
        async def refused(self) -> None:
            raise APIError(409, "taken", "It is taken.", {"by": value()})

        @async_action
        async def default(self, it: annotation = a_default) -> None: ...  # type: ignore[valid-type]

    return Telling


class Undeclared(SubscribeMixin, AsyncAPIConsumer):
    """A consumer that does not declare its events, so that they may have any type."""


WAYS_OUT = [
    "reply",
    "with_status",
    "unannotated",
    "unannotated_with_status",
    "threaded",
    "depending",
    "stream",
    "unannotated_stream",
    "event",
    "pushed",
    "broadcast",
    "sent",
    "refused",
]


async def said(app: WSAction, action: str) -> str:
    """All frames that one call sends to the caller and to a subscriber."""
    async with app.lifespan(), connect(app, "/ws/") as ws:
        await ws.call("subscribe")
        await ws.send_json({"action": action, "request_id": "it"})
        await ws.send_json({"action": "$ping", "request_id": "behind"})
        frames = []
        while not (replied(frames, "it") and replied(frames, "behind")) or (action in TWICE and len(frames) < 3):
            frames.append(await ws.receive_json())
    return json.dumps(frames)


TWICE = ("stream", "unannotated_stream", "event", "pushed", "broadcast", "sent")  # they send more than the reply


def replied(frames: list[Any], request_id: str) -> bool:
    return any(frame.get("request_id") == request_id and frame.get("status") != 206 for frame in frames)


def app_of(model: Any, kind: str) -> tuple[WSAction, Callable[[], Any]]:
    """An app that sends values of a kind, and a function that makes such a value."""
    annotation, put = (both_ways(model) | ways_out_alone(model))[kind]

    def value() -> Any:
        return put(ada(model))

    consumer = telling(annotation, value)
    return WSAction([path("ws/", consumer.as_asgi()), path("any/", Undeclared.as_asgi())]), value


@pytest.mark.parametrize("kind", OUT)
async def test_write_only_fields_leave_by_no_way(kind: str) -> None:
    app, _ = app_of(Account, kind)
    for way in WAYS_OUT:
        text = await said(app, way)
        assert "ada" in text, way
        assert SECRET not in text, way
        assert "password" not in text, way


@pytest.mark.slow
@pytest.mark.parametrize("kind", OUT)
async def test_unmarked_fields_leave_by_every_way(kind: str) -> None:
    app, _ = app_of(Unmarked, kind)
    leaks = {way for way in WAYS_OUT if SECRET in await said(app, way)}
    announced = {"unannotated", "unannotated_with_status", "unannotated_stream", "sent", "refused"}
    assert leaks == (announced if kind == "subclass" else set(WAYS_OUT))


@pytest.mark.parametrize(
    "kind", [kind if n % 4 == 0 else pytest.param(kind, marks=pytest.mark.slow) for n, kind in enumerate(OUT)]
)
async def test_write_only_fields_are_not_published(kind: str) -> None:
    app, value = app_of(Account, kind)
    async with app.lifespan(), connect(app, "/ws/") as ws, connect(app, "/any/") as undeclared:
        for session in (ws, undeclared):
            await session.call("subscribe")
        await app.publish("", "told", value(), path="ws/")
        await app.publish("", "anything", value(), path="any/")
        for message in (await ws.receive_json(), await undeclared.receive_json()):
            assert "ada" in json.dumps(message)
            assert SECRET not in json.dumps(message)


def responses(document: Any) -> Iterator[Any]:
    """The schemas of everything that the server sends, with the schemas that they refer to."""
    for channel in document["channels"].values():
        for message in channel.get("messages", {}).values():
            properties = message.get("payload", {}).get("properties", {})
            if "status" in properties or "event" in properties:
                yield from reached(properties.get("data", {}), document, set())


def reached(part: Any, document: Any, seen: set[str]) -> Iterator[Any]:
    if isinstance(part, dict):
        yield part
        name = part.get("$ref", "").removeprefix("#/components/schemas/")
        if name and name not in seen:
            seen.add(name)
            yield from reached(document["components"]["schemas"][name], document, seen)
    for child in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from reached(child, document, seen)


def fields_of_replies(model: Any, kind: str) -> set[str]:
    return {name for part in responses(app_of(model, kind)[0].asyncapi()) for name in part.get("properties", {})}


@pytest.mark.parametrize("kind", both_ways(Account))
def test_the_document_shows_no_write_only_fields_in_replies(kind: str) -> None:
    shown = fields_of_replies(Account, kind)
    assert "name" in shown
    assert "is_admin" in shown
    assert "password" not in shown
    assert "password" in fields_of_replies(Unmarked, kind)
    assert SECRET not in json.dumps(app_of(Account, kind)[0].asyncapi())  # nor as the default of a parameter


# ------------------------------------------------------------------------------------------------- ways in
def taking(annotation: Any, got: list[Any]) -> type[AsyncAPIConsumer]:
    """A consumer that collects what clients send, in every possible way."""

    async def found(it: annotation) -> Any:
        return it

    def found_in_thread(data: annotation) -> Any:
        return data

    class Maker:
        def __init__(self, it: annotation) -> None:
            self.it = it

    class Query(BaseModel):
        it: annotation

    class Taking(AsyncAPIConsumer):
        @async_action
        async def data(self, data: annotation) -> None:
            got.append(data)

        @async_action
        async def key(self, it: annotation) -> None:
            got.append(it)

        @async_action
        async def optional(self, it: annotation | None = None) -> None:
            got.append(it)

        @async_action
        def threaded(self, it: annotation, more: int = 0) -> None:
            got.append(it)

        @async_action
        async def dependency(self, it: Annotated[Any, Depends(found)]) -> None:
            got.append(it)

        @async_action
        async def dependency_of_data(self, it: Annotated[Any, Depends(found_in_thread)]) -> None:
            got.append(it)

        @async_action
        async def dependency_class(self, it: Annotated[Maker, Depends()]) -> None:
            got.append(it.it)

        @async_action
        async def dependency_model(self, it: Annotated[Query, Depends()]) -> None:
            got.append(it.it)

        @async_action
        async def stream(self, it: annotation) -> AsyncIterator[int]:
            got.append(it)
            yield 1

    return Taking


WAYS_IN = [
    "data",
    "key",
    "optional",
    "threaded",
    "dependency",
    "dependency_of_data",
    "dependency_class",
    "dependency_model",
    "stream",
]


def accounts(part: Any) -> Iterator[Any]:
    """The accounts in a value."""
    if hasattr(part, "password"):
        yield part
    if isinstance(part, dict):
        part = list(part.values())
    members = part if isinstance(part, list | tuple) else vars(part).values() if hasattr(part, "__dict__") else ()
    for member in members:
        yield from accounts(member)


async def taken(model: Any, kind: str) -> dict[str, list[Any]]:
    """The accounts that were received, by the way in which they were sent."""
    annotation, put = both_ways(model)[kind]
    sent = put({"name": "ada", "password": SECRET, "is_admin": True})
    got: list[Any] = []
    consumer = taking(annotation, got)
    app = WSAction([path("ws/", consumer.as_asgi())])
    came: dict[str, list[Any]] = {}
    async with app.lifespan(), connect(app, "/ws/") as ws:
        for way in WAYS_IN:
            reply = await ws.call(way, it=sent, data=sent)
            while reply["status"] == 206:
                reply = await ws.receive_json()
            assert (way, reply["status"], reply["errors"]) == (way, 200, [])
            came[way] = list(accounts(got.pop()))
    return came


@pytest.mark.parametrize("kind", both_ways(Account))
async def test_read_only_fields_come_in_by_no_way(kind: str) -> None:
    for way, came in (await taken(Account, kind)).items():
        assert came, way
        for account in came:
            assert isinstance(account, Account), way
            assert (account.name, account.password, account.is_admin) == ("ada", SECRET, False), way
            assert "is_admin" not in account.model_fields_set, way


@pytest.mark.slow
@pytest.mark.parametrize("kind", both_ways(Account))
async def test_unmarked_fields_come_in_by_every_way(kind: str) -> None:
    for way, came in (await taken(Unmarked, kind)).items():
        assert {account.is_admin for account in came} == {True}, way


@pytest.mark.parametrize("kind", both_ways(Account))
async def test_the_document_leaves_read_only_fields_out_of_input(kind: str) -> None:
    def asked(model: Any) -> set[str]:
        consumer = taking(both_ways(model)[kind][0], [])
        document = WSAction([path("ws/", consumer.as_asgi())]).asyncapi()
        schemas = document["components"]["schemas"].values()
        return {
            name
            for schema in schemas
            for part in reached(schema, document, set())
            for name in part.get("properties", {})
        }

    assert {"name", "password"} <= asked(Account)
    assert "is_admin" not in asked(Account)
    assert "is_admin" in asked(Unmarked)


class Stamped(BaseModel):
    """A model with fields that the application itself sets."""

    id: Annotated[int, ReadOnly]
    tags: Annotated[list[str], ReadOnly] = []
    number: Annotated[int, ReadOnly] = Field(default_factory=lambda: 7)
    title: str = ""


def test_read_only_fields_get_their_default_or_stay_unset() -> None:
    made = json_validator(Stamped)({"id": 1, "tags": ["x"], "number": 2, "title": "a"})
    assert type(made) is Stamped
    assert made.model_dump() == {"tags": [], "number": 7, "title": "a"}
    assert made.model_dump(exclude_unset=True) == {"title": "a"}
    assert not hasattr(made, "id")
    assert json_validator(Stamped)({}).tags is not made.tags


def test_model_validators_see_none_for_unset_read_only_fields() -> None:
    seen: list[Any] = []

    class Watched(Stamped):
        @model_validator(mode="after")
        def _look(self) -> Any:
            seen.append((self.id, self.number))
            return self

    made = json_validator(list[Watched])([{"id": 1}])
    assert seen == [(None, 7)]
    assert not hasattr(made[0], "id")


def other_ways(marker: Any) -> dict[str, Any]:
    """Models whose field could be filled under another name."""
    field = Annotated[bool, marker]

    class ByAlias(BaseModel):
        model_config = ConfigDict(populate_by_name=True)
        is_admin: field = Field(False, alias="admin")

    class ByPath(BaseModel):
        meta: dict[str, Any] = {}
        is_admin: field = Field(False, validation_alias=AliasPath("meta", "is_admin"))

    class ByChoice(BaseModel):
        meta: dict[str, Any] = {}
        is_admin: field = Field(False, validation_alias=AliasChoices(AliasPath("meta", "is_admin"), "admin"))

    class ByExtra(BaseModel):
        model_config = ConfigDict(extra="allow")
        is_admin: field = Field(False, validation_alias=AliasChoices("admin", AliasPath("meta", "is_admin")))

    class Forbidding(BaseModel):
        model_config = ConfigDict(extra="forbid", populate_by_name=True)
        meta: dict[str, Any] = {}
        is_admin: field = Field(False, validation_alias=AliasChoices("admin", AliasPath("meta", "is_admin")))

    class ByValidator(BaseModel):
        meta: dict[str, Any] = {}
        is_admin: field = False

        @model_validator(mode="before")
        @classmethod
        def _flat(cls, value: Any) -> Any:
            return {**value, **value.get("meta", {})}

    class Strictly(BaseModel):
        model_config = ConfigDict(strict=True)
        is_admin: field = False

    class OwnInit(BaseModel):
        is_admin: field = False

        def __init__(self, **values: Any) -> None:
            super().__init__(**values)

    kinds = (ByAlias, ByPath, ByChoice, ByExtra, Forbidding, ByValidator, Strictly, OwnInit)
    return {kind.__name__: kind for kind in kinds}


SENT = [{"is_admin": True}, {"admin": True}, {"meta": {"is_admin": True}}]


@pytest.mark.parametrize("kind", other_ways(ReadOnly))
@pytest.mark.parametrize("sent", SENT, ids=str)
def test_read_only_fields_come_in_by_no_other_name(kind: str, sent: dict[str, Any]) -> None:
    model = other_ways(ReadOnly)[kind]
    if kind in ("ByAlias", "Strictly", "OwnInit", "ByExtra"):
        sent = {**sent, "more": 1}
    made = json_validator(model)(sent)
    assert made.is_admin is False
    assert "is_admin" not in (made.model_extra or {})
    assert "admin" not in (made.model_extra or {})
    values = input_model(model).values(sent)
    assert values.get("meta", sent.get("meta", {})) == sent.get("meta", {})  # the writable fields arrive
    assert values.keys() <= {"meta"}


def test_unmarked_fields_come_in_by_each_other_name() -> None:
    for kind, model in other_ways("a remark").items():
        assert any(admin(model, sent) for sent in SENT), kind


def admin(model: Any, sent: Any) -> bool:
    try:
        return bool(model.model_validate(sent).is_admin)
    except ValueError:
        return False


# ------------------------------------------------------------------------------------------------- misuse
@dataclasses.dataclass
class MarkedData:
    admin: Annotated[bool, ReadOnly] = False


class MarkedTyped(TypedDict):
    password: Annotated[str, WriteOnly]


class MarkedTuple(NamedTuple):
    password: Annotated[str, WriteOnly]


class MarkedRoot(RootModel[Annotated[str, WriteOnly]]):
    pass


class MarkedComputed(BaseModel):
    @computed_field  # type: ignore[prop-decorator]
    @property
    def password(self) -> Annotated[str, WriteOnly]:
        return SECRET


Pin = NewType("Pin", Annotated[str, WriteOnly])  # type: ignore[valid-newtype]


class MarkedByNewType(BaseModel):
    pin: Pin


class MarkedByDefault(BaseModel):
    pin: str = WriteOnly()  # type: ignore[assignment]


class MarkedByWord(BaseModel):
    pin: str = Field("", json_schema_extra={"writeOnly": True})


class MarkedByMeta(BaseModel):
    pin: str = ""

    class Meta:
        extra_kwargs: ClassVar[Any] = {"pin": {"write_only": True}}


class MarkedByExclusion(BaseModel):
    pin: str = ""

    class Meta:
        exclude = ("pin",)


class MarkedIds(BaseModel):
    id: int = 0

    class Meta:
        read_only_fields = ("id",)


BOTH_WAYS = [
    (Annotated[str, WriteOnly], "WriteOnly marks a field of a pydantic model, which .* is not"),
    (list[Annotated[int, ReadOnly]], "ReadOnly marks a field of a pydantic model"),
    (MarkedData, "MarkedData marks a field as ReadOnly or WriteOnly, which works in pydantic models only"),
    (list[MarkedTyped], "MarkedTyped marks a field"),
    (MarkedTuple, "MarkedTuple marks a field"),
]
OUT_ALONE = [
    (MarkedByNewType, "MarkedByNewType.pin: WriteOnly marks a whole field"),
    *(
        (marked, f"{marked.__name__}.pin is declared write-only in a way that wsaction does not read; write pin: Ann")
        for marked in (MarkedByDefault, MarkedByWord, MarkedByMeta, MarkedByExclusion)
    ),
    (MarkedRoot, "MarkedRoot is a RootModel"),
    (MarkedComputed, "MarkedComputed.password is a computed field, which cannot be WriteOnly"),
]


def taking_data(annotation: Any) -> Any:
    async def act(self: Any, data: annotation) -> None: ...

    return async_action(act)


def depending(annotation: Any) -> Any:
    def made(it: annotation) -> Any: ...

    async def act(self: Any, it: Annotated[Any, Depends(made)]) -> None: ...

    return async_action(act)


def returning(annotation: Any) -> Any:
    async def act(self: Any) -> annotation: ...

    return async_action(act)


def streaming(annotation: Any) -> Any:
    async def act(self: Any) -> AsyncIterator[annotation]:
        yield

    return async_action(act)


@pytest.mark.parametrize(
    ("declares", "annotation", "message"),
    [(view, *case) for view in (taking_data, depending, returning, streaming) for case in BOTH_WAYS]
    + [(view, *case) for view in (returning, streaming) for case in OUT_ALONE],
)
def test_a_mark_without_effect_is_refused(declares: Any, annotation: Any, message: str) -> None:
    action = declares(annotation)
    with pytest.raises(ImproperlyConfigured, match=message):
        type("Acting", (AsyncAPIConsumer,), {"act": action})


def test_an_unsupported_read_only_field_is_refused_in_input() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"MarkedIds\.id is declared read-only in a way that wsaction"):
        type("Acting", (AsyncAPIConsumer,), {"act": taking_data(MarkedIds)})
    assert type("Telling", (AsyncAPIConsumer,), {"act": returning(MarkedIds)})


def test_marks_may_be_subclassed_and_stated_in_the_schema() -> None:
    class Secret(WriteOnly):
        pass

    class Account(BaseModel):
        pin: Annotated[str, Secret] = Field("1234", json_schema_extra={"writeOnly": True})
        puk: Annotated[str, Secret()] = "5678"

    assert json_encoder(Account)(Account()) == "{}"


@pytest.mark.parametrize(("annotation", "message"), BOTH_WAYS + OUT_ALONE)
def test_a_mark_without_effect_in_an_event_is_refused(annotation: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        type("Telling", (SubscribeMixin, AsyncAPIConsumer), {"events": {"told": annotation}})


@pytest.mark.parametrize(
    "value", [MarkedTuple("x"), [MarkedRoot("x")], {"a": MarkedData()}], ids=lambda value: type(value).__name__
)
def test_marked_values_without_an_annotation_are_refused(value: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="Marked"):
        json_encoder()(value)


# ------------------------------------------------------------------------------------------------- generic handlers
class Base(DeclarativeBase):
    pass


class PersonRow(Base):
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    is_admin: Mapped[bool] = mapped_column(default=False)
    password: Mapped[str] = mapped_column(default="")
    meta: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class StoredPerson(BaseModel):
    id: int
    name: str
    is_admin: bool = False
    password: str = ""
    meta: dict[str, Any] = {}


class Person(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: Annotated[int, ReadOnly]
    name: str
    meta: dict[str, Any] = {}
    is_admin: Annotated[bool, ReadOnly] = Field(
        False, validation_alias=AliasChoices(AliasPath("meta", "is_admin"), "admin")
    )
    password: Annotated[str, WriteOnly] = ""


class OpenPerson(BaseModel):
    """The same model without markers."""

    id: int = 0
    name: str
    meta: dict[str, Any] = {}
    is_admin: bool = False
    password: str = ""


class People(SubscribeMixin, ModelAPIActionHandler):
    pagination_class = PageNumberPagination(page_size=10)

    @async_action
    async def me(self, pk: int) -> Person:
        found: Any = await self.queryset.get(pk=pk)
        return found  # a row, which has the attributes of a Person

    @async_action
    async def everybody(self) -> list[Person]:
        return [person async for person in self.queryset]

    @async_action
    async def shown(self, pk: int):  # type: ignore[no-untyped-def]
        return {"it": self.serialize(await self.queryset.get(pk=pk))}

    @async_action
    async def add(self, data: Person) -> Output:
        obj = await self.queryset.create(self.validate(data))
        await self.publish_object("created", obj)
        return self.serialize(obj)


@pytest.fixture(params=["memory", "sqlalchemy"])
async def people(request: Any, tmp_path: Path) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield MemoryQuerySet(StoredPerson)
        return
    async with shelves.sqlite(tmp_path, Base.metadata) as engine:
        yield SQLAlchemyQuerySet(PersonRow, async_sessionmaker(engine))


async def frames_about_people(people: Any, serializer: Any) -> tuple[str, Any]:
    """All frames about a person who is created in two ways and read in every way, and the stored person."""
    handler = People.as_aaah(queryset=people, serializer_class=serializer)
    root = type("Root", (AsyncAPIConsumer,), {"routepatterns": [path("people/", handler)]})
    app = WSAction([path("ws/", root.as_asgi())])
    sent = {"id": 77, "pk": 77, "name": "ada", "is_admin": True, "admin": True, "password": SECRET, "colour": "red"}
    frames = []
    async with app.lifespan(), connect(app, "/ws/") as ws:
        frames.append(await ws.call("subscribe", "people/"))
        for action in ("create", "add"):
            frames.append(await ws.call(action, "people/", data={**sent, "meta": {"is_admin": True}}))
            assert frames[-1]["status"] in (200, 201), frames[-1]
            frames.append(await ws.event("created"))
        (pk,) = {frame["data"]["id"] for frame in frames[1:3]}
        change = {**sent, "id": pk, "name": "eve"}
        for action, parameters in [
            ("update", {"data": change}),
            ("partial_update", {"data": change}),
            ("retrieve", {}),
            ("me", {}),
            ("shown", {}),
            ("everybody", {}),
            ("list", {}),
        ]:
            frames.append(await ws.call(action, "people/", pk=pk, **parameters))
            assert frames[-1]["status"] == 200, frames[-1]
        frames.append(await ws.call("subscribe", "people/", snapshot=True))
        while "snapshot" not in (frames[-1].get("data") or {}):
            frames.append(await ws.receive_json())
    return json.dumps(frames), [person async for person in people]


async def test_generic_handlers_respect_marks(people: Any) -> None:
    text, stored = await frames_about_people(people, Person)
    assert "eve" in text
    assert SECRET not in text
    assert "password" not in text
    assert '"is_admin": true' not in text.replace('"meta": {"is_admin": true}', "")
    assert [(person.is_admin, person.password) for person in stored] == [(False, SECRET)] * 2
    assert 77 not in [person.id for person in stored]


async def test_generic_handlers_pass_unmarked_fields(people: Any) -> None:
    text, stored = await frames_about_people(people, OpenPerson)
    assert SECRET in text
    assert {person.id: person.is_admin for person in stored}[77]


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"filter_backends": (FieldFilter,), "filter_fields": ("password",)}, "filter_fields has password"),
        (
            {"filter_backends": (FieldFilter,), "filter_fields": {"password": ["startswith"]}},
            "filter_fields has password__startswith",
        ),
        ({"filter_backends": (SearchFilter,), "search_fields": ("name", "^password")}, "search_fields has password"),
        ({"filter_backends": (OrderingFilter,), "ordering_fields": ("password",)}, "ordering_fields has password"),
        ({"filter_backends": (OrderingFilter,), "ordering": "-password"}, "ordering has password"),
        ({"pagination_class": CursorPagination(ordering="-password", secret_key="k" * 16)}, "has password"),
        ({"ordering": "-password", "pagination_class": CursorPagination(secret_key="k" * 16)}, "ordering has password"),
    ],
)
@pytest.mark.parametrize("serializer", [Person, OpenPerson])
async def test_filters_and_orders_may_not_use_write_only_fields(
    people: Any, serializer: Any, attributes: Any, name: str
) -> None:
    def mounted() -> Any:
        return ModelAPIActionHandler.as_aaah(queryset=people, serializer_class=serializer, **attributes)

    if serializer is OpenPerson:
        assert mounted()
        return
    with pytest.raises(ImproperlyConfigured, match=f"ModelAPIActionHandler.*{name}.*WriteOnly in Person"):
        mounted()


def test_a_write_only_version_field_is_refused() -> None:
    class Versioned(BaseModel):
        id: int
        version: Annotated[int, WriteOnly] = 0

    with pytest.raises(ImproperlyConfigured, match="version_field is 'version', which Versioned does not show"):
        ModelAPIActionHandler.as_aaah(
            queryset=MemoryQuerySet(Versioned), serializer_class=Versioned, version_field="version"
        )


def test_filters_may_not_use_nested_or_stored_write_only_fields() -> None:
    class Owner(BaseModel):
        id: int
        password: Annotated[str, WriteOnly]

    class Card(BaseModel):
        id: int
        owner: Owner | None = None

    class Public(BaseModel):
        id: int

    class Renamed(BaseModel):
        id: int
        secret: Annotated[str, WriteOnly] = Field(validation_alias=AliasChoices("password", AliasPath("a", "b")))

    class Stored(BaseModel):
        id: int
        password: str

    for queryset, serializer, field in (
        (MemoryQuerySet(Card), Card, "owner__password"),
        (MemoryQuerySet(Stored), Renamed, "password"),
        (MemoryQuerySet(Owner), Public, "password"),
    ):
        with pytest.raises(ImproperlyConfigured, match=f"filter_fields has {field}"):
            ModelAPIActionHandler.as_aaah(
                queryset=queryset, serializer_class=serializer, filter_backends=(FieldFilter,), filter_fields=(field,)
            )


class Joining(SubscribeMixin, AsyncAPIConsumer):
    events = {"joined": Account}

    @async_action
    async def sign_up(self, data: Account) -> list[Account]: ...


def test_generated_clients_have_input_and_output_types() -> None:
    document = WSAction([path("ws/", Joining.as_asgi())]).asyncapi()
    types = typescript(document, next(iter(document["channels"])))
    fields = {
        name: set(re.findall(r"(\w+)\??:", body))
        for name, body in re.findall(r"interface (\w+) {\n(.*?)\n}", types, re.S)
    }
    assert fields["AccountInput"] == {"name", "kind", "password"}
    assert fields["Account"] == {"name", "kind", "is_admin"}
    assert "signUp(params: { data: AccountInput }, options?: CallOptions): Promise<Account[]>" in types
    assert 'ServerEvent<"joined", Account>' in types
    read = output_model(Account).model_validate_json('{"name": "ada", "kind": "account", "is_admin": true}')
    assert read.is_admin  # the Python client reads replies with this model


class AllowingMore(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: Annotated[int, ReadOnly]
    title: str = "t"


@pytest.mark.parametrize("stored", [StoredPerson, AllowingMore])
@pytest.mark.parametrize("action", ["create", "update", "partial_update"])
async def test_extra_input_is_not_written(stored: Any, action: str) -> None:
    class Named(BaseModel):
        model_config = ConfigDict(extra="allow")
        name: str = "ada"

    rows: Any = MemoryQuerySet(stored, rows=[stored(id=1, name="eve")])
    serializer = AllowingMore if stored is AllowingMore else Named
    handler = ModelAPIActionHandler.as_aaah(queryset=rows, serializer_class=serializer)
    reply = await ask(handler, action, pk=1, data={"pk": 77, "id": 77, "is_admin": True, "colour": "red"})
    assert reply["status"] in (200, 201)
    for row in [person async for person in rows]:
        assert row.id in (1, 2)
        assert not getattr(row, "is_admin", False)
        assert not hasattr(row, "colour")


class Keeper(BaseModel):
    name: str = ""
    pin: Annotated[str, WriteOnly] = "SECRET"


class Kept(BaseModel):
    owner: str


@pytest.mark.parametrize("held", [Keeper(), [Keeper()], {"a": Keeper()}])
def test_a_marked_model_in_a_field_of_another_type_is_an_error(held: Any) -> None:
    kept = Kept(owner="")
    kept.owner = held
    for announced in (Kept, Any, list[Kept], Kept | None):
        with pytest.raises(TypeError):
            json_encoder(announced)([kept] if announced == list[Kept] else kept)


def test_write_only_fields_are_hidden_in_a_union_with_a_class() -> None:
    assert json_encoder(type[Keeper] | Keeper)(Keeper()) == '{"name":""}'
