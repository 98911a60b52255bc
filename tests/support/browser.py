"""A headless browser, and what one does with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

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
    """Return where a program is; without it a test is skipped, and fails in CI."""
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
    """A browser with a profile of its own, for as long as the block lasts."""
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
