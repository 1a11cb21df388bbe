"""One photo on the page, in a real browser."""

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from page_driver import Page, Server, browse, make_photo, needs_browser, serve
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from sr_hub import cli
from sr_hub.generator import SRGenerator
from sr_hub.inference import upscale
from sr_hub.metrics import psnr_y, ssim_y
from sr_hub.page_pictures import example_pictures
from sr_hub.pretrained import DEFAULT_FIDELITY
from sr_hub.resample import downscale_bicubic, upscale_bicubic

pytestmark = needs_browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("server"), "--max-megapixels", "2") as running:
        yield running


@pytest.fixture(scope="module")
def page(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browse(tmp_path_factory.mktemp("browser"), server.url) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_to_complain_of(page: Page, server: Server) -> Iterator[None]:
    """No error in the console and no request to anybody else, in any test; no traceback on the server."""
    page.browser.get("about:blank")
    page.complaints()  # of gradio's, that the page was left while it listened
    page.open()
    yield
    assert page.complaints() == []
    # The browser may still ask for a file that went with its picture; the server logs that as an error.
    ends = re.findall(
        r"^Traceback.*?^(?=\S)(?!Traceback)(.*?)$", server.log.read_text(), re.DOTALL | re.MULTILINE
    )
    known = r"(FileNotFound|Runtime)Error: .*/gradio/sr_hub-|gradio.exceptions.Error: .*Value 7 is greater"
    assert [end for end in ends if not re.match(known, end)] == []


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photo(tmp_path_factory.mktemp("photo"))


def by_the_command(server: Server, photo: Path, target: Path, *words: str) -> bytes:
    """The file that ``sr-hub upscale`` writes."""
    assert cli.main(["upscale", str(photo), str(target), "--model", str(server.model), *words]) == 0
    return target.read_bytes()


def test_a_photo_is_enlarged_without_a_click(page: Page, server: Server, photo: Path, tmp_path: Path) -> None:
    page.result(photo, "256×192")
    assert "64×48 → 256×192 pixels · " in page.facts and "megapixels/s · CPU, " in page.facts
    assert "Shrunk again, the result gives back " in page.facts
    family = SRGenerator.from_pretrained(server.model, fidelity=DEFAULT_FIDELITY)
    assert np.array_equal(page.pixels_of(1), np.asarray(upscale(family, photo)))
    with Image.open(photo) as image:
        bicubic = np.asarray(image.resize((256, 192), Image.Resampling.BICUBIC))
    assert np.array_equal(page.pixels_of(0), bicubic)
    assert page.find("#download").text.startswith("Download · PNG")
    file = page.download()
    assert file.suffix == ".png" and file.stem.endswith("_x4")
    assert file.read_bytes() == by_the_command(
        server, photo, tmp_path / "a.png", "--fidelity", str(DEFAULT_FIDELITY)
    )


def test_controls_change_the_result_at_once(page: Page, server: Server, photo: Path, tmp_path: Path) -> None:
    page.result(photo, "256×192")
    before, loupe = page.sides, page.panels
    page.set_range("#fidelity", 0)
    page.wait(lambda: page.sides[1] != before[1])
    assert page.sides[0] == before[0] and page.panels == loupe, "neither depends on the fidelity"
    detail = SRGenerator.from_pretrained(server.model, fidelity=0)
    assert np.array_equal(page.pixels_of(1), np.asarray(upscale(detail, photo)))
    page.rest()
    page.find("#consistency input").click()
    page.find("#scale input[value='2']").click()
    page.wait(lambda: "→ 128×96 pixels" in page.facts)
    page.rest()
    words = ("--fidelity", "0", "--scale", "2", "--consistency", "4")
    assert page.download().read_bytes() == by_the_command(server, photo, tmp_path / "a.png", *words)
    page.find("#scale input[value='width']").click()
    width = page.wait(lambda: page.find("#width input"))
    width.send_keys(Keys.CONTROL, "a")
    width.send_keys("100", Keys.ENTER)
    page.wait(lambda: "→ 100×75 pixels" in page.facts)
    page.rest()
    words = ("--fidelity", "0", "--width", "100", "--consistency", "4")
    assert page.download().read_bytes() == by_the_command(server, photo, tmp_path / "b.png", *words)


def test_formats_of_the_download(page: Page, server: Server, tmp_path: Path) -> None:
    photo = make_photo(tmp_path, "holiday.jpg")
    with Image.open(photo) as image:
        exif = image.getexif()
        exif[0x010F] = "Maker"
        image.save(photo, exif=exif, icc_profile=b"profile", quality=95)
    page.result(photo, "256×192")
    words = ("--fidelity", str(DEFAULT_FIDELITY))
    assert page.download().read_bytes() == by_the_command(server, photo, tmp_path / "a.jpg", *words)
    for name, suffix in (("PNG", ".png"), ("WebP", ".webp")):
        choose(page, "#format", name)
        page.wait(lambda name=name: name in page.find("#download").text)
        file = page.download()
        assert file.name == f"holiday_x4{suffix}"
        assert file.read_bytes() == by_the_command(server, photo, tmp_path / f"a{suffix}", *words)
    large = file.stat().st_size
    before = page.find("#download").text
    page.set_range("#quality", 50)
    page.wait(lambda: page.find("#download").text != before)
    low = page.download()
    assert low.stat().st_size < large / 2
    with Image.open(low) as image:
        assert image.getexif()[0x010F] == "Maker" and image.info["icc_profile"] == b"profile"
    before = page.find("#download").text
    page.find("#quality input[type=range]").send_keys(Keys.ARROW_RIGHT * 30)
    page.wait(lambda: page.find("#download").text != before)


def choose(page: Page, selector: str, option: str) -> None:
    page.find(f"{selector} input").click()
    page.wait(lambda: [item for item in page.all(f"{selector} [role=option]") if item.text == option])[
        0
    ].click()


def test_slider_zoom_and_keys(page: Page, photo: Path) -> None:
    page.result(photo, "256×192")
    stage, handle = page.find(".stage"), page.find(".handle")
    assert handle.get_attribute("aria-valuenow") == "50"
    ActionChains(page.browser).drag_and_drop_by_offset(handle, -round(stage.size["width"] / 4), 0).perform()
    assert handle.get_attribute("aria-valuenow") in ("24", "25", "26")
    handle.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert handle.get_attribute("aria-valuenow") in ("28", "29", "30")
    clip = page.run("return getComputedStyle(document.querySelector('.layer.right')).clipPath")
    assert "inset" in clip
    fitting = page.find(".zooms output").text
    page.find("[data-zoom=one]").click()
    widths = page.run(
        "return [...document.querySelectorAll('.layer:not(.marks) .sheet')].map(s => s.clientWidth)"
    )
    assert page.find(".zooms output").text in ("100 %", fitting)
    page.find("[data-zoom=in]").click()
    larger = page.run(
        "return [...document.querySelectorAll('.layer:not(.marks) .sheet')].map(s => s.clientWidth)"
    )
    assert larger[0] == larger[1] > widths[0] == widths[1]
    page.find("[data-zoom=fit]").click()
    assert page.find(".zooms output").text == fitting


def test_loupe_looks_where_one_clicks(page: Page, server: Server, photo: Path) -> None:
    page.result(photo, "256×192")
    names = [name.text for name in page.all(".panel figcaption")]
    assert names == ["Bicubic", "Fidelity", "Detail"] and len(page.panels) == 3
    first, spot = page.panels, page.run("return document.querySelector('.spot').style.left")
    ActionChains(page.browser).move_to_element_with_offset(page.find(".stage"), -60, 40).click().perform()
    page.wait(lambda: page.panels[0] != first[0])
    assert page.run("return document.querySelector('.spot').style.left") != spot
    for index, share in ((1, 1.0), (2, 0.0)):
        end = SRGenerator.from_pretrained(server.model, fidelity=share)
        with Image.open(page.panels[index].partition("/file=")[2]) as image:
            assert np.array_equal(np.asarray(image), np.asarray(upscale(end, photo)))
    before = page.run("return document.querySelector('.panel img').clientWidth")
    page.find("[data-times='1']").click()
    assert page.run("return document.querySelector('.panel img').clientWidth") * 4 == before


def test_controls_without_a_photo_ask_for_one(page: Page) -> None:
    page.set_range("#fidelity", 0.9)
    page.wait(lambda: page.facts == "Hand in a photo first.")


def test_where_it_is_invented(page: Page, photo: Path) -> None:
    page.result(photo, "256×192")
    opacity = "return getComputedStyle(document.querySelector('.invented')).opacity"
    assert page.run(opacity) == "0"
    page.find(".ask-invented input").click()
    page.wait(lambda: float(page.run(opacity)) > 0.8 and page.find(".invented").get_attribute("src"))
    with Image.open(page.find(".invented").get_attribute("src").partition("/file=")[2]) as image:
        assert image.size == (64, 48) and np.asarray(image)[..., 3].max() > 0


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255


def test_known_picture(page: Page, tmp_path: Path) -> None:
    photo = make_photo(tmp_path, "known.png", (96, 80))
    page.result(photo, "384×320")
    page.find("#test input").click()
    page.wait(lambda: "PSNR-Y" in page.facts)
    assert "96×80, was shrunk to 24×20, restored" in page.facts
    page.wait(lambda: [name.text for name in page.all(".panel figcaption")][3:] == ["Original"])
    with Image.open(photo) as image:
        original = np.asarray(image)
    with Image.open(page.panels[3].partition("/file=")[2]) as image:
        assert np.array_equal(np.asarray(image), original)
    hr = tensor(original)
    bicubic = upscale_bicubic(downscale_bicubic(hr, 4, round_to_8_bits=True), 4)
    ours = tensor(page.pixels_of(1))
    for name, sr in (("Bicubic", bicubic), ("Ours", ours)):
        figures = f"{name} {psnr_y(sr, hr, 4).item():.2f} dB {ssim_y(sr, hr, 4).item():.4f}"
        assert figures in page.facts.splitlines()
    page.find("#test input").click()
    page.wait(lambda: "→ 384×320 pixels" in page.facts)


def test_bad_files_and_large_ones_are_told(page: Page, photo: Path, tmp_path: Path) -> None:
    page.result(photo, "256×192")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    page.hand_in(bad)
    page.wait(lambda: "bad.png: expected an image file" in page.facts)
    page.wait(lambda: "bad.png: expected an image file" in page.find(".toast-wrap").text)
    assert "/" not in page.facts, "the server's folders are nobody's business"
    page.wait(lambda: not page.find("#download").is_enabled())
    assert page.find(".welcome").is_displayed() and not page.find(".bar").is_displayed()
    Image.new("L", (2000, 1001)).save(tmp_path / "large.png")
    page.hand_in(tmp_path / "large.png")
    page.wait(lambda: "at most 2 are taken here: shrink or crop it" in page.facts)
    page.result(photo, "256×192")


def test_a_wrong_control_is_told_and_the_picture_stays(page: Page, photo: Path) -> None:
    page.result(photo, "256×192")
    before = page.sides
    page.run("arguments[0].click()", page.find("#model-box button"))
    model = page.wait(lambda: page.find("#model input"))
    model.send_keys(Keys.CONTROL, "a")
    model.send_keys("no-such-model", Keys.ENTER)
    page.wait(lambda: "no-such-model" in page.find(".toast-wrap").text)
    assert page.sides == before


def test_a_number_out_of_range_stops_nothing_and_leaves_no_stop_button(page: Page, photo: Path) -> None:
    page.result(photo, "256×192")
    number = page.find("#fidelity input[type=number]")
    number.send_keys(Keys.CONTROL, "a")
    number.send_keys("7", Keys.ENTER)
    page.wait(lambda: page.facts.startswith("Nothing came of it"))
    page.wait(lambda: not page.find("#download").is_enabled())
    assert not [stop for stop in page.all("#stop") if stop.is_displayed()]


def test_the_page_fills_the_window_and_the_loupe_follows_it(page: Page, photo: Path) -> None:
    page.result(photo, "256×192")
    places = "return [...document.querySelectorAll('.panel img')].map(image => image.style.transform)"
    before, size = page.run(places), page.browser.get_window_size()
    try:
        page.browser.set_window_size(900, size["height"])
        page.wait(lambda: page.run(places) != before)
        assert page.run("return document.querySelector('#desk').clientWidth / innerWidth") > 0.9
        row = "const row = document.querySelector('#scale'); return row.scrollWidth - row.clientWidth"
        assert page.run(row) == 0
    finally:
        page.browser.set_window_size(size["width"], size["height"])
    page.wait(lambda: page.run(places) == before)


def test_a_model_with_one_end_hides_what_needs_two(page: Page, server: Server, photo: Path) -> None:
    page.result(photo, "256×192")
    page.run("arguments[0].click()", page.find("#model-box button"))
    model = page.wait(lambda: page.find("#model input"))
    model.send_keys(Keys.CONTROL, "a")
    model.send_keys(str(server.one_end), Keys.ENTER)
    page.wait(lambda: [name.text for name in page.all(".panel figcaption")] == ["Bicubic", "Ours"])
    assert "one end" in page.find("#model-facts").text
    assert not [part for part in page.all("#fidelity, .ask-invented") if part.is_displayed()]
    single = SRGenerator.from_pretrained(server.one_end)
    page.rest()
    assert np.array_equal(page.pixels_of(1), np.asarray(upscale(single, photo)))


def test_photos_are_pasted(page: Page, photo: Path) -> None:
    page.run(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        const clipboardData = new DataTransfer();
        clipboardData.items.add(new File([bytes], "handed.png", { type: "image/png" }));
        const options = { bubbles: true, cancelable: true, clipboardData };
        document.body.dispatchEvent(new ClipboardEvent("paste", options));
        """,
        base64.b64encode(photo.read_bytes()).decode(),
    )
    page.wait(lambda: "64×48 → 256×192 pixels" in page.facts)


@pytest.mark.parametrize("where", ["#viewer .stage", "#controls"])
def test_photos_are_dropped_anywhere(page: Page, photo: Path, where: str) -> None:
    page.drop(where, photo)
    page.wait(lambda: "64×48 → 256×192 pixels" in page.facts)
    assert not page.all(".stage.over")


def test_of_several_dropped_photos_the_first_is_taken_and_a_folder_is_refused(
    page: Page, photo: Path, tmp_path: Path
) -> None:
    page.drop("#controls", tmp_path)
    page.wait(lambda: "expected a photo, got a folder" in page.find("body").text)
    page.drop("#controls", tmp_path, photo, make_photo(tmp_path, "other.png", (32, 32)))
    page.wait(lambda: "Several photos takes them all" in page.find("body").text)
    page.wait(lambda: "64×48 → 256×192 pixels" in page.facts)


def test_examples_are_a_click_away(page: Page) -> None:
    buttons = page.wait(lambda: page.all(".examples button"))
    assert len(buttons) == len(example_pictures())
    buttons[0].click()
    page.wait(lambda: " pixels · " in page.facts)
    page.rest()
    assert example_pictures()[0].path.is_file()


def test_large_photos_show_their_middle_first_and_stop(page: Page, tmp_path: Path) -> None:
    """With the bundled family, whose tiles take long enough to stop between them."""
    page.run("arguments[0].click()", page.find("#model-box button"))
    model = page.wait(lambda: page.find("#model input"))
    model.send_keys(Keys.CONTROL, "a")
    model.send_keys("clean", Keys.ENTER)
    page.wait(lambda: "licence: apache-2.0" in page.find("#model-facts").text)
    page.hand_in(make_photo(tmp_path, "large.png", (1400, 1400)))
    page.wait(lambda: "The middle first" in page.facts and all(page.sides))
    assert page.pixels_of(0).shape == page.pixels_of(1).shape == (1280, 1280, 3)
    page.wait(lambda: "s to go" in page.facts)
    assert "tiles" in page.facts and not page.find("#download").is_enabled()
    first = page.browser.current_window_handle
    page.browser.switch_to.new_window("tab")
    page.open()
    page.hand_in(make_photo(tmp_path, "small.png"))
    page.wait(lambda: "queue: 1/1" in page.facts)  # its place in line
    second = page.browser.current_window_handle
    page.browser.switch_to.window(first)
    page.find("#stop").click()
    page.wait(lambda: page.facts == "Stopped.")
    page.browser.switch_to.window(second)
    page.wait(lambda: "→ 256×192 pixels" in page.facts)
    page.rest()
    page.browser.close()
    page.browser.switch_to.window(first)
    assert page.facts == "Stopped.", "the run went on"


def test_nothing_is_left_when_the_program_ends(tmp_path: Path, page: Page) -> None:
    here = page.url
    with serve(tmp_path) as server:
        page.browser.get(server.url)
        page.wait(lambda: page.find("#photo-file"))
        page.wait(lambda: page.find("#download"))
        page.result(make_photo(tmp_path), "256×192")
        assert list(server.temporary.rglob("*.png"))
        page.hand_in(make_photo(tmp_path, "large.png", (2400, 2000)))
        page.wait(lambda: page.find("#stop").is_displayed() and "The middle first" in page.facts)
    # It was ended during a run, and that in order, which `serve` asserts.
    assert not [path for path in server.temporary.rglob("*") if path.is_file()]
    page.browser.get(here)
    page.complaints()  # that the server went


def test_the_photo_handed_in_last_is_shown(page: Page, server: Server, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "slow.png")
    page.browser.execute_cdp_cmd("Network.enable", {})
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 90_000}
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    page.hand_in(tmp_path / "slow.png")
    page.hand_in(make_photo(tmp_path, "quick.png", (20, 16)))
    page.wait(lambda: "→ 80×64 pixels" in page.facts)
    time.sleep(3)  # the other takes two seconds
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    page.rest()
    assert "→ 80×64 pixels" in page.facts and page.complaints() == []
    assert not list(server.temporary.rglob("slow.png")), "which nobody works with"


def test_the_arrow_back_of_the_fidelity_starts_a_run(page: Page, photo: Path) -> None:
    page.result(photo, "256×192")
    default = page.pixels_of(1)
    page.set_range("#fidelity", 0.9)
    page.wait(lambda: not np.array_equal(page.pixels_of(1), default))
    page.rest()
    page.find("#fidelity .reset-button").click()
    page.wait(lambda: np.array_equal(page.pixels_of(1), default))
    page.rest()
    page.set_range("#fidelity", DEFAULT_FIDELITY)  # let go where it was: the run of the drag is not lost
    time.sleep(0.5)
    page.rest()


def test_files_go_with_the_tab_and_tabs_do_not_see_each_other(
    page: Page, server: Server, photo: Path, tmp_path: Path
) -> None:
    def files() -> list[Path]:
        return [path for path in (server.temporary / "gradio").rglob("*") if path.is_file()]

    page.result(photo, "256×192")
    page.wait(lambda: len({path.name for path in files()}) > 5)
    first = page.browser.current_window_handle
    page.browser.switch_to.new_window("tab")
    page.open()
    assert page.sides == [None, None] and page.facts == ""
    other = make_photo(tmp_path, "other.png", (40, 40))
    page.result(other, "160×160")
    page.browser.close()
    page.browser.switch_to.window(first)
    page.wait(lambda: not [path for path in files() if "other" in path.name])
    assert page.download().stat().st_size > 1000, "the files of the tab that is open stay"
    page.browser.get("about:blank")
    page.wait(lambda: not files())


@pytest.mark.parametrize("dark", [False, True])
def test_phone_width_has_no_sideways_scroll(page: Page, photo: Path, dark: bool) -> None:
    scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.open().result(photo, "256×192")
        assert page.run("return document.documentElement.scrollWidth") <= 390
        background = page.run("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 150) == dark
        stored = page.run("return Object.keys(localStorage).concat(Object.keys(sessionStorage))")
        assert not [key for key in stored if "history" in key or "image" in key]
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
