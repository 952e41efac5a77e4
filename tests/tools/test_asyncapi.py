"""The AsyncAPI document: it has all declarations, @asyncapi/parser accepts it, and real frames match its schemas."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.support.kitchen_sink_app import Dog, everything, guarded
from tests.support.node import node, packages
from wsaction import generics
from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import CATALOGUE
from wsaction.filters import SearchFilter
from wsaction.querysets import MemoryQuerySet
from wsaction.routing import path
from wsaction.subscriptions import SubscribeMixin
from wsaction.testing import connect

PARSER = "3.6.3"
Parse = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return everything().asyncapi()


def messages(document: dict[str, Any], operation: str) -> dict[str, Any]:
    """Returns the payloads of an operation by the last parts of their names."""
    declared = document["operations"][operation]
    refs = [*declared["messages"], *declared.get("reply", {}).get("messages", ())]
    found = {}
    for ref in refs:
        _, _, channel, _, name = ref["$ref"].split("/")
        message = document["channels"][channel]["messages"][name]
        found[name.rpartition(".")[2]] = message.get("payload", message)
    return found


def keys(document: dict[str, Any], operation: str) -> dict[str, Any]:
    """Returns the schemas of an operation's request keys other than action, route and request_id."""
    properties = messages(document, operation)["request"]["properties"]
    return {name: one for name, one in properties.items() if name not in ("action", "route", "request_id")}


def test_info(document: dict[str, Any]) -> None:
    assert document["asyncapi"] == "3.1.0"
    assert document["info"] == {"title": "Everything", "version": "1.2.3", "description": "A little of *everything*."}
    assert document["x-wsaction"]["protocol"] == "wsaction.v1"
    assert document["x-wsaction"]["errors"]["busy"] == {"status": 503, "msg": CATALOGUE["busy"].code[2]}


def test_the_document_is_cached_and_deterministic(document: dict[str, Any]) -> None:
    app = everything()
    assert app.asyncapi() is app.asyncapi()
    assert json.dumps(app.asyncapi()) == json.dumps(document)


def test_a_channel_for_each_connection_route(document: dict[str, Any]) -> None:
    addresses = {name: one["address"] for name, one in document["channels"].items()}
    assert addresses == {
        "ws": "/",
        "ws.tenant": "/ws/{tenant}/",
        "alone": "/alone/",
        "hidden": "/hidden/",
        "plain": "/plain/",
        "x.y": None,
    }
    assert document["channels"]["plain"]["messages"] == {}
    tenant = document["channels"]["ws.tenant"]
    assert tenant["parameters"] == {"tenant": {"description": "integer, minimum 0"}}
    assert tenant["x-wsaction"]["parameters"] == {
        "tenant": {"schema": {"type": "integer", "minimum": 0}, "required": True}
    }
    assert (tenant["title"], tenant["description"]) == ("Root", "The forest's keeper.")
    assert tenant["x-wsaction"]["limits"]["max_concurrency"] == 3
    assert document["channels"]["alone"]["x-wsaction"]["limits"]["max_concurrency"] == 16


def test_the_routes_of_a_channel(document: dict[str, Any]) -> None:
    routes = {one["route"]: one for one in document["channels"]["ws"]["x-wsaction"]["routes"]}
    assert list(routes) == [
        "",
        "forests/{pk}/",
        "forests/{pk}/leaves/",
        "v1/{version}/rows/{pk}/",
        "years/{year}/{month}/",
        "by/{_0}/{_1}/",
        r"^(?:a|b)/(?P<rest>x|y)$|^c$",
        "with/kwargs/",
        "django/{key}/",
        "live/{pk}/",
        "watched/",
        "unshown/",
        "curly{}?/{pk}/",
    ]
    assert routes["years/{year}/{month}/"]["parameters"]["month"]["required"] is False
    assert routes["years/{year}/{month}/"]["actions"] == ["get"]
    assert routes["forests/{pk}/leaves/"]["events"] == ["grown", "felled"]
    assert routes["forests/{pk}/"]["description"] == "Handles trees."
    assert routes[r"^(?:a|b)/(?P<rest>x|y)$|^c$"]["is_regex"]
    assert "is_regex" not in routes[""]


def test_a_root_hidden_by_a_handler_is_left_out(document: dict[str, Any]) -> None:
    routes = document["channels"]["hidden"]["x-wsaction"]["routes"]
    assert [one["handler"] for one in routes] == ["Sub"]
    assert "hidden.never" not in document["operations"]


def test_captures_are_not_request_keys(document: dict[str, Any]) -> None:
    assert list(keys(document, "ws.forests.pk.leaves.grow")) == ["by"]
    assert list(keys(document, "ws.with.kwargs.grow")) == ["by"]
    assert list(keys(document, "ws.years.year.month.get")) == ["by", "pk"]
    assert list(keys(document, "ws.by.0.1.grow".replace("0.1", "_0._1"))) == []  # unnamed groups fill them in order
    assert list(keys(document, "ws.django.key.grow")) == ["by", "pk"]


def test_parameters_of_dependencies_are_request_keys(document: dict[str, Any]) -> None:
    request = messages(document, "ws.forests.pk.query")["request"]
    assert request["required"] == ["action", "route", "limit"]
    assert request["properties"]["region"] == {"allOf": [{"type": "string"}], "default": "eu"}
    assert request["properties"]["limit"] == {"type": "integer"}
    assert request["properties"]["search"] == {"allOf": [{"type": "string", "maxLength": 10}], "default": ""}


def test_a_request(document: dict[str, Any]) -> None:
    plant = messages(document, "ws.forests.pk.plant")
    assert plant["request"]["properties"] == {
        "action": {"type": "string", "const": "plant"},
        "route": {"type": "string", "pattern": r"^forests\/(?:[0-9]+)\/(\?.*)?$"},
        "data": {"$ref": "#/components/schemas/tests__support__kitchen_sink_app__Tree-Input"},
        "colour": {"allOf": [{"$ref": "#/components/schemas/Colour"}], "default": "red"},
        "request_id": {"type": ["string", "integer"], "description": "Echoed in every reply."},
    }
    assert plant["request"]["required"] == ["action", "route", "data"]
    assert "default" not in keys(document, "ws.forests.pk.opaque")["data"]  # its default is not JSON


def test_replies(document: dict[str, Any]) -> None:
    plant = messages(document, "ws.forests.pk.plant")["reply"]["properties"]
    assert (plant["status"], list(plant)) == (
        {"const": 201},
        ["errors", "data", "action", "route", "status", "request_id"],
    )
    fell = messages(document, "ws.forests.pk.fell")["reply"]["properties"]
    assert fell["status"] == {"type": "integer", "minimum": 200, "maximum": 599}
    rings = messages(document, "ws.forests.pk.leaves.rings")
    assert rings["partial"]["properties"]["status"] == {"const": 206}
    assert rings["partial"]["properties"]["data"]["items"] == [{"type": "integer"}, {"type": "string"}]
    assert rings["reply"]["properties"]["data"] == {"type": "null"}
    assert list(messages(document, "ws.forests.pk.leaves.whisper")) == ["request", "error"]
    assert messages(document, "ws.forests.pk.anything")["reply"]["properties"]["data"] == {}


def test_generic_actions_have_the_schemas_of_their_serializer(document: dict[str, Any]) -> None:
    at = "ws.v1.version.rows.pk"
    assert set(keys(document, f"{at}.create")["data"]["properties"]) == {"kind", "barks"}
    assert "required" not in keys(document, f"{at}.partial_update")["data"]
    assert messages(document, f"{at}.retrieve")["reply"]["properties"]["data"] == {
        "$ref": "#/components/schemas/Dog-Output"
    }
    assert messages(document, f"{at}.destroy")["reply"]["properties"]["status"] == {"const": 204}
    pages = messages(document, f"{at}.list")
    assert pages["partial"]["properties"]["data"] == {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Dog-Output"},
    }
    assert pages["reply"]["properties"]["data"]["anyOf"][1] == {"type": "null"}  # the final reply of a stream


def test_queries_of_lists(document: dict[str, Any]) -> None:
    assert document["operations"]["ws.watched.list"]["x-wsaction"]["query"] == ["page", "page_size"]
    assert "query" not in document["operations"]["ws.watched.retrieve"]["x-wsaction"]

    class ByUser(SearchFilter):
        def parameters(self, handler: Any) -> list[str]:
            return [handler.user.name]

    class Rows(generics.ListAPIConsumer):
        queryset = MemoryQuerySet(Dog, pk="kind")
        serializer_class = Dog
        filter_backends = (SearchFilter,)
        search_fields = ("kind",)
        query_parameters = ("mine",)
        pagination_class = None

    class Own(Rows):
        def filter_queryset(self, queryset: Any) -> Any:
            return queryset

    class OfUser(Rows):
        filter_backends = (ByUser,)

    def query(consumer: Any) -> Any:
        operations = WSAction([path("", consumer.as_asgi())]).asyncapi()["operations"]
        return operations["ws.list"]["x-wsaction"].get("query")

    assert [query(one) for one in (Rows, Own, OfUser)] == [["search", "mine"], None, None]


def test_destructive_actions() -> None:
    class Handler(generics.ModelAPIActionHandler):
        queryset = MemoryQuerySet(Dog, pk="kind")
        serializer_class = Dog
        routepatterns = []

        @async_action
        async def delete(self) -> None: ...

        @async_action(destructive=True)
        async def clear(self) -> None: ...

    class Kept(Handler):
        @async_action(destructive=False)
        async def destroy(self) -> None:
            """Marks the object as deleted."""

    class Root(AsyncAPIConsumer):
        routepatterns = [
            path("<str:kind>/", Handler.as_aaah(actions={"remove": "destroy", "delete": "delete", "destroy": "clear"})),
            path("kept/<str:kind>/", Kept.as_aaah()),
        ]

    operations = WSAction([path("", Root.as_asgi())]).asyncapi()["operations"]
    destructive = [name for name, one in operations.items() if one["x-wsaction"].get("destructive")]
    assert destructive == [
        "ws.kind.remove",
        "ws.kind.delete",
        "ws.kind.destroy",
        "ws.kept.kind.delete",
        "ws.kept.kind.clear",
    ]


def test_x_wsaction_of_operations(document: dict[str, Any]) -> None:
    assert document["operations"]["ws.forests.pk.plant"]["x-wsaction"] == {
        "action": "plant",
        "route": "forests/{pk}/",
        "streams": False,
        "destructive": False,
        "silent": False,
        "ordered": False,
        "timeout": None,
        "permissions": ["IsAuthenticated | AllowAny"],
        "throttles": ["UserRateThrottle"],
        "typescript": {"call": "forests.plant"},
    }
    assert document["operations"]["ws.forests.pk.fell"]["x-wsaction"]["permissions"] == ["DenyAll"]
    rings = document["operations"]["ws.forests.pk.leaves.rings"]
    assert (rings["summary"], rings["description"]) == ("The rings.", "The rings.\n\nOne for each year.")
    assert rings["x-wsaction"]["permissions"] == ["IsAuthenticated | AllowAny"]
    assert rings["x-wsaction"]["streams"]


def test_names_of_the_typescript_client(document: dict[str, Any]) -> None:
    listing = document["operations"]["ws.watched.list"]["x-wsaction"]
    assert listing["typescript"] == {"call": "watched.list", "stream": "watched.listStream"}
    assert document["operations"]["ws.echo"]["x-wsaction"]["typescript"] == {"call": "echo"}
    assert document["operations"]["ws.live.pk.subscribe"]["x-wsaction"]["typescript"] == {"subscribe": "live.subscribe"}
    assert "typescript" not in document["operations"]["ws.watched.unsubscribe"]["x-wsaction"]


def test_an_overridden_get_permissions_is_named() -> None:
    class Deciding(AsyncAPIConsumer):
        def get_permissions(self) -> Any:
            return ()

        @async_action
        async def act(self) -> None: ...

    document = WSAction([path("", Deciding.as_asgi())]).asyncapi()
    assert document["operations"]["ws.act"]["x-wsaction"]["permissions"] == ["Deciding.get_permissions()"]


def test_events(document: dict[str, Any]) -> None:
    operation = document["operations"]["ws.forests.pk.leaves.events"]
    assert (operation["action"], operation["x-wsaction"]["events"]) == ("send", ["grown", "felled"])
    events = messages(document, "ws.forests.pk.leaves.events")
    assert events["grown"]["properties"]["event"] == {"type": "string", "const": "grown"}
    assert events["grown"]["required"] == ["event", "route", "data"]
    assert events["felled"]["properties"]["data"] == {}


def test_subscriptions(document: dict[str, Any]) -> None:
    subscribe = messages(document, "ws.live.pk.subscribe")
    assert set(subscribe["reply"]["properties"]["data"]["properties"]) == {
        "epoch",
        "offset",
        "recovered",
        "route",
        "snapshot",
    }
    assert not document["operations"]["ws.live.pk.subscribe"]["x-wsaction"]["silent"]
    routes = {one["route"]: one["events"] for one in document["channels"]["ws"]["x-wsaction"]["routes"]}
    assert routes["live/{pk}/"] == ["moved"]
    assert routes["watched/"] == ["created", "deleted", "updated"]
    assert routes["unshown/"] == ["deleted"]
    events = messages(document, "ws.watched.events")
    assert events["created"]["properties"]["data"] == {"$ref": "#/components/schemas/Dog-Output"}
    assert events["updated"]["properties"]["data"] == {}  # the handler decides its serializer
    gone = messages(document, "ws.unshown.events")["deleted"]["properties"]["data"]
    assert gone == {"type": "object", "properties": {"pk": {}}, "required": ["pk"]}
    assert {"position", "resync", "unsubscribed"} < set(events)


def test_a_deleted_event_has_the_key_and_the_version() -> None:
    class Row(BaseModel):
        id: int
        revision: int

    class Rows(SubscribeMixin, generics.ModelAPIConsumer):
        queryset = MemoryQuerySet(Row)
        serializer_class = Row
        version_field = "revision"

    gone = messages(WSAction([path("", Rows.as_asgi())]).asyncapi(), "ws.events")["deleted"]["properties"]["data"]
    assert gone["properties"] == {"pk": {"type": "integer"}, "revision": {"type": "integer"}}
    assert gone["required"] == ["pk", "revision"]


def test_protocol_actions(document: dict[str, Any]) -> None:
    assert messages(document, "alone.cancel")["request"]["required"] == ["action", "data"]
    assert "alone.auth" not in document["operations"]
    guarded_document = guarded().asyncapi()
    assert messages(guarded_document, "ws.auth")["request"]["required"] == ["action", "data"]
    assert guarded_document["operations"]["ws.auth"]["x-wsaction"]["action"] == "$auth"


def test_security(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"] == {}
    assert "security" not in document["operations"]["ws.echo"]
    guarded_document = guarded().asyncapi()
    schemes = guarded_document["components"]["securitySchemes"]
    assert {name: one["type"] for name, one in schemes.items()} == {
        "Tokens": "http",
        "Sessions": "httpApiKey",
        "Codes": "apiKey",
    }
    assert guarded_document["operations"]["ws.grow"]["security"][0] == {"$ref": "#/components/securitySchemes/Tokens"}
    assert guarded_document["x-wsaction"]["authentication"] == {"first_frame": True, "bearer": True, "auth_frame": True}


def test_operations_of_one_name_get_numbers() -> None:
    class Twice(AsyncAPIConsumer):
        @async_action(name="a b")
        async def first(self) -> None: ...

        @async_action(name="a.b")
        async def second(self) -> None: ...

    document = WSAction([path("", Twice.as_asgi())]).asyncapi()
    actions = {name: one["x-wsaction"]["action"] for name, one in document["operations"].items()}
    assert actions == {"ws.a.b": "a b", "ws.a.b_2": "a.b", "ws.ping": "$ping", "ws.cancel": "$cancel"}


def test_all_references_resolve(document: dict[str, Any]) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, list):
            return [ref for one in node for ref in references(one)]
        if not isinstance(node, dict):
            return []
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) and node["$ref"].startswith("#") else []
        return own + [ref for one in node.values() for ref in references(one)]

    found = set(references(document))
    assert len(found) > 50
    for ref in found:
        node = document
        for part in ref.removeprefix("#/").split("/"):
            node = node[part]


# ------------------------------------------------------------------------------------------------ @asyncapi/parser
@pytest.fixture(scope="module")
def parse() -> Parse:
    """Passes documents and frames to @asyncapi/parser, installed once per machine, and returns its results."""
    modules = packages(f"asyncapi-parser-{PARSER}", f"@asyncapi/parser@{PARSER}")

    def run(*documents: dict[str, Any], frames: list[list[Any]] = ()) -> dict[str, Any]:  # type: ignore[assignment]
        script = Path(__file__).with_name("parse_asyncapi.mjs")
        done = node(str(script), str(modules), input=json.dumps({"documents": documents, "frames": frames}))
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return run


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_parser_reports_no_errors(parse: Parse) -> None:
    from examples.boards.live import live
    from examples.quickstart import app

    documents = [one.asyncapi() for one in (everything(), guarded(), app, live)]
    *found, wrong = parse(*documents, {"asyncapi": "3.1.0"})["diagnostics"]
    assert found == [[], [], [], []]
    assert wrong  # the parser does validate


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_real_frames_match_the_document(parse: Parse) -> None:
    app = everything()
    tree = {"name": "oak", "children": [{"name": "twig"}], "pet": {"kind": "dog", "barks": True}}
    calls = [
        ("ws.echo", "echo", "", {"text": "a"}),
        ("ws.forests.pk.plant", "plant", "forests/7/?page=2", {"data": tree, "colour": "green"}),
        ("ws.forests.pk.pages", "pages", "forests/7/", {}),
        ("ws.forests.pk.other", "other", "forests/7/", {"data": {"height": 2}}),
        (
            "ws.forests.pk.measures",
            "measures",
            "forests/7/",
            {
                "at": {"x": 1, "y": 2},
                "size": {"width": 1},
                "pair": [1, "a"],
                "key": "0" * 8 + "-0000-4000-8000-" + "0" * 12,
            },
        ),
        ("ws.forests.pk.query", "query", "forests/7/", {"limit": 1}),
        ("ws.forests.pk.leaves.grow", "grow", "forests/7/leaves/", {"by": 1}),
        ("ws.forests.pk.anything", "anything", "forests/7/", {}),
        ("ws.v1.version.rows.pk.retrieve", "retrieve", "v1/a/rows/dog/", {}),
        ("ws.v1.version.rows.pk.list", "list", "v1/a/rows/dog/", {}),
        ("ws.v1.version.rows.pk.list", "list", "v1/a/rows/dog/", {"stream": True}),
        ("ws.ping", "$ping", "", {}),
    ]
    document, frames, wanted = app.asyncapi(), [], []

    def check(message: str, frame: dict[str, Any], fits: bool = True) -> None:
        frames.append([0, "ws", message.removeprefix("ws."), frame])
        wanted.append(fits)

    async with connect(app, "/") as ws:
        for operation, action, route, parameters in calls:
            reply = await ws.call(action, route, **parameters)
            assert reply["errors"] == [], reply
            check(f"{operation}.request", {"action": action, "route": route, **parameters, "request_id": 1})
            check(f"{operation}.reply", reply)
            check(f"{operation}.reply", {**reply, "errors": [{"type": "a", "msg": "b"}]}, fits=False)
        reply = await ws.call("subscribe", "live/7/")
        check("ws.live.pk.subscribe.request", {"action": "subscribe", "route": "live/7/", "since": 1}, fits=False)
        since = {name: reply["data"][name] for name in ("epoch", "offset")}
        check("ws.live.pk.subscribe.request", {"action": "subscribe", "route": "live/7/", "since": since})
        check("ws.live.pk.subscribe.reply", reply)
        gone = {"event": "$unsubscribed", "route": "live/7/", "data": {"reason": "permission_denied"}}
        check("ws.live.pk.events.unsubscribed", gone)
        check("ws.live.pk.events.unsubscribed", {**gone, "data": None}, fits=False)
        items = [item async for item in ws.stream("rings", "forests/7/leaves/")]
        assert items == [[0, "ring"], [1, "ring"]]
        check("ws.forests.pk.plant.request", {"action": "plant", "route": "forests/x/", "data": tree}, fits=False)
        check("ws.forests.pk.plant.request", {"action": "plant", "route": "forests/7/", "data": {}}, fits=False)
    verdicts = parse(document, frames=frames)["verdicts"]
    for frame, fits, verdict in zip(frames, wanted, verdicts, strict=True):
        assert (verdict == []) is fits, (frame, verdict)
