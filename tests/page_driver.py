"""The page in a process of its own and in a real browser, for the tests."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import ElementClickInterceptedException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from sr_hub.generator import SRGenerator

ROOT = Path(__file__).parent.parent
CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="NO BROWSER, THE PAGE IS NOT TESTED IN ONE: apt-get install chromium chromium-driver",
)


@dataclass(frozen=True)
class Server:
    url: str
    model: Path
    one_end: Path
    temporary: Path
    log: Path
    pid: int


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment(temporary: Path) -> dict[str, str]:
    # Gradio notices within a second that a tab was closed, instead of within 15.
    ours = {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), "NO_PROXY": "127.0.0.1"}
    return {**os.environ, **ours, "GRADIO_HEARTBEAT_INTERVAL": "1"}


def make_models(folder: Path) -> tuple[Path, Path]:
    """A tiny family with two ends, and a model with one."""
    ends = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        ends.append(SRGenerator(features=8, blocks=2))
    ends[0].save_pretrained(folder / "family", fidelity=ends[1])
    ends[0].save_pretrained(folder / "single")
    return folder / "family", folder / "single"


@contextmanager
def serve(folder: Path, *words: str) -> Iterator[Server]:
    """``python app.py`` on a tiny family, until the block ends."""
    family, single = make_models(folder)
    temporary = folder / "temporary"
    temporary.mkdir()
    port = free_port()
    command = [sys.executable, str(ROOT / "app.py"), "--model", str(family), "--port", str(port), *words]
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(temporary), stdout=output, stderr=output, text=True
        )
    try:
        until = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield Server(f"http://127.0.0.1:{port}", family, single, temporary, log, process.pid)
    finally:
        process.terminate()
        process.wait(20)
    assert process.returncode == 0, f"ended with {process.returncode}: {log.read_text()}"


def make_photo(folder: Path, name: str = "Straße <b>1.png", size: tuple[int, int] = (64, 48)) -> Path:
    """A small picture with soft blobs of colour."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = folder / name
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


class _Element(WebElement):
    """One that is clicked when nothing lies above it any more, as what fades away may for a moment."""

    def click(self) -> None:
        wait = WebDriverWait(self.parent, 20, 0.05, [ElementClickInterceptedException])
        wait.until(lambda _: super(_Element, self).click() or True)


class Page:
    """A browser with the page in it, by the words of someone who uses it."""

    def __init__(self, browser: WebDriver, downloads: Path, url: str) -> None:
        self.browser, self.downloads, self.url = browser, downloads, url

    def open(self) -> "Page":
        self.browser.get(self.url)
        self.wait(lambda: self.find("#photo-file"))
        self.wait(lambda: self.find("#download"))
        return self

    def find(self, selector: str) -> Any:
        """The first of its kind, which the page may still be drawing."""
        wait = WebDriverWait(self.browser, 20, 0.05)
        return wait.until(lambda browser: browser.find_element(By.CSS_SELECTOR, selector))

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def wait(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        return WebDriverWait(self.browser, seconds, 0.05, [Exception]).until(lambda _: condition())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    @property
    def facts(self) -> str:
        return self.find("#facts").text

    @property
    def sides(self) -> list[str]:
        return [image.get_attribute("src") for image in self.all("#viewer .layer img:not(.invented)")]

    @property
    def panels(self) -> list[str]:
        return [image.get_attribute("src") for image in self.all("#viewer .panel img")]

    def hand_in(self, path: Path) -> None:
        self.find("#photo-file").send_keys(str(path))

    def drop(self, selector: str, *paths: Path) -> None:
        """Drags files or folders into the window and lets them go over an element."""
        box = self.find(selector).rect
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.browser.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, **at, "data": data})

    def rest(self) -> None:
        """Until no run is under way and the download is there."""
        self.wait(lambda: not [stop for stop in self.all("#stop") if stop.is_displayed()])
        self.wait(lambda: self.find("#download").is_enabled() and self.panels)

    def result(self, path: Path, size: str) -> None:
        """Hands a photo in and waits for the whole result, of this size."""
        self.hand_in(path)
        self.wait(lambda: f"→ {size} pixels" in self.facts)
        self.rest()

    def set_range(self, selector: str, value: float) -> None:
        """Drags a range to a value and lets go."""
        self.run(
            "const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;"
            "set.call(arguments[0], arguments[1]);"
            "for (const name of ['input', 'change', 'pointerup'])"
            " arguments[0].dispatchEvent(new Event(name, {bubbles: true}))",
            self.find(f"{selector} input[type=range]"),
            value,
        )

    def download(self, button: str = "#download") -> Path:
        """Clicks the download and returns the file."""
        before = set(self.downloads.iterdir())
        self.find(button).click()

        def arrived() -> list[Path]:
            new = set(self.downloads.iterdir()) - before
            return [path for path in new if path.suffix in (".png", ".jpg", ".webp", ".zip")]  # no half ones

        return self.wait(arrived)[0]

    def pixels_of(self, index: int) -> np.ndarray:
        """The samples of a side as the browser got them: 0 bicubic, 1 ours."""
        name = self.sides[index].partition("/file=")[2]
        with Image.open(name) as image:
            return np.asarray(image)

    def complaints(self) -> list[str]:
        """Errors in the console, and requests to anybody but the server, since the last call."""
        errors = [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        inside = (self.url, "data:", f"blob:{self.url}")
        return errors + [url for url in urls if not url.startswith(inside)]


@contextmanager
def browse(folder: Path, url: str) -> Iterator[Page]:
    """Headless Chromium on the page, until the block ends."""
    assert CHROMIUM and CHROMEDRIVER
    downloads = folder / "downloads"
    downloads.mkdir()
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1320,1000"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    browser._web_element_cls = _Element
    try:
        yield Page(browser, downloads, url)
    finally:
        browser.quit()
