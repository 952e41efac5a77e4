"""Authentication: classes, frames refused before it, refreshed credentials, and secrets that never leak."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import math
import re
import time
import traceback
import types
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import TimestampSigner
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    BaseUser,
    SimpleUser,
    UnauthenticatedUser,
)
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from websockets.exceptions import InvalidStatus

from wsaction._connection.gates import AuthenticationGate
from wsaction.applications import WSAction
from wsaction.authentication import (
    BaseAuthentication,
    BearerAuthentication,
    Credential,
    FirstFrameAuthentication,
    SessionAuthentication,
)
from wsaction.authentication._identity import is_authenticated, is_somebody, user_id
from wsaction.authentication._redaction import RedactedError, redact, texts, without_secrets
from wsaction.authentication._state import AuthenticationState, Authenticator
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import (
    ActionNotAllowed,
    APIError,
    Busy,
    ImproperlyConfigured,
    InvalidParameters,
    NotAuthenticated,
    PermissionDenied,
    Throttled,
    to_api_error,
)
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.limits import Limits
from wsaction.permissions import IsAuthenticated
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import HandshakeRefused, connect
from wsaction.testing._scope import websocket_scope
from wsaction.transactions import current_unit

NOW = 1_000_000.0
SECRET = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"


@dataclass
class User:
    pk: Any
    is_authenticated: Any = True
    is_admin: bool = False


class Nameless(BaseUser):
    is_authenticated = True


ANN, BOB = User("ann"), User("bob")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Tokens(BearerAuthentication):
    """Accepts the tokens it is created with. Each gives a credential, an exception to raise or a function to await."""

    def __init__(self, **known: Any) -> None:
        self.known: dict[str, Any] = {"ann": Credential(ANN), "bob": Credential(BOB), **known}

    async def verify(self, token: str) -> Credential | None:
        found = self.known.get(token)
        if isinstance(found, BaseException):
            raise found
        return await found() if callable(found) else found


class FirstTokens(Tokens):
    first_frame = True


class Sessions(SessionAuthentication):
    def get_user(self, session: dict[str, Any]) -> Any:
        return session["user"]


def authenticator(*classes: Any, clock: Callable[[], float] | None = None, **options: Any) -> Authenticator:
    return Authenticator(classes, clock=clock or Clock(), **options)


async def opened(*classes: Any, clock: Clock | None = None, **scope: Any) -> AuthenticationState:
    return await authenticator(*classes, clock=clock).open({**websocket_scope("/"), **scope}, 10)


def bearer(*tokens: str) -> dict[str, Any]:
    return {"subprotocols": ["wsaction.v1", *(f"bearer.{token}" for token in tokens)]}


def headers(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs]}


# ------------------------------------------------------------------------------------------------ the handshake
@pytest.mark.parametrize(
    ("scope", "user"),
    [
        pytest.param({}, None, id="nothing offered"),
        pytest.param(bearer("ann"), ANN, id="sub-protocol"),
        pytest.param({"subprotocols": ["BEARER.ann"]}, ANN, id="sub-protocol in capitals"),
        pytest.param({"subprotocols": ["bearer", "bearerann"]}, None, id="sub-protocols without a token"),
        pytest.param({"subprotocols": None}, None, id="a server without sub-protocols"),
        pytest.param(headers(("Authorization", "Bearer ann")), ANN, id="header"),
        pytest.param(headers(("authorization", "bEARER \t ann ")), ANN, id="header, other spelling"),
        pytest.param(headers(("authorization", "Basic ann")), None, id="another scheme"),
        pytest.param(headers(("authorization", "")), None, id="an empty header"),
        pytest.param(headers(("x-authorization", "Bearer ann")), None, id="another header"),
        pytest.param({**bearer("ann"), **headers(("authorization", "Basic bob"))}, ANN, id="a proxy's Basic beside it"),
        pytest.param({"query_string": b"token=ann&bearer=ann"}, None, id="nothing in the URL counts"),
    ],
)
async def test_a_bearer_token_at_the_handshake(scope: dict[str, Any], user: User | None) -> None:
    assert (await opened(Tokens, **scope)).user is user


@pytest.mark.parametrize(
    ("scope", "says"),
    [
        pytest.param(bearer("unknown"), "not accepted", id="nobody takes it"),
        pytest.param(bearer(""), "malformed", id="empty sub-protocol"),
        pytest.param(headers(("authorization", "Bearer")), "malformed", id="empty header"),
        pytest.param(headers(("authorization", "Bearer ann bob")), "malformed", id="two words"),
        pytest.param(headers(("authorization", "Bearer ann, Bearer ann")), "malformed", id="joined by a proxy"),
        pytest.param(headers(("authorization", "Bearer änn")), "malformed", id="other letters"),
        pytest.param(headers(("authorization", f"Bearer {'a' * 8193}")), "malformed", id="too long"),
        pytest.param(bearer("ann", "bob"), "several", id="two sub-protocols"),
        pytest.param(bearer("ann", "ann"), "several", id="the same sub-protocol twice"),
        pytest.param({**bearer("ann"), **headers(("authorization", "Bearer ann"))}, "several", id="both"),
        pytest.param(headers(*[("authorization", "Bearer ann")] * 2), "several", id="two headers"),
        pytest.param(bearer("old"), "expired", id="expired"),
        pytest.param(bearer("ends"), "expired", id="expires now"),
    ],
)
async def test_a_bad_bearer_token_is_refused_and_never_anonymous(scope: dict[str, Any], says: str) -> None:
    tokens = Tokens(old=Credential(ANN, NOW - 1), ends=Credential(ANN, NOW))
    scope = {**websocket_scope("/"), **scope, "user": BOB}
    with pytest.raises(NotAuthenticated, match=says):
        await authenticator(tokens).open(scope, 10)
    assert scope["user"] is BOB
    assert "ann" not in repr(scope)


async def test_sync_verify() -> None:
    class Sync(BearerAuthentication):
        def verify(self, token: str) -> Credential | None:
            return Credential(User(token))

    assert (await opened(Sync(), **bearer("eve"))).user == User("eve")


async def test_classes_are_asked_in_order_until_one_has_a_credential() -> None:
    session = {"session": {"user": BOB}}
    assert (await opened(Tokens, Sessions, **session, **bearer("ann"))).user is ANN
    assert (await opened(Sessions, Tokens, **session, **bearer("ann"))).user is BOB
    assert (await opened(Tokens, Sessions, **session)).user is BOB
    assert (await opened(Tokens, Tokens(key=Credential(BOB)), **bearer("key"))).user is BOB


@pytest.mark.parametrize(
    ("user", "expected"),
    [(ANN, ANN), (None, None), (User(1, is_authenticated=False), None), (Credential(BOB, NOW + 5), BOB)],
    ids=["a user", "nobody", "an anonymous user", "a credential"],
)
async def test_a_session(user: Any, expected: Any) -> None:
    state = await opened(Sessions, session={"user": user})
    assert state.user is expected
    assert state.deadline == getattr(user, "expires_at", None)


async def test_a_session_that_is_empty_or_async_or_missing() -> None:
    class Later(SessionAuthentication):
        async def get_user(self, session: dict[str, Any]) -> Any:
            return session["user"]

    assert (await opened(Later, session={})).user is None
    assert (await opened(Later, session={"user": ANN})).user is ANN
    with pytest.raises(RedactedError, match="put SessionMiddleware around the app"):
        await opened(Later)


async def test_who_a_middleware_found_stays_unless_a_class_claims() -> None:
    scope = {**websocket_scope("/"), "user": SimpleUser("cal"), "auth": AuthCredentials(["authenticated"])}
    state = await authenticator(Tokens).open(scope, 10)
    assert (state.user.username, scope["auth"].scopes) == ("cal", ["authenticated"])
    assert state.gate("list") is state.deadline is None
    tokens = Tokens(eve=Credential(ANN, auth={"scope": "read"}))
    await authenticator(tokens).open({**scope, **bearer("eve")}, 10)
    scope = {**scope, **bearer("eve")}
    await authenticator(tokens).open(scope, 10)
    assert (scope["user"], scope["auth"]) == (ANN, {"scope": "read"})


async def test_the_scope_keeps_no_token_and_all_else() -> None:
    class Keys(Tokens):
        secret_headers = ("Authorization", "X-Key")

    offered = f"wsaction.v1,bearer.{SECRET} , other"
    scope = {
        **websocket_scope("/"),
        "subprotocols": ["wsaction.v1", f"bearer.{SECRET}", "other"],
        **headers(("Sec-WebSocket-Protocol", offered), ("x-key", SECRET), ("x-empty", ""), ("host", "a")),
    }
    await authenticator(Keys(**{SECRET: Credential(ANN)})).open(scope, 10)
    assert SECRET not in repr(scope)
    assert scope["subprotocols"] == ["wsaction.v1", "other"]
    assert scope["headers"] == [(b"Sec-WebSocket-Protocol", b"wsaction.v1, other"), (b"x-empty", b""), (b"host", b"a")]


@pytest.mark.parametrize("error", [PermissionDenied("You are banned."), Busy()])
async def test_a_class_may_refuse_with_another_status(error: APIError) -> None:
    with pytest.raises(type(error)) as caught:
        await opened(Tokens(eve=error), **bearer("eve"))
    assert caught.value is error


# ------------------------------------------------------------------------------------------------ first frame
FRAMES = [None, "", "list", "$ping", "$cancel", "subscribe", "auth", "$AUTH", "$auth "]


@pytest.mark.parametrize("action", FRAMES)
@pytest.mark.parametrize("classes", [[FirstTokens], [Tokens, FirstFrameAuthentication], [Sessions, FirstTokens()]])
async def test_before_authentication_every_frame_is_refused(classes: list[Any], action: str | None) -> None:
    state = await opened(*classes, session={})
    refused = state.gate(action)
    assert refused is not None
    assert (refused.status, refused.type) == (401, "not_authenticated")
    assert state.gate("$auth") is None
    with pytest.raises(NotAuthenticated):
        await state.present("unknown")
    assert state.gate(action) is not None
    assert await state.present("ann") == {"expires_at": None}
    assert state.gate(action) is None
    assert state.user is ANN


@pytest.mark.parametrize(
    ("user", "needed"),
    [
        (None, True),
        (UnauthenticatedUser(), True),
        (object(), True),
        (User(1, is_authenticated=lambda: False), True),
        (User(1, is_authenticated=lambda: True), False),
        (SimpleUser("cal"), False),
    ],
)
async def test_first_frame_is_required_unless_the_handshake_has_a_user(user: Any, needed: bool) -> None:
    assert ((await opened(FirstTokens, user=user)).gate("list") is not None) is needed
    assert (await opened(FirstTokens, user=user, **bearer("ann"))).gate("list") is None


async def test_a_user_with_an_async_is_authenticated_is_refused() -> None:
    async def answer() -> bool:
        raise AssertionError

    waiting = answer()
    user = User(1, is_authenticated=lambda: waiting)
    scope = {**websocket_scope("/"), "user": user, **bearer("ann")}
    for ask in (is_authenticated, is_somebody, user_id, Credential):
        with pytest.raises(TypeError, match=r"User.is_authenticated: expected True or False, got an awaitable"):
            ask(user)
    with pytest.raises(TypeError, match="got an awaitable"):
        await authenticator(FirstTokens).open(scope, 10)
    waiting.close()
    assert scope["subprotocols"] == ["wsaction.v1"]  # the token is removed in any case


async def test_auth_timeout() -> None:
    clock = Clock()
    state = await opened(FirstTokens, clock=clock)
    assert (state.deadline, state.overdue) == (NOW + 10, None)
    clock.now += 10
    assert state.overdue == (4401, "no $auth came; auth_timeout is 10 s")
    for action in ("$auth", "list", None):
        refused = state.gate(action)
        assert refused is not None
        assert "too late" in refused.msg
    with pytest.raises(NotAuthenticated, match="too late"):
        await state.present("ann")
    assert state.user is None


@pytest.mark.parametrize(
    "data",
    [None, 5, [], ["ann"], {}, {"Token": "ann"}, {"token": None}, {"token": ["ann"]}, "", " ann", {"token": ""}, "äö"],
)
async def test_what_is_no_token_is_refused(data: Any) -> None:
    with pytest.raises(NotAuthenticated):
        await (await opened(FirstTokens)).present(data)


async def test_both_shapes_of_auth_data() -> None:
    for data in ("ann", {"token": "ann", "more": 1}):
        state = await opened(Tokens)
        await state.present(data)
        assert state.user is ANN


async def test_where_nothing_takes_auth_there_is_no_such_action() -> None:
    with pytest.raises(ActionNotAllowed, match="does not take"):
        await (await opened(Sessions, session={})).present("ann")


async def test_data_of_another_kind() -> None:
    class Passwords(FirstFrameAuthentication):
        async def authenticate_data(self, data: Any) -> Credential | None:
            return Credential(ANN) if data == {"name": "ann", "password": "pw"} else None

    state = await opened(Tokens, Passwords)
    assert state.gate("list") is not None
    await state.present({"name": "ann", "password": "pw"})
    assert state.user is ANN


# ------------------------------------------------------------------------------------------------ refresh
async def test_expiry() -> None:
    clock = Clock()
    state = await opened(Tokens(eve=Credential(ANN, NOW + 60)), clock=clock, **bearer("eve"))
    clock.now += 59.9
    assert state.gate("list") is state.overdue is None
    clock.now = NOW + 60
    assert state.overdue == (4401, "the credential has expired")
    refused = state.gate("list")
    assert refused is not None
    assert refused.status == 401


async def test_a_refresh_sets_the_expiry_and_the_user_of_the_next_frame() -> None:
    clock, scope = Clock(), {**websocket_scope("/"), **bearer("old")}
    admin = User("ann", is_admin=True)
    tokens = Tokens(old=Credential(ANN, NOW + 60, "old"), new=Credential(admin, NOW + 120), forever=Credential(admin))
    state = await authenticator(tokens, clock=clock).open(scope, 10)
    clock.now += 59
    assert await state.present("new") == {"expires_at": NOW + 120}
    assert (scope["user"], scope["auth"], state.deadline) == (admin, None, NOW + 120)
    clock.now = NOW + 61
    assert state.gate("list") is None
    await state.present({"token": "forever"})
    clock.now += 1_000_000
    assert state.deadline is state.gate("list") is state.overdue is None


@pytest.mark.parametrize(
    ("token", "error"),
    [
        ("bob", PermissionDenied),
        ("unknown", NotAuthenticated),
        ("a b", NotAuthenticated),
        ("expired", NotAuthenticated),
        ("broken", RedactedError),
        ("nameless", TypeError),
    ],
)
async def test_a_failed_refresh_leaves_the_old_credential_in_force(token: str, error: type[Exception]) -> None:
    held = Credential(ANN, NOW + 60)
    known = {"expired": Credential(ANN, NOW - 1), "broken": KeyError("x"), "nameless": Credential(Nameless())}
    state = await opened(Tokens(held=held, **known), **bearer("held"))
    with pytest.raises(error):
        await state.present(token)
    assert (state.credential, state.user, state.deadline) == (held, ANN, NOW + 60)
    assert state.gate("list") is None


@pytest.mark.parametrize(
    ("before", "token", "refused"),
    [
        (None, "ann", False),
        (UnauthenticatedUser(), "ann", False),
        (User("ann"), "ann", False),
        (User("bob"), "ann", True),
        (User(None), "ann", True),
        (User(None), "none", True),
    ],
    ids=["nobody", "anonymous", "the same", "another", "one without an id", "two without an id"],
)
async def test_auth_may_not_change_who_a_middleware_says_it_is(before: Any, token: str, refused: bool) -> None:
    tokens = Tokens(none=Credential(User(None)))
    state = await authenticator(tokens, user_id=lambda user: user.pk).open({**websocket_scope("/"), "user": before}, 10)
    if refused:
        with pytest.raises(PermissionDenied, match="another user's"):
            await state.present(token)
        assert state.user is before
    else:
        await state.present(token)
        assert state.user is ANN


async def test_one_auth_at_a_time_and_its_user_is_compared_at_the_end() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> Credential:
        entered.set()
        await go_on.wait()
        return Credential(ANN)

    state = await opened(FirstTokens(slow=slow))
    first = asyncio.create_task(state.present("slow"))
    await entered.wait()
    assert state.gate("list") is not None, "an $auth being verified does not authenticate yet"
    with pytest.raises(Busy, match="being verified"):
        await state.present("bob")
    go_on.set()
    await first
    assert state.user is ANN


async def test_the_deadline_passes_while_a_token_is_verified() -> None:
    clock = Clock()

    async def slow() -> Credential:
        clock.now += 10
        return Credential(ANN)

    state = await opened(FirstTokens(slow=slow), clock=clock)
    with pytest.raises(NotAuthenticated, match="too late"):
        await state.present("slow")
    assert state.user is None


async def test_a_cancelled_auth_leaves_room_for_another() -> None:
    entered = asyncio.Event()

    async def never() -> Credential:
        entered.set()
        return await asyncio.get_running_loop().create_future()

    state = await opened(Tokens(never=never))
    task = asyncio.create_task(state.present("never"))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await state.present("ann")
    assert state.user is ANN


async def test_a_cancellation_carries_no_secret() -> None:
    entered = asyncio.Event()

    async def never() -> Credential:
        try:
            raise KeyError(SECRET)
        except KeyError:
            entered.set()
            return await asyncio.get_running_loop().create_future()

    task = asyncio.create_task((await opened(Tokens(**{SECRET: never}))).present(SECRET))
    await entered.wait()
    task.cancel(SECRET)
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert shows("".join(traceback.format_exception(caught.value))) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_process_is_left_alone(error: type[BaseException]) -> None:
    class Ends(BaseAuthentication):
        async def authenticate(self, scope: Any) -> Credential | None:
            raise error

    with pytest.raises(error):
        await authenticator(Ends).open(websocket_scope("/"), 10)


async def test_a_hanging_class_is_busy_and_its_own_timeout_is_a_bug() -> None:
    async def never() -> Credential:
        return await asyncio.get_running_loop().create_future()

    for timeout in (0, 1e-9):
        with pytest.raises(Busy) as caught:
            await authenticator(Tokens(never=never)).open({**websocket_scope("/"), **bearer("never")}, timeout)
        assert caught.value.ctx == {"limit": "auth_timeout", "value": timeout}
    with pytest.raises(RedactedError, match="TimeoutError: theirs"):
        await opened(Tokens(eve=TimeoutError("theirs")), **bearer("eve"))


# ------------------------------------------------------------------------------------------------ over a connection
class Notes(AsyncAPIActionHandler):
    permission_classes = (IsAuthenticated, lambda scope, handler, action: scope["user"].is_admin)

    @async_action
    def read(self) -> str:
        return "the note"


class Desk(AsyncAPIConsumer):
    routepatterns = [path("notes/", Notes.as_aaah())]
    permission_classes = ()

    @async_action
    async def who(self) -> Any:
        return getattr(self.user, "pk", None)

    @async_action
    async def wait_for(self, name: str) -> str:
        await EVENTS[name].wait()
        return "waited"


EVENTS: dict[str, asyncio.Event] = {}


def desk(*classes: Any, clock: Clock | None = None, auth_timeout: float = 10, **options: Any) -> WSAction:
    limits = Limits(auth_timeout=auth_timeout)
    app = WSAction([path("ws/", Desk.as_asgi())], authentication_classes=classes, limits=limits, **options)
    if clock is not None:
        assert app.runtime.authenticator is not None
        app.runtime.authenticator.clock = clock
    return app


async def test_the_sub_protocol_is_answered_without_the_token() -> None:
    async with connect(desk(Tokens), "/ws/", **bearer("ann")) as ws:
        assert ws.subprotocol == "wsaction.v1"
        assert (await ws.call("who"))["data"] == "ann"
    async with connect(desk(Tokens), "/ws/", subprotocols=["bearer.bob"]) as ws:
        assert ws.subprotocol is None
        assert (await ws.call("who"))["data"] == "bob"


async def test_a_bad_credential_refuses_the_handshake() -> None:
    with pytest.raises(HandshakeRefused) as caught:
        async with connect(desk(Tokens, debug=True), "/ws/", **bearer("unknown")):
            pass
    assert (caught.value.status, caught.value.headers["www-authenticate"]) == (401, "Bearer")
    with pytest.raises(HandshakeRefused) as caught:
        async with connect(desk(Tokens), "/ws/", **bearer("unknown"), scope={"extensions": {}}):
            pass
    assert caught.value.code == 4401


async def test_the_origin_is_checked_before_a_credential_is_looked_at() -> None:
    with pytest.raises(HandshakeRefused) as caught:
        async with connect(desk(Tokens), "/ws/", **bearer("unknown"), origin="https://evil.example"):
            pass
    assert caught.value.status == 403


MALFORMED = ["", "{", "[]", "1", "{}", '{"action": 5}', '{"action": "who", "route": 5}', '{"action": null}']


@pytest.mark.parametrize(
    "text", [*MALFORMED, '{"action": "who"}', '{"action": "$ping"}', '{"action": "none", "route": "x"}']
)
async def test_frames_of_any_type_are_refused_before_authentication(text: str) -> None:
    async with connect(desk(FirstTokens, debug=True), "/ws/") as ws:
        await ws.send_text(text)
        reply = await ws.receive_json()
        assert (reply["status"], [one["type"] for one in reply["errors"]]) == (401, ["not_authenticated"])
        assert reply["data"] is None
        await ws.send_bytes(b"{}")
        assert (await ws.receive_json())["status"] == 401
        assert (await ws.call("$auth", data="unknown"))["status"] == 401
        assert (await ws.call("who"))["status"] == 401
        reply = await ws.call("$auth", data={"token": "ann"})
        assert list(reply) == ["errors", "data", "action", "route", "status", "request_id"]
        assert (reply["action"], reply["data"], reply["status"]) == ("$auth", {"expires_at": None}, 200)
        assert (await ws.call("who"))["data"] == "ann"


async def test_its_reply_is_compact_as_all_are() -> None:
    async with connect(desk(FirstTokens), "/ws/") as ws:
        await ws.send_text('{"action":"$auth","data":"ann","request_id":7}')
        expected = '{"errors":[],"data":{"expires_at":null},"action":"$auth","route":"","status":200,"request_id":7}'
        assert await ws.receive_text() == expected


async def test_a_malformed_auth_frame_is_told_so() -> None:
    async with connect(desk(FirstTokens), "/ws/") as ws:
        await ws.send_json({"action": "$auth", "data": "ann", "route": 5})
        assert (await ws.receive_json())["errors"][0]["type"] == "invalid_frame"
        assert (await ws.call("who"))["status"] == 401


async def test_rights_that_change_are_seen_by_the_next_frame() -> None:
    admin = User("ann", is_admin=True)
    async with connect(desk(Tokens(admin=Credential(admin))), "/ws/", **bearer("ann")) as ws:
        assert (await ws.call("read", "notes/"))["status"] == 403
        assert (await ws.call("$auth", data="admin"))["status"] == 200
        assert (await ws.call("read", "notes/"))["data"] == "the note"
        admin.is_admin = False
        assert (await ws.call("read", "notes/"))["status"] == 403


class Backend(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        name = conn.headers.get("x-user")
        return None if name is None else (AuthCredentials(["authenticated"]), SimpleUser(name))


class Names(AsyncAPIConsumer):
    @async_action
    async def name(self) -> str:
        return self.user.display_name if isinstance(self.user, BaseUser) else str(self.user)


async def test_starlettes_authentication_middleware_unchanged() -> None:
    inner = WSAction([path("ws/", Names.as_asgi())], authentication_classes=[FirstTokens])
    app = AuthenticationMiddleware(Starlette(routes=[Mount("/rt", app=inner)]), backend=Backend())
    async with connect(app, "/rt/ws/", headers={"x-user": "cal"}) as ws:
        assert (await ws.call("name"))["data"] == "cal"
        assert (await ws.call("$auth", data="ann"))["status"] == 403
    async with connect(app, "/rt/ws/") as ws:
        assert (await ws.call("name"))["status"] == 401
        assert (await ws.call("$auth", data="ann"))["status"] == 200
        assert (await ws.call("name"))["data"] == str(ANN)
    async with connect(app, "/rt/ws/", headers={"x-user": "cal"}, **bearer("bob")) as ws:
        assert (await ws.call("name"))["data"] == str(BOB)


async def test_starlettes_session_middleware_unchanged() -> None:
    class Ids(SessionAuthentication):
        def get_user(self, session: dict[str, Any]) -> Any:
            return {7: ANN}.get(session["user_id"])

    key = "k" * 32
    app = SessionMiddleware(desk(Ids), secret_key=key)
    for number, expected in ((7, "ann"), (8, None)):
        cookie = TimestampSigner(key).sign(b64encode(json.dumps({"user_id": number}).encode())).decode()
        async with connect(app, "/ws/", headers={"cookie": f"session={cookie}"}) as ws:
            assert (await ws.call("who"))["data"] == expected
    async with connect(app, "/ws/", headers={"cookie": "session=forged"}) as ws:
        assert (await ws.call("who"))["data"] is None


async def test_over_uvicorn(serve: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "wsaction")
    server = serve(desk(Tokens(**{SECRET: Credential(ANN)}), debug=True))
    async with server.connect("/ws/", subprotocols=["wsaction.v1", f"bearer.{SECRET}"]) as ws:
        assert ws.subprotocol == "wsaction.v1"
        await ws.send('{"action": "who"}')
        assert json.loads(await ws.recv())["data"] == "ann"
    with pytest.raises(InvalidStatus) as caught:
        await server.connect("/ws/", additional_headers={"Authorization": f"Bearer {SECRET[::-1]}"})
    assert caught.value.response.status_code == 401
    assert SECRET not in caplog.text
    assert SECRET[::-1] not in caplog.text


async def test_another_user_is_refused_and_the_connection_goes_on() -> None:
    async with connect(desk(Tokens, user_id=lambda user: user.pk), "/ws/", **bearer("ann")) as ws:
        reply = await ws.call("$auth", data="bob")
        assert (reply["status"], reply["errors"][0]["ctx"]) == (403, {"code": "user_changed"})
        assert (await ws.call("who"))["data"] == "ann"


async def test_who_does_not_authenticate_in_time_is_closed() -> None:
    async with connect(desk(FirstTokens, auth_timeout=0.01), "/ws/") as ws:
        assert await ws.wait_closed() == (4401, "no $auth came; auth_timeout is 0.01 s")


async def test_expiry_closes_and_a_refresh_puts_it_off() -> None:
    clock = Clock()
    tokens = Tokens(
        now=Credential(ANN, NOW + 0.01), long=Credential(ANN, NOW + 1e6), never=Credential(ANN, float("inf"))
    )
    async with connect(desk(tokens, clock=clock), "/ws/", **bearer("long")) as ws:
        assert (await ws.call("$auth", data="never"))["data"] == {"expires_at": None}
        assert (await ws.call("$auth", data="now"))["data"] == {"expires_at": NOW + 0.01}
        clock.now += 0.01
        assert (await ws.call("who"))["status"] == 401, "before the timer has fired"
        assert await ws.wait_closed() == (4401, "the credential has expired")


async def test_a_frame_that_waited_for_its_turn_is_asked_about_again() -> None:
    clock, EVENTS["go"] = Clock(), asyncio.Event()
    async with connect(desk(Tokens(eve=Credential(ANN, NOW + 60)), clock=clock), "/ws/", **bearer("eve")) as ws:
        await ws.send_json({"action": "wait_for", "name": "go", "request_id": "first"})
        await ws.send_json({"action": "who", "request_id": "second"})
        await ws.send_json({"action": "who", "route": "nowhere", "request_id": "read"})
        assert (await ws.receive_json())["request_id"] == "read"
        clock.now += 60
        EVENTS["go"].set()
        replies = [await ws.receive_json(), await ws.receive_json()]
        assert [(one["request_id"], one["status"]) for one in replies] == [("first", 200), ("second", 401)]


async def test_a_connection_that_ends_while_a_token_is_verified() -> None:
    entered, ended = asyncio.Event(), asyncio.Event()

    async def never() -> Credential:
        entered.set()
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    async with connect(desk(FirstTokens(never=never)), "/ws/") as ws:
        await ws.send_json({"action": "$auth", "data": "never"})
        await entered.wait()
    assert ended.is_set()


@pytest.mark.parametrize("for_long", [False, True])
async def test_a_cancelled_auth_has_one_reply_though_verify_goes_on(for_long: bool) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def stubborn() -> Credential:
        entered.set()
        with contextlib.suppress(asyncio.CancelledError):
            await go_on.wait()
        await go_on.wait()
        return Credential(ANN)

    async with connect(desk(FirstTokens(stubborn=stubborn)), "/ws/") as ws:
        assert (await ws.call("$auth", data="ann"))["status"] == 200
        await ws.send_json({"action": "$auth", "data": "stubborn", "request_id": "a"})
        await entered.wait()
        assert (await ws.call("$cancel", data="a"))["status"] == 200
        if not for_long:
            go_on.set()
        reply = await ws.receive_json()
        assert (reply["request_id"], reply["status"]) == ("a", 499)
        go_on.set()
        assert (await ws.call("who"))["data"] == "ann"
        await ws.nothing()


async def test_a_cancelled_auth_that_succeeds_expires_as_others_do() -> None:
    entered = asyncio.Event()

    async def stubborn() -> Credential:
        entered.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        return Credential(ANN, clock.now + 0.01)

    clock = Clock()
    async with connect(desk(Tokens(stubborn=stubborn), clock=clock), "/ws/", **bearer("ann")) as ws:
        await ws.send_json({"action": "$auth", "data": "stubborn", "request_id": "a"})
        await entered.wait()
        assert (await ws.call("$cancel", data="a"))["status"] == 200
        assert (await ws.receive_json())["status"] == 499
        clock.now += 0.01
        assert await ws.wait_closed() == (4401, "the credential has expired")


class Board(SubscribeMixin, AsyncAPIActionHandler):
    permission_classes = (lambda scope, handler, action: EVENTS["asked"].set() or EVENTS["answered"].wait(),)


class Boards(AsyncAPIConsumer):
    routepatterns = [path("boards/<int:pk>/", Board.as_aaah())]


async def test_what_an_auth_changed_is_asked_about_once_at_a_time() -> None:
    """Each check asks every subscription again, and the limits of actions do not apply to ``$`` frames."""
    EVENTS["asked"], EVENTS["answered"] = asyncio.Event(), asyncio.Event()
    EVENTS["answered"].set()
    app = WSAction([path("ws/", Boards.as_asgi())], authentication_classes=[Tokens])
    async with connect(app, "/ws/", **bearer("ann")) as ws:
        assert (await ws.call("subscribe", "boards/1/"))["status"] == 200
        EVENTS["asked"].clear()
        EVENTS["answered"].clear()
        await ws.send_json({"action": "$auth", "data": "ann", "request_id": "first"})
        await asyncio.wait_for(EVENTS["asked"].wait(), 5)
        assert [(await ws.call("$auth", data="ann"))["status"] for _ in range(3)] == [503] * 3
        assert (await ws.call("$cancel", data="first"))["status"] == 200
        assert (await ws.receive_json())["status"] == 499
        assert (await ws.call("$auth", data="ann"))["errors"][0]["type"] == "busy", "its checks still run"
        EVENTS["answered"].set()
        reply = await ws.call("$auth", data="ann")
        while reply["status"] == 503:  # until the other check has ended
            reply = await ws.call("$auth", data="ann")
        assert reply["status"] == 200


async def test_the_gate_of_a_connection_that_has_ended_sets_no_alarm() -> None:
    state = await opened(Tokens(short=short), **bearer("short"))
    connection = types.SimpleNamespace(is_closed=False)
    gate = AuthenticationGate(state, None, connection, debug=False)  # type: ignore[arg-type]  # it dispatches nothing here
    gate.watch()
    assert gate._alarm._at < math.inf
    gate.stop()
    connection.is_closed = True
    gate.watch()  # as a $auth does whose verification ends later
    assert gate._alarm._at == math.inf


async def short() -> Credential:
    return Credential(ANN, expires_at=NOW + 60)


async def test_verify_has_units_of_work_of_its_own() -> None:
    class Token(BaseModel):
        id: int
        used: int = 0

    tokens = MemoryQuerySet(Token, [Token(id=1)])

    async def kept() -> Credential:
        await tokens.update(await tokens.get(id=1), {"used": 1})
        assert current_unit() is None
        return Credential(ANN)

    async with connect(desk(FirstTokens(kept=kept)), "/ws/") as ws:
        assert (await ws.call("$auth", data="kept"))["status"] == 200
    assert (await tokens.get(id=1)).used == 1


async def test_a_verify_that_raises_cancelled_error_gets_a_reply() -> None:
    async def cancelled() -> Credential:
        raise asyncio.CancelledError

    async with connect(desk(FirstTokens(cancelled=cancelled)), "/ws/") as ws:
        assert (await ws.call("$auth", data="cancelled"))["status"] == 500
        assert (await ws.call("$auth", data="ann"))["status"] == 200


async def test_no_token_over_a_connection_in_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen = ""
    for failure in FAILURES:
        app = desk(FirstTokens(**{SECRET: failure}), debug=True)
        for offer in (bearer(SECRET), {"headers": {"authorization": f"Bearer {SECRET}"}}):
            with pytest.raises(HandshakeRefused) as caught:
                async with connect(app, "/ws/", **offer):
                    pass
            seen += f"{caught.value} {caught.value.body!r} {caught.value.headers}"
        async with connect(app, "/ws/") as ws:
            for data in (SECRET, {"token": SECRET}, {"token": [SECRET]}, {"password": SECRET}):
                seen += json.dumps(await ws.call("$auth", data=data))
    assert "[redacted]" in seen
    assert shows(seen + caplog.text) == []


# ------------------------------------------------------------------------------------------------ declarations
@pytest.mark.parametrize(
    ("value", "error"),
    [
        ((None,), ValueError),
        ((UnauthenticatedUser(),), ValueError),
        ((User(1, is_authenticated=lambda: False),), ValueError),
        ((ANN, "1000"), TypeError),
        ((ANN, True), TypeError),
        ((ANN, float("nan")), TypeError),
    ],
)
def test_what_is_no_credential(value: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error, match="Credential"):
        Credential(*value)


def test_a_credential_is_frozen_and_its_repr_does_not_show_auth() -> None:
    credential = Credential("ann", float("inf"), SECRET)
    assert repr(credential) == "Credential(user='ann', expires_at=inf)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        credential.user = "bob"  # type: ignore[misc]  # that it cannot be set is what is tested


class Named:
    id = 7
    identity = "seven"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, None),
        (UnauthenticatedUser(), None),
        (User("ann"), "ann"),
        (User(0), 0),
        (Named(), 7),
        (SimpleUser("ann"), "ann"),
    ],
)
def test_user_id(user: Any, expected: Any) -> None:
    assert user_id(user) == expected


@pytest.mark.parametrize("user", [Nameless(), User(None), "ann"])
def test_a_user_without_an_id(user: Any) -> None:
    with pytest.raises(TypeError, match="WSAction\\(user_id="):
        user_id(user)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (BearerAuthentication, "verify"),
        (SessionAuthentication, "get_user"),
        (dict, "expected subclasses of BaseAuthentication"),
        ("Tokens", "expected subclasses of BaseAuthentication"),
        (FirstFrameAuthentication, "expected a class that takes .auth, because first_frame"),
    ],
)
def test_what_cannot_authenticate_is_refused_when_declared(entry: Any, says: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=says):
        Authenticator([entry])


@pytest.mark.parametrize("found", [True, ANN, SECRET])
async def test_a_class_that_answers_something_else(found: Any) -> None:
    with pytest.raises(RedactedError, match=r"expected a Credential or None, got \w+") as caught:
        await opened(Tokens(eve=lambda: asyncio.sleep(0, found)), **bearer("eve"))
    assert SECRET not in str(caught.value)


async def test_without_classes_all_is_as_the_middleware_left_it() -> None:
    state = await opened(user=ANN)
    assert (state.user, state.deadline, state.gate(None)) == (ANN, None, None)
    assert await BaseAuthentication().authenticate_data("ann") is None


# ------------------------------------------------------------------------------------------------ secrets
def nested() -> Exception:
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as exc:
            raise LookupError(f"no row for {SECRET}") from exc
    except LookupError as exc:
        exc.add_note(f"looked for {SECRET!r}")
        return ExceptionGroup(f"all failed for {SECRET}", [exc, ValueError(SECRET[:12])])


def chained(error: APIError) -> APIError:
    error.__cause__ = KeyError(SECRET)
    return error


class Untellable(APIError):
    @property
    def errors(self) -> list[dict[str, Any]]:
        raise KeyError(self.msg)


FAILURES: list[BaseException] = [
    ValueError(f"bad token {SECRET}"),
    ValueError(SECRET[:20] + "..."),
    nested(),
    NotAuthenticated(f"bad token {SECRET}"),
    NotAuthenticated("bad", {"tried": [{"token": SECRET}]}, loc=("data", "token")),
    InvalidParameters([{"type": "a", "msg": "b"}, {"type": "c", "msg": f"not {SECRET[:10]}"}]),
    APIError(418, SECRET, "c"),
    chained(NotAuthenticated()),
    Untellable(401, "a", SECRET),
    asyncio.CancelledError(SECRET),
    BaseExceptionGroup(SECRET, [asyncio.CancelledError(SECRET)]),
]

HANDSHAKES = [
    bearer(SECRET),
    headers(("authorization", f"Bearer {SECRET}")),
    bearer(SECRET, SECRET),
    bearer(SECRET + "\x00"),
]


def replies(failure: BaseException) -> str:
    """All texts that clients and logs get for it in debug mode."""
    return json.dumps([to_api_error(failure, what="test", debug=True).errors, traceback.format_exception(failure)])


def shows(text: str) -> list[str]:
    return [SECRET[at : at + 8] for at in range(len(SECRET) - 7) if SECRET[at : at + 8] in text]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("way", [*HANDSHAKES, SECRET, {"token": SECRET}, {"token": [SECRET]}, {"other": {"a": SECRET}}])
async def test_no_token_in_replies_or_logs(way: Any, failure: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = Tokens(**{SECRET: failure})
    trial = opened(tokens, **way) if way in HANDSHAKES else (await opened(tokens)).present(way)
    with pytest.raises(Exception) as caught:  # noqa: PT011  # which one it is, is another test's
        await trial
    texts = replies(caught.value)
    assert caught.value.__context__ is caught.value.__cause__ is None
    assert shows(texts + caplog.text) == []


async def test_what_is_no_secret_of_a_failure_is_told() -> None:
    with pytest.raises(RedactedError) as caught:
        await opened(Tokens(**{SECRET: ValueError(f"bad token {SECRET}: no dot")}), **bearer(SECRET))
    assert "ValueError: bad token [redacted]: no dot" in str(caught.value)
    assert "Tokens.authenticate raised this:" in str(caught.value)
    with pytest.raises(APIError) as refused:
        await opened(Tokens(**{SECRET: PermissionDenied(f"banned: {SECRET}", {"a": 1})}), **bearer(SECRET))
    assert refused.value.errors == [{"type": "permission_denied", "msg": "banned: [redacted]"}]


async def test_other_secrets_of_the_handshake_are_redacted_too() -> None:
    class Broken(BaseAuthentication):
        secret_headers = ("x-key",)

        async def authenticate(self, scope: Any) -> Credential | None:
            raise ValueError(f"{scope['headers']} {scope['query_string']}")

    given = headers(
        ("cookie", "a=1; session=sess1on-Value"), ("x-key", "k3y-Value"), ("authorization", "Basic pa55word")
    )
    with pytest.raises(RedactedError) as caught:
        await opened(Broken, **given, query_string=b"q=1&token=t0ken-Value")
    for secret in ("sess1on-Value", "k3y-Value", "pa55word", "t0ken-Value"):
        assert secret not in str(caught.value)
    assert "Basic" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "secrets", "expected"),
    [
        ("a token", [], "a token"),
        ("", ["secret"], ""),
        ("my secret, your secret", ["secret"], "my [redacted], your [redacted]"),
        ("abc", ["abc"], "abc"),
        ("pin 1234", ["1234"], "pin [redacted]"),
        ("12345678", ["0123456789"], "[redacted]"),
        ("1234567", ["0123456789"], "1234567"),
        ("x0123456789y", ["0123456789"], "x[redacted]y"),
    ],
)
def test_redact(text: str, secrets: list[str], expected: str) -> None:
    assert redact(text, secrets) == expected


@given(
    data=st.data(),
    secrets=st.lists(st.text("ab\n", max_size=12) | st.text("abc01", min_size=8, max_size=30), max_size=4),
    long=st.booleans(),
)
def test_nothing_is_left_that_a_secret_shares_and_all_else_is(
    data: st.DataObject, secrets: list[str], long: bool
) -> None:
    words = st.lists(st.text("ab\n", max_size=12) | st.sampled_from(["", *secrets]), max_size=8)
    text = "".join(data.draw(words)) + "-" * 300 * long
    hidden = [False] * len(text)
    for secret in secrets:
        size = min(len(secret), 8)
        for start in range(len(secret) - size + 1) if size >= 4 else ():
            for at in range(len(text)):
                if text.startswith(secret[start : start + size], at):
                    hidden[at : at + size] = [True] * size
    marked = "".join("\0" if secret else one for one, secret in zip(text, hidden, strict=True))
    assert redact(text, secrets) == re.sub("\0+", "[redacted]", marked)


@pytest.mark.parametrize(
    "data",
    [
        lambda size: "x" * (60 * size),
        lambda size: [f"{number:09}" for number in range(5 * size)],
        lambda size: [f"{number:04}" for number in range(8 * size)],
    ],
)
async def test_what_a_bad_credential_costs_grows_with_its_size_alone(data: Callable[[int], Any]) -> None:
    """A client without authentication may send it again and again, in the largest frame, while all others wait."""
    state = await opened(FirstTokens)

    async def fastest(size: int) -> float:
        took = []
        for _ in range(5):
            started = time.thread_time()  # the CPU time of this thread, whatever else runs
            with pytest.raises(NotAuthenticated):
                await state.present({"token": data(size)})
            took.append(time.thread_time() - started)
        return min(took)

    # Linear growth is 4 times, plus noise; quadratic growth would be 16 times.
    assert await fastest(1_000) < 10 * await fastest(250)


def test_texts() -> None:
    assert list(texts({"a": [1, ("b", {"c": None})]})) == ["1", "b", "None"]


def test_a_long_traceback_is_cut() -> None:
    assert len(str(without_secrets(ValueError("x" * 50_000), [], "here"))) < 17_000


# ------------------------------------------------------------------------------------------------ guesses
@pytest.mark.parametrize("first_frame", [True, False], ids=["first frame", "refresh"])
async def test_a_burst_of_bad_credentials_is_verified_up_to_the_limit(first_frame: bool) -> None:
    """The reader has all of them before the loop runs other tasks. A good credential among them changes nothing."""
    verified: list[str] = []

    class Counting(BearerAuthentication):
        def verify(self, token: str) -> Credential | None:
            verified.append(token)
            return Credential(ANN) if token == "good" else None

    Counting.first_frame = first_frame
    app = WSAction(
        [path("ws/", AsyncAPIConsumer.as_asgi())],
        authentication_classes=[Counting],
        limits=Limits(max_auth_failures=5),
    )
    tokens = ["bad-0", "bad-1", "good", *(f"bad-{number}" for number in range(2, 40))]
    async with connect(app, "/ws/") as ws:
        for token in tokens:
            await ws.send_json({"action": "$auth", "data": token})
        assert (await ws.wait_closed()) == (
            1008,
            "too many credentials were refused; max_auth_failures is 5",
        )
    assert [one for one in verified if one != "good"] == [f"bad-{number}" for number in range(5)]


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_refusal_with_an_error_of_the_class_is_counted(status: int) -> None:
    class Wordy(BearerAuthentication):
        async def verify(self, token: str) -> Credential | None:
            raise APIError(status, "bad_token", "This is none of ours.")

    app = WSAction(
        [path("ws/", AsyncAPIConsumer.as_asgi())], authentication_classes=[Wordy], limits=Limits(max_auth_failures=3)
    )
    async with connect(app, "/ws/") as ws:
        assert [(await ws.call("$auth", data="guess"))["status"] for _ in range(3)] == [status] * 3
        assert (await ws.wait_closed())[0] == 1008


async def test_guesses_that_the_client_cancels_are_counted() -> None:
    class Slow(BearerAuthentication):
        begun: asyncio.Event
        first_frame = False

        async def verify(self, token: str) -> Credential | None:
            self.begun.set()
            await asyncio.get_running_loop().create_future()
            raise AssertionError

    Slow.begun = asyncio.Event()
    app = WSAction(
        [path("ws/", AsyncAPIConsumer.as_asgi())], authentication_classes=[Slow], limits=Limits(max_auth_failures=5)
    )
    async with connect(app, "/ws/") as ws:
        for number in range(5):
            await ws.send_json({"action": "$auth", "data": "guess", "request_id": number})
            await asyncio.wait_for(Slow.begun.wait(), 5)
            Slow.begun.clear()
            await ws.send_json({"action": "$cancel", "data": number})
            assert {(await ws.receive_json())["status"] for _ in range(2)} == {200, 499}
        assert (await ws.wait_closed())[0] == 1008


async def test_what_is_no_refusal_of_a_credential_is_no_failure() -> None:
    class Broken(BearerAuthentication):
        async def verify(self, token: str) -> Credential | None:
            if token == "broken":
                raise OSError("the store of tokens is away")
            if token == "often":
                raise Throttled(wait=1)
            return Credential(ANN)

    app = WSAction(
        [path("ws/", AsyncAPIConsumer.as_asgi())],
        authentication_classes=[Broken],
        limits=Limits(max_auth_failures=1),
    )
    async with connect(app, "/ws/") as ws:
        statuses = [(await ws.call("$auth", data=token))["status"] for token in ("broken", "often", "ann", "ann")]
    assert statuses == [500, 429, 200, 200]
