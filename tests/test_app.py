"""The page as people use it: a server process, its API and a real browser."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from sr_hub.generator import SRGenerator, save_weights
from sr_hub.inference import upscale
from sr_hub.pretrained import FIDELITY_FILE

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
    temporary: Path
    log: Path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment(temporary: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), "NO_PROXY": "127.0.0.1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page on a model with two ends."""
    model, temporary = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("temporary")
    for seed, save in (
        (0, SRGenerator.save_pretrained),
        (1, lambda g, f: save_weights(g, f / FIDELITY_FILE)),
    ):
        torch.manual_seed(seed)
        save(SRGenerator(features=8, blocks=2), model)
    port = free_port()
    command = [sys.executable, "app.py", "--model", str(model), "--port", str(port)]
    log = temporary / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(temporary), stdout=output, stderr=output, text=True
        )
    try:
        until = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield Server(f"http://127.0.0.1:{port}", model, temporary, log)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return Client(server.url, verbose=False, download_files=str(server.temporary / "client"))


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "Straße <b>1.png"
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((56, 40), Image.Resampling.BICUBIC).save(path)
    return path


def expected(server: Server, photo: Path, fidelity: float) -> np.ndarray:
    return np.asarray(upscale(SRGenerator.from_pretrained(server.model, fidelity=fidelity), photo))


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_api_gives_both_sides_facts_and_the_file(server: Server, client: Client, photo: Path) -> None:
    slider, facts, download = client.predict(handle_file(str(photo)), 0.25, api_name="/upscale")
    with Image.open(photo) as image:
        bicubic = np.asarray(image.resize((224, 160), Image.Resampling.BICUBIC))
    ours = expected(server, photo, 0.25)
    assert np.array_equal(pixels(slider[0]), bicubic)
    assert np.array_equal(pixels(slider[1]), ours)
    assert re.fullmatch(r"56×40 → 224×160 pixels · \d+\.\d\d s · .+, (bf16|fp16|fp32)", facts)
    assert download["interactive"] is True
    assert Path(download["value"]).name.endswith("_x4.png")
    assert np.array_equal(pixels(download["value"]), ours)


def test_fidelity_changes_the_result(server: Server, client: Client, photo: Path) -> None:
    ends = [client.predict(handle_file(str(photo)), end, api_name="/upscale")[0][1] for end in (0, 1)]
    for path, end in zip(ends, (0, 1), strict=True):
        assert np.array_equal(pixels(path), expected(server, photo, end))
    assert not np.array_equal(pixels(ends[0]), pixels(ends[1]))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_bad_files_get_one_clear_sentence(
    server: Server, client: Client, tmp_path: Path, content: bytes
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(content)
    with pytest.raises(AppError) as caught:
        client.predict(handle_file(str(bad)), 0.5, api_name="/upscale")
    message = str(caught.value)
    assert message.startswith("bad.png: expected an image file, got") and "\n" not in message
    assert "/" not in message, "the server's folders are nobody's business"
    assert "bad.png" not in server.log.read_text(), "no traceback for what is not our fault"


def test_no_working_files_stay(server: Server, client: Client, photo: Path) -> None:
    client.predict(handle_file(str(photo)), 0.5, api_name="/upscale")
    until = time.monotonic() + 10
    while list(server.temporary.glob("sr_hub-*")) and time.monotonic() < until:
        time.sleep(0.1)
    assert not list(server.temporary.glob("sr_hub-*"))


def test_files_outside_the_page_are_not_read(server: Server, photo: Path) -> None:
    """A picture on the server's disk that nobody uploaded, asked for by its path."""
    file = {"path": str(photo), "meta": {"_type": "gradio.FileData"}}
    call = Request(
        f"{server.url}/gradio_api/call/upscale",
        json.dumps({"data": [file, 0.5]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urlopen(call, timeout=60) as answer:
        event = json.load(answer)["event_id"]
    with urlopen(f"{server.url}/gradio_api/call/upscale/{event}", timeout=60) as answer:
        stream = answer.read().decode()
    assert "event: error" in stream and "event: complete" not in stream


def test_start_fails_in_one_sentence(server: Server, tmp_path: Path) -> None:
    taken = server.url.rpartition(":")[2]
    for words, message in (
        (["--model", "no-such-model"], "no-such-model"),
        (["--model", str(server.model), "--port", taken], taken),
    ):
        command = [sys.executable, "app.py", *words]
        run = subprocess.run(
            command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=120
        )
        assert run.returncode == 2
        assert run.stderr.startswith("app.py: ") and message in run.stderr and "Traceback" not in run.stderr


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    assert CHROMIUM and CHROMEDRIVER
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1320,900"):
        options.add_argument(flag)
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    driver.downloads = downloads
    yield driver
    driver.quit()


def wait(browser: WebDriver, condition) -> object:
    return WebDriverWait(browser, 60, ignored_exceptions=[Exception]).until(condition)


def text(browser: WebDriver, selector: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, selector).text


def sources(browser: WebDriver) -> list[str]:
    """Addresses of the slider's two pictures, once both are shown at one natural size."""
    images = browser.find_elements(By.CSS_SELECTOR, "#result img")
    sizes = {(image.get_property("naturalWidth"), image.get_property("naturalHeight")) for image in images}
    return [image.get_attribute("src") or "" for image in images] if sizes == {(224, 160)} else []


@needs_browser
def test_page_in_a_browser(server: Server, browser: WebDriver, photo: Path, tmp_path: Path) -> None:
    browser.get(server.url)
    wait(browser, lambda b: b.find_element(By.CSS_SELECTOR, "#upload input[type=file]")).send_keys(str(photo))
    wait(browser, lambda b: "56×40 → 224×160 pixels" in text(b, "#facts"))
    before = wait(browser, lambda b: len(sources(b)) == 2 and sources(b))

    download = browser.find_element(By.CSS_SELECTOR, "#download, #download button")
    wait(browser, lambda b: download.is_enabled())
    download.click()
    file = wait(browser, lambda b: next(iter(b.downloads.glob("*_x4.png")), None))
    assert np.array_equal(pixels(file), expected(server, photo, 0.5))

    number = browser.find_element(By.CSS_SELECTOR, "#fidelity input[type=range]")
    browser.execute_script(
        "const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;"
        "set.call(arguments[0], 1); for (const e of ['input', 'change', 'pointerup', 'mouseup'])"
        " arguments[0].dispatchEvent(new Event(e, {bubbles: true}))",
        number,
    )
    after = wait(browser, lambda b: len(sources(b)) == 2 and sources(b)[1] != before[1] and sources(b))
    assert after[0] == before[0], "bicubic does not depend on the fidelity"

    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    browser.find_element(By.CSS_SELECTOR, "#upload .icon-button").click()
    wait(browser, lambda b: text(b, "#facts") == "")
    browser.find_element(By.CSS_SELECTOR, "#upload input[type=file]").send_keys(str(bad))
    wait(browser, lambda b: "bad.png: expected an image file" in text(b, ".toast-wrap"))
    assert not download.is_enabled()

    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not severe
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    inside = (server.url, "data:", f"blob:{server.url}")
    assert urls and not [url for url in urls if not url.startswith(inside)]
