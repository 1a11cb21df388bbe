"""Folders that live some minutes, and uploads that leave room."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from sr_hub.page_files import RoomForUploads, ShortLived, WithoutLeadingDots


def gone(path: Path, seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while path.exists() and time.monotonic() < until:
        time.sleep(0.02)
    return not path.exists()


def test_folders_live_their_time(tmp_path: Path) -> None:
    files = ShortLived(tmp_path, 0.4)
    folders = [files.new() for _ in range(3)]
    (folders[0] / "file").write_bytes(b"x")
    files.delete(folders[1])
    assert [folder.is_dir() for folder in folders] == [True, False, True]
    assert gone(folders[0]) and gone(folders[2])
    later = files.new()  # the clock starts again
    assert later.is_dir() and gone(later)


def test_what_is_used_again_lives_longer(tmp_path: Path) -> None:
    files = ShortLived(tmp_path, 0.6)
    first, second = files.new(), files.new()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        files.use(first)
        time.sleep(0.05)
    assert first.exists() and not second.exists()
    assert gone(first)


def test_new_uploads_and_those_in_use_stay(tmp_path: Path) -> None:
    held: set[Path] = set()
    files = ShortLived(tmp_path, 0.5, held.__contains__)
    first, second = files.new(), files.new()
    held.add(first)
    until = time.monotonic() + 1.2
    while time.monotonic() < until:  # the same content again and again
        (second / "upload").write_bytes(b"x")
        os.utime(second / "upload")
        time.sleep(0.05)
    assert first.exists() and second.exists()
    held.clear()
    assert gone(first) and gone(second)


def test_all_goes_at_the_end(tmp_path: Path) -> None:
    files = ShortLived(tmp_path)
    files.new()
    files.new()
    files.close()
    assert not list(tmp_path.iterdir())


def test_leading_dots_of_uploads_are_taken_away(tmp_path: Path) -> None:
    names = [".hidden.png", "._é.jpg", "plain.png", "..."]
    for name in names:
        (tmp_path / name).write_text(name)

    async def upload(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        paths = json.dumps([str(tmp_path / name) for name in names]).encode()
        await send({"type": "http.response.body", "body": paths[:9], "more_body": True})
        await send({"type": "http.response.body", "body": paths[9:]})

    head, body = answer(WithoutLeadingDots(upload), "/gradio_api/upload", 1)
    paths = [Path(path) for path in json.loads(body["body"])]
    assert [path.name for path in paths] == ["hidden.png", "_é.jpg", "plain.png", "photo"]
    assert [path.read_text() for path in paths] == names
    assert dict(head["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert answer(WithoutLeadingDots(inner), "/gradio_api/run", 1) == [{"type": "through"}]


def answer(
    guard: RoomForUploads | WithoutLeadingDots, path: str, length: int, method: str = "POST"
) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(b"content-length", str(length).encode())],
    }

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {}

    asyncio.run(guard(scope, receive, send))
    return sent


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "through"})


def test_uploads_beyond_the_room_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = RoomForUploads(inner, tmp_path / "cache", megabytes=0.001)
    upload = "/gradio_api/upload"
    assert answer(guard, upload, 400) == [{"type": "through"}]
    assert answer(guard, upload, 400) == [{"type": "through"}]
    refused = answer(guard, upload, 400)  # counted on although nothing is on disk yet
    assert refused[0]["status"] == 507 and b"try again in some minutes" in refused[1]["body"]
    assert answer(guard, upload, 10**9)[0]["status"] == 507
    assert answer(guard, upload, 200) == [{"type": "through"}]  # what was refused takes no room
    assert answer(guard, upload, 0, "GET") == [{"type": "through"}]
    assert answer(guard, "/gradio_api/run", 10**9) == [{"type": "through"}]

    (tmp_path / "cache" / "a").mkdir(parents=True)
    (tmp_path / "cache" / "a" / "file").write_bytes(bytes(900))
    guard = RoomForUploads(inner, tmp_path / "cache", megabytes=0.001)
    assert answer(guard, upload, 100) == [{"type": "through"}]
    guard = RoomForUploads(inner, tmp_path / "cache", megabytes=0.001)
    assert answer(guard, upload, 101)[0]["status"] == 507

    guard = RoomForUploads(inner, tmp_path, megabytes=1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 2**30 + 50}))
    assert answer(guard, upload, 50) == [{"type": "through"}]
    assert answer(guard, upload, 51)[0]["status"] == 507
