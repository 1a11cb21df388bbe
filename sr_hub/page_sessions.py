"""What the page keeps for one browser tab: its files, which of its runs is wanted, and its last result."""

import math
import shutil
import threading
import uuid
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sr_hub.images import Picture
from sr_hub.known_picture import KnownPicture
from sr_hub.page_files import ShortLived, last_written
from sr_hub.service import Settings, Stopped


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
        width: That the width's field held in the last run.
        fidelity: That its slider held in the last run.
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
    width: float | None = None
    fidelity: float | None = None
    place: tuple[float, float] | None = None
    kept: Picture | None = None
    known: KnownPicture | None = None


class Sessions:
    """All tabs, by gradio's session hash. Safe to use from several threads.

    Args:
        root: Folder for the files; gradio serves what lies in its own cache and copies everything else there.

    Attributes:
        short_lived: Folders that others than tabs use, too.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.short_lived = ShortLived(root.resolve(), in_use=self.holds)
        self._handed_in: dict[Path, float] = {}  # folders of uploads, and when they were written last by then
        self._unclaimed: set[Path] = set()  # folders of uploads that nobody has handed in yet
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
        """A new folder for files of the tab, deleted when the tab is closed or the second next is made.

        Raises:
            Stopped: If the tab was closed, after which nothing would delete it.
        """
        path = self._root / f"sr_hub-{uuid.uuid4().hex}"
        with self._lock:
            session = self._sessions.get(name or "")
            if session is None:
                raise Stopped
            path.mkdir(parents=True)
            folders = session.folders.setdefault(purpose, [])
            folders.append(path)
            old = folders[:-2]  # the one before may still be on its way to the browser
            del folders[:-2]
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        return path

    def is_open(self, name: str | None) -> bool:
        """Whether the tab did anything since it was closed, or was not."""
        with self._lock:
            return (name or "") in self._sessions

    def set_photo(self, name: str | None, photo: Path | None, *, uploaded: bool = True) -> None:
        """Makes a file the photo that the tab works on; deletes the upload before and what came of it."""
        session = self[name]
        before, session.uploads = session.uploads, {photo} if photo and uploaded else set()
        session.photo, session.view = photo, {}
        session.shown = session.place = session.kept = session.known = None
        self._change_uploads(before, session.uploads)

    def discard(self, upload: Path) -> None:
        """Deletes an upload that came too late for its tab, unless another tab works with it."""
        self._change_uploads(set(), {upload})
        self._change_uploads({upload}, set())

    def set_batch(self, name: str | None, uploads: set[Path]) -> None:
        """Makes files those that the tab works on one after the other; deletes those before."""
        session = self[name]
        before, session.batch = session.batch, set(uploads)
        self._change_uploads(before, session.batch)

    def keep(self, name: str | None, picture: Picture) -> None:
        """Keeps a result for further files of it, its samples on disk instead of in memory.

        Raises:
            Stopped: If the tab was closed.
        """
        path = self.folder(name, "kept") / "samples.npy"
        try:
            np.save(path, picture.pixels)
        except FileNotFoundError:  # closed just now
            raise Stopped from None
        self[name].kept = replace(picture, pixels=np.load(path, mmap_mode="c"))

    def close(self, name: str | None) -> None:
        """Ends the tab's runs and deletes its files; an upload that another tab made, too, stays for that."""
        with self._lock:
            session = self._sessions.pop(name or "", None)
        if session is None:
            return
        for path in [path for folders in session.folders.values() for path in folders]:
            shutil.rmtree(path, ignore_errors=True)
        session.batch_ticket += 1
        self._change_uploads(session.uploads | session.batch, set())
        # Gradio's component for several files leaves an empty one for each, which nobody reads.
        for path in self._root.glob("tmp*"):
            with suppress(OSError):
                if path.is_file() and path.stat().st_size == 0:
                    path.unlink()

    def close_all(self) -> None:
        """Deletes all files, when the program ends."""
        for name in list(self._sessions):
            self.close(name)
        self.short_lived.close()

    def holds(self, folder: Path) -> bool:
        """Whether a tab works with an upload in this folder."""
        with self._lock:
            return folder in self._folders_in_use()

    def _change_uploads(self, before: set[Path], after: set[Path]) -> None:
        """Takes note of a tab's new uploads and deletes those that nobody works with any more.

        Gradio gives each content a folder, whoever uploads it and under whatever name.
        """
        with self._lock:
            self._handed_in |= {path.parent: last_written(path.parent) for path in after}
            claimed = self._unclaimed & {path.parent for path in after}
            self._unclaimed -= claimed
            unused = {path.parent for path in before} - self._folders_in_use()
            written = {folder: self._handed_in.pop(folder, -math.inf) for folder in unused}
        for folder in claimed:
            self.short_lived.forget(folder)
        for folder in unused:
            if self.short_lived.holds(folder):  # a client of the API used it
                continue
            if last_written(folder) > written[folder]:  # uploaded by someone who is yet to hand it in
                self._unclaimed.add(folder)
                self.short_lived.use(folder)
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def _folders_in_use(self) -> set[Path]:
        sessions = self._sessions.values()
        return {path.parent for session in sessions for path in session.uploads | session.batch}
