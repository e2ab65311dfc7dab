"""A headless Chromium: Debian's `chromium` and `chromium-driver`, or Google's `chrome` with its driver."""

import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.conftest import REPOSITORY

SCREENSHOTS = REPOSITORY / "logs" / "screenshots"
STEPS = 4  # moves of the pointer between two points of a stroke; the page computes after each

Point = tuple[float, float]


class Browser:
    """Chromium as a person uses it: windows of a size, light or dark, strokes of mouse and finger."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(
        self, url: str, width: int = 1280, height: int = 900, dark: bool = False, language: str = "en-US"
    ) -> None:
        """Open an address in a window of this size."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        agent = self.run("return navigator.userAgent")
        self.command("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
        self.driver.get(url)

    def command(self, name: str, **arguments: Any) -> None:
        """Send a command of the Chrome DevTools protocol."""
        self.driver.execute_cdp_cmd(name, arguments)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript, which can `return`, in the page."""
        return self.driver.execute_script(script, *arguments)

    def next_frame(self) -> None:
        """Wait until the page has shown what it planned."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
        )

    def draw(self, points: Sequence[Point], touch: bool = False) -> None:
        """Draw a stroke on the element `#paper`, whose sides are 1, with the mouse or a finger."""
        box = self.box("paper")
        places = [
            {"x": box["left"] + x * box["width"], "y": box["top"] + y * box["height"]}
            for x, y in _with_steps(points)
        ]
        if touch:
            self.command("Input.dispatchTouchEvent", type="touchStart", touchPoints=places[:1])
            for place in places[1:]:
                self.command("Input.dispatchTouchEvent", type="touchMove", touchPoints=[place])
            self.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        else:
            kinds = ["mousePressed", *["mouseMoved"] * (len(places) - 1), "mouseReleased"]
            for kind, place in zip(kinds, [*places, places[-1]], strict=True):
                buttons = 0 if kind == "mouseReleased" else 1
                self.command(
                    "Input.dispatchMouseEvent",
                    type=kind,
                    button="left",
                    buttons=buttons,
                    clickCount=1,
                    **place,
                )
        self.next_frame()

    def box(self, element: str) -> dict[str, float]:
        """Return the place of the element with this id in the window."""
        script = "return document.getElementById(arguments[0]).getBoundingClientRect().toJSON()"
        return dict(self.run(script, element))

    def tap(self, element: str) -> None:
        """Tap on the middle of the element with this id."""
        box = self.box(element)
        place = {"x": box["left"] + box["width"] / 2, "y": box["top"] + box["height"] / 2}
        self.command("Input.dispatchTouchEvent", type="touchStart", touchPoints=[place])
        self.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        self.next_frame()

    def press(self, key: str, control: bool = False) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key=key, modifiers=2 if control else 0)
        self.next_frame()

    def screenshot(self, name: str) -> Path:
        """Save what is shown as logs/screenshots/NAME.png."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        assert self.driver.save_screenshot(str(path))
        return path

    def messages(self) -> list[str]:
        """Return the errors and warnings in the console since the last call."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]


def _with_steps(points: Sequence[Point]) -> list[Point]:
    places = [points[0]]
    for (x, y), (next_x, next_y) in pairwise(points):
        for step in range(1, STEPS + 1):
            part = step / STEPS
            places.append((x + part * (next_x - x), y + part * (next_y - y)))
    return places


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start Chromium once; where there is none, skip, but fail in CI."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        reason = "needs a browser: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",  # which root in a container cannot have
        "--disable-dev-shm-usage",  # a container's /dev/shm is small
        "--hide-scrollbars",
        "--disable-background-networking",
        "--proxy-server=direct://",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With both paths given, selenium looks for nothing and downloads nothing.
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    driver.set_script_timeout(60)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
