"""The routing example with uvicorn and a real client: every reply, byte by byte."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import Mount

from tests.conftest import Server
from tests.support.routing_example import ParentConsumer
from wsaction.applications import WSAction
from wsaction.routing import path


class Header(AuthenticationBackend):
    """Signs in the user that the ``x-user`` header names."""

    async def authenticate(self, conn: Any) -> tuple[AuthCredentials, SimpleUser] | None:
        name = conn.headers.get("x-user")
        return (AuthCredentials(["authenticated"]), SimpleUser(name)) if name else None


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    app = WSAction([path("ws/", ParentConsumer.as_asgi())])
    middleware = [Middleware(AuthenticationMiddleware, backend=Header())]
    return serve(Starlette(routes=[Mount("/", app)], middleware=middleware, lifespan=app.lifespan))


REPLIES = [
    (
        '{"action": "retrieve", "route": "test_child_route/1/"}',
        '{"errors":[],"data":{"title":"first"},"action":"retrieve","route":"test_child_route/1/","status":200}',
    ),
    (
        '{"action": "recieve_path", "route": "test_child_route"}',
        '{"errors":[],"data":{"path":"handled"},"action":"recieve_path","route":"test_child_route","status":200}',
    ),
    (
        '{"action": "recieve_repath", "route": "test_child_route/1/"}',
        '{"errors":[],"data":{"repath":"handled"},"action":"recieve_repath","route":"test_child_route/1/","status":200}',
    ),
    (
        '{"action": "retrieve", "route": "test_child_route/404/"}',
        '{"errors":[{"type":"not_found","msg":"Not found."}],"data":null,'
        '"action":"retrieve","route":"test_child_route/404/","status":404}',
    ),
    (
        '{"action": "retrieve", "route": "nowhere/"}',
        '{"errors":[{"type":"route_not_found","msg":"No such route."}],"data":null,'
        '"action":"retrieve","route":"nowhere/","status":404}',
    ),
    (
        '{"action": "unknown", "route": "test_child_route/1/"}',
        '{"errors":[{"type":"action_not_allowed","msg":"There is no such action here."}],"data":null,'
        '"action":"unknown","route":"test_child_route/1/","status":405}',
    ),
    (
        '{"action": "retrieve", "route": "test_child_route/1/?page=2", "request_id": 7}',
        '{"errors":[],"data":{"title":"first"},"action":"retrieve","route":"test_child_route/1/?page=2","status":200,'
        '"request_id":7}',
    ),
    (
        '{"action": "retrieve", "route": "test_child_route/1/", "request_id": "7"}',
        '{"errors":[],"data":{"title":"first"},"action":"retrieve","route":"test_child_route/1/","status":200,'
        '"request_id":"7"}',
    ),
]


async def test_every_reply_byte_for_byte(server: Server) -> None:
    async with server.connect("/ws/", additional_headers={"x-user": "ada"}) as ws:
        for sent, answered in REPLIES:
            await ws.send(sent)
            assert await ws.recv() == answered


async def test_an_anonymous_user_gets_403_or_404(server: Server) -> None:
    async with server.connect("/ws/") as ws:
        for sent, _ in REPLIES:
            route = json.loads(sent)["route"]
            await ws.send(sent)
            reply = json.loads(await ws.recv())
            assert reply["status"] == (404 if route == "nowhere/" else 403), reply
