"""Several photos on the page, in a real browser."""

import base64
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_driver import Page, Server, browse, make_photo, needs_browser, serve
from PIL import Image

from sr_hub import cli
from sr_hub.pretrained import DEFAULT_FIDELITY

pytestmark = needs_browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browse(tmp_path_factory.mktemp("browser"), server.url) as running:
        yield running.open()


def test_several_photos_become_a_gallery_and_one_zip(page: Page, server: Server, tmp_path: Path) -> None:
    photos = [make_photo(tmp_path, name, (40, 30)) for name in ("one.png", ".two.jpg")]
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    page.wait(lambda: page.all("[role=tab]"))[1].click()
    given = page.wait(lambda: page.find("#batch-files input[type=file]"))
    given.send_keys("\n".join(map(str, [photos[0], bad, photos[1]])))
    page.wait(lambda: "2 of 3 enlarged, 1 failed" in page.find("#batch-facts").text)
    assert "bad.png: expected an image file" in page.find("#batch-facts").text
    page.wait(lambda: len(page.all("#batch-results img")) == 2)
    page.wait(lambda: page.find("#batch-download").is_enabled())
    with zipfile.ZipFile(page.download("#batch-download")) as archive:
        assert archive.testzip() is None
        results = {name: archive.read(name) for name in archive.namelist()}
    assert sorted(results) == ["one.png", "two.jpg"]
    for photo in photos:
        words = ["--model", str(server.model), "--fidelity", str(DEFAULT_FIDELITY)]
        target = tmp_path / "out" / photo.name
        target.parent.mkdir(exist_ok=True)
        assert cli.main(["upscale", str(photo), str(target), *words]) == 0
        assert results[photo.name.lstrip(".")] == target.read_bytes()
        with Image.open(target) as image:
            assert image.size == (160, 120)
    assert not [part for part in page.all("#download, #test") if part.is_displayed()], "are of one photo"
    more = [make_photo(tmp_path, f"{number}.png", (300, 240)) for number in range(6)]
    page.find("#batch-files input[type=file]").send_keys("\n".join(map(str, more)))
    page.wait(lambda: re.search(r"[1-7] of 9 enlarged", page.find("#batch-facts").text))
    page.find("#batch-start").click()  # begins anew
    page.wait(lambda: "8 of 9 enlarged, 1 failed." in page.find("#batch-facts").text)
    page.wait(lambda: not [stop for stop in page.all("#batch-stop") if stop.is_displayed()])
    assert page.complaints() == [] and "Traceback" not in server.log.read_text()


def test_folders_of_photos_are_dropped_anywhere(page: Page, server: Server, tmp_path: Path) -> None:
    (tmp_path / "album" / "2" / "empty").mkdir(parents=True)
    for name in ("10.png", "9.png", "2/c.png"):
        make_photo(tmp_path / "album", name, (40, 30))
    (tmp_path / "album" / "notes.txt").write_text("not a photo")
    page.open()
    page.wait(lambda: page.all("[role=tab]"))[1].click()
    page.wait(lambda: page.find("#batch-files input[type=file]"))
    page.drop("#batch-files", tmp_path / "album" / "2" / "empty")
    page.wait(lambda: "expected photos, got a folder without any" in page.find("body").text)
    page.drop("#batch-files", tmp_path / "album")
    page.wait(lambda: "3 of 3 enlarged." in page.find("#batch-facts").text)
    listed = page.run("return document.querySelector('#batch-files').textContent")
    assert re.findall(r"(\w+)\s*\.png", listed) == ["c", "9", "10"]
    page.drop("#controls", make_photo(tmp_path, "more.png", (40, 30)))
    page.wait(lambda: "4 of 4 enlarged." in page.find("#batch-facts").text)
    page.run(  # as a picture dragged from another page, which lies in no folder
        """
        const dataTransfer = new DataTransfer();
        const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        dataTransfer.items.add(new File([bytes], "dragged.png", { type: "image/png" }));
        const options = { bubbles: true, cancelable: true, dataTransfer };
        document.querySelector("#batch-files").dispatchEvent(new DragEvent("drop", options));
        """,
        base64.b64encode((tmp_path / "more.png").read_bytes()).decode(),
    )
    page.wait(lambda: "5 of 5 enlarged." in page.find("#batch-facts").text)
    assert page.complaints() == [] and "Traceback" not in server.log.read_text()
