"""Chromium without a screen, for tests and pictures of pages. Tests import the fixture ``browser``.

    python tests/browser.py PAGE.html PICTURE.png --width 400 --dark

docs/page.png was made so (which trainings take longer than .9 seconds depends on the machine):

    python MCTS.py --train digits --max-nodes 5 --samples 60 --seed 0 --train-limit 0.9
    python visualize.py results --html && python tests/browser.py results/tree.html docs/page.png

Needs Chromium and its driver (``apt install chromium-driver``).
"""

import argparse
import base64
import json
import shutil
import sys
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tree_pictures import fewer_colours  # noqa: E402


def start() -> webdriver.Chrome | None:
    """A browser that logs its console and whatever it requests; None where Chromium or its driver is missing."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if not driver or not chromium:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,950"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(driver))


@pytest.fixture(scope="module")
def browser():
    """One browser for a file of tests."""
    started = start()
    if started is None:
        pytest.skip("Chromium and chromedriver are not installed")
    yield started
    started.quit()


def open_page(browser: webdriver.Chrome, path: Path) -> None:
    """Open a page, and forget what was logged before."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(path.as_uri())


def check_logs(browser: webdriver.Chrome, path: Path) -> None:
    """No message on the console, and nothing requested but the page itself."""
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}


def look(browser: webdriver.Chrome, width: int, scheme: str = "light", height: int = 900) -> None:
    """Give the window a width and a colour scheme, and wait until the page has followed."""
    browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def picture(browser: webdriver.Chrome) -> bytes:
    """The whole page, however high, as PNG."""
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
    return base64.b64decode(taken["data"])


def main() -> None:
    """Write a picture of a page, in few colours."""
    parser = argparse.ArgumentParser(description="Write a picture of a page.")
    parser.add_argument("page", type=Path)
    parser.add_argument("png", type=Path)
    parser.add_argument("--width", type=int, default=1400)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    browser = start()
    if browser is None:
        parser.error("Chromium and chromedriver are not installed")
    try:
        browser.get(options.page.resolve().as_uri())
        look(browser, options.width, "dark" if options.dark else "light")
        options.png.write_bytes(fewer_colours(picture(browser)))
        print(*browser.get_log("browser"), sep="\n")
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
