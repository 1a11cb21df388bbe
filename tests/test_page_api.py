"""The page's programming interface, by its own client and by what a hostile one would send."""

import asyncio
import base64
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from page_driver import ROOT, make_models, make_photo
from PIL import Image

from sr_hub import cli
from sr_hub.generator import SRGenerator
from sr_hub.images import read_picture
from sr_hub.inference import upscale
from sr_hub.page_api import add_api
from sr_hub.page_sessions import Sessions
from sr_hub.pretrained import DEFAULT_MODEL
from sr_hub.service import Limits, Service


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    family, single = make_models(tmp_path_factory.mktemp("models"))
    return str(family), str(single)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache").resolve()


@pytest.fixture(scope="module")
def url(models: tuple[str, str], cache: Path) -> Iterator[str]:
    """A page with nothing but the interface, which allows the family alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(cache))
        service = Service(
            Limits(megabytes=1, output_megapixels=0.5), "cpu", models=["clean", DEFAULT_MODEL, models[0]]
        )
        with gr.Blocks() as page:
            sessions = Sessions(cache)
            add_api(service, sessions)
        _, address, _ = page.queue().launch(prevent_thread_lock=True, quiet=True, show_error=False)
        yield address.rstrip("/")
        page.close()
        sessions.close_all()


@pytest.fixture(scope="module")
def client(url: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photo(tmp_path_factory.mktemp("photo"))


@pytest.mark.parametrize(
    ("asked", "suffix", "words"),
    [
        ({}, ".png", ()),
        ({"fidelity": 0.25, "scale": 2}, ".png", ("--fidelity", "0.25", "--scale", "2")),
        ({"fidelity": 1, "width": 100}, ".png", ("--fidelity", "1", "--width", "100")),
        ({"consistency": True, "format": "webp"}, ".webp", ("--consistency", "4")),
        ({"format": "tiff"}, ".tif", ()),
        ({"format": "jpeg"}, ".jpg", ()),
    ],
)
def test_upscale_gives_the_bytes_of_the_command_line(
    client: Client,
    models: tuple[str, str],
    photo: Path,
    tmp_path: Path,
    asked: dict[str, Any],
    suffix: str,
    words: tuple[str, ...],
) -> None:
    got = Path(client.predict(file=handle_file(str(photo)), model=models[0], **asked, api_name="/upscale"))
    expected = tmp_path / f"expected{suffix}"
    assert (
        cli.main(["upscale", str(photo), str(expected), "--model", models[0], "--device", "cpu", *words]) == 0
    )
    assert got.name.endswith(f"_sr{suffix}")
    assert got.read_bytes() == expected.read_bytes()


def test_compare_gives_both_sides_and_the_facts(client: Client, models: tuple[str, str], photo: Path) -> None:
    file = handle_file(str(photo))
    bicubic, ours, facts = client.predict(file=file, model=models[0], fidelity=0.5, api_name="/compare")
    with Image.open(photo) as image:
        plain = np.asarray(image.resize((256, 192), Image.Resampling.BICUBIC), np.int16)
    sides = [read_picture(path).pixels for path in (bicubic, ours)]
    # Pillow treats the border in another way and has less precise weights.
    assert np.abs(sides[0][12:-12, 12:-12] - plain[12:-12, 12:-12]).max() <= 1
    expected = upscale(SRGenerator.from_pretrained(models[0], fidelity=0.5), photo)
    assert np.array_equal(sides[1], np.asarray(expected))
    assert facts["input_size"] == [64, 48] and facts["output_size"] == [256, 192] and facts["notices"] == []
    assert 0 <= facts["consistency"] <= 1 and facts["seconds"] > 0 and facts["megapixels_per_second"] > 0


def test_compare_tests_on_the_picture_itself(client: Client, models: tuple[str, str], tmp_path: Path) -> None:
    photo = make_photo(tmp_path, "large.png", (101, 83))
    file = handle_file(str(photo))
    bicubic, ours, facts = client.predict(file=file, model=models[0], test=True, api_name="/compare")
    assert facts["input_size"] == [25, 20] and facts["output_size"] == [100, 80]
    hr = read_picture(photo).pixels[1:81, :100].astype(np.float64)
    scores = []
    for path in (bicubic, ours):
        sr = read_picture(path).pixels.astype(np.float64)
        luma = (hr - sr)[4:-4, 4:-4] @ np.array([65.481, 128.553, 24.966]) / 255
        scores.append(10 * np.log10(255**2 / (luma**2).mean()))
    assert facts["bicubic_psnr_y"] == pytest.approx(scores[0], abs=0.01)
    assert facts["psnr_y"] == pytest.approx(scores[1], abs=0.01)
    assert scores[0] > scores[1], "the tiny network has learned nothing"
    assert 0 < facts["ssim_y"] < facts["bicubic_ssim_y"] <= 1


def test_the_interface_is_typed(client: Client) -> None:
    functions = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(functions) == {"/upscale", "/compare"}
    parameters = functions["/upscale"]["parameters"]
    names = ["file", "model", "fidelity", "scale", "width", "consistency", "format"]
    assert [p["parameter_name"] for p in parameters] == names
    defaults = [p["parameter_default"] for p in parameters if p["parameter_has_default"]]
    assert defaults == [DEFAULT_MODEL, None, None, None, False, "png"]
    assert parameters[-1]["type"] == {"enum": ["png", "tiff", "webp", "jpeg"]}
    assert "path" in parameters[0]["type"]["properties"]
    assert "sr-hub upscale" in functions["/upscale"]["description"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"fidelity": 2}, "fidelity must lie in [0, 1], got 2"),
        ({"fidelity": "much"}, "fidelity must be a number or null, got 'much'"),
        ({"fidelity": True}, "fidelity must be a number or null, got True"),
        ({"scale": -1}, "scale must be a number above 0, got -1"),
        ({"scale": 2, "width": 50}, "scale cannot be asked for together with width"),
        ({"width": 1.5}, "width must be a whole number or null, got 1.5"),
        ({"consistency": 1}, "consistency must be true or false, got 1"),
        ({"format": "exe"}, "format must be one of png, tiff, webp, jpeg, got 'exe'"),
        ({"format": "../../x.png"}, "format must be one of png, tiff, webp, jpeg, got '../../x.png'"),
        ({"format": ["png"]}, "format must be one of png, tiff, webp, jpeg, got ['png']"),
        ({"format": {}}, "format must be one of png, tiff, webp, jpeg, got {}"),
        ({"model": ["clean"]}, "model must be a name, got list"),
        ({"scale": 100}, "Straße b1.png: the result would have 30.7 megapixels, at most 0.5 are made here: "),
        ({"width": 10**8}, "Straße b1.png: the result would have"),
    ],
)
def test_wrong_settings_get_one_sentence(
    client: Client, models: tuple[str, str], photo: Path, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(AppError) as caught:
        client.predict(**{"file": handle_file(str(photo)), "model": models[0], **asked}, api_name="/upscale")
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40), bytes(1_100_000)]
)
def test_bad_files_get_one_sentence_and_leave_nothing(
    client: Client, cache: Path, tmp_path: Path, content: bytes
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(content)
    before = set(cache.glob("sr_hub-*"))
    for api_name in ("/upscale", "/compare"):
        with pytest.raises(AppError) as caught:
            client.predict(file=handle_file(str(bad)), api_name=api_name)
        message = str(caught.value)
        assert re.match(r"bad.png: (expected an image file|the file has 1\.1 megabytes)", message)
        assert str(cache) not in message and "\n" not in message
    assert set(cache.glob("sr_hub-*")) == before


def test_only_models_that_are_allowed(client: Client, models: tuple[str, str], photo: Path) -> None:
    for name in (models[1], "/etc", "user/name", ""):
        with pytest.raises(AppError, match=r"model must be one of clean, photo, .*/family here, got "):
            client.predict(file=handle_file(str(photo)), model=name, api_name="/upscale")


def call(url: str, name: str, data: list[Any]) -> str:
    """What a client without `gradio_client` gets: the whole stream of events."""
    request = Request(
        f"{url}/gradio_api/call/{name}",
        json.dumps({"data": data}).encode(),
        {"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=60) as answer:
        event = json.load(answer)["event_id"]
    with urlopen(f"{url}/gradio_api/call/{name}/{event}", timeout=60) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("name", ["upscale", "compare"])
def test_files_that_nobody_uploaded_are_not_read(
    url: str, cache: Path, photo: Path, marked: bool, name: str
) -> None:
    """Pictures of the server's disk by their path, with and without the mark that makes gradio check it."""
    loose = cache / "loose.png"
    shutil.copy(photo, loose)
    folder = cache / "linked"
    folder.mkdir(exist_ok=True)
    link = folder / "link.png"
    if not link.is_symlink():
        link.symlink_to(photo)
    for path in (str(photo), str(loose), str(link), f"{cache}/x/../../{photo.parent.name}/{photo.name}"):
        file = {"path": path} | ({"meta": {"_type": "gradio.FileData"}} if marked else {})
        stream = call(url, name, [file])
        assert "event: error" in stream and "event: complete" not in stream
    for value in (str(photo), None, [str(photo)], {"path": 5}, {"path": ""}):
        stream = call(url, name, [value])
        assert "event: error" in stream and "event: complete" not in stream


def test_addresses_are_not_fetched(url: str, client: Client, cache: Path, photo: Path) -> None:
    """Also not those that gradio would fetch: whoever asks could fill the disk with them."""
    for address in ("http://192.0.2.1/a.png", "https://192.0.2.1/a.png"):
        with pytest.raises(
            AppError, match="expected an upload, got another address: nothing is fetched here"
        ):
            client.predict(file=handle_file(address), api_name="/upscale")
        assert "event: error" in call(url, "upscale", [{"path": address}])
    for name in (f"/{photo}", f"{cache}/../{photo.parent.name}/{photo.name}"):
        with pytest.raises(AppError, match="got another address"):
            client.predict(file=handle_file(f"{url}/gradio_api/file={name}"), api_name="/upscale")


def test_language_models_can_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a picture inside the request, and by the address of an upload."""
    mcp = pytest.importorskip("mcp", reason="MCP IS NOT TESTED: pip install 'sr_hub[mcp]'")
    from mcp.client.streamable_http import streamablehttp_client

    photo = make_photo(tmp_path, "photo.png")
    expected = np.asarray(upscale(SRGenerator.from_pretrained(), photo))

    async def ask(url: str) -> None:
        inside = f"data:image/png;base64,{base64.b64encode(photo.read_bytes()).decode()}"
        with urlopen(upload_of(photo, url), timeout=60) as answer:
            address = f"{url}/gradio_api/file={json.load(answer)[0]}"
        async with (
            streamablehttp_client(f"{url}/gradio_api/mcp/") as (read, write, _),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            assert [tool.name for tool in (await session.list_tools()).tools] == ["upscale", "compare"]
            for file in (inside, address):
                answer = await session.call_tool("upscale", {"file": file, "model": "clean"})
                assert not answer.isError, answer
                images = [part for part in answer.content if part.type == "image"]
                with Image.open(io.BytesIO(base64.b64decode(images[0].data))) as image:
                    assert np.array_equal(np.asarray(image.convert("RGB")), expected)

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    with gr.Blocks() as page:
        sessions = Sessions(tmp_path / "cache")
        add_api(Service(device="cpu"), sessions)
    _, address, _ = page.queue().launch(prevent_thread_lock=True, quiet=True, mcp_server=True)
    asyncio.run(ask(address.rstrip("/")))
    page.close()
    sessions.close_all()


def upload_of(path: Path, url: str) -> Request:
    """The request that hands a file in."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'
    body = head.encode() + path.read_bytes() + b"\r\n--x--\r\n"
    return Request(f"{url}/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"})


def test_the_readme_s_snippet_runs(
    url: str, models: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## The page's API")[2].partition("\n## ")[0]
    snippet = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert snippet is not None
    monkeypatch.chdir(tmp_path)
    make_photo(tmp_path, "photo.jpg", (96, 80))
    code = snippet[1]
    assert "http://127.0.0.1:7860" in code
    names: dict[str, Any] = {}
    exec(code.replace("http://127.0.0.1:7860", url), names)
    assert cli.main(["upscale", "photo.jpg", "expected.png", "--fidelity", "1", "--device", "cpu"]) == 0
    assert Path("large.png").read_bytes() == Path("expected.png").read_bytes()
    assert names["facts"]["psnr_y"] > 0
