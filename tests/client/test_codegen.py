"""`wsaction.codegen`: the generated text; `test_codegen_node` compiles and runs it."""

import enum
import re
from datetime import datetime
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from tests.support.kitchen_sink_app import everything
from wsaction.applications import WSAction
from wsaction.asyncapi._client_names import camel, is_identifier, pascal, unique_name, words
from wsaction.codegen._types import Types, comment
from wsaction.codegen._typescript import runtime, typescript
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.generics import ModelAPIActionHandler
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.presence import PresenceMixin
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import include, path, re_path
from wsaction.serializers import ReadOnly, WriteOnly
from wsaction.subscriptions import SubscribeMixin


class Card(BaseModel):
    """A card of a board."""

    id: Annotated[int, ReadOnly]
    title: str
    secret: Annotated[str, WriteOnly] = ""
    due: datetime | None = None


class Cards(SubscribeMixin, ModelAPIActionHandler):
    queryset = MemoryQuerySet(Card)
    serializer_class = Card
    lookup_value_converter = "int"

    @async_action
    async def move(self, pk: int, to: Literal["todo", "done"], before: int | None = None) -> None:
        """Moves a card; see */ there."""
        raise NotImplementedError


class Root(AsyncAPIConsumer):
    routepatterns = SimpleRouter().routepatterns

    @async_action
    async def echo(self, text: str) -> str:
        return text


def written(*patterns: Any, root: type[AsyncAPIConsumer] = Root, at: str = "ws/") -> str:
    """Returns the generated code for the routes of a connection, without the runtime."""
    consumer = type(root.__name__, (root,), {"routepatterns": list(patterns)})
    document = WSAction([path(at, consumer.as_asgi())], title="Boards").asyncapi()
    return typescript(document, next(iter(document["channels"]))).replace(runtime(), "")


def cards(prefix: str = "cards") -> list[Any]:
    router = SimpleRouter()
    router.register(prefix, Cards)
    return router.urls


def handler(**actions: Any) -> Any:
    """Returns a handler whose actions do nothing."""

    async def act(self: Any) -> None: ...

    return type("Made", (AsyncAPIActionHandler,), {name: async_action(act) for name in actions or {"act": 1}}).as_aaah()


def members(text: str) -> dict[str, list[str]]:
    """Returns the member names of each interface of the client, in order."""
    found = {}
    for name, body in re.findall(r"export interface (\w*Api) \{\n(.*?)\n\}\n", text, re.DOTALL):
        found[name] = re.findall(r'^  (?:readonly )?"?(\w+)"?[<(:]', body, re.MULTILINE)
    return found


# ------------------------------------------------------------------------------------------------ the whole
def test_a_function_for_each_action() -> None:
    text = written(*cards())
    assert "create(params: { data: CardsCreateData }, options?: CallOptions): Promise<Card>;" in text
    assert "retrieve(captures: { pk: number }, options?: CallOptions): Promise<Card>;" in text
    assert 'list(options?: CallOptions<"page" | "page_size">): Promise<PageReplyCard>;' in text
    assert 'listStream(options?: CallOptions<"page" | "page_size">): Stream<Card[]>;' in text
    assert "destroy(captures: { pk: number }, options?: CallOptions): Promise<null>;" in text
    move = 'move(captures: { pk: number }, params: { to: "todo" | "done"; before?: number | null }, '
    assert move in text
    assert "echo(params: { text: string }, options?: CallOptions): Promise<string>;" in text
    assert "Moves a card; see *\\/ there." in text


def test_models_of_requests_and_replies() -> None:
    text = written(*cards())
    assert "/** A card of a board. */\nexport interface Card {\n" in text
    assert "export interface Card {\n  id: number;\n  title: string;\n  due: string | null;\n}\n" in text
    created = "export interface CardsCreateData {\n  title: string;\n  secret?: string;\n  due?: string | null;\n}\n"
    assert created in text
    assert "export interface CardsPartialUpdateData {\n  title?: string;\n" in text
    assert "interface Since" not in text  # models that appear in no method


def test_lists_and_objects_share_the_name_subscribe() -> None:
    text = written(*cards())
    generic = "subscribe<Asked extends boolean = false, Since extends Position | null = null>"
    assert text.count(f"  {generic}(") == 2
    of_list = "Subscription<CardsEvent, SnapshotFor<Asked, PageReplyCard>, FirstFor<Asked, Since, PageReplyCard>>"
    of_one = "Subscription<CardsEvent, SnapshotFor<Asked, Card>, FirstFor<Asked, Since, Card>>"
    query = '"page" | "page_size"'
    assert f"{generic}(options?: SubscribeOptions<{query}, Asked, Since>): Promise<{of_list}>;" in text
    options = "SubscribeOptions<string, Asked, Since>"
    assert f"{generic}(captures: {{ pk: number }}, options?: {options}): Promise<{of_one}>;" in text
    assert (
        "export type CardsEvent =\n"
        '  | ServerEvent<"created", Card>\n  | ServerEvent<"updated", Card>\n'
        '  | ServerEvent<"deleted", { pk: number }>;\n'
    ) in text
    assert "unsubscribe" not in text
    first, second = re.findall(r"subscribe: \[(.*)\]", text)[0].split("}, {")
    assert "ROUTE_2" in first  # the route with more captures is tried first
    assert "ROUTE_1" in second


def test_declared_events_and_presence() -> None:
    class Live(PresenceMixin, AsyncAPIActionHandler):
        events = {"moved": Card, "ping pong": None}

    class Open(SubscribeMixin, AsyncAPIActionHandler):
        pass

    text = written(path("live/", Live.as_aaah()), path("open/", Open.as_aaah()))
    assert 'ServerEvent<"join", { user: string }>' in text
    assert 'ServerEvent<"ping pong", unknown>' in text
    assert "Promise<Subscription<ServerEvent, SnapshotFor<Asked, unknown>" in text


def test_the_output_is_stable_and_names_are_unique() -> None:
    document, another = everything().asyncapi(), everything().asyncapi()
    for channel in ("ws", "ws.tenant", "alone", "hidden"):
        text = typescript(document, channel)
        assert text == typescript(another, channel)
        names = re.findall(
            r"^(?:export )?(?:abstract )?(?:interface|type|class|const|function) (\w+)", text, re.MULTILINE
        )
        twice = {name for name in names if names.count(name) > 1}
        assert twice == {"Client"}  # an interface and a class share this name
        code = re.sub(r"/\*.*?\*/|//[^\n]*|\"[^\"]*\"|`[^`]*`", "", text, flags=re.DOTALL)
        assert re.findall(r"\bany\b", code) == []


def test_the_head_and_the_address() -> None:
    document = everything().asyncapi()
    text = typescript(document, "ws.tenant")
    assert text.startswith("// Generated by `wsaction codegen`: the client of Everything, connection /ws/{tenant}/.")
    assert "static address(server: string, captures: { tenant: number }): string {" in text
    with pytest.raises(KeyError):
        typescript(document, "nowhere")
    assert "the client of a b *\\/ c, connection /." in typescript(
        {**document, "info": {"title": "a\nb */ c", "version": "1"}}, "ws"
    )


def test_operations_removed_from_the_document_are_left_out() -> None:
    document = everything().asyncapi()
    for name in ("alone.leaves.grow", "alone.plant"):
        del document["operations"][name]
    text = typescript(document, "alone")
    assert "rings(" in text
    assert "grow(" not in text
    assert "plant(" not in text


def test_streams_and_actions_without_replies() -> None:
    text = typescript(everything().asyncapi(), "alone")
    assert "rings(params?: { many?: number }, options?: CallOptions): Stream<[number, string]>;" in text
    assert "whisper(params: { words: string[] }, options?: CallOptions): Promise<void>;" in text
    assert 'whisper: [{ kind: "send", action: "whisper", at: ROUTE_1, takes: true }]' in text


# ------------------------------------------------------------------------------------------------ names
@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (path("boards/<int:pk>/columns/<int:column>/", handler()), ["boards", "columns"]),
        (path("boards/<int:pk>/columns/", handler()), ["boards", "columns"]),
        (path("test_child-route", handler()), ["testChildRoute"]),
        (path("2fa/", handler()), ["_2fa"]),
        (path("<int:pk>/", handler()), []),
        (path("x/<int:pk>/", handler(), name="one_thing"), ["oneThing"]),
        (path("x/", handler(), name="thing-list"), ["x"]),
        (path("x/", include(([path("y/", handler(), name="name")], "app"))), ["app", "name"]),
        (re_path(r"^a/(?P<pk>\d+)/$", handler()), ["a"]),
        (re_path(r"^(?:a|b)$|^c$", handler()), ["made"]),
        (path("then/", handler()), ["then_"]),
        (path("connect/", handler()), ["connect_"]),
        (path("größe/", handler()), ["größe"]),
    ],
)
def test_routes_become_nested_properties(pattern: Any, names: list[str]) -> None:
    text, api = written(pattern), "Api"
    for name in names:
        assert name in members(text)[api]
        api = next(interface for interface in re.findall(rf'readonly "?{name}"?: (\w+);', text))
    assert "act" in members(text)[api]


def test_names_that_clash() -> None:
    class Many(AsyncAPIConsumer):
        @async_action(name="close")
        async def close_it(self) -> None: ...

        @async_action
        async def boards(self) -> None: ...

    same = [path("a/<int:x>/b/", handler()), path("a/b/<int:x>/", handler()), path("a/<slug:x>/b/", handler())]
    text = written(
        *same, path("boards/", handler()), path("c/<int:x>/", handler()), path("c/<str:y>/", handler()), root=Many
    )
    assert members(text)["Api"] == ["a", "boards_", "c", "close_", "boards"]
    assert members(text)["ABApi"] == ["act", "actByX", "actByX_"]
    assert members(text)["CApi"] == ["act", "act"]  # overloads that differ in their captures


def test_a_parameter_like_a_capture_keeps_methods_apart() -> None:
    class Taking(AsyncAPIActionHandler):
        @async_action
        async def act(self, pk: int) -> None: ...

    text = written(path("a/", Taking.as_aaah()), path("a/<int:pk>/", handler()))
    assert members(text)["AApi"] == ["act", "actByPk"]


def test_models_named_like_runtime_classes() -> None:
    def model(name: str) -> Any:
        return type(name, (BaseModel,), {"__annotations__": {"x": int}})

    class Taking(AsyncAPIActionHandler):
        @async_action
        async def act(self, a: model("Promise"), b: model("Client"), c: model("Conflict"), d: model("Api")) -> None: ...  # type: ignore[valid-type]

    text = written(path("a/", Taking.as_aaah()))
    assert "a: Promise_; b: Client_; c: Conflict_; d: Api" in text
    assert "export interface Client extends Api_ {}" in text


def test_splitting_and_casing_of_names() -> None:
    assert words("v2API-key_of it") == ["v2API", "key", "of", "it"]
    assert (camel("partial_update"), camel("GetAll"), camel("2fa"), camel(""), camel("?!")) == (
        "partialUpdate", "getAll", "_2fa", "_", "_",
    )  # fmt: skip
    assert (pascal("PageReply_Dog_"), pascal("a__b")) == ("PageReplyDog", "AB")
    assert (unique_name("a", {"a", "a_"}), unique_name("constructor", ()), unique_name("b", {"a"})) == (
        "a__",
        "constructor_",
        "b",
    )
    assert [is_identifier(name) for name in ("a_1", "$x", "1a", "a-b", "")] == [True, True, False, False, False]


# ------------------------------------------------------------------------------------------------ types
@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({}, "unknown"),
        (True, "unknown"),
        (False, "never"),
        ({"type": "integer"}, "number"),
        ({"type": ["string", "null"]}, "string | null"),
        ({"const": 'a"b'}, '"a\\"b"'),
        ({"enum": ["a", 1, None, True]}, '"a" | 1 | null | true'),
        ({"enum": [[1]]}, "unknown"),
        ({"anyOf": [{"type": "string"}, {"type": "string"}, {"type": "null"}]}, "string | null"),
        ({"anyOf": [{"type": "string"}, {}]}, "unknown"),
        ({"allOf": [{"type": "string"}], "default": "x"}, "string"),
        ({"allOf": [{"type": "string"}, {"enum": ["a", "b"]}]}, 'string & ("a" | "b")'),
        ({"type": "array"}, "unknown[]"),
        ({"type": "array", "items": {"type": ["string", "null"]}}, "Array<string | null>"),
        ({"type": "array", "items": [{"type": "string"}], "minItems": 1, "maxItems": 1}, "[string]"),
        ({"type": "array", "items": [{"type": "string"}], "minItems": 0, "additionalItems": False}, "[string?]"),
        ({"type": "array", "items": [{}], "minItems": 1, "additionalItems": {"type": "null"}}, "[unknown, ...null[]]"),
        ({"type": "object"}, "{ [key: string]: unknown }"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "{ [key: string]: number }"),
        ({"type": "object", "properties": {"a-b": {}}, "required": ["a-b"]}, '{ "a-b": unknown }'),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True},
         "{ a?: unknown } & { [key: string]: unknown }"),
        ({"type": "object", "patternProperties": {"^a": {"type": "null"}}}, "{ [key: string]: null }"),
        ({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}},
         '{ [Key in "a" | "b"]?: number }'),
        ({"$ref": "#/components/schemas/Nowhere"}, "unknown"),
        ({"type": "date"}, "unknown"),
    ],
)  # fmt: skip
def test_types(schema: Any, wanted: str) -> None:
    assert Types({}).of(schema) == wanted


def test_a_recursive_model() -> None:
    tree = {
        "type": "object",
        "properties": {"below": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}},
    }
    other = {"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "integer"}}
    types = Types({"Tree": tree, "more__Tree": {"enum": [1]}, "Other": other})
    assert types.of({"$ref": "#/components/schemas/Tree"}) == "Tree"
    assert list(types.declarations()) == ["export interface Tree {\n  below?: Tree[];\n}\n"]
    assert types.of({"$ref": "#/components/schemas/more__Tree"}) == "MoreTree"
    assert types.declare("Empty", {"type": "object"}) == "export type Empty = { [key: string]: unknown };\n"
    assert types.of({"$ref": "#/components/schemas/Other"}) == "Other"
    assert "export type Other = { a?: unknown } & { [key: string]: unknown };\n" in list(types.declarations())


def test_comments() -> None:
    assert comment(["", ""], "") == ""
    assert comment(["a */ b"], "  ") == "  /** a *\\/ b */\n"
    assert comment(["a\n\nb"], "  ") == "  /**\n   * a\n   *\n   * b\n   */\n"


def test_unions_and_enums_of_models() -> None:
    class Level(enum.IntEnum):
        LOW = 1
        HIGH = 2

    class Dog(BaseModel):
        kind: Literal["dog"]

    class Cat(BaseModel):
        kind: Literal["cat"]

    class Pets(AsyncAPIActionHandler):
        @async_action
        async def feed(self, data: Annotated[Dog | Cat, Field(discriminator="kind")], level: Level) -> AsyncData:
            raise NotImplementedError

    text = written(path("pets/", Pets.as_aaah()))
    assert "feed(params: { data: Dog | Cat; level: Level }" in text
    assert "export type Level = 1 | 2;\n" in text


AsyncData = dict[Literal["a", "b"], list[int | None]]
