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
