"""Pictures of the explorer, for a reviewer to look at: at 390, 768 and 1,280 px, in light and dark.

.venv/bin/python -m tests.support.explorer_pictures /tmp/pictures
"""

import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from tests.conftest import Server
from tests.support.chromium import Page, chromium
from tests.support.explorer_app import make

__all__ = ("SCHEMES", "WIDTHS", "views")

WIDTHS = (390, 768, 1280)
SCHEMES = ("light", "dark")


def list_tasks(page: Page) -> None:
    page.send()
    page.reply("200")
    page.until(lambda: "200" in page.one("#outcome").text)


def wrong_field(page: Page) -> None:
    page.field("title").send_keys("a")
    page.send()
    page.until(lambda: page.texts("main .problem")[0] == "String should have at least 2 characters")


def edited_frame(page: Page) -> None:
    page.driver.execute_script("document.querySelector('details.frame').open = true")
    page.one("#frame").send_keys(" ")


def old_reply(page: Page) -> None:
    page.field("text").send_keys("hello")
    page.send()
    page.until(lambda: "200" in page.one("#outcome").text)
    page.field("text").send_keys("!")


def routes(page: Page) -> None:
    if page.one("#menu").is_displayed():
        page.one("#menu").click()


def recovery(page: Page) -> None:
    page.driver.execute_script("explorer.sendAction('subscribe', 'tasks/')")
    page.until(lambda: "offset" in page.one("#recovery").get_attribute("textContent"))
    page.one("#tab-recovery").click()
    page.one("#delay").clear()
    page.one("#delay").send_keys("50")
    page.driver.execute_script("lists.scrollIntoView()")


def sign_in(page: Page) -> None:
    page.one("#signin").click()


VIEWS: dict[str, tuple[str, Callable[[Page], None]]] = {
    "list": ("ws.tasks.list", list_tasks),
    "wrong": ("ws.tasks.create", wrong_field),
    "edited": ("ws.boards.board.cards.create", edited_frame),
    "old": ("ws.echo", old_reply),
    "routes": ("ws.tasks.pk.destroy", routes),
    "docstring": ("ws.boards.board.cards.search", lambda page: None),
    "first": ("", lambda page: None),
    "recovery": ("ws.tasks.list", recovery),
    "sign_in": ("ws.whoami", sign_in),
}


def views(page: Page, url: Callable[[str], str], width: int, scheme: str) -> Iterator[str]:
    """Opens each view in turn, and at last the page of ``GET /``. Yields its name while it is shown."""
    page.screen(width, 844 if width < 700 else 900, scheme)
    for name, (action, prepare) in VIEWS.items():
        page.driver.get("about:blank")
        page.open(url(f"/docs#{action}")).state("open")
        prepare(page)
        yield name
    page.open(url("/"))
    yield "root"


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    driver: Any = chromium()
    page = Page(driver)
    try:
        with Server(make(title="Boards", description="Call `sign_in` first.")).running() as server:
            for width, scheme in product(WIDTHS, SCHEMES):
                for name in views(page, lambda path: server.url(path, "http"), width, scheme):
                    print(page.picture(folder / f"{name}-{width}-{scheme}.png"))
    finally:
        driver.quit()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
