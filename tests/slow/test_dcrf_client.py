"""`wsaction.dialects.dcrf` against the original client: ``dcrf-client`` from npm, in Node, with uvicorn."""

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from tests.conftest import Server
from tests.support.node import packages
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.dialects.dcrf import DCRF
from wsaction.generics import ModelAPIActionHandler
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import path
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SubscribeMixin

SCRIPT = Path(__file__).parent / "dcrf_client.js"
PACKAGES = ("dcrf-client@0.3.0", "ws@8.18.3")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # npm may install packages first


class Note(BaseModel):
    pk: Annotated[int, ReadOnly]
    text: str
    done: bool = False


class Card(BaseModel):
    id: Annotated[int, ReadOnly]
    text: str
    done: bool = False


def app() -> WSAction:
    """Two streams: ``notes`` with the key ``pk``, ``cards`` with ``id``. Their handlers do not know the dialect."""

    class Notes(SubscribeMixin, ModelAPIActionHandler):
        queryset = MemoryQuerySet(Note, rows=[Note(pk=1, text="first")], pk="pk")
        serializer_class = Note
        pagination_class = None
        lookup_value_converter = "int"

    class Cards(SubscribeMixin, ModelAPIActionHandler):
        queryset = MemoryQuerySet(Card, rows=[Card(id=1, text="first")])
        serializer_class = Card
        pagination_class = None

    router = SimpleRouter()
    router.register("notes", Notes)
    router.register("cards", Cards)

    class Both(AsyncAPIConsumer):
        dialect = DCRF()
        routepatterns = router.urls

    return WSAction([path("ws/", Both.as_asgi())])


@pytest.fixture
def start() -> Iterator[Callable[[Server, str], "subprocess.Popen[str]"]]:
    """``start(server, scenario)`` starts the script, which is stopped after the test."""
    modules = packages("dcrf-client", *PACKAGES)
    started: list[subprocess.Popen[str]] = []

    def start_one(server: Server, scenario: str) -> "subprocess.Popen[str]":
        command = ["node", str(SCRIPT), server.url("/ws/"), scenario]
        env = {**os.environ, "NODE_PATH": str(modules)}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env))
        return started[-1]

    yield start_one
    for one in started:
        if one.poll() is None:
            one.kill()
        one.communicate(timeout=10)


def seen(script: "subprocess.Popen[str]") -> list[Any]:
    """The lines that the script printed. Checks that it ended without an error."""
    out, err = script.communicate(timeout=30)
    assert script.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_the_seven_actions_on_two_streams(serve: Any, start: Any) -> None:
    for stream, answers in seen(start(serve(app()), "actions")):
        key = "pk" if stream == "notes" else "id"
        row = {key: 2, "text": "made", "done": False}
        updated, patched = {**row, "text": "updated", "done": True}, {**row, "text": "patched", "done": True}
        assert answers == {
            "before": [{key: 1, "text": "first", "done": False}],
            "made": row,
            "acknowledged": None,
            "found": row,
            "updated": updated,
            "patched": patched,
            "gone": None,
            "missing": 404,
            "told": [["update", updated], ["update", patched], ["delete", {key: 2}]],
        }


def test_an_unknown_stream_is_answered_and_the_others_are_alive(serve: Any, start: Any) -> None:
    (((notes, nowhere, cards, unknown, nameless, again)),) = seen(start(serve(app()), "streams_side_by_side"))
    assert notes == again == [{"pk": 1, "text": "first", "done": False}]
    assert cards == [{"id": 1, "text": "first", "done": False}]
    assert (nowhere["response_status"], nowhere["errors"][0]["type"]) == (404, "route_not_found")
    assert (unknown["response_status"], unknown["action"]) == (405, "unknown")
    assert (nameless["response_status"], nameless["action"]) == (400, None)


def test_what_subscribes_and_updates_at_once_is_told(serve: Any, start: Any) -> None:
    ((order,),) = seen(start(serve(app()), "update_at_once"))
    assert order[0] == ["subscribe_instance", "subscription"]
    assert sorted(order[1:]) == [["update", "subscription"], ["update", "update"]]


def test_events_have_the_key_as_it_was_asked_for(serve: Any, start: Any) -> None:
    for told, key in zip(seen(start(serve(app()), "types_of_keys")), (1, "1"), strict=True):
        assert told == [[["update", {"pk": key, "text": "typed", "done": False}], ["delete", {"pk": key}]]]


@contextmanager
def at_port(app: WSAction, port: int) -> Iterator[Server]:
    server = Server(app)
    server.socket.close()
    server.socket = socket.create_server(("127.0.0.1", port))
    server.port = port
    with server.running():
        yield server


def test_a_client_subscribes_again_after_a_restart(start: Any) -> None:
    served = app()
    with Server(served).running() as server:
        script = start(server, "restart")
        assert json.loads(script.stdout.readline()) == ["subscribed"]
    with at_port(served, server.port):
        rest = seen(script)
    assert rest == [["again", "kept"], ["told", [["update", {"pk": 1, "text": "after the restart", "done": False}]]]]
