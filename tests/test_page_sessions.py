"""A tab's files live as long as the tab, and are nobody else's."""

import time
from pathlib import Path

import numpy as np
import pytest

from sr_hub.images import Picture
from sr_hub.page_sessions import Sessions
from sr_hub.service import Stopped


def upload(root: Path, content: str, name: str = "photo.png") -> Path:
    """A file where gradio puts uploads: one folder for each content."""
    path = root / content / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_empty_files_of_gradio_go_with_a_tab(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    sessions.take_ticket("a")
    (tmp_path / "tmp123").touch()
    (tmp_path / "tmp456").write_bytes(b"of somebody")
    sessions.close("a")
    assert [path.name for path in tmp_path.iterdir()] == ["tmp456"]


def test_only_the_newest_run_is_wanted(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    first = sessions.take_ticket("a")
    other = sessions.take_ticket("b")
    assert sessions.is_wanted("a", first) and sessions.is_wanted("b", other)
    second = sessions.take_ticket("a")
    assert not sessions.is_wanted("a", first)
    assert sessions.is_wanted("a", second) and sessions.is_wanted("b", other)
    sessions.close("a")
    assert not sessions.is_wanted("a", second) and sessions.is_wanted("b", other)


def test_folders_of_a_purpose_follow_each_other(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    assert sessions["a"] is not sessions["b"]
    first, second = sessions.folder("a", "view"), sessions.folder("a", "view")
    loupe, foreign = sessions.folder("a", "loupe"), sessions.folder("b", "view")
    assert first.is_dir() and second.is_dir()
    third = sessions.folder("a", "view")
    assert not first.exists() and second.is_dir() and third.is_dir() and loupe.is_dir() and foreign.is_dir()
    sessions.close("a")
    assert list(tmp_path.iterdir()) == [foreign]
    sessions.close_all()
    assert not list(tmp_path.iterdir()) and len(sessions) == 0
    with pytest.raises(Stopped):
        sessions.folder("a", "view")
    with pytest.raises(Stopped):
        sessions.keep("a", Picture(np.zeros((2, 2, 3), np.uint8)))
    assert not list(tmp_path.iterdir()) and len(sessions) == 0


def test_a_new_photo_forgets_the_one_before(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    one, two = upload(tmp_path, "one"), upload(tmp_path, "two")
    sessions.set_photo("a", one)
    sessions["a"].view["left"] = "x"
    sessions.keep("a", Picture(np.zeros((2, 2, 3), np.uint8)))
    sessions.set_photo("a", one)
    assert one.exists() and sessions["a"].view == {} and sessions["a"].kept is None
    sessions.set_photo("a", two)
    assert not one.exists() and two.exists() and sessions["a"].photo == two
    sessions.set_photo("a", None)
    assert not two.exists() and sessions["a"].photo is None


def test_an_upload_of_two_tabs_stays_until_both_are_gone(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    same = upload(tmp_path, "same")
    sessions.set_photo("a", same)
    sessions.set_photo("b", same)
    sessions.close("a")
    assert same.exists() and sessions.holds(same.parent) and not sessions.holds(tmp_path)
    sessions.close("b")
    assert not same.exists() and not sessions.holds(same.parent)


def test_one_content_under_two_names_shares_a_folder(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    one, copy = upload(tmp_path, "same"), upload(tmp_path, "same", "copy.png")
    sessions.set_photo("a", one)
    sessions.set_photo("a", copy)
    assert copy.exists()
    sessions.set_photo("b", one)
    sessions.close("b")
    assert copy.exists() and sessions.holds(copy.parent)
    sessions.close("a")
    assert not copy.parent.exists()


def test_uploads_of_others_than_tabs_stay_some_minutes(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    used, again = upload(tmp_path, "used"), upload(tmp_path, "again")
    sessions.set_batch("a", {used, again})
    sessions.short_lived.use(used.parent)  # as the API does
    time.sleep(0.05)  # more than a tick of the file system's clock
    upload(tmp_path, "again", "copy.png")  # not handed in yet
    sessions.close("a")
    assert used.exists() and again.exists()
    assert sessions.short_lived.holds(again.parent)
    sessions.set_photo("b", again)
    assert not sessions.short_lived.holds(again.parent)
    sessions.close("b")
    assert used.exists() and not again.exists()
    sessions.close_all()
    assert not used.exists()


def test_pictures_of_the_program_are_not_deleted(tmp_path: Path) -> None:
    sessions, example = Sessions(tmp_path / "cache"), upload(tmp_path / "pictures", "cat")
    sessions.set_photo("a", example, uploaded=False)
    sessions.close("a")
    assert example.exists()


def test_kept_results_are_on_disk_and_whole(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 7, 4)).astype(np.uint16)
    assert sessions["a"].kept is None
    sessions.keep("a", Picture(pixels, icc_profile=b"profile"))
    kept = sessions["a"].kept
    assert kept is not None and kept.icc_profile == b"profile"
    assert isinstance(kept.pixels, np.memmap) and np.array_equal(kept.pixels, pixels)
    assert sessions["b"].kept is None


def test_uploads_of_a_batch_stay_as_long_as_they_are_worked_on(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    one, two, three = (upload(tmp_path, name) for name in ("one", "two", "three"))
    sessions.set_photo("a", one)
    sessions.set_batch("a", {one, two})
    assert sessions.holds(two.parent) and not sessions.holds(three.parent)
    sessions.set_photo("a", None)
    assert one.exists(), "the batch still has it"
    sessions.set_batch("a", {two, three})
    assert not one.exists() and two.exists() and three.exists()
    session = sessions["a"]
    sessions.close("a")
    assert not two.exists() and not three.exists() and not sessions.holds(two.parent)
    assert session.batch_ticket == 1, "a run under way ends"
