"""``python app.py``: how it starts, and who may come in."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from page_driver import ROOT, Server, environment, free_port, make_models, make_photo, serve

import app


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("server"), "--auth", "ann:secret", "--auth", "bob:other") as running:
        yield running


def start(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "app.py", *words]
    return subprocess.run(
        command, cwd=ROOT, env=environment(folder), capture_output=True, text=True, timeout=120
    )


def test_start_fails_in_one_sentence(server: Server, tmp_path: Path) -> None:
    taken = server.url.rpartition(":")[2]
    for words, message in (
        (["--model", "no-such-model"], "no-such-model"),
        (["--model", str(server.model), "--port", taken], taken),
    ):
        run = start(tmp_path, *words)
        assert run.returncode == 2
        assert run.stderr.startswith("app.py: ") and message in run.stderr and "Traceback" not in run.stderr


def test_it_listens_on_an_ipv6_address(tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("NO IPV6 ON THIS MACHINE")
    words = ["--host", "[::1]", "--port", str(port := free_port()), "--model", str(make_models(tmp_path)[0])]
    process = subprocess.Popen(
        [sys.executable, "app.py", *words],
        cwd=ROOT,
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 120
        config: dict[str, Any] = {}
        while not config and process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
            with suppress(OSError), urlopen(f"http://[::1]:{port}/config", timeout=60) as answer:
                config = json.load(answer)
        assert config["title"] == "sr_hub"
        time.sleep(1)
        assert process.poll() is None, "gradio asks its own address once it listens"
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_flags_are_told_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = start(tmp_path, "--help").stdout
    for flag in (
        "--model",
        "--host",
        "--port",
        "--share",
        "--any-model",
        "--auth",
        "--max-megabytes",
        "--max-megapixels",
    ):
        assert flag in text
    assert "default: 127.0.0.1" in text
    for flag, value, message in (
        ("--auth", "ann", "expected NAME:PASSWORD, got ann"),
        ("--port", "99999", "expected a number from 1 to 65535, got 99999"),
        ("--port", "0", "expected a number from 1 to 65535, got 0"),
        ("--max-megabytes", "inf", "expected a number above 0, got inf"),
        ("--max-megapixels", "0", "expected a number above 0, got 0"),
    ):
        with pytest.raises(SystemExit, match="2"):
            app._parser().parse_args([flag, value])
        assert message in capsys.readouterr().err


def test_only_those_with_a_password_come_in(server: Server) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urlopen(f"{server.url}/config", timeout=60)
    for password, right in (("secret", True), ("wrong", False)):
        login = Request(f"{server.url}/login", f"username=ann&password={password}".encode())
        if right:
            with urlopen(login, timeout=60) as answer:
                assert json.load(answer)["success"]
        else:
            with pytest.raises(urllib.error.HTTPError, match="400"):
                urlopen(login, timeout=60)


def test_it_listens_on_this_machine_only(server: Server) -> None:
    """Not on the address by which other machines reach this one."""
    port = int(server.url.rpartition(":")[2])
    listening = {
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[3] == "0A"
    }
    assert f"0100007F:{port:04X}" in listening and f"00000000:{port:04X}" not in listening


def test_a_file_that_nobody_handed_in_is_not_taken(tmp_path: Path) -> None:
    """The page's own event with a path of the server's disk."""
    photo = make_photo(tmp_path, "private.png")
    with serve(tmp_path) as server:
        with urlopen(f"{server.url}/config", timeout=60) as answer:
            functions = json.load(answer)["dependencies"]
        ids = [f["id"] for f in functions if any(event == "photo" for _, event in f["targets"])]
        assert len(ids) == 1
        body = {"data": [], "event_data": {"path": str(photo)}, "fn_index": ids[0], "session_hash": "x"}
        call = Request(
            f"{server.url}/gradio_api/run/predict",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with pytest.raises(urllib.error.HTTPError, match="500") as caught:
            urlopen(call, timeout=60)
        assert "not in the cache folder" in caught.value.read().decode()
