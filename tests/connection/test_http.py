"""HTTP responses of an app: the document, the explorer and its policy, 405 and 426."""

import base64
import hashlib
import re
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from wsaction.applications import WSAction
from wsaction.consumers import AsyncAPIConsumer
from wsaction.decorators import async_action
from wsaction.exceptions import ImproperlyConfigured
from wsaction.routing import path


class Echo(AsyncAPIConsumer):
    @async_action
    async def echo(self, text: str) -> str:
        return text


def make(**options: Any) -> WSAction:
    return WSAction([path("ws/", Echo.as_asgi())], **options)


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


async def test_the_document_is_served() -> None:
    app = make(title="Echo", version="3")
    async with client(app) as http:
        answer = await http.get("/asyncapi.json")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json() == app.asyncapi()
        assert answer.json()["info"] == {"title": "Echo", "version": "3"}


async def test_a_changed_or_replaced_asyncapi_document_is_served() -> None:
    app = make()
    async with client(app) as http:
        app.asyncapi()["info"]["contact"] = {"name": "Ada"}
        assert (await http.get("/asyncapi.json")).json()["info"]["contact"] == {"name": "Ada"}
        app.asyncapi = lambda: {"asyncapi": "3.1.0"}  # type: ignore[method-assign]
        assert (await http.get("/asyncapi.json")).json() == {"asyncapi": "3.1.0"}


async def test_the_explorers_policy_allows_only_its_script_and_style() -> None:
    async with client(make()) as http:
        answer = await http.get("/docs")
    policy = answer.headers["content-security-policy"]
    for kind in ("script", "style"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.findall(r'\son\w+="', answer.text)  # the policy forbids event handlers in attributes
    assert "innerHTML" not in answer.text
    assert set(re.findall(r"https?://[^\s'\"]+", answer.text)) == {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize(
    ("docs_url", "asyncapi_url", "expected"),
    [
        ("/docs", "/asyncapi.json", ("asyncapi.json", "./")),
        ("/a/docs", "/asyncapi.json", ("../asyncapi.json", "../")),
        ("/a/docs/", "/a/x.json", ("../x.json", "../../")),
        ("/", "/api/x.json", ("api/x.json", "./")),
        ('/"<b>', "/x&y.json", ("x&amp;y.json", "./")),
    ],
)
async def test_the_explorer_finds_the_document_from_where_it_is(
    docs_url: str, asyncapi_url: str, expected: Any
) -> None:
    app = make(docs_url=docs_url, asyncapi_url=asyncapi_url)
    async with client(app) as http:
        page = (await http.get(docs_url)).text
        assert (await http.get(asyncapi_url)).status_code == 200
    assert tuple(re.findall(r'name="wsaction:\w+" content="(.*?)"', page)) == expected


async def test_both_may_be_turned_off() -> None:
    async with client(make(docs_url=None)) as http:
        assert (await http.get("/docs")).status_code == 426
        assert (await http.get("/asyncapi.json")).status_code == 200
    async with client(make(asyncapi_url=None)) as http:
        assert (await http.get("/docs")).status_code == 426
        assert (await http.get("/asyncapi.json")).status_code == 426


@pytest.mark.parametrize("where", ["/docs", "/asyncapi.json"])
async def test_methods(where: str) -> None:
    async with client(make()) as http:
        got, head = await http.get(where), await http.head(where)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers == got.headers
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            answer = await http.request(method, where)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_elsewhere_it_is_426() -> None:
    async with client(make()) as http:
        for where in ("/", "/ws/", "/docs/", "/docsx", "/asyncapi.json/"):
            assert (await http.get(where)).status_code == 426


BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def links(page: str) -> list[str]:
    return re.findall(r'href="(.*?)"', page)


async def test_at_the_root_a_browser_gets_a_page_that_links_the_explorer() -> None:
    app = make(title="<i>Echo</i>")
    async with client(app) as http:
        answer = await http.get("/", headers=BROWSER)
        head = await http.head("/", headers=BROWSER)
        assert (await http.get(f"/{links(answer.text)[0]}")).status_code == 200
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert links(answer.text) == ["./docs"]
    assert "<h1>&lt;i&gt;Echo&lt;/i&gt;</h1>" in answer.text
    assert '<code data-path="ws/">/ws/</code>' in answer.text
    assert answer.headers["vary"] == "accept"
    assert (head.status_code, head.content, head.headers) == (200, b"", answer.headers)


async def test_the_policy_of_the_roots_page_allows_only_its_script_and_style() -> None:
    async with client(make()) as http:
        answer = await http.get("/", headers=BROWSER)
    for kind in ("script", "style"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "*/*",
        "text/*",
        "application/json",
        "text/html;q=0",
        "application/json, text/html; q=0.0",
        "text/htmlx",
        "",
    ],
)
async def test_at_the_root_a_program_gets_the_426(accept: str | None) -> None:
    async with client(make()) as http:
        http.headers.pop("accept")
        answer = await http.get("/", headers={} if accept is None else {"accept": accept})
        elsewhere = await http.get("/ws/")
    assert (answer.status_code, answer.content, answer.headers) == (426, elsewhere.content, elsewhere.headers)


async def test_only_get_and_only_the_root_answer_a_browser() -> None:
    async with client(make()) as http:
        for accept in ("TEXT/HTML", "text/html;q=0.5", "image/png, text/html ; charset=utf-8"):
            assert (await http.get("/", headers={"accept": accept})).status_code == 200
        assert (await http.get("/ws/", headers=BROWSER)).status_code == 426
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert (await http.request(method, "/", headers=BROWSER)).status_code == 426


@pytest.mark.parametrize("options", [{"docs_url": None}, {"asyncapi_url": None}])
@pytest.mark.parametrize("debug", [False, True])
async def test_where_the_explorer_is_off_the_root_says_nothing_more_than_before(options: Any, debug: bool) -> None:
    async with client(make(title="Secret", debug=debug, **options)) as http:
        answer, elsewhere = await http.get("/", headers=BROWSER), await http.get("/none/", headers=BROWSER)
    assert (answer.status_code, answer.content, answer.headers) == (426, elsewhere.content, elsewhere.headers)


async def test_what_is_there_is_served_at_the_root() -> None:
    async with client(make(docs_url="/")) as http:
        assert "wsaction:asyncapi" in (await http.get("/", headers=BROWSER)).text
    async with client(make(asyncapi_url="/")) as http:
        assert (await http.get("/", headers=BROWSER)).json()["asyncapi"] == "3.1.0"


async def test_the_root_tells_what_the_document_tells() -> None:
    app = make()
    app.asyncapi()["channels"].clear()
    async with client(app) as http:
        assert "/ws/" not in (await http.get("/", headers=BROWSER)).text
        app.asyncapi = lambda: {"asyncapi": "3.1.0"}  # type: ignore[method-assign]
        answer = await http.get("/", headers=BROWSER)
    assert (answer.status_code, "<h1>wsaction</h1>" in answer.text) == (200, True)


@pytest.mark.parametrize(
    ("docs_url", "link"), [("/a/docs", "./a/docs"), ('/"<b>?', "./%22%3Cb%3E%3F"), ("//x", ".//x")]
)
async def test_the_root_links_the_explorer_where_it_is(docs_url: str, link: str) -> None:
    async with client(make(docs_url=docs_url)) as http:
        assert links((await http.get("/", headers=BROWSER)).text) == [link]


async def test_the_root_below_a_root_path() -> None:
    site = Starlette(routes=[Mount("/rooms", make())])
    async with client(site) as http:
        assert links((await http.get("/rooms/", headers=BROWSER)).text) == ["./docs"]
    transport = httpx.ASGITransport(make(), root_path="/my rooms")
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as http:
        assert links((await http.get("/my%20rooms/", headers=BROWSER)).text) == ["./docs"]


async def test_the_root_without_its_last_slash() -> None:
    sent: list[Any] = []
    headers = [(b"host", b"testserver"), (b"accept", b"text/html")]
    scope = {"type": "http", "method": "GET", "path": "/in/my rooms", "root_path": "/in/my rooms", "headers": headers}

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await make()(scope, receive, send)
    assert sent[0]["status"] == 200
    assert links(sent[1]["body"].decode()) == ["my%20rooms/docs"]


async def test_below_a_root_path() -> None:
    site = Starlette(routes=[Mount("/rooms", make())])
    async with client(site) as http:
        assert (await http.get("/rooms/asyncapi.json")).status_code == 200
        assert (await http.get("/rooms/docs")).status_code == 200
        assert (await http.get("/docs")).status_code == 404


@pytest.mark.parametrize("options", [{"docs_url": "docs"}, {"asyncapi_url": ""}, {"docs_url": b"/docs"}])
def test_paths_begin_with_a_slash(options: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="begins with a slash, as in '/docs'"):
        make(**options)


def test_two_pages_do_not_share_a_path() -> None:
    with pytest.raises(ImproperlyConfigured, match="give each a path of its own"):
        make(docs_url="/asyncapi.json")


async def test_under_uvicorn(serve: Any) -> None:
    server = serve(make())
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
        assert (await http.get(server.url("/docs", "http"))).text.startswith("<!doctype html>")
        assert (await http.head(server.url("/docs", "http"))).content == b""
        assert (await http.post(server.url("/asyncapi.json", "http"))).status_code == 405
