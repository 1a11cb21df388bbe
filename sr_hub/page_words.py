"""The lines under the viewer, as HTML in which nobody else's words can be markup."""

import html
import time
from collections.abc import Callable, Sequence
from typing import Any

from sr_hub.known_picture import KnownScores

Tell = Callable[[int, int], None]


def notice(text: str) -> str:
    """A line of its own."""
    return f'<p class="notice">{html.escape(text)}</p>'


def result_facts(line: str, consistency: float | None, notices: Sequence[str]) -> str:
    """What is said of a result."""
    said = [f'<p class="line">{html.escape(line)}</p>']
    if consistency is not None:
        said.append(
            f'<p class="given-back">Shrunk again, the result gives back <b>{floor_percent(consistency)}</b> '
            "of the photo.</p>"
        )
    return "".join([*said, *map(notice, notices)])


def score_table(
    scores: KnownScores, size: tuple[int, int], small: tuple[int, int], notices: Sequence[str]
) -> str:
    """What came of the test on a known picture of a `size`, shrunk to a `small` one, width first."""
    rows = (
        ("Bicubic", scores.bicubic_psnr_y, scores.bicubic_ssim_y),
        ("Ours", scores.psnr_y, scores.ssim_y),
    )
    cells = "".join(
        f"<tr><th>{name}</th><td>{psnr:.2f} dB</td><td>{ssim:.4f}</td></tr>" for name, psnr, ssim in rows
    )
    line = (
        f"Your photo, {size[0]}×{size[1]}, was shrunk to {small[0]}×{small[1]}, restored, and compared with "
        "itself. Higher is closer."
    )
    table = f"<table><tr><th></th><th>PSNR-Y</th><th>SSIM-Y</th></tr>{cells}</table>"
    return f'<p class="line">{line}</p>{table}' + "".join(map(notice, notices))


def floor_percent(share: float) -> str:
    """A share as a percentage that never says more than there is: 100 % is all of it."""
    return f"{int(share * 1000) / 10:g} %"


def teller(progress: Callable[..., Any], what: str) -> Tell:
    """A function of the tiles done and all tiles, which tells gradio's `progress` them and the time to go."""
    start = time.perf_counter()

    def tell(done: int, total: int) -> None:
        left = (time.perf_counter() - start) / done * (total - done)
        progress((done, total), desc=f"{what}, about {left:.0f} s to go", unit="tiles")

    return tell
