"""The app in process: permissions, events, dependencies, time."""

import pytest
from app import app, get_mailer, make_app
from conftest import ada, grace
from hypothesis import given
from hypothesis import strategies as st

from wsaction.limits import Limits
from wsaction.testing import WebsocketCommunicator, connect
from wsaction.throttling import MemoryThrottleStore, SimpleRateThrottle


class Outbox:
    """A mailer that keeps what it is to send."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def send(self, text: str) -> None:
        self.sent.append(text)


@pytest.fixture
def outbox(monkeypatch: pytest.MonkeyPatch) -> Outbox:
    outbox = Outbox()
    monkeypatch.setitem(app.dependency_overrides, get_mailer, lambda: outbox)
    return outbox


async def test_a_note_is_created() -> None:
    async with connect(app, "/ws/", user=ada) as ws:
        reply = await ws.call("create", "notes/", {"text": "milk"})
        assert reply["status"] == 201
        assert reply["data"] == {"id": 1, "owner_id": 1, "text": "milk"} | {"id": reply["data"]["id"]}


async def test_what_is_wrong_is_said_at_its_field() -> None:
    async with connect(app, "/ws/", user=ada) as ws:
        reply = await ws.call("create", "notes/", {"text": ""})
        assert reply["status"] == 400
        assert reply["errors"][0]["loc"] == ["data", "text"]


async def test_only_the_owner_may_see_a_note() -> None:
    async with connect(app, "/ws/", user=ada) as ws, connect(app, "/ws/", user=grace) as other:
        pk = (await ws.call("create", "notes/", {"text": "secret"}))["data"]["id"]
        assert (await ws.call("retrieve", f"notes/{pk}/"))["status"] == 200
        assert (await other.call("retrieve", f"notes/{pk}/"))["status"] == 403
    async with connect(app, "/ws/") as anonymous:
        assert (await anonymous.call("list", "notes/"))["errors"][0]["type"] == "permission_denied"


async def test_only_the_owner_gets_its_events() -> None:
    async with connect(app, "/ws/", user=ada) as ws, connect(app, "/ws/", user=grace) as other:
        for one in (ws, other):
            await one.call("subscribe", "notes/")
        created = await ws.call("create", "notes/", {"text": "secret"})
        assert (await ws.event("created"))["data"] == created["data"]
        await other.call("$ping")  # an event that was on its way would have come before this reply
        await other.nothing()


async def test_a_client_that_comes_back_gets_what_it_missed() -> None:
    async with connect(app, "/ws/", user=ada) as ws:
        position = (await ws.call("subscribe", "notes/"))["data"]
    async with connect(app, "/ws/", user=ada) as ws:
        await ws.call("create", "notes/", {"text": "meanwhile"})
        since = {"epoch": position["epoch"], "offset": position["offset"]}
        assert (await ws.call("subscribe", "notes/", since=since))["data"]["recovered"] is True
        assert (await ws.event("created"))["data"]["text"] == "meanwhile"


async def test_mail_is_sent_twice_a_minute_at_most(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(SimpleRateThrottle, "store", MemoryThrottleStore(clock=lambda: now))
    async with connect(app, "/ws/", user=ada) as ws:
        pk = (await ws.call("create", "notes/", {"text": "milk"}))["data"]["id"]
        statuses = [(await ws.call("mail", f"notes/{pk}/"))["status"] for _ in range(3)]
        assert statuses == [200, 200, 429]
        now += 30
        assert (await ws.call("mail", f"notes/{pk}/"))["status"] == 200
    assert outbox.sent == ["milk"] * 3


async def test_a_mailer_that_hangs_is_given_up() -> None:
    hasty = make_app(Limits(action_timeout=0.05))
    async with connect(hasty, "/ws/", user=ada) as ws:
        pk = (await ws.call("create", "notes/", {"text": "milk"}))["data"]["id"]
        assert (await ws.call("mail", f"notes/{pk}/"))["errors"][0]["type"] == "action_timeout"


async def test_a_silent_client_is_closed() -> None:
    async with connect(make_app(Limits(idle_timeout=0.05)), "/ws/", user=ada) as ws:
        assert (await ws.wait_closed())[0] == 4408


@given(st.text())
async def test_any_text_is_answered(text: str) -> None:
    async with connect(app, "/ws/", user=ada) as ws:
        await ws.send_text(text)
        assert (await ws.receive_json())["status"] >= 400


async def test_with_the_methods_that_channels_users_know() -> None:
    communicator = WebsocketCommunicator(app, "/ws/")
    communicator.scope["user"] = ada
    connected, _ = await communicator.connect()
    assert connected
    await communicator.send_json_to({"action": "list", "route": "notes/"})
    assert (await communicator.receive_json_from())["data"]["results"] == []
    assert await communicator.receive_nothing()
    await communicator.disconnect()
