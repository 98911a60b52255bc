"""A headless browser, and helpers for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.support.processes import until

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A container's /dev/shm is small.
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)


def _path_of(*names: str) -> str:
    """Return the path of a program; without it the test is skipped, or fails in CI."""
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    message = f"a browser is needed, and there is no {names[0]} (Debian: chromium, chromium-driver)"
    if os.environ.get("CI"):
        raise RuntimeError(message)
    pytest.skip(message)


@contextmanager
def browser(directory: Path, *, width: int = 1280, height: int = 900) -> Iterator[webdriver.Chrome]:
    """A browser with its own profile, until the block ends."""
    options = webdriver.ChromeOptions()
    options.binary_location = _path_of("chromium", "chromium-browser", "google-chrome")
    for flag in (*_FLAGS, f"--user-data-dir={directory}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(_path_of("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def element(chrome: Chrome, selector: str, containing: str = "") -> WebElement:
    """Wait for a visible element with the text ``containing``."""

    def look() -> WebElement | None:
        found: list[WebElement] = chrome.find_elements(By.CSS_SELECTOR, selector)
        with suppress(StaleElementReferenceException):  # the page has just redrawn it
            return next((e for e in found if e.is_displayed() and containing in e.text), None)
        return None

    return until(f"{selector} with {containing!r} at {chrome.current_url}", look)


def console_of(chrome: Chrome) -> list[dict[str, Any]]:
    """Return the browser's messages since the last call."""
    found: list[dict[str, Any]] = chrome.get_log("browser")  # type: ignore[no-untyped-call]
    return found
