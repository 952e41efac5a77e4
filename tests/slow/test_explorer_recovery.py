"""The explorer disturbs its own connection, and recovers."""

from typing import Any

import pytest

from tests.support.chromium import CHROMIUM, DRIVER, Page
from tests.support.explorer_app import make

selenium = pytest.importorskip("selenium", reason="selenium is needed for the explorer's tests: pip install selenium")
from selenium.webdriver.common.keys import Keys  # noqa: E402  # once it is known to be there

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="apt-get install chromium chromium-driver"),
]

CREATE = """
const [url, title, done] = arguments;
const other = new WebSocket(url, ["wsaction.v1"]);
other.onopen = () => other.send(JSON.stringify({action: "create", route: "tasks/", data: {title}}));
other.onmessage = ({data}) => (other.close(), done(JSON.parse(data).status));
"""


def enter(page: Page, field: str, text: str) -> None:
    page.one(field).send_keys(Keys.CONTROL, "a", Keys.NULL, text)


def test_a_cut_connection_recovers_what_it_has_missed(page: Page, serve: Any) -> None:
    server = serve(make())
    page.open(server.url("/docs#ws.hang", "http"))
    page.state("open")
    page.driver.execute_script("explorer.sendAction('subscribe', 'tasks/')")
    page.until(lambda: page.texts(".topics li") or page.one("#events .topics").get_attribute("textContent"))
    page.send()
    page.reply("running")
    page.one("#tab-recovery").click()
    page.until(lambda: page.texts(".positions li")[0].startswith("tasks/ offset 1,"))  # the page itself has joined
    enter(page, "#away", "600")
    page.button("Cut the connection")
    assert page.state("waiting") == "Cut by this page. Again in 600 s"
    assert not page.one("button.send").is_enabled()
    for title in ("missed", "missed too"):
        assert page.driver.execute_async_script(CREATE, server.url("/ws/"), title) == 201
    page.button("Reconnect now")
    page.state("open")
    page.until(lambda: page.texts(".notes li")[0].endswith("nothing is missing"))
    notes = [note.partition("M ")[2] for note in page.texts(".notes li")]
    assert notes[0].startswith("Resubscribed to tasks/: from 1 to ")
    assert notes[1:3] == ["Connected", "Cut by this page; 1 call in flight is lost"]
    page.one("#tab-events").click()
    page.until(lambda: page.texts(".events b").count("created") == 2)
    assert [name for name in page.texts(".events b") if name in ("cut", "resubscribed")] == ["resubscribed", "cut"]
    assert ["missed too" in line for line in page.texts(".events li") if line.startswith("created")] == [True, False]
    page.one("#tab-calls").click()
    page.reply("connection lost")


def test_a_cut_connection_comes_back_by_itself(page: Page, serve: Any) -> None:
    page.open(serve(make()).url("/docs#ws.echo", "http"))
    page.state("open")
    page.one("#tab-recovery").click()
    enter(page, "#away", "0")
    page.button("Cut the connection")
    page.until(lambda: len([note for note in page.texts(".notes li") if note.endswith("Connected")]) == 2)
    page.field("text").send_keys("again")
    page.send()
    assert '"again"' in page.reply("200")


def test_frames_are_delayed_each_way_and_stay_in_order(page: Page, serve: Any) -> None:
    page.open(serve(make()).url("/docs#ws.echo", "http"))
    page.state("open")
    page.one("#tab-recovery").click()
    enter(page, "#delay", "200")
    page.until(lambda: page.one("#faults").text == "This page disturbs its connection: frames delayed by 200 ms.")
    page.field("text").send_keys("slow")
    page.send()
    page.one("#tab-recovery").click()
    enter(page, "#delay", "0")  # a later frame does not overtake
    page.field("text").send_keys("er")
    page.send()
    page.until(lambda: page.texts(".call .status") == ["200", "200"])
    answered = "return explorer.socket.calls.map((call) => [call.reply.data, call.ms, call.start + call.ms])"
    (later, _, later_at), (first, took, first_at) = page.driver.execute_script(answered)
    assert (first, later) == ("slow", "slower")
    assert took >= 200
    assert later_at >= first_at
    assert not page.one("#faults").is_displayed()


def test_a_delay_that_is_no_number_is_told_at_its_field(page: Page, serve: Any) -> None:
    page.open(serve(make()).url("/docs#ws.echo", "http"))
    page.state("open")
    page.one("#tab-recovery").click()
    enter(page, "#delay", "60001")
    assert page.one(".fault .problem").text == "Enter a number from 0 to 60,000."
    assert page.driver.execute_script("return explorer.socket.faults.delay") == 6000  # the last valid one
    enter(page, "#delay", "0")
    assert page.texts(".fault .problem") == []
    enter(page, "#away", "")
    page.one("#away").send_keys(Keys.BACKSPACE)
    page.until(lambda: page.driver.execute_script("return explorer.recoveryView.cut.disabled"))


def test_it_stops_reading_and_reads_again(page: Page, serve: Any) -> None:
    page.open(serve(make()).url("/docs#ws.echo", "http"))
    page.state("open")
    page.field("text").send_keys("a")
    page.one("#tab-recovery").click()
    page.button("Stop reading")
    page.until(lambda: page.one("#faults").text == "This page disturbs its connection: not reading.")
    for _ in range(2):
        page.send()
    page.one("#tab-recovery").click()
    page.until(lambda: "2 frames wait" in page.one("#recovery").text)
    assert page.driver.execute_script("return explorer.socket.calls.map((call) => call.status)") == ["running"] * 2
    page.button("Read again")
    assert page.driver.execute_script("return explorer.socket.calls.map((call) => call.status)") == [200, 200]
    page.until(lambda: not page.one("#faults").is_displayed())
    page.button("Stop reading")
    page.send()
    page.until(lambda: page.driver.execute_script("return explorer.socket.held") == 1)
    page.one("#tab-recovery").click()
    page.button("Cut the connection")
    page.one("#tab-calls").click()
    page.reply("connection lost")  # as was what waited


def test_what_waits_is_bounded(page: Page, serve: Any) -> None:
    page.open(serve(make()).url("/docs#ws.echo", "http"))
    page.state("open")
    page.driver.execute_script("explorer.socket.setReading(false)")
    script = (
        "for (let at = 0; at < arguments[0]; at++) "
        "explorer.socket.arrived(JSON.stringify({event: 'e', route: '', data: at})); "
        "return [explorer.socket.held, explorer.socket.faults.isReading]"
    )
    assert page.driver.execute_script(script, 9_999) == [9_999, False]
    assert page.driver.execute_script(script, 1) == [0, True]
    page.one("#tab-events").click()
    page.until(lambda: len(page.texts(".events li")) == 200)
