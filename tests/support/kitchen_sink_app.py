"""An app with every kind of declaration, for the tests of tools that read declarations."""

import datetime
import enum
import math
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar

import django.urls
from pydantic import BaseModel, ConfigDict, Field, computed_field
from typing_extensions import TypedDict

from wsaction import generics
from wsaction.applications import WSAction
from wsaction.authentication import (
    BaseAuthentication,
    BearerAuthentication,
    Credential,
    FirstFrameAuthentication,
    SessionAuthentication,
)
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dependencies import Depends
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.permissions import AllowAny, DenyAll, IsAuthenticated
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import include, path, re_path
from wsaction.subscriptions import SubscribeMixin
from wsaction.throttling import UserRateThrottle

T = TypeVar("T")


class Colour(enum.StrEnum):
    RED = "red"
    GREEN = "green"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    barks: bool


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


Pet = Annotated[Dog | Cat, Field(discriminator="kind")]


class Tree(BaseModel):
    """A card and what is below it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "a", "discriminator": {"propertyName": "data"}}]}
    )

    name: str
    children: list["Tree"] = []
    pet: Pet | None = None
    discriminator: str = "a field of this name"
    since: datetime.datetime = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)


class Named(BaseModel):
    display_name: str = Field(alias="displayName", description="What people read.")

    @computed_field
    def shouted(self) -> str:
        return self.display_name.upper()


class Page(BaseModel, Generic[T]):
    model_config = ConfigDict(serialize_by_alias=True)

    results: list[T]
    next_page: str | None = Field(None, alias="nextPage")


class Point(TypedDict):
    x: float
    y: float


@dataclass
class Size:
    width: int
    unit: Decimal = Decimal(1)


class Filter(BaseModel):
    search: str = Field("", max_length=10)
    limit: int


class Opaque:
    """What JSON Schema has no words for."""


def twin() -> type[BaseModel]:
    class Tree(BaseModel):  # of the same name as the one above
        height: float

    return Tree


async def database(limit: int, region: str = "eu") -> str:
    return f"{region} {limit}"


class Sub(AsyncAPIActionHandler):
    events = {"grown": Tree, "felled": None}

    @async_action
    async def grow(self, by: int, pk: int) -> Tree:
        return Tree(name=str(by), children=[Tree(name="twig")], pet=Cat())

    @async_action
    async def rings(self, many: Annotated[int, Field(gt=0)] = 2) -> AsyncIterator[tuple[int, str]]:
        """The rings.

        One for each year.
        """
        for number in range(many):
            yield number, "ring"

    @async_action(mode="none")
    async def whisper(self, words: list[str]) -> None:
        """Nothing is answered."""


class Forest(AsyncAPIActionHandler):
    """Handles trees."""

    permission_classes = (IsAuthenticated | AllowAny,)
    throttle_classes = (UserRateThrottle("1000/min"),)
    routepatterns = [path("leaves/", Sub.as_aaah())]

    @async_action(status=201, timeout=math.inf, ordered=False)
    async def plant(self, data: Tree, colour: Colour = Colour.RED) -> Tree:
        """Plants a tree."""
        return data

    @async_action(permission_classes=(DenyAll,))
    async def fell(self, why: str | None = None) -> tuple[Named, int]:
        return Named(displayName="oak"), 200

    @async_action
    async def pages(self) -> Page[Named]:
        return Page[Named](results=[Named(displayName="oak")], nextPage="2")

    @async_action
    async def other(self, data: twin()) -> Any:  # type: ignore[valid-type]
        return {"height": data.height}, 202

    @async_action
    async def measures(self, at: Point, size: Size, pair: tuple[int, str], key: uuid.UUID) -> dict[str, Point]:
        return {"at": at}

    @async_action
    async def query(self, database: Annotated[str, Depends(database)], wanted: Annotated[Filter, Depends()]) -> str:
        return database

    @async_action
    def anything(self, *args, **kwargs):
        return None

    @async_action
    async def opaque(self, data: Any = Opaque()) -> None:  # noqa: B008
        """A default that is no JSON."""


class Live(SubscribeMixin, AsyncAPIActionHandler):
    events = {"moved": Point}


class Watched(SubscribeMixin, generics.ModelAPIActionHandler):
    queryset = MemoryQuerySet(Dog, pk="kind")
    serializer_class = Dog
    events = {"updated": None}


class Unshown(SubscribeMixin, generics.GenericAsyncAPIActionHandler):
    queryset = MemoryQuerySet(Dog, pk="kind")


class Rows(generics.ModelAPIActionHandler):
    queryset = MemoryQuerySet(Dog, rows=[Dog(barks=True)], pk="kind")
    serializer_class = Dog


class Root(AsyncAPIConsumer):
    """The forest's keeper."""

    limits = Limits(max_concurrency=3)
    routepatterns = [
        path("forests/<int:pk>/", Forest.as_aaah()),
        path("v1/<slug:version>/", include(([path("rows/<str:pk>/", Rows.as_aaah(), name="row")], "rows"))),
        re_path(r"^years/(?P<year>[0-9]{4})/(?:(?P<month>[0-9]+)/)?$", Sub.as_aaah(actions={"get": "grow"})),
        re_path(r"^by/(\d+)/([a-z]+)/$", Sub.as_aaah(actions=["grow"])),
        re_path(r"^(?:a|b)/(?P<rest>x|y)$|^c$", Sub.as_aaah(actions=["grow"])),
        path("with/kwargs/", Sub.as_aaah(actions=["grow"]), {"pk": 1}),
        path("with/kwargs/", Sub.as_aaah(actions=["rings"])),  # unreachable
        django.urls.path("django/<uuid:key>/", Sub.as_aaah(actions=["grow"])),
        path("live/<int:pk>/", Live.as_aaah()),
        path("watched/", Watched.as_aaah()),
        path("unshown/", Unshown.as_aaah()),
        path("curly{}?/<path:pk>/", Sub.as_aaah(actions=["grow"])),
    ]

    @async_action
    async def echo(self, text: str) -> str:
        return text


class Hidden(AsyncAPIConsumer):
    """Its own route is a handler's."""

    routepatterns = [path("", Sub.as_aaah())]

    @async_action
    async def never(self) -> None: ...


class Tokens(BearerAuthentication):
    def verify(self, token: str) -> Credential | None:
        return None


class Sessions(SessionAuthentication):
    def get_user(self, session: dict[str, Any]) -> Any:
        return None


class Codes(BaseAuthentication):
    async def authenticate_data(self, data: Any) -> Credential | None:
        return None


async def plain_asgi(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


def everything() -> WSAction:
    """The app, without authentication."""
    return WSAction(
        [
            path("", Root.as_asgi()),
            path("ws/<int:tenant>/", Root.as_asgi()),
            path("alone/", Forest.as_aaah()),
            path("hidden/", Hidden.as_asgi()),
            path("plain/", plain_asgi),
            re_path(r"^x|y$", Hidden.as_asgi()),
        ],
        title="Everything",
        version="1.2.3",
        description="A little of *everything*.",
    )


def guarded() -> WSAction:
    """An app with every kind of authentication."""
    return WSAction(
        [path("ws/", Hidden.as_asgi())],
        authentication_classes=[Tokens, Sessions, Codes, FirstFrameAuthentication],
    )
