"""Exceptions of Starlette and FastAPI: the reply has their status and detail, wherever they are raised."""

from typing import Annotated, Any

import fastapi
import pytest
from pydantic import BaseModel
from starlette.exceptions import HTTPException, WebSocketException

from tests.support.driving import ask
from wsaction.applications import WSAction
from wsaction.authentication import BearerAuthentication, Credential
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.dependencies import Depends
from wsaction.exceptions import APIError, to_api_error
from wsaction.generics import ModelAPIConsumer
from wsaction.permissions import BasePermission
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.testing import HandshakeRefused, connect

pytestmark = pytest.mark.anyio


class Row(BaseModel):
    id: int = 0


MISSING = fastapi.HTTPException(404, "There is no such card.")


class Missing(BasePermission):
    def has_permission(self, scope: Any, handler: Any, action: str) -> bool:
        raise MISSING


def find() -> None:
    raise MISSING


class Root(AsyncAPIConsumer):
    @async_action
    async def of_the_action(self) -> None:
        raise MISSING

    @async_action
    def of_a_thread(self) -> None:
        raise MISSING

    @async_action
    async def of_a_stream(self) -> Any:
        raise MISSING
        yield

    @async_action
    async def of_a_dependency(self, found: Annotated[None, Depends(find)]) -> None: ...

    @async_action(permission_classes=(Missing,))
    async def of_a_permission(self) -> None: ...


@pytest.mark.parametrize("action", sorted(Root.available_actions))
async def test_an_http_exception_is_replied_with_status_and_detail(
    action: str, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await ask(Root.as_asgi(), action)
    assert (reply["status"], reply["errors"]) == (404, [{"type": "not_found", "msg": "There is no such card."}])
    assert caplog.records == []  # it is not a bug


class Refusing(AsyncAPIConsumer):
    error: Any = None

    async def connect(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (MISSING, 404, {}),
        (fastapi.HTTPException(429, headers={"Retry-After": "3"}), 429, {"retry-after": "3"}),
        (WebSocketException(1008, "no"), 403, {}),
        (WebSocketException(4401), 401, {"www-authenticate": "Bearer"}),
    ],
)
async def test_an_http_exception_refuses_a_handshake(error: Any, status: int, headers: dict[str, str]) -> None:
    app = WSAction([path("ws/", Refusing.as_asgi(error=error))])
    with pytest.raises(HandshakeRefused) as refused:
        async with connect(app, "/ws/"):
            pass
    assert refused.value.status == status
    assert headers.items() <= refused.value.headers.items()


class Tokens(BearerAuthentication):
    def verify(self, token: str) -> Credential | None:
        raise HTTPException(401, f"The token {token} has been revoked.")


async def test_a_token_in_its_detail_is_redacted() -> None:
    app = WSAction([path("ws/", Root.as_asgi())], authentication_classes=[Tokens])
    async with connect(app, "/ws/") as ws:
        reply = await ws.call("$auth", data="secret-token")
    assert reply["status"] == 401
    assert reply["errors"][0]["msg"] == "The token [redacted] has been revoked."


@pytest.mark.parametrize(
    ("error", "item"),
    [
        (HTTPException(400), {"type": "bad_request", "msg": "Bad Request"}),
        (HTTPException(401, "Sign in."), {"type": "not_authenticated", "msg": "Sign in."}),
        (HTTPException(402), {"type": "payment_required", "msg": "Payment Required"}),
        (HTTPException(403), {"type": "permission_denied", "msg": "Forbidden"}),
        (HTTPException(409), {"type": "conflict", "msg": "Conflict"}),
        (HTTPException(418), {"type": "im_a_teapot", "msg": "I'm a Teapot"}),
        (HTTPException(499), {"type": "http_499", "msg": "HTTP 499"}),
        (HTTPException(503), {"type": "service_unavailable", "msg": "Service Unavailable"}),
        (
            fastapi.HTTPException(422, [{"field": "title"}]),
            {"type": "unprocessable_entity", "msg": "Unprocessable Entity", "ctx": {"detail": [{"field": "title"}]}},
        ),
        (
            HTTPException(429, "Slower.", {"retry-after": "60"}),
            {"type": "throttled", "msg": "Slower.", "ctx": {"retry_after": 60.0}},
        ),
        (
            HTTPException(503, "Later.", {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
            {"type": "service_unavailable", "msg": "Later."},
        ),
    ],
)
def test_the_error_type_follows_the_status(error: Any, item: dict[str, Any]) -> None:
    api_error = to_api_error(error, what="find", debug=False)
    assert (api_error.status, api_error.errors) == (error.status_code, [item])


@pytest.mark.parametrize("status", [200, 304, 600])
def test_a_status_that_is_not_an_error_is_a_500(status: int, caplog: pytest.LogCaptureFixture) -> None:
    assert to_api_error(HTTPException(status, "moved"), what="find", debug=False).status == 500
    assert len(caplog.records) == 1


def test_another_class_named_http_exception_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    class HTTPException(Exception):  # an HTTP client's, whose server replied 404: not for our client
        status_code, detail = 404, "no such user"

    assert to_api_error(HTTPException(), what="find", debug=False).status == 500
    assert len(caplog.records) == 1


async def test_middleware_and_get_queryset_may_raise_one() -> None:
    class Rows(ModelAPIConsumer):
        queryset = MemoryQuerySet(Row, [Row(id=1)])
        serializer_class = Row

        def get_queryset(self) -> Any:
            raise fastapi.HTTPException(402, "Pay first.", {"Retry-After": "7"})

    async def closed(handler: Any, call_next: Any) -> Any:
        raise HTTPException(503, "Closed.")

    reply = await ask(Rows.as_asgi(), "list")
    assert (reply["status"], reply["errors"][0]["msg"]) == (402, "Pay first.")
    assert reply["errors"][0]["ctx"] == {"retry_after": 7.0}
    async with connect(WSAction([path("ws/", Rows.as_asgi())], middleware=[closed]), "/ws/") as ws:
        reply = await ws.call("list")
        assert (reply["status"], reply["errors"][0]["msg"]) == (503, "Closed.")


async def test_an_exception_handler_of_the_app_goes_first() -> None:
    app = WSAction(
        [path("ws/", Root.as_asgi())],
        exception_handlers={HTTPException: lambda handler, exc: APIError(410, "gone", "It was there once.")},
    )
    async with connect(app, "/ws/") as ws:
        assert (await ws.call("of_the_action"))["status"] == 410
