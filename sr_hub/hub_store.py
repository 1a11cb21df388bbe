"""The loopback Hub's repositories on disk: contents by their hash, and one JSON file for each repository."""

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


@dataclass(frozen=True)
class StoredFile:
    """A file of a commit: its content's ``sha256``, the ``oid`` that git gives it, and if it is in LFS."""

    sha256: str
    size: int
    oid: str
    lfs: bool


@dataclass(frozen=True)
class Commit:
    """``files`` by their path, after the commit."""

    files: dict[str, StoredFile]
    title: str
    parent: str | None
    date: str


@dataclass
class Repository:
    """``refs`` are branches, tags and ``refs/pr/N`` with the commits they point to."""

    private: bool
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    pull_requests: int = 0

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, tag, pull request or commit hash names."""
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    def commit(self, ref: str, files: dict[str, StoredFile], title: str) -> str:
        """Adds a commit to ``ref`` and returns its hash."""
        commit = Commit(
            files, title, self.refs.get(ref), time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        )
        oid = hashlib.sha1(f"{time.time_ns()}{asdict(commit)}".encode()).hexdigest()
        self.commits[oid] = commit
        self.refs[ref] = oid
        return oid


class HubStore:
    """Repositories below one folder; nothing outside it is read or written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        (self.folder / "blobs").mkdir(parents=True, exist_ok=True)
        for leftover in (self.folder / "blobs").glob("*.part"):
            leftover.unlink()

    def create(self, name: str, *, private: bool) -> None:
        """Makes a repository ``user/name`` with a first commit on ``main``.

        Raises:
            ValueError: If the name is not ``user/name`` of letters, digits, ``.``, ``_`` and ``-``.
        """
        repository = Repository(private)
        repository.commit("main", {".gitattributes": self.put(_ATTRIBUTES)}, "initial commit")
        self.save(name, repository)

    def load(self, name: str) -> Repository | None:
        """The repository ``user/name``; None where there is none."""
        try:
            path = self._path(name)
        except ValueError:
            return None
        if not path.is_file():
            return None
        content = json.loads(path.read_text())
        commits = {
            oid: Commit(**{**commit, "files": {p: StoredFile(**f) for p, f in commit["files"].items()}})
            for oid, commit in content["commits"].items()
        }
        return Repository(**{**content, "commits": commits})

    def save(self, name: str, repository: Repository) -> None:
        """Writes the repository as a whole: a process killed meanwhile leaves the one before."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(json.dumps(asdict(repository)))
        os.replace(temporary, path)

    def delete(self, name: str) -> None:
        """Removes the repository; contents stay, as others may have them, too."""
        self._path(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """All repositories."""
        files = (self.folder / "repositories").glob("*/*.json")
        return sorted(f"{path.parent.name}/{path.name.removesuffix('.json')}" for path in files)

    def put(self, content: bytes) -> StoredFile:
        """Stores the content of a small file, as git keeps it."""
        with self.writer() as part:
            part.write(content)
            sha256 = self.finish(part)
        return StoredFile(sha256, len(content), git_oid(content), lfs=False)

    def lfs_file(self, sha256: str) -> StoredFile | None:
        """The uploaded content ``sha256`` as a file in LFS; None where it was not uploaded."""
        path = self.blob(sha256)
        if not path.is_file():
            return None
        size = path.stat().st_size
        return StoredFile(sha256, size, git_oid(lfs_pointer(sha256, size)), lfs=True)

    def blob(self, sha256: str) -> Path:
        """Where the content ``sha256`` is, or would be.

        Raises:
            ValueError: If it is no SHA-256 in hexadecimal.
        """
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"a content must be named by its SHA-256, got {sha256!r}")
        return self.folder / "blobs" / sha256

    @contextmanager
    def writer(self) -> Iterator[IO[bytes]]:
        """A file to write a content into; it is gone afterwards unless `finish` took it."""
        blobs = self.folder / "blobs"
        with tempfile.NamedTemporaryFile(suffix=".part", dir=blobs, delete=False) as file:
            try:
                yield file
            finally:
                Path(file.name).unlink(missing_ok=True)

    def finish(self, part: IO[bytes], expected: str | None = None) -> str:
        """Takes what was written to ``part`` over and returns its SHA-256.

        Raises:
            ValueError: If that is not the ``expected`` one.
        """
        part.flush()
        part.seek(0)
        digest = hashlib.sha256()
        while block := part.read(1 << 20):
            digest.update(block)
        sha256 = digest.hexdigest()
        if expected not in (None, sha256):
            raise ValueError(f"the content must have the SHA-256 {expected}, got {sha256}")
        os.replace(part.name, self.blob(sha256))
        return sha256

    def _path(self, name: str) -> Path:
        parts = name.split("/")
        if len(parts) != 2 or not all(_NAME.fullmatch(part) and ".." not in part for part in parts):
            raise ValueError(
                f"a repository must be user/name of letters, digits, '.', '_' and '-', got {name!r}"
            )
        return self.folder / "repositories" / parts[0] / f"{parts[1]}.json"


def check_path(path: Any) -> str:
    """``path``, if it names a file inside a repository.

    Raises:
        ValueError: If it is absolute, leads out of the repository or is not written plainly.
    """
    plain = isinstance(path, str) and path and "\\" not in path and "\0" not in path
    if not plain or any(part in ("", ".", "..", ".git") for part in path.split("/")):
        raise ValueError(f"a file's path must stay inside the repository, got {path!r}")
    return str(path)


def git_oid(content: bytes) -> str:
    """The hash that git names ``content`` by."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """What git keeps in place of a file in LFS."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
