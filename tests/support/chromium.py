"""Headless Chromium, and the explorer's page in it. Without selenium, tests that import this module are skipped."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

selenium = pytest.importorskip("selenium", reason="selenium is needed for tests in a browser: pip install selenium")
from selenium import webdriver  # noqa: E402  # once it is known to be there
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WAIT = 20.0  # seconds, for anything


class Page:
    """The explorer, as a user sees it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str) -> "Page":
        self.driver.get(url)
        return self

    def one(self, css: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def texts(self, css: str) -> list[str]:
        """The texts of all matching elements, read at once."""
        script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText.trim())"
        texts: list[str] = self.driver.execute_script(script, css)
        return texts

    def until(self, condition: Callable[[], Any]) -> Any:
        ignored = (selenium.common.exceptions.StaleElementReferenceException,)
        return WebDriverWait(self.driver, WAIT, 0.05, ignored_exceptions=ignored).until(lambda driver: condition())

    def state(self, *wanted: str) -> str:
        """Waits for a state of the connection, and gives its text."""
        self.until(lambda: self.one("#connection").get_attribute("data-state") in wanted)
        return str(self.one("#state").text)

    def choose(self, action: str) -> None:
        self.one(f'#tree a[href="#{action}"]').click()
        self.until(lambda: self.one("#tree a[aria-current]").get_attribute("href").endswith(f"#{action}"))

    def field(self, name: str) -> Any:
        return self.driver.find_element(
            By.XPATH,
            f"//main//label[text()='{name}']/ancestor::div[contains(@class,'field')][1]/div[@class='holder']"
            "//*[self::input[not(@type='checkbox')] or self::textarea or self::select]",
        )

    def click(self, node: Any) -> None:
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", node)
        node.click()

    def include(self, name: str) -> None:
        self.click(self.driver.find_element(By.XPATH, f"//main//label[text()='{name}']"))

    def send(self) -> None:
        self.one("button.send").click()

    def frame(self) -> Any:
        return json.loads(self.one("#frame").get_attribute("value"))

    def reply(self, status: str) -> str:
        """Waits until the newest call has this status. Returns its text."""
        self.until(lambda: self.texts(".call:first-child .status") == [status])
        return str(self.one(".call:first-child").text)

    def button(self, text: str) -> None:
        self.click(self.driver.find_element(By.XPATH, f"//button[text()='{text}']"))

    def screen(self, width: int, height: int, scheme: str = "light") -> None:
        """Emulates a screen, a phone's if it is narrow, until `whole_screen`."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def whole_screen(self) -> None:
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    def picture(self, file: Path) -> Path:
        """Takes a picture once all animations have ended."""
        ended = "return document.getAnimations().every((one) => one.effect.getTiming().iterations === Infinity)"
        self.until(lambda: self.driver.execute_script(ended))
        self.driver.save_screenshot(str(file))
        return file

    def complaints(self) -> list[str]:
        """The messages of the browser's console, except those about refused or lost connections."""
        return [
            one["message"] for one in self.driver.get_log("browser") if "WebSocket connection to" not in one["message"]
        ]


def chromium() -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
