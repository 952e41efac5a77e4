"""The projects of `wsaction new` as a user runs them: their make targets, and their page in Chromium."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.chromium import CHROMIUM, DRIVER, Page, chromium
from tests.support.contrast import faint
from tests.support.new_project import Project
from tests.support.node import node, packages
from tests.support.typescript import TYPESCRIPT

selenium = pytest.importorskip("selenium", reason="selenium is needed for the page's tests: pip install selenium")
from selenium.webdriver.common.keys import Keys  # noqa: E402  # once it is known to be there

SHOTS = Path(os.environ.get("WSACTION_SCREENSHOTS", Path(tempfile.gettempdir()) / "wsaction-screenshots"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
needs_browser = pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="apt-get install chromium chromium-driver")


class Window(Page):
    """One window of the page, as a user sees it."""

    def __init__(self, driver: Any, url: str) -> None:
        super().__init__(driver)
        driver.switch_to.new_window("window")
        self.handle = driver.current_window_handle
        self.open(url)

    def look(self) -> "Window":
        self.driver.switch_to.window(self.handle)
        return self

    def account(self, name: str, password: str, button: str) -> None:
        self.until(lambda: self.one("input[name=name]").is_displayed())
        for field, text in (("name", name), ("password", password)):
            self.one(f"input[name={field}]").send_keys(Keys.CONTROL, "a", Keys.NULL, text)
        self.button(button)

    def shows(self, *titles: str) -> None:
        self.until(lambda: self.texts("li label") == [*titles])


@pytest.fixture
def driver() -> Iterator[Any]:
    driver = chromium()
    yield driver
    driver.quit()


def use(driver: Any, project: Project, name: str) -> None:
    """Two windows of one user see each other's changes, over a restart too; another user sees none of them."""
    one = Window(driver, project.url())
    one.account("ada", "short", "Create an account")
    one.until(lambda: one.texts(".error") != [""] and "8 characters" in "".join(one.texts(".error")))
    one.account("ada", "correct horse", "Create an account")
    one.until(lambda: one.texts("#state") == ["Live"])
    other = Window(driver, project.url())  # signed in by the same storage
    other.until(lambda: other.texts("#state") == ["Live"])
    one.look().one("[aria-label='New task']").send_keys("Milk & <b>bread</b>", Keys.ENTER)
    other.look().shows("Milk & <b>bread</b>")
    other.one("li input").click()
    one.look().until(lambda: one.one("li input").is_selected())

    project.stop()
    one.until(lambda: one.texts("#state") == ["Reconnecting…"])
    project.start()
    for window in (one, other):
        window.look().until(lambda window=window: window.texts("#state") == ["Live"])
    other.one("[aria-label='New task']").send_keys("After the restart", Keys.ENTER)
    one.look().shows("Milk & <b>bread</b>", "After the restart")
    for width, scheme in ((390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        metrics = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert faint(driver) == []
        SHOTS.mkdir(parents=True, exist_ok=True)
        assert driver.save_screenshot(str(SHOTS / f"new-{name}-{scheme}-{width}.png"))
    one.one("[aria-label='Delete After the restart']").click()
    other.look().shows("Milk & <b>bread</b>")

    other.button("Sign out")
    other.account("grace", "correct horse", "Create an account")
    other.until(lambda: other.texts("#state") == ["Live"])
    other.shows()
    other.button("Sign out")
    other.account("ada", "wrong horse", "Sign in")
    other.until(lambda: "The name or the password is wrong." in other.texts(".error"))
    other.account("ada", "correct horse", "Sign in")
    other.shows("Milk & <b>bread</b>")
    assert one.complaints() == []


@needs_browser
def test_a_project_with_a_page_without_a_build_step(tmp_path: Path, driver: Any) -> None:
    project = Project(tmp_path, "desk")
    assert "18 passed" in project.make("test")
    assert "0 errors" in project.make("check")
    try:
        project.start()
        use(driver, project, "plain")
    finally:
        project.stop()
    compiler = packages(f"typescript-{TYPESCRIPT}", f"typescript@{TYPESCRIPT}") / "typescript" / "bin" / "tsc"
    options = ("--strict", "--checkJs", "--noEmit", "--target", "es2022", "--module", "es2022")
    done = node(str(compiler), *options, "--moduleResolution", "bundler", "web/main.js", cwd=project.folder)
    assert (done.returncode, done.stdout) == (0, "")  # the page holds what its `@ts-check` promises


@needs_browser
@pytest.mark.skipif(not shutil.which("npm"), reason="apt-get install nodejs npm")
def test_a_project_with_a_page_of_react(tmp_path: Path, driver: Any) -> None:
    project = Project(tmp_path, "desk", "--react")
    out = project.make("test")  # with `npm install`
    assert "18 passed" in out
    assert re.search(r"Tests.*2 passed", out)
    assert "0 errors" in project.make("check")
    try:
        project.start()  # with `vite build`
        use(driver, project, "react")
    finally:
        project.stop()
