"""Connections without authentication have an anonymous user, Starlette's ``UnauthenticatedUser``."""

from typing import Any

import pytest
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.authentication import UnauthenticatedUser
from starlette.routing import Mount, WebSocketRoute

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.generics import ModelAPIActionHandler
from wsaction.permissions import BasePermission, IsAuthenticated, IsOwner
from wsaction.presence import PresenceMixin
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.testing import connect
from wsaction.throttling import AnonRateThrottle, UserRateThrottle

pytestmark = pytest.mark.anyio


class SignedIn(BasePermission):
    def can_connect(self, scope: Any, handler: Any) -> bool:
        return not scope["user"].is_authenticated

    def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        return bool(scope["user"].is_authenticated)


class Root(AsyncAPIConsumer):
    throttle_classes = (UserRateThrottle("100/s"), AnonRateThrottle("100/s"))

    async def connect(self) -> None:
        assert not self.user.is_authenticated

    @async_action
    async def who(self) -> Any:
        return [type(self.user).__name__, self.user.is_authenticated, self.scope["user"] is self.user]

    @async_action(permission_classes=(SignedIn,))
    async def asked(self) -> None: ...

    @async_action(permission_classes=(IsAuthenticated,))
    async def closed(self) -> None: ...

    @async_action(permission_classes=(~IsAuthenticated,))
    async def open(self) -> None: ...


VIEW = Root.as_asgi()
SERVED: dict[str, Any] = {
    "an app": WSAction([path("ws/", VIEW)]),
    "a consumer alone": VIEW,
    "an app with ids of its own": WSAction([path("ws/", VIEW)], user_id=lambda user: user.email),
    "Mount": Starlette(routes=[Mount("/", WSAction([path("ws/", VIEW)]))]),
    "WebSocketRoute": Starlette(routes=[WebSocketRoute("/ws/", VIEW)]),
}


@pytest.mark.parametrize("served", SERVED)
@pytest.mark.parametrize("scope", [{}, {"user": None}], ids=["nothing set one", "something set None"])
async def test_nobody_is_a_user_who_is_not_authenticated(served: str, scope: dict[str, Any]) -> None:
    async with connect(SERVED[served], "/ws/", scope=scope) as ws:
        assert (await ws.call("who"))["data"] == ["UnauthenticatedUser", False, True]
        statuses = {name: (await ws.call(name))["status"] for name in ("asked", "closed", "open")}
    assert statuses == {"asked": 403, "closed": 403, "open": 200}


async def test_who_a_middleware_set_stays() -> None:
    class Guest(UnauthenticatedUser):
        """An anonymous user class of the application."""

    async with connect(VIEW, "/", user=Guest()) as ws:
        assert (await ws.call("who"))["data"] == ["Guest", False, True]


async def test_an_anonymous_user_is_false() -> None:
    class Asking(AsyncAPIConsumer):
        @async_action
        async def may(self) -> bool:
            return bool(self.user)  # as `if self.user:`, which was right while nobody was None

    async with connect(Asking.as_asgi(), "/") as ws:
        assert (await ws.call("may"))["data"] is False


async def test_two_connections_share_no_user() -> None:
    users: list[Any] = []

    class Noting(AsyncAPIConsumer):
        async def connect(self) -> None:
            users.append(self.user)

    async with connect(Noting.as_asgi(), "/"), connect(Noting.as_asgi(), "/"):
        assert users[0] is not users[1]


async def test_anonymous_users_own_nothing_and_have_no_presence_key() -> None:
    class Card(BaseModel):
        id: int = 0
        owner_id: int | None = None

    class Cards(PresenceMixin, ModelAPIActionHandler):
        queryset = MemoryQuerySet(Card, [Card(id=1), Card(id=2, owner_id=7)])
        serializer_class = Card
        permission_classes = (type("ByID", (IsOwner,), {"lookup_field": "owner_id"}),)

        def get_queryset(self) -> Any:
            return super().get_queryset().filter(id__gt=0) if not self.user.is_authenticated else None

    class Desk(AsyncAPIConsumer):
        routepatterns = (
            path("cards/", Cards.as_aaah(actions=("list", "subscribe", "presence"))),
            path("cards/<pk>/", Cards.as_aaah()),
        )

    app = WSAction([path("ws/", Desk.as_asgi())])
    async with app.lifespan(), connect(app, "/ws/") as ws:
        assert [(await ws.call("retrieve", f"cards/{pk}/"))["status"] for pk in (1, 2)] == [403, 403]
        assert (await ws.call("subscribe", "cards/"))["status"] == 200
        assert "None" not in str((await ws.call("presence", "cards/"))["data"])
        card = Card(id=1)
        await app.publish_object("cards/", "created", card)  # the handler has no connection, but a user
