"""The page of `examples/boards` in real browser windows, with `wsaction run` in a process of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.boards.live import live
from tests.support.chromium import CHROMIUM, DRIVER, Page, chromium
from tests.support.contrast import faint
from tests.support.node import node, packages
from tests.support.restarts import kept_port
from wsaction.client import ActionError, connect
from wsaction.codegen import typescript

selenium = pytest.importorskip("selenium", reason="selenium is needed for the page's tests: pip install selenium")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402  # once it is known to be there
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "examples" / "boards" / "page"
TYPESCRIPT = "7.0.2"
WAITING = "First", "Second", "Third"
SHOTS = Path(os.environ.get("WSACTION_SCREENSHOTS", Path(tempfile.gettempdir()) / "wsaction-screenshots"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
needs_browser = pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="apt-get install chromium chromium-driver")


# ------------------------------------------------------------------------------------------------ the server
class Site:
    """`wsaction run examples.boards.app:app` on one port, over several starts."""

    def __init__(self, database: Path) -> None:
        self.port = kept_port()
        self.env = {**os.environ, "BOARDS_DB": str(database), "PYTHONPATH": str(ROOT)}
        self.process: subprocess.Popen[str] | None = None

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        command = [sys.executable, "-m", "wsaction", "run", "examples.boards.app:app", "--port", str(self.port)]
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.env, text=True, **streams)
        is_up = threading.Event()
        threading.Thread(target=_read, args=(self.process.stderr, is_up)).start()
        if not is_up.wait(20):
            raise RuntimeError("the server did not start in 20 s")

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(by)
            self.process.wait(20)
            self.process = None


def _read(log: Any, is_up: threading.Event) -> None:
    """Reads the log to its end, so that the server never waits for a reader."""
    with log:
        for line in log:
            if "running on" in line:
                is_up.set()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "boards.db")
    site.start()
    yield site
    site.stop()


# ------------------------------------------------------------------------------------------------ the windows
class Window(Page):
    """One of several browser windows, as a user sees it."""

    def __init__(self, driver: Any) -> None:
        super().__init__(driver)
        self.handle = driver.current_window_handle

    def look(self) -> "Window":
        """Switches to this window."""
        self.driver.switch_to.window(self.handle)
        return self

    def sign_in(self, name: str) -> None:
        self.until(lambda: self.texts(".sample b") == ["ada", "grace"])
        self.one(f".sample:nth-child({['ada', 'grace'].index(name) + 1})").click()
        self.live()

    def open_board(self, title: str = "First steps") -> None:
        self.until(lambda: title in self.texts(".boards b"))
        self.driver.find_element(By.XPATH, f"//ul[@class='boards']//b[text()=\"{title}\"]").click()
        self.until(lambda: self.columns().keys())

    def live(self) -> None:
        self.until(lambda: self.texts("#state") == ["Live"])

    def columns(self) -> dict[str, list[str]]:
        """The titles of cards by column."""
        script = """return [...document.querySelectorAll(".column:not(.new)")].map((one) => [
            one.querySelector(".title").value,
            [...one.querySelectorAll(".card button")].map((card) => card.textContent),
        ])"""
        return dict(self.driver.execute_script(script))

    def shows(self, column: str, *cards: str) -> None:
        """Waits until a column has exactly these cards, in this order."""
        self.until(lambda: self.columns().get(column) == [*cards])

    def add_card(self, column: str, title: str) -> None:
        self.one(f"[aria-label='New card in {column}']").send_keys(title, Keys.ENTER)

    def card(self, title: str) -> Any:
        return self.driver.find_element(By.XPATH, f"//li[@class='card']/button[text()='{title}']")

    def shot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(SHOTS / f"boards-{name}.png"))


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    driver = chromium()
    yield driver
    driver.quit()


@pytest.fixture
def window(driver: Any, site: Site) -> Iterator[Callable[[], Window]]:
    """Opens windows of the page. Checks at the end that there were no errors and no requests to other hosts."""
    first = driver.current_window_handle
    driver.get_log("performance")

    def opened() -> Window:
        driver.switch_to.new_window("window")
        window = Window(driver)
        window.open(site.url())
        return window

    yield opened
    try:
        assert Page(driver).complaints() == []
        told = [json.loads(one["message"])["message"]["params"] for one in driver.get_log("performance")]
        asked = [one["request"]["url"] for one in told if "request" in one and "url" in one["request"]]
        assert asked
        assert [url for url in asked if not url.startswith((site.url(), "data:", "about:"))] == []
    finally:
        for handle in set(driver.window_handles) - {first}:
            driver.switch_to.window(handle)
            driver.close()
        driver.switch_to.window(first)


def drag(driver: Any, card: Any, onto: Any) -> None:
    """Drags by mouse as a user does: press, move a little, move to the target, release."""
    chain = ActionChains(driver, duration=50).move_to_element(card).click_and_hold().move_by_offset(10, 10)
    chain.move_to_element(onto).move_by_offset(0, 5).release().perform()


# ------------------------------------------------------------------------------------------------ what is seen
@needs_browser
def test_two_windows_see_each_others_moves_over_restarts(window: Any, site: Site) -> None:
    ada, grace = window(), window()
    ada.look().sign_in("ada")
    ada.open_board()
    grace.look().sign_in("grace")
    grace.open_board()
    for one in (ada, grace):
        one.look().until(lambda one=one: len(one.driver.find_elements(By.CSS_SELECTOR, ".tools .avatar")) == 2)
    drag(ada.driver, ada.look().card("Invite linus"), ada.one(".column:nth-child(3) .adding"))
    ada.shows("Done", "Stop the server and start it again", "Invite linus")
    grace.look().shows("Done", "Stop the server and start it again", "Invite linus")
    grace.until(lambda: grace.texts(".toasts .news") == ["ada moved “Invite linus” to Done"])
    grace.shot("moved")

    site.stop()
    for one in (ada, grace):
        one.look().until(lambda one=one: one.texts("#state") == ["Reconnecting…"])
    ada.shot("reconnecting")
    site.start()
    for one in (ada, grace):
        one.look().live()
    grace.look().card("Move me without a mouse").send_keys(Keys.ALT, Keys.ARROW_RIGHT)
    done = ["Stop the server and start it again", "Move me without a mouse", "Invite linus"]
    grace.shows("Done", *done)
    focused = grace.driver.execute_script("return document.activeElement.textContent")
    assert focused == "Move me without a mouse"  # ready to be moved again
    ada.look().shows("Done", *done)

    site.stop(signal.SIGKILL)  # without a close frame
    site.start()
    token = ada.driver.execute_script("return sessionStorage.getItem('boards.token')")
    changed = httpx.patch(
        site.url("/api/boards/1/cards/2"), json={"title": "By HTTP"}, headers={"Authorization": f"Bearer {token}"}
    )
    assert changed.status_code == 200
    for one in (ada, grace):  # one was away meanwhile, one was back
        one.look().shows("Ideas", "By HTTP", "Look at the other side")
        one.shows("Done", *done)
        one.live()


@needs_browser
def test_a_board_is_worked_with(window: Any) -> None:
    ada, grace = window(), window()
    for one, name in ((ada, "ada"), (grace, "grace")):
        one.look().sign_in(name)
        one.open_board()
    ada.look().one(".column:nth-child(1) .adding input").send_keys("New <b>card</b>", Keys.ENTER)
    ideas = ["Invite linus", "Change a card by HTTP", "Look at the other side", "New <b>card</b>"]
    ada.shows("Ideas", *ideas)
    ada.one(".column.new input").send_keys("Later", Keys.ENTER)
    ada.shows("Later")
    grace.look().shows("Later")

    ada.look().card("New <b>card</b>").click()
    ada.one("#notes").send_keys("For everybody", Keys.TAB)
    ada.one("dialog textarea[name=text]").send_keys("Is it?")
    ada.button("Comment")
    ada.until(lambda: ada.texts("dialog .said p") == ["Is it?"])
    ada.shot("card")
    grace.look().until(lambda: grace.texts(".column:nth-child(1) .card:nth-child(4)")[0].endswith("1 comment"))
    assert "For everybody" in grace.texts(".column:nth-child(1) .card:nth-child(4)")[0]
    grace.card("New <b>card</b>").click()
    grace.until(lambda: grace.texts("dialog .said p") == ["Is it?"])
    assert grace.driver.find_elements(By.CSS_SELECTOR, "dialog .said button") == []  # grace is not the author
    ada.look().one("dialog .said button").click()
    ada.button("Move up")
    ada.shows("Ideas", "Invite linus", "Change a card by HTTP", "New <b>card</b>", "Look at the other side")
    grace.look().until(lambda: grace.texts("dialog .said p") == [])
    ada.look().button("Delete card")
    ada.button("Delete")
    ada.shows("Ideas", *ideas[:-1])
    grace.look().shows("Ideas", *ideas[:-1])
    assert grace.driver.find_elements(By.CSS_SELECTOR, "dialog") == []  # the card of the dialog is gone

    assert not grace.one(".tools .title").is_displayed()  # only the owner may change it
    title = ada.look().one(".tools .title")
    title.send_keys(Keys.CONTROL, "a")
    title.send_keys("Last steps", Keys.ENTER)
    grace.look().until(lambda: grace.texts(".tools h1") == ["Last steps"])
    ada.look().button("Members (2)")
    ada.one("dialog input").send_keys("nobody", Keys.ENTER)
    ada.until(lambda: ada.texts("dialog .field .fault") == ["There is no user nobody."])
    assert ada.one("dialog input").get_attribute("aria-invalid") == "true"
    ada.shot("members-fault")
    ada.one("dialog input").send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.BACKSPACE)
    ada.until(lambda: ada.texts("dialog .fault") == [])
    ada.one("dialog input").send_keys("linus", Keys.ENTER)
    ada.until(lambda: ada.texts("dialog .members span:not(.avatar)") == ["ada", "grace", "linus"])
    ada.shot("members")
    ada.one("dialog [aria-label='Remove grace']").click()
    grace.look().until(lambda: grace.texts("main h1") == ["No such board"])
    assert grace.texts("main .hint") == ["This board was deleted, or you are not a member of it."]


@needs_browser
def test_a_card_added_while_offline_is_shown_as_being_sent(window: Any, site: Site) -> None:
    ada, grace = window(), window()
    for one, name in ((ada, "ada"), (grace, "grace")):
        one.look().sign_in(name)
        one.open_board()
    site.stop()
    ada.look().until(lambda: ada.texts("#state") == ["Reconnecting…"])
    for title in ("First", "Second", "Third"):
        ada.add_card("Done", title)
    ada.until(lambda: ada.texts(".draft p") == [text for one in WAITING for text in (one, "Being sent…")])
    assert ada.one(".column:nth-child(3) .adding input").get_attribute("value") == ""
    assert ada.columns()["Done"] == ["Stop the server and start it again"]
    ada.shot("draft")
    ada.driver.find_element(By.XPATH, "//button[@aria-label='Discard Second']").click()
    ada.driver.back()  # to the list of boards; the cards are still to be sent
    ada.until(lambda: ada.texts("main h1") == ["Your boards"])
    ada.button("Sign out")
    ada.until(lambda: ada.texts(".ask p") == ["2 cards are not added yet, and will be lost. Sign out?"])
    ada.button("Cancel")
    site.start()
    ada.live()
    ada.open_board()
    for one in (ada, grace):
        one.look().shows("Done", "Stop the server and start it again", "First", "Third")
    assert ada.look().texts(".draft") == []


@needs_browser
def test_a_card_that_cannot_be_added_says_why_at_its_place(window: Any, site: Site) -> None:
    page = window()
    page.sign_in("ada")
    page.open_board()
    page.add_card("Done", "   ")
    page.until(lambda: page.texts(".column:nth-child(3) .fault") == ["Write a title."])
    assert page.texts(".toasts .problem") == []

    assert site.process is not None
    site.process.send_signal(signal.SIGSTOP)  # the frame is sent, and nobody reads it
    page.add_card("Done", "Unsure")
    page.until(lambda: page.texts(".draft p") == ["Unsure", "Being sent…"])
    site.stop(signal.SIGKILL)
    lost = "The connection was lost. Please check whether your change was saved."
    page.until(lambda: page.texts(".draft p") == ["Unsure", lost])
    site.start()
    page.live()
    page.button("Try again")
    page.shows("Done", "Stop the server and start it again", "Unsure")
    assert page.texts(".draft") == []

    cards = ({"column_id": 1, "title": f"Card {number}"} for number in range(293))
    asyncio.run(add(site, "boards/1/cards/", *cards))
    page.until(lambda: sum(map(len, page.columns().values())) == 300)
    page.add_card("In progress", "One too many")
    full = "There are already 300. Delete one before you add another."
    page.until(lambda: page.texts(".draft p") == ["One too many", full])
    page.shot("draft-refused")
    page.button("Try again")
    page.until(lambda: page.texts(".draft p") == ["One too many", full])
    page.button("Discard")
    page.until(lambda: page.texts(".draft") == [])


async def add(site: Site, route: str, *rows: dict[str, object]) -> None:
    """Creates objects as ada does, without a browser."""
    async with connect(site.url("/ws/").replace("http", "ws")) as client:
        await client.call("$auth", data=(await client.call("sign_in", name="ada", password="ada"))["token"])
        for row in rows:
            await client.call("create", route, data=row)


@needs_browser
def test_errors_stand_at_their_fields_and_a_board_is_deleted_with_care(window: Any, site: Site) -> None:
    page = window()
    page.sign_in("ada")
    page.open_board()
    asyncio.run(add(site, "boards/1/columns/", *({"title": f"Column {number}"} for number in range(17))))
    page.until(lambda: len(page.columns()) == 20)
    page.one(".column.new input").send_keys("One too many", Keys.ENTER)
    page.until(lambda: page.texts(".column.new .fault") == ["There are already 20. Delete one before you add another."])
    assert page.one(".column.new input").get_attribute("value") == "One too many"
    title = page.one(".column:nth-child(1) .title")
    page.driver.execute_script("arguments[0].maxLength = 200", title)
    title.send_keys("long " * 30, Keys.ENTER)
    page.until(lambda: page.texts(".column:nth-child(1) .fault") == ["String should have at most 120 characters"])
    assert title.get_attribute("value").startswith("Ideaslong")  # to be corrected
    described = title.get_attribute("aria-describedby")
    assert page.one(f"#{described}").text == "String should have at most 120 characters"
    page.shot("faults")
    title.send_keys(Keys.CONTROL, "a")
    title.send_keys("Short", Keys.ENTER)
    page.until(lambda: page.texts(".column:nth-child(1) .fault") == [])
    page.shows("Short", "Invite linus", "Change a card by HTTP", "Look at the other side")
    assert page.texts(".toasts .problem") == []

    look = "const { color, borderTopColor } = getComputedStyle(arguments[0]); return [color, borderTopColor]"
    others, delete = page.one(".tools .quiet:not(.danger)"), page.one(".tools .danger")
    assert page.driver.execute_script(look, others) != page.driver.execute_script(look, delete)
    assert delete.rect["x"] - (others.rect["x"] + others.rect["width"]) >= 24
    delete.click()
    page.until(
        lambda: page.texts(".ask p") == ["Delete the board “First steps” with all its cards, for all its members?"]
    )
    assert page.driver.execute_script("return document.activeElement.textContent") == "Cancel"
    page.shot("delete-board")
    page.button("Cancel")
    page.until(lambda: page.texts(".ask") == [])
    assert "Short" in page.columns()
    delete.click()
    page.driver.find_element(By.XPATH, "//dialog//button[text()='Delete board']").click()
    page.until(lambda: page.texts(".boards b") == ["Ada's own"])


@needs_browser
def test_signing_in_and_what_is_refused(window: Any, site: Site) -> None:
    page = window()
    page.until(lambda: page.texts(".sample") != [])
    page.shot("sign-in")
    page.one("#name").send_keys("ada")
    page.one("#password").send_keys("wrong", Keys.ENTER)
    page.until(lambda: page.texts(".wrong") == ["The name or the password is wrong."])
    page.one("#password").send_keys("ada", Keys.ENTER)
    page.live()
    page.open(site.url("/#/boards/99"))
    page.until(lambda: page.texts("main h1") == ["No such board"])
    page.driver.refresh()  # still signed in
    page.until(lambda: page.texts("main h1") == ["No such board"])
    page.button("Sign out")
    page.until(lambda: page.texts(".sample") != [])
    assert not page.one("#state").is_displayed()
    page.driver.execute_script("sessionStorage.setItem('boards.token', '1.2.3')")
    page.driver.refresh()
    page.until(lambda: page.texts(".wrong") == ["Please sign in again."])


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_everything_has_a_name(window: Any, site: Site, scheme: str, width: int) -> None:
    page = window()
    told = {"width": width, "height": 740, "deviceScaleFactor": 2 if width < 500 else 1, "mobile": width < 500}
    media = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}  # no animation in progress
    features = [{"name": name, "value": value} for name, value in media.items()]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", told)
    page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 500})

    def check(name: str) -> None:
        assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width
        within = "dialog[open] " if page.driver.find_elements(By.CSS_SELECTOR, "dialog[open]") else ""
        kinds = "a", "button", "input", "select", "textarea"
        controls = page.driver.find_elements(By.CSS_SELECTOR, ", ".join(f"{within}{kind}" for kind in kinds))
        nameless = [
            one.get_attribute("outerHTML") for one in controls if one.is_displayed() and not one.accessible_name
        ]
        assert nameless == []
        assert faint(page.driver) == []
        if width < 500:
            small = [one for one in controls if one.is_displayed() and one.size["height"] < 40]
            known = "return arguments[0].matches('.card button, p a')"  # these are as large as a card, or within a text
            assert [one.accessible_name for one in small if not page.driver.execute_script(known, one)] == []
        page.shot(f"{name}-{scheme}-{width}")

    page.until(lambda: page.texts(".sample") != [])
    check("sign-in")
    page.sign_in("ada")
    page.until(lambda: page.texts(".boards b") != [])
    check("list")
    page.open_board()
    check("board")
    ground = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (int(ground.removeprefix("rgb(").partition(",")[0]) < 60) is (scheme == "dark")
    lost = "state.textContent = 'Reconnecting…'; state.dataset.state = 'waiting'"
    page.driver.execute_script(f"{lost}; me.firstChild.textContent = 'A long name, '.repeat(9)")
    assert page.one("#me button").rect["x"] + page.one("#me button").rect["width"] <= width
    check("lost")
    page.card("Open this page twice" if width > 500 else "Invite linus").click()
    page.until(lambda: page.texts("dialog h2") == ["Comments"])
    check("card")
    page.one("dialog [aria-label=Close]").click()
    site.stop()
    page.add_card("Ideas", "For later")
    page.until(lambda: page.texts(".draft p") == ["For later", "Being sent…"])
    page.add_card("Ideas", " ")
    page.until(lambda: page.texts(".fault") == ["Write a title."])
    check("draft")
    page.button("Discard")
    page.until(lambda: page.texts(".draft") == [])


@needs_browser
def test_the_explorer_lists_the_routes_and_creates_a_card(window: Any, site: Site) -> None:
    page = window()
    page.open(site.url("/docs"))
    page.state("open")
    routes = page.texts("#tree h2 code")
    assert {"users/{user}/boards/", "boards/{board}/", "boards/{board}/cards/{pk}/"} <= set(routes)
    page.choose("ws.sign_in")
    page.field("name").send_keys("ada")
    page.field("password").send_keys("ada")
    page.send()
    token = json.loads(page.reply("200").partition("{")[2].join(("{", "")).rpartition("}")[0] + "}")["token"]
    page.one("#signin").click()
    page.one("input[value=frame]").click()
    page.one("#credential").send_keys(token)
    page.one("dialog button.primary").click()
    page.until(lambda: page.one("#toast").text == "Signed in")
    page.choose("ws.boards.board.cards.create")
    page.field("board").send_keys("1")
    page.field("column_id").send_keys("1")
    page.field("title").send_keys("By hand")
    page.send()
    assert '"title": "By hand"' in page.reply("201")
    page.shot("explorer")


# ------------------------------------------------------------------------------------------------ its files
def test_the_page_is_strict_typescript_that_can_be_erased(tmp_path: Path) -> None:
    compiler = packages(f"typescript-{TYPESCRIPT}", f"typescript@{TYPESCRIPT}") / "typescript" / "bin" / "tsc"
    for path in (*PAGE.glob("*.ts"), PAGE / "tsconfig.json"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "client.ts").write_text(typescript(live.asyncapi(), "ws"))
    done = node(str(compiler), "-p", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    config = json.loads((PAGE / "tsconfig.json").read_text())["compilerOptions"]
    assert config["erasableSyntaxOnly"]
    assert config["verbatimModuleSyntax"]


# ------------------------------------------------------------------------------------------------ two processes
async def test_moves_of_two_processes_at_once_leave_every_card_in_a_place_of_its_own(site: Site) -> None:
    other = Site(Path(site.env["BOARDS_DB"]))
    other.start()
    try:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connect(one.url("/ws/").replace("http", "ws")))
                for one in (site, other)
                for _ in range(2)
            ]
            for client in clients:
                found = await client.call("sign_in", name="ada", password="ada")
                await client.call("$auth", data=found["token"])

            async def move(number: int) -> str:
                where = {"column_id": 2, "before": (number * 5 + 1) % 6 + 1}
                try:
                    await clients[number % 4].call("move", f"boards/1/cards/{number % 6 + 1}/", data=where)
                except ActionError as refused:
                    return f"{refused.status} {refused.msg}"
                return "200"

            told = await asyncio.gather(*map(move, range(60)))
            cards = await clients[0].call("list", "boards/1/cards/")
    finally:
        other.stop()
    assert set(told) <= {"200", "409 Another card was moved there at the same moment. Move the card again."}
    assert told.count("200") >= 30
    assert {one["column_id"] for one in cards} == {2}
    assert len({one["position"] for one in cards}) == 6
