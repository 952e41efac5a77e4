"""The hooks for React, compiled by TypeScript and run in Chromium, in StrictMode."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route

from tests.conftest import Server
from tests.support.chromium import CHROMIUM, DRIVER, Page, chromium
from tests.support.typescript import TYPESCRIPT, bundled, compiled
from wsaction.applications import WSAction
from wsaction.codegen import react_hooks, typescript
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.generics import ModelAPIActionHandler
from wsaction.handlers import AsyncAPIActionHandler
from wsaction.presence import PresenceMixin
from wsaction.querysets import MemoryQuerySet
from wsaction.routers import SimpleRouter
from wsaction.routing import path
from wsaction.serializers import ReadOnly
from wsaction.subscriptions import SubscribeMixin

HERE = Path(__file__).parent
PAGE = "<!doctype html><title>Cards</title><link rel=icon href=data:,><body><script src=/page.js></script>"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # npm may install packages first
needs_browser = pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="apt-get install chromium chromium-driver")


class Card(BaseModel):
    id: Annotated[int, ReadOnly]
    title: str


class Rooms(PresenceMixin, AsyncAPIActionHandler):
    events = {"said": str}

    @async_action
    async def topic(self) -> str:
        return "cards"

    @async_action
    async def say(self, text: str) -> None:
        await self.publish("said", text)


def made() -> WSAction:
    """An app with two cards and rooms."""

    class Cards(SubscribeMixin, ModelAPIActionHandler):
        queryset = MemoryQuerySet(Card, rows=[Card(id=1, title="one"), Card(id=2, title="two")])
        serializer_class = Card
        lookup_value_converter = "int"

    router = SimpleRouter()
    router.register("cards", Cards)

    class Root(AsyncAPIConsumer):
        routepatterns = [*router.urls, path("rooms/<int:pk>/", Rooms.as_aaah())]

    return WSAction([path("ws/", Root.as_asgi())], title="Cards")


def sources() -> dict[str, str]:
    client = typescript(made().asyncapi(), "ws")
    return {"client": client, "client.react": react_hooks("client"), "page.tsx": (HERE / "react_page.tsx").read_text()}


REACT = {"jsx": "react-jsx", "lib": ["es2022", "dom", "dom.asynciterable"]}
LOOSE = {"strict": False, "exactOptionalPropertyTypes": False}


@pytest.mark.parametrize("options", [{}, LOOSE, {"declaration": True, "isolatedDeclarations": True}])
def test_the_hooks_and_a_page_compile(tmp_path: Path, options: dict[str, Any]) -> None:
    files = sources() if not options.get("declaration") else {**sources(), "page.tsx": "export {};"}
    done = compiled(tmp_path, TYPESCRIPT, {**REACT, **options}, **files)
    assert (done.returncode, done.stdout) == (0, "")


WRONG = {
    "an event that the route does not have": ('event.event === "said"', 'event.event === "sung"'),
    "data of another type": ("const lines: string[]", "const lines: number[]"),
    "a field that the model does not have": ("card.title) ?? []", "card.name) ?? []"),
    "a parameter of another type": ("title as string", "title as number"),
    "a capture of another type": ("usePresence(client.rooms, { pk })", 'usePresence(client.rooms, { pk: "7" })'),
    "a missing capture": ("usePresence(client.rooms, { pk })", "usePresence(client.rooms)"),
    "a route without presence": ("usePresence(client.rooms, { pk })", "usePresence(client.cards, { pk })"),
    "a stream as an action": ("useAction(client.cards.create)", "useAction(client.cards.listStream)"),
    "an option that does not exist": ('{ key: "slug" }', '{ keys: "slug" }'),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_a_type_error(tmp_path: Path, mistake: str) -> None:
    before, after = WRONG[mistake]
    files = sources()
    assert before in files["page.tsx"]
    done = compiled(tmp_path, TYPESCRIPT, REACT, **{**files, "page.tsx": files["page.tsx"].replace(before, after)})
    assert "page.tsx" in done.stdout
    assert "client.react.ts" not in done.stdout


# ------------------------------------------------------------------------------------------------ in Chromium
@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page, its client and React as one script."""
    folder = tmp_path_factory.mktemp("page")
    done = compiled(folder, TYPESCRIPT, REACT, **sources())
    assert (done.returncode, done.stdout) == (0, "")
    return bundled(folder, "page.tsx")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = chromium()
    yield driver
    driver.quit()


class Site(Page):
    """The page of `react_page.tsx`."""

    def shows(self, name: str, *wanted: str) -> None:
        """Waits until an element has one of these texts."""
        self.until(lambda: self.texts(f"#{name}")[:1] in [[one] for one in wanted])

    def toggle(self, **shown: bool) -> None:
        """Shows and hides components, in one task."""
        self.driver.execute_script("for (const [k, v] of Object.entries(arguments[0])) shows[k](v)", shown)

    def run(self, expression: str) -> Any:
        """The value of an expression, or of the promise that it is."""
        return self.driver.execute_async_script(f"(async () => {expression})().then(arguments[arguments.length - 1])")

    def sent(self, *actions: str) -> list[Any]:
        """The frames with these actions that the page has sent: their actions and routes."""
        frames = json.loads(self.driver.execute_script("return JSON.stringify(sent)"))
        return [(frame["action"], frame["route"]) for frame in frames if frame["action"] in actions]

    def is_quiet(self) -> None:
        """Checks that neither React nor the client nor the browser has complained."""
        assert self.driver.execute_script("return logged") == []
        assert [one for one in self.complaints() if "React DevTools" not in one] == []


Visit = Callable[..., Site]


@pytest.fixture
def visit(serve: Callable[..., Server], script: str, browser: Any) -> Visit:
    def page(request: Any) -> Response:
        return HTMLResponse(PAGE)

    def code(request: Any) -> Response:
        return Response(script, media_type="text/javascript")

    def visiting(app: WSAction) -> Site:
        server = serve(Starlette(routes=[Route("/", page), Route("/page.js", code), Mount("/", app)]))
        browser.get(f"http://127.0.0.1:{server.port}/")
        return Site(browser)

    return visiting


SUBSCRIBE, UNSUBSCRIBE = ("subscribe", "cards/"), ("unsubscribe", "cards/")
CHANGES = ("subscribe", "unsubscribe")


@needs_browser
def test_two_components_on_one_route_share_one_subscription(visit: Visit) -> None:
    page = visit(made())
    for name in ("first", "second"):
        page.shows(name, "live one,two 2")
    assert page.sent(*CHANGES) == [SUBSCRIBE]
    three = page.run('other.cards.create({ data: { title: "three" } })')
    page.run('other.cards.update({ pk: 1 }, { data: { title: "uno" } })')
    page.run("other.cards.destroy({ pk: 2 })")
    for name in ("first", "second"):
        page.shows(name, "live uno,three 2")
    page.toggle(first=False)
    page.run(f'other.cards.update({{ pk: {three["id"]} }}, {{ data: {{ title: "tres" }} }})')
    page.shows("second", "live uno,tres 2")
    assert page.sent(*CHANGES) == [SUBSCRIBE]
    page.toggle(second=False)
    page.until(lambda: page.sent(*CHANGES) == [SUBSCRIBE, UNSUBSCRIBE])
    page.run("other.cards.destroy({ pk: 1 })")
    page.toggle(first=True, second=True)  # the connection is open now
    for name in ("first", "second"):
        page.shows(name, "live tres 1")
    assert page.sent(*CHANGES) == [SUBSCRIBE, UNSUBSCRIBE, SUBSCRIBE]
    page.is_quiet()


@needs_browser
def test_a_component_that_is_mounted_later_and_an_object_that_is_deleted(visit: Visit) -> None:
    page = visit(made())
    page.shows("first", "live one,two 2")
    page.toggle(one=True)
    page.shows("one", "live one")
    page.run('other.cards.partialUpdate({ pk: 1 }, { data: { title: "uno" } })')
    page.shows("one", "live uno")
    page.run("other.cards.destroy({ pk: 1 })")
    page.shows("one", "live none")
    page.toggle(one=False)
    page.until(lambda: page.sent("unsubscribe") == [("unsubscribe", "cards/1/")])
    assert page.sent("subscribe") == [SUBSCRIBE, ("subscribe", "cards/1/")]
    page.is_quiet()


@needs_browser
def test_an_effect_without_the_hooks_survives_strict_mode(visit: Visit) -> None:
    page = visit(made())
    page.shows("first", "live one,two 2")
    page.toggle(first=False, second=False)
    page.until(lambda: page.sent(*CHANGES) == [SUBSCRIBE, UNSUBSCRIBE])
    page.toggle(effect=True)  # React mounts it, unmounts it and mounts it again
    page.shows("effect", "one,two")
    page.run('other.cards.create({ data: { title: "three" } })')
    page.shows("effect", "one,two,three")
    page.toggle(effect=False)
    page.until(lambda: page.sent(*CHANGES)[2:] == [SUBSCRIBE, UNSUBSCRIBE])  # the second mount shares the first frame
    page.is_quiet()


@needs_browser
def test_an_action_is_pending_and_then_done_or_failed(visit: Visit) -> None:
    page = visit(made())
    page.shows("added", "false")
    page.one("#add").click()
    page.shows("added", "false made new")
    page.shows("first", "live one,two,new 3")
    page.one("#add-wrong").click()
    page.shows("added", "false InvalidRequest failed InvalidRequest")
    page.one("#add").click()
    page.shows("added", "false made new")
    page.is_quiet()


@needs_browser
def test_presence_and_a_reducer(visit: Visit) -> None:
    page = visit(made())
    page.toggle(room=True)
    page.shows("room", "live 1 cards")
    page.run("other.rooms.subscribe({ pk: 7 }).then((room) => void (globalThis.room = room))")
    page.shows("room", "live 2 cards")
    page.run('other.rooms.say({ pk: 7 }, { text: "hello" })')
    page.shows("room", "live 2 cards,hello")
    page.driver.execute_script("room.close()")
    page.shows("room", "live 1 cards,hello")
    assert page.sent("subscribe").count(("subscribe", "rooms/7/")) == 1
    page.is_quiet()


@needs_browser
def test_the_status_and_what_was_missed_while_the_connection_was_lost(visit: Visit) -> None:
    app = made()
    page = visit(app)
    page.shows("status", "open")
    page.shows("first", "live one,two 2")
    page.driver.execute_script("sockets[0].close(4000)")
    page.run('other.cards.create({ data: { title: "three" } })')
    page.shows("first", "live one,two,three 3")
    page.shows("status", "open")
    page.driver.execute_script("client.close()")
    page.shows("status", "closed")
    page.shows("first", "closed one,two,three 3")
    page.is_quiet()


@needs_browser
def test_errors_are_shown(visit: Visit) -> None:
    page = visit(made())
    page.shows("status", "open")
    page.toggle(refused=True, wrong=True)
    page.shows("refused", "closed RouteNotFound")
    page.shows("wrong", "live")
    page.run('other.cards.create({ data: { title: "three" } })')
    page.shows("wrong", 'closed created has no field "slug"; name it by { key }, or pass a Reducer')
    page.shows("first", "live one,two,three 3")
    page.is_quiet()
