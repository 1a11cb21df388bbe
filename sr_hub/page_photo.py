"""What happens on the page when a photo is handed in or a control is moved."""

import html
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from sr_hub.comparison import Comparison, compare, preview
from sr_hub.encoding import cannot_keep, writable_format, write_picture
from sr_hub.images import ImageError, Picture, read_picture
from sr_hub.page_controls import CANNOT_START, Controls, facts_text
from sr_hub.page_loupe import Explorer, no_file, no_photo
from sr_hub.page_pictures import Example
from sr_hub.page_sessions import Asked, Session, Sessions
from sr_hub.page_viewer import sides
from sr_hub.page_words import notice, result_facts, score_table, teller
from sr_hub.service import Service, Stopped

FORMATS = [("As the photo", ""), ("PNG", ".png"), ("WebP", ".webp"), ("JPEG", ".jpg")]

NO_TICKET = -1
"""That of no run."""

Update = tuple[Any, Any, Any, Any]
"""Of the viewer, the lines under it, the download and the Stop button."""


def _nothing() -> Update:
    return gr.skip(), gr.skip(), gr.skip(), gr.skip()


_LEFT = {
    "folder": "expected a photo, got a folder: Several photos takes those",
    "empty": "expected photos, got a folder without any",
    "unreadable": "the browser could not read what was dropped",
}


class PhotoEvents:
    """The functions behind the page's events, for one photo.

    Args:
        service: Does the work.
        controls: Shared settings.
        sessions: What is kept for each tab.
        uploads: Where gradio puts what tabs hand in.
        examples: Pictures to try.
    """

    def __init__(
        self, service: Service, controls: Controls, sessions: Sessions, uploads: Path, examples: list[Example]
    ) -> None:
        self.service, self.controls, self.sessions = service, controls, sessions
        self.uploads, self.examples = uploads.resolve(), examples
        self.explorer = Explorer(service, sessions)

    def take_upload(self, event: gr.EventData, request: gr.Request) -> tuple[int, Any]:
        """A file that the tab handed in; starts a run, unless another was handed in meanwhile."""
        path = Path(str(event.path)).resolve()
        if path.parent.parent != self.uploads or not path.is_file():
            raise gr.Error("the file was not handed in by this page", print_exception=False)
        if event.late:
            self.sessions.discard(path)
            return NO_TICKET, gr.skip()
        self.sessions.set_photo(request.session_hash, path)
        return self.start(request)

    def tell_left(self, event: gr.EventData) -> None:
        """Of what was dropped not all is taken."""
        if event.what == "others":
            gr.Info("The first was taken; Several photos takes them all.")
        else:
            warn(_LEFT[str(event.what)])

    def take_example(self, event: gr.EventData, request: gr.Request) -> tuple[int, Any]:
        """One of the examples, by its number; starts a run."""
        example = self.examples[int(event.index) % len(self.examples)]
        self.sessions.set_photo(request.session_hash, example.path, uploaded=False)
        return self.start(request)

    def start(self, request: gr.Request) -> tuple[int, Any]:
        """Ends the run under way; returns the ticket of the next one, and shows the Stop button."""
        ticket = self.sessions.take_ticket(request.session_hash)
        return ticket, gr.Button(visible=self.sessions[request.session_hash].photo is not None)

    def start_with_width(self, width: float | None, request: gr.Request) -> tuple[int, Any]:
        """The width's field was left; starts a run if it does not hold what it held in the last."""
        if width == self.sessions[request.session_hash].width:
            return NO_TICKET, gr.skip()
        return self.start(request)

    def start_with_fidelity(self, fidelity: float | None, request: gr.Request) -> tuple[int, Any]:
        """The slider was let go; starts a run if it is not where it was in the last."""
        if fidelity == self.sessions[request.session_hash].fidelity:
            return NO_TICKET, gr.skip()
        return self.start(request)

    def choose(self, model: str) -> tuple[Any, Any, Any]:
        """Another model: its facts, and whether fidelity can be chosen."""
        try:
            facts = self.service.facts((model or "").strip())
        except (ValueError, OSError) as error:
            warn(str(error))
            return gr.skip(), gr.skip(), gr.skip()
        two_ends = facts.two_ends
        return facts_text(facts), gr.Slider(visible=two_ends), gr.HTML(visible=two_ends)

    def stop(self, request: gr.Request) -> tuple[Any, str, Any]:
        """Ends the run under way within a tile."""
        ticket = self.sessions.take_ticket(request.session_hash)
        view = self.sessions[request.session_hash].view
        return view | {"turn": ticket, "stopped": True}, notice("Stopped."), gr.Button(visible=False)

    def failed(self, ticket: float, request: gr.Request) -> Update:
        """A run could not even start, as a value of the controls was none."""
        view = self.sessions[request.session_hash].view
        return (
            view | {"turn": f"{ticket:g} failed"},
            notice(CANNOT_START),
            no_file(),
            gr.Button(visible=False),
        )

    def close(self, request: gr.Request) -> None:
        """The tab was closed."""
        self.sessions.close(request.session_hash)

    def run(
        self,
        ticket: float,
        test: bool,
        suffix: str,
        quality: float,
        model: str,
        fidelity: float,
        scale: str,
        width: float | None,
        consistency: bool,
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008  # gradio looks for it here
    ) -> Iterator[Update]:
        """Enlarges the tab's photo and shows it; ends without a word when another run is wanted."""
        name = request.session_hash
        session = self.sessions[name]
        photo = session.photo
        if not self.sessions.is_wanted(name, int(ticket)):
            yield _nothing()
            return
        session.width, session.fidelity = width, fidelity
        if photo is None:
            yield *no_photo(int(ticket)), gr.skip()
            return
        try:
            size = ("", None) if test else (scale, width)  # a test gives back the size of the photo
            settings = self.controls.settings(model, fidelity, *size, consistency)
            times = settings.scale or self.service.facts(settings.model).scale
            asked = Asked(photo, settings, times, test)

            def file(picture: Picture) -> Any:
                return self._file(name, asked, picture, suffix, quality)

            yield from self._show(name, session, asked, int(ticket), progress, file)
            if self.sessions.is_wanted(name, int(ticket)):
                yield gr.skip(), gr.skip(), gr.skip(), gr.Button(visible=False)
        except Stopped:
            yield _nothing()
        except (ValueError, OSError) as error:
            text = str(error).replace(f"{photo.parent}/", "")
            if session.shown is None:  # else the view of the photo before stayed, beside another's name
                session.view = {}
            warn(text)
            yield session.view | {"turn": ticket}, notice(text), no_file(), gr.Button(visible=False)

    def _show(
        self,
        name: str | None,
        session: Session,
        asked: Asked,
        ticket: int,
        progress: Any,
        file: Callable[[Picture], Any],
    ) -> Iterator[Update]:
        def stopped() -> bool:
            return not self.sessions.is_wanted(name, ticket)

        settings, before = asked.settings, session.shown
        if before is None or before.subject != asked.subject:
            yield from self._preview(name, session, asked)
        tell = teller(progress, "Enlarging")
        if asked.test:
            tested = self.service.test(asked.photo, settings, progress=tell, stopped=stopped)
            lr, sr, session.known = tested.known.lr, tested.sr, tested.known
            said = score_table(
                tested.scores,
                tested.known.size,
                (lr.pixels.shape[1], lr.pixels.shape[0]),
                tested.known.notices,
            )
        else:
            enlarged = self.service.enlarge(asked.photo, settings, progress=tell, stopped=stopped)
            lr, sr, session.known = enlarged.lr, enlarged.picture, None
            said = result_facts(enlarged.facts, enlarged.consistency, enlarged.notices)
        shown = compare(lr, sr)
        view = self._view(name, session, asked, shown, "whole")
        if before is not None and before.ends == asked.ends:
            view |= {
                part: session.view[part] for part in ("overlay", "loupe", "ready") if part in session.view
            }
        if before is not None and before.subject != asked.subject:
            session.place = None
        _stop_if_replaced(session, asked)
        session.view, session.shown = view, asked
        self.sessions.keep(name, sr)
        _stop_if_replaced(session, asked)
        yield view, said + (notice(shown.notice) if shown.notice else ""), gr.skip(), gr.skip()
        yield gr.skip(), gr.skip(), file(sr), gr.skip()
        if "loupe" not in view:
            self.explorer.open(name, session, asked, lr, shown, stopped)
            session.view["ready"] = True
            yield session.view, gr.skip(), gr.skip(), gr.skip()

    def _preview(self, name: str | None, session: Session, asked: Asked) -> Iterator[Update]:
        """The middle of a large photo, before the whole."""
        self.service.check(asked.photo, None if asked.test else asked.settings)
        generator = self.service.generator(asked.settings.model, asked.settings.fidelity)
        middle = None if asked.test else preview(generator, read_picture(asked.photo))
        if middle is None:
            yield gr.skip(), gr.skip(), no_file(), gr.skip()
            return
        view = self._view(name, session, asked, middle, "middle")
        _stop_if_replaced(session, asked)
        session.view, session.shown, session.kept, session.known = view, None, None, None
        yield session.view, notice("The middle first; the whole photo follows."), no_file(), gr.skip()

    def _view(
        self, name: str | None, session: Session, asked: Asked, shown: Comparison, part: str
    ) -> dict[str, Any]:
        before = session.view
        facts = {
            "photo": f"{asked.photo.parent.name}/{asked.photo.name}/{asked.test}/{part}",
            "two_ends": self.service.facts(asked.settings.model).two_ends,
        }
        same = before.get("photo") == facts["photo"] and before["full"] == list(shown.full_size)
        left = None if same else self.sessions.folder(name, "left")
        view = sides(shown, ("Bicubic", "Ours"), left, self.sessions.folder(name, "right"))
        return ({"left": before["left"]} if same else {}) | view | facts

    def offer_quality(self, suffix: str, request: gr.Request) -> Any:
        """Shows the quality where there is one to choose."""
        photo = self.sessions[request.session_hash].photo
        own = "" if photo is None else _own_suffix(photo)
        return gr.Slider(visible=_has_quality(suffix or own))

    def encode(self, suffix: str, quality: float, request: gr.Request) -> tuple[Any, Any, Any, Any]:
        """The last result in another format; shows the quality where there is one to choose."""
        name = request.session_hash
        session = self.sessions[name]
        lossy = self.offer_quality(suffix, request)
        picture, asked = session.kept, session.shown
        if session.photo is None:
            return *no_photo(self.sessions.take_ticket(name)), lossy
        if picture is None or asked is None:
            return gr.skip(), gr.skip(), no_file(), lossy
        try:
            return gr.skip(), gr.skip(), self._file(name, asked, picture, suffix, quality), lossy
        except Stopped:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        except ValueError as error:
            warn(str(error))
            return gr.skip(), gr.skip(), no_file(), lossy

    def _file(self, name: str | None, asked: Asked, picture: Picture, suffix: str, quality: float) -> Any:
        """The download of a result; in PNG where the wanted format cannot hold it."""
        folder = self.sessions.folder(name, "download")
        wanted = folder / f"{_stem(asked, picture)}{suffix or _own_suffix(asked.photo)}"
        try:
            write_picture(picture, wanted, quality=int(quality) if _has_quality(wanted.suffix) else None)
        except ImageError as error:
            warn(str(error).replace(f"{folder}/", ""))
            wanted = wanted.with_suffix(".png")
            write_picture(picture, wanted)
        for lost in cannot_keep(picture, wanted):
            gr.Info(html.escape(lost))
        label = f"Download · {_kind(wanted)}, {_bytes(wanted.stat().st_size)}"
        return gr.DownloadButton(label, value=str(wanted), interactive=True)


def _stop_if_replaced(session: Session, asked: Asked) -> None:
    """Ends a run whose photo is not on the desk any more; what it has set since goes with it."""
    if session.photo != asked.photo:
        session.view, session.shown, session.kept, session.known = {}, None, None, None
        raise Stopped


def warn(text: str) -> None:
    """Shows what went wrong, in words that may be anybody's, though the toast takes HTML."""
    gr.Warning(html.escape(text), title="This did not work")


def _stem(asked: Asked, picture: Picture) -> str:
    settings = asked.settings
    if asked.test:
        return f"{asked.photo.stem}_restored"
    if settings.width is not None:
        return f"{asked.photo.stem}_{settings.width}px"
    return f"{asked.photo.stem}_x{asked.scale:g}"


def _own_suffix(photo: Path) -> str:
    try:
        writable_format(photo.name)
    except ImageError:  # HEIC and others that are only read
        return ".png"
    return photo.suffix.lower()


def _has_quality(suffix: str) -> bool:
    """Whether the page lets choose it: AVIF has one, too, but on a scale of its own."""
    return bool(suffix) and writable_format(f"a{suffix}").name in ("JPEG", "WEBP")


def _kind(path: Path) -> str:
    return writable_format(path.name).name.replace("WEBP", "WebP")


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{max(1, round(count / 1e3))} KB"
