"""One trace over two processes and Redis: from a client's click to what the other client is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.support.chromium import CHROMIUM, DRIVER, Page, chromium
from tests.support.redis_servers import needs_redis_server, redis_server
from tests.support.server_processes import Process, started
from wsaction.client import connect

pytestmark = [pytest.mark.slow, needs_redis_server]

RUN = ["-m", "wsaction", "run", "tests.support.traced_app:app", "--port", "0"]


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """One backend for the clients, since the servers are processes."""
    return str(request.param)


@asynccontextmanager
async def two_workers(monkeypatch: pytest.MonkeyPatch, directory: Any) -> AsyncIterator[tuple[Process, Process]]:
    with redis_server(directory) as redis:
        monkeypatch.setenv("TRACED_REDIS", redis.url)
        async with started(*RUN) as one, started(*RUN) as two:
            yield one, two


async def spans_of(*servers: Process) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(trust_env=False) as http:
        answers = [await http.get(f"http://127.0.0.1:{server.port}/spans") for server in servers]
    return [span for answer in answers for span in answer.json()]


async def check_tree(one: Process, two: Process, click: str, event: str) -> None:
    """Checks that the spans of both processes are one tree, from the client's span to the event that the other got."""
    _, trace, client_span, _ = click.split("-")
    spans = [span for span in await spans_of(one, two) if span["trace"] == trace]
    by_name = {(span["name"], span["process"]): span for span in spans}
    assert len(by_name) == len(spans) == 5
    action, query, published = (by_name[name, one.pid] for name in ("Room/ring", "look for the bell", "publish rang"))
    delivered, delivered_there = by_name["deliver rang", one.pid], by_name["deliver rang", two.pid]
    assert action["parent"] == client_span
    assert query["parent"] == published["parent"] == action["id"]
    assert delivered["parent"] == delivered_there["parent"] == published["id"]
    assert {span["tracestate"] for span in spans} == {"page=1"}
    assert event == f"00-{trace}-{delivered_there['id']}-01"


async def test_from_client_to_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    click = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with two_workers(monkeypatch, tmp_path) as (one, two):
        addresses = [f"ws://127.0.0.1:{server.port}/ws/" for server in (one, two)]
        async with (
            connect(addresses[0], proxy=None) as here,
            connect(addresses[1], proxy=None) as there,
            here.subscribe("") as own,
            there.subscribe("") as others,
        ):
            await here.call("ring", traceparent=click, tracestate="page=1")
            received = [await asyncio.wait_for(anext(events), 20) for events in (own, others)]
        await check_tree(one, two, click, str(getattr(received[1], "traceparent", None)))


@pytest.fixture
def driver() -> Iterator[Any]:
    if not CHROMIUM or not DRIVER:
        pytest.skip("apt-get install chromium chromium-driver")
    browser = chromium()
    yield browser
    browser.quit()


async def test_from_browser_to_browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, driver: Any) -> None:
    def click_in_one_and_read_in_the_other(one: Process, two: Process) -> tuple[str, str]:
        page = Page(driver)

        def said(kind: str) -> dict[str, Any]:
            def found() -> Any:
                lines = [json.loads(line) for line in page.one("#log").text.splitlines()]
                return next((line for line in lines if line["kind"] == kind), None)

            line: dict[str, Any] = page.until(found)
            return line

        page.open(f"http://127.0.0.1:{two.port}/")
        assert said("reply")["status"] == 200
        other = driver.current_window_handle
        driver.switch_to.new_window("window")
        page.open(f"http://127.0.0.1:{one.port}/")
        assert said("reply")["status"] == 200
        page.one("button").click()
        click = said("click")["traceparent"]
        said("event")
        driver.switch_to.window(other)
        return click, said("event")["traceparent"]

    async with two_workers(monkeypatch, tmp_path) as (one, two):
        click, event = await asyncio.to_thread(click_in_one_and_read_in_the_other, one, two)
        await check_tree(one, two, click, event)
