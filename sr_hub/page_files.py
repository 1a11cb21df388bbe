"""Files of the page on disk: those of clients without a tab live some minutes, and uploads leave room."""

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

MINUTES = 10
"""How long what was made for a client of the API can be fetched."""

_SPARE_DISK = 2**30  # bytes that stay free for everybody else
_RECOUNT = 5.0  # seconds after which a folder's files are counted anew

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ShortLived:
    """Folders that are deleted some minutes after they were last used. Safe to use from several threads.

    Args:
        root: Where the folders are.
        seconds: How long they live.
        in_use: Whether someone else still needs a folder, which then lives as long again.
    """

    def __init__(
        self, root: Path, seconds: float = 60 * MINUTES, in_use: Callable[[Path], bool] = lambda _: False
    ) -> None:
        self.root = root
        self._seconds = seconds
        self._in_use = in_use
        self._last_used: dict[Path, float] = {}  # the longest unused first
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def new(self) -> Path:
        """A new folder, whose name nobody can guess."""
        folder = self.root / f"sr_hub-{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        self.use(folder)
        return folder

    def use(self, folder: Path) -> None:
        """Counts the folder's time from now on."""
        with self._lock:
            self._last_used.pop(folder, None)
            self._last_used[folder] = time.monotonic()
            if self._timer is None:
                self._start_timer(self._seconds)

    def holds(self, folder: Path) -> bool:
        """Whether the folder's time runs."""
        with self._lock:
            return folder in self._last_used

    def forget(self, folder: Path) -> None:
        """Leaves the folder to others, who will delete it."""
        with self._lock:
            self._last_used.pop(folder, None)

    def delete(self, folder: Path) -> None:
        """Deletes the folder now."""
        self.forget(folder)
        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Deletes all folders."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            folders = list(self._last_used)
        for folder in folders:
            self.delete(folder)

    def _start_timer(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._sweep)
        self._timer.daemon = True
        self._timer.start()

    def _sweep(self) -> None:
        now = time.monotonic()
        with self._lock:
            old = [folder for folder, used in self._last_used.items() if now - used >= self._seconds]
        for folder in old:
            # A file that was uploaded once more lies in the same folder and is new.
            if self._in_use(folder) or time.time() - last_written(folder) < self._seconds:
                self.use(folder)
            else:
                self.delete(folder)
        with self._lock:
            oldest = next(iter(self._last_used.values()), None)
            self._timer = None
            if oldest is not None:
                self._start_timer(max(0.1, oldest + self._seconds - time.monotonic()))


def last_written(folder: Path) -> float:
    """When a file of the folder was written last, in seconds since 1970; minus infinity if there is none."""
    try:
        return max(entry.stat().st_ctime for entry in os.scandir(folder))
    except (OSError, ValueError):
        return float("-inf")


class RoomForUploads:
    """ASGI middleware that takes no upload which would leave too little room, and says so.

    Args:
        app: Takes all other requests.
        folder: Where uploads and results are.
        megabytes: They may take in all.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], folder: Path, megabytes: float) -> None:
        self._app = app
        self._folder = folder
        self._bytes = round(megabytes * 1e6)
        self._counted = (-_RECOUNT, 0)  # when, and bytes then and since

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers an upload for which there is no room by status 507."""
        if not _is_upload(scope) or self._has_room(_content_length(scope)):
            await self._app(scope, receive, send)
            return
        text = b"This server holds as many pictures as it has room for: try again in some minutes."
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 507, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    def _has_room(self, size: int) -> bool:
        when, used = self._counted
        if time.monotonic() - when >= _RECOUNT:
            when, used = time.monotonic(), _bytes_in(self._folder)
        free = shutil.disk_usage(
            next(path for path in (self._folder, *self._folder.parents) if path.is_dir())
        )
        room = used + size <= self._bytes and free.free >= size + _SPARE_DISK
        self._counted = (when, used + size * room)
        return room


class WithoutLeadingDots:
    """ASGI middleware that takes leading dots from names of uploads: gradio may refuse to read such files.

    Args:
        app: Takes the requests.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Renames what was uploaded, and says the new paths."""
        start: MutableMapping[str, Any] = {}
        body = b""

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
            elif message["type"] == "http.response.body":
                body += message.get("body", b"")
                if not message.get("more_body"):
                    if start["status"] == 200:
                        body = json.dumps([_without_leading_dots(path) for path in json.loads(body)]).encode()
                    others = [header for header in start["headers"] if header[0] != b"content-length"]
                    length = (b"content-length", str(len(body)).encode())
                    await send({**start, "headers": [*others, length]})
                    await send({"type": "http.response.body", "body": body})

        await self._app(scope, receive, answer if _is_upload(scope) else send)


def _is_upload(scope: MutableMapping[str, Any]) -> bool:
    return scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith("/upload")


def _without_leading_dots(path: str) -> str:
    named = Path(path).with_name(Path(path).name.lstrip(".") or "photo")
    try:
        Path(path).rename(named)
    except FileNotFoundError:  # still on its way from another disk
        return path
    return str(named)


def _content_length(scope: MutableMapping[str, Any]) -> int:
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # deleted meanwhile
                continue
    return total
