"""The loupe and the overlay of the page: what a family's two ends make of the tab's photo."""

import html
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from sr_hub.comparison import Comparison
from sr_hub.consistency import Consistent
from sr_hub.images import Picture, read_picture
from sr_hub.loupe import difference_from_bicubic, difference_map, find_place, look, overlay, place_of_largest
from sr_hub.page_sessions import Asked, Session, Sessions
from sr_hub.page_viewer import loupe_part, overlay_part
from sr_hub.page_words import notice, teller
from sr_hub.service import CONSISTENCY_STEPS, Service, Settings, Stopped

EXPLORED_PIXELS = 400_000
"""LR pixels up to which both ends are compared on the whole picture at once; of larger ones, when asked."""


class Explorer:
    """Fills the viewer's loupe and its overlay.

    Args:
        service: Has the generators.
        sessions: What is kept for each tab.
    """

    def __init__(self, service: Service, sessions: Sessions) -> None:
        self.service, self.sessions = service, sessions

    def open(
        self,
        name: str | None,
        session: Session,
        asked: Asked,
        lr: Picture,
        shown: Comparison,
        stopped: Callable[[], bool],
    ) -> None:
        """Looks where the ends differ most; where the tab looked before, if that was the same photo."""

        def watch(done: int, total: int) -> None:
            if stopped():
                raise Stopped

        ends, place = self._ends(asked.settings), None
        if len(ends) == 1:
            place = place_of_largest(difference_from_bicubic(shown, lr))
        elif lr.pixels.shape[0] * lr.pixels.shape[1] <= EXPLORED_PIXELS:
            differences = difference_map(lr, ends[0], ends[1], watch)
            self._cover(name, session, differences)
            place = place_of_largest(differences)
        else:
            place = find_place(lr, ends[0], ends[1])
        session.place = session.place or place
        self._look(name, session, asked, lr)

    def look(self, event: gr.EventData, request: gr.Request) -> tuple[Any, Any, Any]:
        """Looks where the tab clicked; returns updates of the viewer, the lines and the download."""
        name = request.session_hash
        session = self.sessions[name]
        asked = session.shown
        if session.photo is None:
            return no_photo(self.sessions.take_ticket(name))
        if asked is None:
            return gr.skip(), gr.skip(), gr.skip()
        try:
            session.place = (float(event.x), float(event.y))
            self._look(name, session, asked, self._lr(session, asked))
        except Stopped:
            return gr.skip(), gr.skip(), gr.skip()
        except (ValueError, OSError) as error:
            gr.Warning(html.escape(str(error)), title="This did not work")
        return session.view, gr.skip(), gr.skip()

    def invented(
        self,
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008  # gradio looks for it here
    ) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Compares the ends on the whole of a large photo, which was not done at once.

        Yields updates of the viewer, the lines, the download and the Stop button.
        """
        name = request.session_hash
        session = self.sessions[name]
        asked, ticket = session.shown, session.ticket
        if session.photo is None:
            yield *no_photo(self.sessions.take_ticket(name)), gr.skip()
            return
        if asked is None or "overlay" in session.view:
            yield session.view, gr.skip(), gr.skip(), gr.skip()
            return
        yield gr.skip(), gr.skip(), gr.skip(), gr.Button(visible=True)
        tell = teller(progress, "Comparing both ends")

        def report(done: int, total: int) -> None:
            if not self.sessions.is_wanted(name, ticket):
                raise Stopped
            tell(done, total)

        try:
            ends = self._ends(asked.settings)
            if len(ends) == 2:
                lr = self._lr(session, asked)
                self._cover(name, session, difference_map(lr, ends[0], ends[1], report))
            yield session.view, gr.skip(), gr.skip(), gr.Button(visible=False)
        except Stopped:
            yield gr.skip(), gr.skip(), gr.skip(), gr.skip()

    def _lr(self, session: Session, asked: Asked) -> Picture:
        return session.known.lr if asked.test and session.known else read_picture(asked.photo)

    def _ends(self, settings: Settings) -> list[Any]:
        """Both ends, fidelity first, or the only one, bound to the photo where that is asked."""
        shares: tuple[float | None, ...] = (
            (1.0, 0.0) if self.service.facts(settings.model).two_ends else (None,)
        )
        ends = [self.service.generator(settings.model, share) for share in shares]
        return [Consistent(end, CONSISTENCY_STEPS) for end in ends] if settings.consistency else list(ends)

    def _look(self, name: str | None, session: Session, asked: Asked, lr: Picture) -> None:
        ends = self._ends(asked.settings)
        names = ["Bicubic", *(["Fidelity", "Detail"] if len(ends) == 2 else ["Ours"])]
        original = session.known.hr if asked.test and session.known else None
        if original is not None:
            names.append("Original")
        assert session.place is not None
        factor = session.view["full"][0] / lr.pixels.shape[1]
        loupe = look(lr, ends, session.place, factor, original)
        session.view["loupe"] = loupe_part(loupe, names, self.sessions.folder(name, "loupe"))

    def _cover(self, name: str | None, session: Session, differences: Any) -> None:
        session.view["overlay"] = overlay_part(overlay(differences), self.sessions.folder(name, "overlay"))


def no_photo(turn: int) -> tuple[Any, Any, Any]:
    """Of the viewer, the lines and the download, without a photo: none yet, or the tab was out of reach.

    Args:
        turn: A number that tells this value of the viewer from the one before.
    """
    return {"turn": turn}, notice("Hand in a photo first."), no_file()


def no_file() -> Any:
    """The download while there is none."""
    return gr.DownloadButton("Download", value=None, interactive=False)
