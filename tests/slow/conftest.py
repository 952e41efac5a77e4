"""A browser with the explorer's page, for the tests that use one."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.chromium import Page


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    from tests.support.chromium import chromium  # needs selenium, which the other slow tests do not

    driver = chromium()
    yield driver
    driver.quit()


@pytest.fixture
def page(driver: Any) -> Iterator["Page"]:
    """The explorer. Afterwards its console has no complaint, and the screen is the whole one again."""
    from tests.support.chromium import Page

    page = Page(driver)
    yield page
    assert page.complaints() == []
    page.whole_screen()
    driver.get("about:blank")
