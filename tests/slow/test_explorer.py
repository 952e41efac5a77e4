"""The explorer in headless Chromium, used as a user does, with a real server."""

import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.support.chromium import CHROMIUM, DRIVER, Page
from tests.support.explorer_app import Root, make
from tests.support.kitchen_sink_app import everything

selenium = pytest.importorskip("selenium", reason="selenium is needed for the explorer's tests: pip install selenium")
from selenium.webdriver.common.by import By  # noqa: E402  # once it is known to be there
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="apt-get install chromium chromium-driver"),
]


def test_it_lists_routes_and_calls_an_action_through_its_form(page: Page, serve: Any) -> None:
    server = serve(make())
    page.open(server.url("/docs", "http"))
    assert page.state("open") == "Connected"
    assert (page.one("#title").text, page.driver.title) == ("<i>Boards</i>", "<i>Boards</i> · Explorer")
    assert page.texts("#tree h2 code") == [
        "(the empty route)",
        "boards/{board}/cards/",
        "tasks/",
        "tasks/{pk}/",
        "Protocol",
    ]
    assert "create" in page.texts("#tree a span:first-child")
    page.choose("ws.boards.board.cards.create")
    assert 'string, by default ""' in page.texts("main .head .faint")
    page.field("board").send_keys("7")
    page.field("title").send_keys("Read <b>this</b>")
    page.include("labels")
    page.button("Add an item")
    page.field("name").send_keys("docs")
    page.include("due")  # null, by default
    page.include("colour")
    page.field("colour").send_keys("green")
    page.include("owner")
    page.field("owner").clear()
    page.field("owner").send_keys("9")
    page.include("notify")
    wanted = {"title": "Read <b>this</b>", "labels": [{"name": "docs"}], "due": None, "colour": "green", "owner": 9}
    assert page.frame() == {"action": "create", "route": "boards/7/cards/", "data": wanted, "notify": False}
    page.send()
    shown = page.reply("201")
    assert '"title": "Read <b>this</b>"' in shown
    assert "ms" in shown
    assert "create: 201" in page.one("#outcome").text


def test_what_is_wrong_is_told_where_it_is(page: Page, serve: Any) -> None:
    page.open(serve(make()).url("/docs#ws.boards.board.cards.create", "http"))
    page.state("open")
    page.send()
    assert page.one(".problem").text == "Enter a number."
    assert page.field("board").get_attribute("aria-invalid") == "true"
    page.field("board").send_keys("7")
    page.one("#frame").clear()
    page.one("#frame").send_keys('{"action": "create", "route": "boards/7/cards/", "data": {}}')
    page.send()
    assert "data › title" in page.reply("400")
    page.button("Back to the form")
    page.field("title").send_keys("a")
    page.send()
    page.reply("201")
    page.driver.find_elements(By.XPATH, "//button[text()='Edit and send again']")[0].click()
    assert page.frame() == {"action": "create", "route": "boards/7/cards/", "data": {"title": "a"}}


def test_a_stream_runs_and_is_cancelled(page: Page, serve: Any) -> None:
    page.open(serve(make()).url("/docs#ws.count", "http"))
    page.state("open")
    page.send()
    page.until(lambda: len(page.texts(".stream li")) >= 3)
    shown = [int(text) for text in page.texts(".stream li")]
    assert shown == list(range(shown[0], shown[0] + len(shown)))
    page.one("button.cancel").click()
    assert "cancelled" in page.reply("499")


def test_it_says_when_it_is_disconnected_and_comes_back(page: Page, serve: Any) -> None:
    page.open(serve(make()).url("/docs#ws.leave", "http"))
    page.state("open")
    page.field("code").send_keys("1012")
    page.send()
    page.until(lambda: (page.texts(".call:first-child .status") or [""])[0] in ("connection lost", "200"))
    assert page.state("open") == "Connected"  # again, by itself
    page.button("Disconnect")
    assert page.state("idle") == "Disconnected"
    assert page.one("button.send").get_attribute("disabled")
    page.button("Connect")
    page.state("open")
    page.field("code").clear()
    page.field("code").send_keys("4403")
    page.send()
    assert page.state("refused") == "Closed 4403: because"


def test_a_call_in_flight_is_lost_when_the_server_goes(page: Page, serve: Any) -> None:
    server = serve(make())
    page.open(server.url("/docs#ws.hang", "http"))
    page.state("open")
    page.send()
    page.reply("running")
    server.should_exit = True
    assert "Again in" in page.state("waiting")
    page.reply("connection lost")
    page.until(lambda: page.driver.execute_script("return explorer.socket.attempt") >= 3)
    page.one("#tab-events").click()
    assert page.texts(".events b") == ["closed"]  # failed attempts are not logged
    assert page.driver.execute_script("return said.textContent") != ""
    assert page.driver.execute_script("return state.closest('[role=status], [aria-live]')") is None  # it counts down


def test_subscriptions_have_a_log_that_filters_and_pauses(page: Page, serve: Any) -> None:
    page.open(serve(make()).url("/docs", "http"))
    page.state("open")
    page.button("Subscribe")
    page.until(lambda: len(page.texts(".events li")) == 2)
    assert page.texts(".events b") == ["<b>made</b>", "moved"]
    assert page.one(".topics li").text.startswith("(the empty route)")
    filtered = page.one("#events input")
    filtered.send_keys("moved 7")
    assert page.texts(".events b") == ["moved"]
    filtered.clear()
    filtered.send_keys("x", Keys.BACKSPACE)
    page.button("Pause")
    page.button("Subscribe")
    page.until(lambda: "Resume (2 new)" in page.texts("#events .bar button"))
    assert len(page.texts(".events li")) == 2
    page.button("Resume (2 new)")
    page.until(lambda: len(page.texts(".events li")) == 4)
    page.button("Clear")
    assert page.texts(".events li.empty") != []


def test_subscriptions_come_back_with_the_connection(page: Page, serve: Any) -> None:
    page.open(serve(make()).url("/docs#ws.leave", "http"))
    page.state("open")
    page.button("Subscribe")
    page.until(lambda: len(page.texts(".events li")) == 2)
    page.field("code").send_keys("1012")
    page.send()
    page.one("#tab-events").click()
    page.until(lambda: "resubscribed" in page.texts(".events b"))
    assert "nothing is missing" in page.texts(".events li")[0]


def test_after_a_loss_it_counts_from_where_the_server_is(
    page: Page, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.open(serve(make()).url("/docs#ws.leave", "http"))
    page.state("open")
    page.button("Subscribe")
    page.until(lambda: len(page.texts(".events li")) == 2)
    monkeypatch.setattr(Root, "epoch", "b")  # as after a restart: events published meanwhile are lost
    page.field("code").send_keys("1012")
    for comes_back in (1, 2):
        page.send()
        page.one("#tab-events").click()
        page.until(lambda wanted=comes_back: page.texts(".events b").count("resubscribed") == wanted)
    told = [line for line in page.texts(".events li") if line.startswith("resubscribed")]
    assert ["nothing is missing" in told[0], "some events may be missing" in told[1]] == [True, True]


def test_subscriptions_that_are_over_are_not_shown_any_more(page: Page, serve: Any) -> None:
    page.open(serve(make()).url("/docs#ws.evict", "http"))
    page.state("open")
    page.button("Subscribe")
    page.until(lambda: len(page.texts(".topics li")) == 1)
    page.send()
    page.reply("200")
    assert page.texts(".topics li") == []
    page.button("Subscribe")
    page.until(lambda: len(page.texts(".topics li")) == 1)
    page.button("Disconnect")
    page.state("idle")
    assert page.texts(".topics li") == []


@pytest.mark.parametrize("way", ["bearer", "frame"])
def test_signing_in(page: Page, serve: Any, way: str) -> None:
    page.open(serve(make()).url("/docs#ws.whoami", "http"))
    page.state("open")
    page.send()
    assert "permission_denied" in page.reply("403")
    page.one("#signin").click()
    page.one("input[value=cookie]").click()
    assert not page.one("#credential").is_displayed()  # nothing to enter
    page.one(f"input[value={way}]").click()
    page.one("#credential").send_keys("secret")
    page.one("dialog button.primary").click()
    if way == "frame":
        page.until(lambda: page.one("#toast").text == "Signed in")
    page.state("open")
    page.until(lambda: page.one("button.send").is_enabled())
    page.send()
    assert '"ada"' in page.reply("200")
    assert page.one("#signin").text == "Signed in"


def test_a_token_that_is_refused_is_not_kept(page: Page, serve: Any) -> None:
    page.open(serve(make()).url("/docs#ws.whoami", "http"))
    page.state("open")
    page.one("#signin").click()
    page.one("input[value=frame]").click()
    page.one("#credential").send_keys("wrong")
    page.one("dialog button.primary").click()
    page.until(lambda: page.one("#toast").text == "Not signed in: This token is not valid.")
    assert page.one("#signin").text == "Sign in"
    page.button("Disconnect")
    page.button("Connect")
    assert page.state("open") == "Connected"  # the refused token is not sent again


def test_it_works_mounted_and_asks_no_other_host(page: Page, serve: Any) -> None:
    server = serve(Starlette(routes=[Mount("/deep/down", make())]))
    page.driver.get_log("performance")
    page.open(server.url("/deep/down/docs#ws.echo", "http"))
    page.state("open")
    page.one("#where select").send_keys("/rooms")
    page.until(lambda: page.texts("#where label") == ["room"])
    page.one("#where input").send_keys("kitchen", Keys.ENTER)
    page.state("open")
    page.send()
    assert '"kitchen"' in page.reply("200")
    told = [json.loads(one["message"])["message"]["params"] for one in page.driver.get_log("performance")]
    asked = [one["request"]["url"] for one in told if "request" in one and "url" in one["request"]]
    own = server.url("/", "http")
    assert asked
    assert [url for url in asked if not url.startswith((own, "data:", "about:"))] == []


def test_a_route_goes_without_what_may_be_left_out(page: Page, serve: Any) -> None:
    page.open(serve(everything()).url("/docs#ws.years.year.month.get", "http"))
    page.state("open")
    for name, text in (("year", "2026"), ("by", "1"), ("pk", "2")):
        page.field(name).send_keys(text)
    assert page.frame() == {"action": "get", "route": "years/2026/", "by": 1, "pk": 2}


def test_the_keyboard_is_enough(page: Page, serve: Any) -> None:
    page.open(serve(make()).url("/docs", "http"))
    page.state("open")
    body = page.one("body")
    body.send_keys("/")
    page.driver.switch_to.active_element.send_keys("ech", Keys.ARROW_DOWN)
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.until(lambda: page.texts("main h2") == ["echo"])
    page.field("text").send_keys("hello", Keys.CONTROL, Keys.ENTER)
    assert '"hello"' in page.reply("200")


@pytest.mark.parametrize(
    ("what", "has"),
    [
        ("Frame", '"action": "echo"'),
        ("Python", 'client.call("echo", text="a")'),
        ("TypeScript", 'client.echo({ text: "a" })'),
    ],
)
def test_copying(page: Page, serve: Any, what: str, has: str) -> None:
    page.open(serve(make()).url("/docs#ws.echo", "http"))
    page.state("open")
    page.field("text").send_keys("a")
    page.driver.execute_script("navigator.clipboard.writeText = (text) => { window.copied = text; }")
    page.button(what)
    page.until(lambda: page.one("#toast").text == f"Copied {what}")
    copied = page.driver.execute_script("return window.copied")
    assert has in copied
    if what == "Python":
        compile(copied, "snippet", "exec")


def test_the_root_links_the_explorer_and_says_where_to_connect(page: Page, serve: Any) -> None:
    server = serve(Starlette(routes=[Mount("/deep/down", make())]))
    for where in ("/deep/down/", "/deep/down"):
        page.open(server.url(where, "http"))
        addresses = [server.url(f"/deep/down/{path}") for path in ("ws/", "rooms/{room}/")]
        assert page.texts("main code") == ["wsaction.v1", *addresses]
        page.one("main a").click()
        page.state("open")
