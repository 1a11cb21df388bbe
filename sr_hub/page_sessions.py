"""What the page keeps for one browser tab: its files, which of its runs is wanted, and its last result."""

import shutil
import threading
import uuid
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sr_hub.images import Picture
from sr_hub.known_picture import KnownPicture
from sr_hub.service import Settings


@dataclass(frozen=True)
class Asked:
    """What a view shows, or is to show.

    Attributes:
        photo: The file.
        settings: What is asked of it.
        scale: Pixels of the result for one of the photo, if no width is asked for.
        test: Whether it is the test on a known picture.
    """

    photo: Path
    settings: Settings
    scale: float
    test: bool

    @property
    def subject(self) -> tuple[Path, bool]:
        """What does not change with the model and its settings."""
        return self.photo, self.test

    @property
    def ends(self) -> tuple[Any, ...]:
        """What the loupe and the overlay depend on."""
        settings = self.settings
        size = (settings.scale, settings.width) if not self.test else ()
        return *self.subject, settings.model, settings.consistency, size


@dataclass
class Session:
    """One tab. Only its own events read or write it.

    Attributes:
        ticket: Number of the run that is wanted; runs with another number end.
        photo: What the tab works on.
        uploads: Files that the tab handed in.
        batch: Files that it handed in together, to be enlarged one after the other.
        batch_ticket: Number of the run over them that is wanted.
        folders: Folders with what was made for the tab, by what they are for, the newest last.
        view: What the tab's viewer shows.
        shown: What the view was made of.
        place: Where the loupe looks, across and down, each from 0 to 1.
        kept: The last result, its samples on disk.
        known: The test on a known picture, while it is on.
    """

    ticket: int = 0
    photo: Path | None = None
    uploads: set[Path] = field(default_factory=set)
    batch: set[Path] = field(default_factory=set)
    batch_ticket: int = 0
    folders: dict[str, list[Path]] = field(default_factory=dict)
    view: dict[str, Any] = field(default_factory=dict)
    shown: Asked | None = None
    place: tuple[float, float] | None = None
    kept: Picture | None = None
    known: KnownPicture | None = None


class Sessions:
    """All tabs, by gradio's session hash. Safe to use from several threads.

    Args:
        root: Folder for the files; gradio serves what lies in its own cache and copies everything else there.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sessions: defaultdict[str, Session] = defaultdict(Session)
        self._lock = threading.Lock()

    def __getitem__(self, name: str | None) -> Session:
        with self._lock:
            return self._sessions[name or ""]

    def __len__(self) -> int:
        return len(self._sessions)

    def take_ticket(self, name: str | None) -> int:
        """Ends the tab's runs and returns the number of its next one."""
        session = self[name]
        with self._lock:
            session.ticket += 1
            return session.ticket

    def is_wanted(self, name: str | None, ticket: int) -> bool:
        """Whether the tab still waits for the run of this number."""
        with self._lock:
            return name is not None and name in self._sessions and self._sessions[name].ticket == ticket

    def folder(self, name: str | None, purpose: str) -> Path:
        """A new folder for files of the tab, deleted when the tab is closed or the second next is made."""
        path = self._root / f"sr_hub-{uuid.uuid4().hex}"
        path.mkdir(parents=True)
        folders = self[name].folders.setdefault(purpose, [])
        folders.append(path)
        while len(folders) > 2:  # the one before may still be on its way to the browser
            shutil.rmtree(folders.pop(0), ignore_errors=True)
        return path

    def set_photo(self, name: str | None, photo: Path | None, *, uploaded: bool = True) -> None:
        """Makes a file the photo that the tab works on; deletes the upload before and what came of it."""
        session = self[name]
        before, session.uploads = session.uploads, {photo} if photo and uploaded else set()
        session.photo, session.view = photo, {}
        session.shown = session.place = session.kept = session.known = None
        self._delete_uploads(before - session.uploads)

    def set_batch(self, name: str | None, uploads: set[Path]) -> None:
        """Makes files those that the tab works on one after the other; deletes those before."""
        session = self[name]
        before, session.batch = session.batch, set(uploads)
        self._delete_uploads(before - session.batch)

    def keep(self, name: str | None, picture: Picture) -> None:
        """Keeps a result for further files of it, its samples on disk instead of in memory."""
        path = self.folder(name, "kept") / "samples.npy"
        np.save(path, picture.pixels)
        self[name].kept = replace(picture, pixels=np.load(path, mmap_mode="r"))

    def close(self, name: str | None) -> None:
        """Ends the tab's runs and deletes its files; an upload that another tab made, too, stays for that."""
        with self._lock:
            session = self._sessions.pop(name or "", None)
        if session is None:
            return
        for path in [path for folders in session.folders.values() for path in folders]:
            shutil.rmtree(path, ignore_errors=True)
        session.batch_ticket += 1
        self._delete_uploads(session.uploads | session.batch)

    def close_all(self) -> None:
        """Deletes all files, when the program ends."""
        for name in list(self._sessions):
            self.close(name)

    def holds(self, folder: Path) -> bool:
        """Whether a tab works with an upload in this folder."""
        with self._lock:
            return any(path.parent == folder for path in self._uploads())

    def _delete_uploads(self, paths: set[Path]) -> None:
        with self._lock:
            in_use = self._uploads()
        for path in paths - in_use:  # gradio gives each content a folder
            shutil.rmtree(path.parent, ignore_errors=True)

    def _uploads(self) -> set[Path]:
        return {path for session in self._sessions.values() for path in session.uploads | session.batch}
