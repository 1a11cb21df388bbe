"""Which pictures of a folder become which, what is done already, and which share of them is ours."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from sr_hub.encoding import writable_format
from sr_hub.images import PLUGINS, ImageError, load_plugins
from sr_hub.whole_files import remove_leftovers, whole_file

RECORDS = ".sr-hub"
"""Folder inside the output folder with one small file for each picture that is done."""


@dataclass(frozen=True)
class Job:
    """One picture to enlarge.

    Attributes:
        name: Path of the input inside its folder, with ``/``; the file's name alone if there is no folder.
        source: The input.
        target: The result.
        record: Where it is noted that the result is there; None for no note.
    """

    name: str
    source: Path
    target: Path
    record: Path | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be done, and what is left out and why, by `Job.name`."""

    jobs: list[Job] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def share(self, index: int, count: int) -> "Plan":
        """The part of machine `index`, from 1, of `count`. A file's part depends on its name alone."""

        def ours(name: str) -> bool:
            digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
            return int.from_bytes(digest[:8], "big") % count == index - 1

        return Plan(
            [job for job in self.jobs if ours(job.name)],
            {name: reason for name, reason in self.skipped.items() if ours(name)},
            {name: reason for name, reason in self.failed.items() if ours(name)},
        )


def plan_file(source: Path, target: Path) -> Plan:
    """One picture, to a file or into a folder.

    Raises:
        ImageError: If the input is missing or the output impossible.
    """
    if not source.exists():
        raise ImageError(f"{source}: expected a picture or folder, got no such file")
    if not source.is_file():
        raise ImageError(f"{source}: expected an image file, got a pipe or device")
    if target.is_dir() or not target.suffix:
        target = target / target_name(source)
    elif not target.parent.is_dir():
        raise ImageError(f"{target}: expected an existing folder for the result, got {target.parent}")
    writable_format(target)
    if target.exists() and target.samefile(source):
        raise ImageError(f"{target}: expected another file than the input, got the input itself")
    return Plan([Job(source.name, source, target)])


def plan_folder(source: Path, target: Path) -> Plan:
    """Every picture of a folder tree, to the same place in another.

    Raises:
        ImageError: If the output is a file or the input itself.
    """
    if target.exists() and not target.is_dir():
        raise ImageError(f"{target}: expected a folder for the pictures of a folder, got a file")
    if target.exists() and target.samefile(source):
        raise ImageError(f"{target}: expected another folder than the input, got the input itself")
    plan = Plan()
    taken: dict[Path, str] = {}
    files = _files_of(source, target, plan)
    inputs = {path.resolve() for path in files}
    for path in files:
        name = path.relative_to(source).as_posix()
        if path.name.startswith(".") or not _is_picture(path):
            plan.skipped[name] = "hidden" if path.name.startswith(".") else "not a picture"
            continue
        place = path.relative_to(source).with_name(target_name(path))
        if place in taken:
            plan.failed[name] = f"would be written to {target / place}, as {source / taken[place]} is"
            continue
        if (target / place).resolve() in inputs:  # where the input lies inside the output
            plan.failed[name] = f"would be written to {target / place}, which is a picture of the input"
            continue
        taken[place] = name
        record = target / RECORDS / place.with_name(_record_name(place.name))
        plan.jobs.append(Job(name, path, target / place, record))
    return plan


def tidy(plan: Plan) -> None:
    """Remove what killed runs of the same plan left unfinished."""
    records = {job.record.parent for job in plan.jobs if job.record is not None}
    for folder in {job.target.parent for job in plan.jobs} | records:
        remove_leftovers(folder)


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_done(job: Job, content: str, settings: str) -> bool:
    """Whether the result is there and made of this very input with these very settings.

    Args:
        job: With a place for its record.
        content: `fingerprint` of the input.
        settings: Any text that differs when the result would.
    """
    if job.record is None:
        return False
    try:
        noted = json.loads(job.record.read_text(encoding="utf-8"))
        return bool(noted == _note(job, content, settings))
    except (OSError, ValueError):  # no record or no result, or not one of ours
        return False


def note_done(job: Job, content: str, settings: str) -> None:
    """Note that the result is written.

    Raises:
        OSError: If the note cannot be written.
    """
    if job.record is not None:
        job.record.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(job.record) as file:
            file.write(json.dumps(_note(job, content, settings)).encode() + b"\n")


def shown(name: object) -> str:
    """A file's name or path as this terminal or log can print it, on one line."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def sentence(job: Job, error: BaseException) -> str:
    """What an error says of a job, on one line that names the file."""
    text = str(error).strip() or type(error).__name__
    for path in (job.source, job.target, job.target.parent):
        text = text.replace(str(path), shown(path))
    text = shown(text.splitlines()[0])
    return text if shown(job.source) in text else f"{shown(job.source)}: {text}"


def errors_file(target: Path, shard: tuple[int, int] | None) -> Path:
    """Where a run notes the files of which it made no picture."""
    return target / ("errors.jsonl" if shard is None else f"errors-{shard[0]}-of-{shard[1]}.jsonl")


def write_errors(path: Path, plan: Plan) -> None:
    """Note the files that failed or were skipped, one line of JSON each, sorted; no file if there are none.

    Raises:
        OSError: If it cannot be written.
    """
    lines = [
        json.dumps({"file": name, "status": status, "reason": reason})
        for status, reasons in (("failed", plan.failed), ("skipped", plan.skipped))
        for name, reason in sorted(reasons.items())
    ]
    if not lines:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(("\n".join(lines) + "\n").encode())


def _record_name(name: str) -> str:
    """The result's name with a suffix, or, where file systems take none so long, with a hash in its place."""
    encoded = name.encode("utf-8", "surrogateescape")
    return f"{name}.json" if len(encoded) <= 250 else f"{hashlib.sha256(encoded).hexdigest()}.json"


def _note(job: Job, content: str, settings: str) -> dict[str, object]:
    return {
        "input": content,
        "settings": hashlib.sha256(settings.encode()).hexdigest(),
        "bytes": job.target.stat().st_size,
    }


def _files_of(source: Path, target: Path, plan: Plan) -> list[Path]:
    """All files of the tree, through links to folders, too, sorted; not those of an output folder inside it.

    What cannot be read goes into `plan`.
    """
    inside = target.resolve()
    apart = inside in source.resolve().parents
    files = []
    for path in sorted(_walk(source, plan, None if apart else inside)):
        if path.is_file():
            if apart or inside not in path.resolve().parents:
                files.append(path)
        elif path.is_symlink() and not path.name.startswith(".") and _is_picture(path):
            plan.failed[path.relative_to(source).as_posix()] = "a link to a file that is not there"
    return files


def _walk(source: Path, plan: Plan, left_out: Path | None) -> Iterator[Path]:
    """What is no folder in the tree, in any order, without what lies in the folder `left_out`.

    A link to a folder is followed where it leads out of the tree. One that leads back to where the way came
    from is a loop; pictures of another folder of the tree are made where they lie.
    """
    root = source.resolve()
    # Folders as they are named and as they really are, and those whose links led there.
    waiting: list[tuple[Path, Path, tuple[Path, ...]]] = [(source, root, ())]
    while waiting:
        folder, around, way = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            name = folder.relative_to(source).as_posix()
            plan.failed[f"{name}/"] = f"a folder that cannot be read: {error.strerror}"
            continue
        for entry in entries:
            path = folder / entry.name
            if not _is_folder(entry):
                yield path
            elif entry.name == RECORDS:
                continue
            elif not entry.is_symlink():
                if around / entry.name == left_out:
                    continue
                waiting.append((path, around / entry.name, way))
            else:
                place = path.resolve()
                if any(place in (passed, *passed.parents) for passed in (*way, around)):
                    continue
                if root in place.parents:
                    name = path.relative_to(source).as_posix()
                    plan.skipped[f"{name}/"] = (
                        "a link to a folder of the input, whose pictures are made there"
                    )
                else:
                    waiting.append((path, place, (*way, around)))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Or a link to one. What the folder's list tells is not asked for again: networks are slow."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


def target_name(source: Path) -> str:
    """The input's name where its suffix can be written; else with ``.png`` at its end."""
    try:
        writable_format(source)
    except ImageError:
        return f"{source.name}.png"
    return source.name


def _is_picture(path: Path) -> bool:
    """By suffix, or, where that says nothing, by what Pillow makes of its first bytes."""
    load_plugins()
    if path.suffix.lower() in PLUGINS:
        return True
    if path.suffix.lower() in Image.registered_extensions():
        # Pillow opens MPO, JPEG with more pictures behind it, as JPEG.
        return Image.registered_extensions()[path.suffix.lower()] in {*Image.OPEN, "MPO"}
    try:
        with Image.open(path):
            return True
    except Exception:  # on hostile bytes anything; a file without a known suffix that does not open is none
        return False
