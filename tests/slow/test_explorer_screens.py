"""The explorer on screens of three widths in light and dark: what fits, what is legible, and a session on a phone."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.chromium import CHROMIUM, DRIVER, Page
from tests.support.contrast import faint
from tests.support.explorer_app import make
from tests.support.explorer_pictures import SCHEMES, WIDTHS, views

selenium = pytest.importorskip("selenium", reason="selenium is needed for the explorer's tests: pip install selenium")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402  # once it is known to be there
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="apt-get install chromium chromium-driver"),
]

PHONE = (390, 844)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_view_fits_and_is_legible(page: Page, serve: Any, width: int, scheme: str, tmp_path: Path) -> None:
    server = serve(make(description="Call `sign_in` first."))
    for name in views(page, lambda path: server.url(path, "http"), width, scheme):
        assert page.picture(tmp_path / f"{name}.png").stat().st_size > 0
        beyond = "const page = document.documentElement; return page.scrollWidth - page.clientWidth"
        assert (name, page.driver.execute_script(beyond)) == (name, 0)
        assert (name, faint(page.driver)) == (name, [])
        ground = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (int(ground.removeprefix("rgb(").partition(",")[0]) < 60) is (scheme == "dark")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_long_texts_fit_a_small_phone(page: Page, serve: Any, scheme: str) -> None:
    page.screen(360, 740, scheme)
    page.open(serve(make()).url("/docs#ws.boards.board.cards.create", "http"))
    page.state("open")
    page.send()
    problem = page.one(".problem").rect
    assert problem["y"] + problem["height"] <= 740  # seen, though the form is long
    page.one("#menu").click()
    page.button("Subscribe")
    page.until(lambda: len(page.texts(".events li")) == 2)
    page.driver.execute_script("explorer.event({event: 'e'.repeat(90), route: 'r/'.repeat(50), data: 7, offset: 3})")
    page.until(lambda: len(page.texts(".events li")) == 3)
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 360
    assert faint(page.driver) == []
    page.one("#connect").click()
    page.driver.execute_script("explorer.state('waiting', 'Not reachable, or refused. Again in 30 s')")
    assert page.driver.execute_script("return state.scrollWidth - state.clientWidth") <= 0


def focused(page: Page) -> str:
    """The text or the id of the element that has the focus."""
    script = "const {id, innerText} = document.activeElement; return id || innerText.trim()"
    return str(page.driver.execute_script(script))


def test_on_a_phone_the_routes_are_a_drawer(page: Page, serve: Any) -> None:
    page.screen(*PHONE)
    page.open(serve(make()).url("/docs#ws.echo", "http"))
    page.state("open")
    page.driver.execute_script("scrollTo(0, 300)")
    menu, drawer = page.one("#menu"), page.one("#drawer")
    assert menu.rect["y"] >= 0  # at hand wherever the page is scrolled to
    assert page.driver.execute_script("return menu.getBoundingClientRect().top") >= 0
    top = page.driver.execute_script("return scrollY")

    menu.click()
    assert (drawer.is_displayed(), menu.get_attribute("aria-expanded"), focused(page)) == (True, "true", "echo")
    for _ in range(60):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        assert page.driver.execute_script(
            "return drawer.contains(document.activeElement) || document.activeElement === document.body"
        )
    ActionChains(page.driver).scroll_by_amount(0, 3000).perform()
    assert page.driver.execute_script("return scrollY") == top
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.until(lambda: not drawer.is_displayed())
    page.until(lambda: menu.get_attribute("aria-expanded") == "false")
    assert focused(page) == "menu"

    menu.click()
    ActionChains(page.driver).move_by_offset(375, 700).click().perform()  # beside it
    page.until(lambda: not drawer.is_displayed())
    ActionChains(page.driver).move_by_offset(-375, -700).perform()

    menu.click()
    page.choose("ws.tasks.list")
    assert (drawer.is_displayed(), page.one("#nav").is_displayed(), focused(page)) == (False, False, "form")
    assert page.texts("main h2") == ["list"]
    menu.click()
    page.one('#tree a[href="#ws.tasks.list"]').click()  # the one that is open already
    assert not drawer.is_displayed()
    menu.click()
    page.screen(1280, 800)
    page.until(lambda: not drawer.is_displayed() and page.one("#columns > #nav").is_displayed())


def test_the_drawer_does_not_move_for_those_who_want_no_motion(page: Page, serve: Any) -> None:
    page.screen(*PHONE)
    page.open(serve(make()).url("/docs#ws.echo", "http"))
    page.state("open")
    moving = "return document.getAnimations().length"
    page.one("#menu").click()
    assert page.driver.execute_script("return getComputedStyle(drawer).animationName") == "slide"
    reduced = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": reduced})
    page.driver.execute_script("explorer.state('waiting', 'Again in 3 s')")
    assert page.driver.execute_script(moving) == 0


@pytest.mark.parametrize("width", [390, 768, 1080])
def test_sending_leaves_the_form_in_its_place(page: Page, serve: Any, width: int) -> None:
    page.screen(width, 844)
    page.open(serve(make()).url("/docs#ws.boards.board.cards.create", "http"))
    page.state("open")
    page.field("board").send_keys("7")
    page.include("notes")
    page.field("title").send_keys("Read")
    page.click(page.field("notes"))
    page.field("notes").send_keys("half a sen")
    where = "return [scrollY, document.activeElement.id, document.activeElement.getBoundingClientRect().top]"
    before = page.driver.execute_script(where)
    page.send()
    page.until(lambda: "create: 201" in page.one("#outcome").text)
    assert page.driver.execute_script(where) == before
    assert '"title": "Read"' in page.one("#latest").text
    box = page.driver.execute_script("const {top, bottom} = latest.getBoundingClientRect(); return [top, bottom]")
    assert 0 <= box[0] < box[1] <= 844
    page.driver.switch_to.active_element.send_keys("tence")
    assert page.frame()["data"]["notes"] == "half a sentence"
    page.button("All calls")
    page.until(lambda: page.driver.execute_script("return lists.getBoundingClientRect().top") < 200)


def test_a_session_on_a_phone(page: Page, serve: Any) -> None:
    page.screen(*PHONE)
    page.open(serve(make()).url("/docs", "http"))
    page.state("open")
    page.one("#menu").click()
    page.choose("ws.tasks.list")
    page.send()
    page.until(lambda: "list: 200" in page.one("#outcome").text)
    assert '"title": "Read the guide"' in page.one("#latest").text
    page.one("#menu").click()
    page.choose("ws.tasks.pk.retrieve")
    assert page.field("pk").get_attribute("value") == "4"
    page.send()
    page.until(lambda: "retrieve: 200" in page.one("#outcome").text)
    assert '"id": 4' in page.one("#latest").text
    page.one("#menu").click()
    page.choose("ws.tasks.pk.partial_update")
    page.include("title")
    page.field("title").send_keys("?")
    page.send()
    page.until(lambda: page.texts("main .problem")[:1] == ["String should have at least 2 characters"])
    page.field("title").send_keys("!")
    page.send()
    page.until(lambda: "partial_update: 200" in page.one("#outcome").text)
    assert '"title": "?!"' in page.one("#latest").text
    assert page.driver.execute_script("return document.documentElement.scrollWidth") == 390
