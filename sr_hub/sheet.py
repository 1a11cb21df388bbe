"""Picture sheets to look at: bicubic | SR | HR, one row for each crop."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from sr_hub.evaluation import Sample
from sr_hub.metrics import luma, round_to_8_bits

_TITLES = ("bicubic", "SR", "HR")
_GAP = 4  # pixels between pictures
_LINE = 14  # pixels of a line of Pillow's built-in font


@dataclass(frozen=True)
class SheetRow:
    """One row of a sheet: three images ``(1, 3, H, W)`` of one size, in [0, 1]."""

    title: str
    bicubic: Tensor
    sr: Tensor
    hr: Tensor


def save_sheet(path: Path, rows: Sequence[SheetRow]) -> None:
    """Writes ``rows`` as one PNG, each under its title, with the columns named on top.

    Raises:
        ValueError: When there are no rows, or a row's images differ in size.
    """
    if not rows:
        raise ValueError("a sheet needs at least one row")
    for row in rows:
        if not row.bicubic.shape == row.sr.shape == row.hr.shape:
            sizes = [tuple(image.shape) for image in (row.bicubic, row.sr, row.hr)]
            raise ValueError(f"{row.title}: images of a row must have one size, got {sizes}")
    width = max(row.hr.shape[-1] for row in rows)
    height = sum(row.hr.shape[-2] + _LINE + _GAP for row in rows)
    sheet = Image.new("RGB", (3 * width + 2 * _GAP, _LINE + height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(_TITLES):
        draw.text((column * (width + _GAP), 1), title, fill="black")
    top = _LINE
    for row in rows:
        # The built-in font knows Latin-1 only where Pillow has no FreeType.
        draw.text((0, top + 1), row.title.encode("latin-1", "replace").decode("latin-1"), fill="black")
        top += _LINE
        for column, image in enumerate((row.bicubic, row.sr, row.hr)):
            sheet.paste(to_picture(image), (column * (width + _GAP), top))
        top += row.hr.shape[-2] + _GAP
    sheet.save(path, format="PNG")


@dataclass
class CentreCrops:
    """An observer of ``evaluate`` that keeps the centre of the first ``count`` images.

    The same crops each time: to watch a training run. ``size`` is in HR pixels.
    """

    count: int = 4
    size: int = 192
    rows: list[SheetRow] = field(default_factory=list)

    def __call__(self, sample: Sample, bicubic: Tensor, sr: Tensor) -> None:
        if len(self.rows) < self.count:
            top, left = (max(0, side - self.size) // 2 for side in sample.hr.shape[-2:])
            self.rows.append(_cut(sample.name, (bicubic, sr, sample.hr), top, left, self.size))


@dataclass
class WorstCrops:
    """An observer of ``evaluate`` that keeps the ``count`` crops, one per image, with the largest error.

    The error is the mean squared difference of Y between ``sr`` and ``hr``. ``size`` is in HR pixels.
    """

    count: int = 3
    size: int = 128
    _found: list[tuple[float, SheetRow]] = field(default_factory=list)

    @property
    def rows(self) -> list[SheetRow]:
        """The crops found so far, the worst first."""
        return [row for _, row in self._found]

    def __call__(self, sample: Sample, bicubic: Tensor, sr: Tensor) -> None:
        error = (luma(sr) - luma(sample.hr)).square()  # (1, 1, H, W)
        window = (min(self.size, error.shape[-2]), min(self.size, error.shape[-1]))
        stride = max(1, self.size // 8)
        means = F.avg_pool2d(error, window, stride=stride)[0, 0]
        worst = int(means.argmax())
        top, left = worst // means.shape[1] * stride, worst % means.shape[1] * stride
        title = f"{sample.name}  row {top}, column {left}  error {means.max().sqrt().item():.1f} of 255"
        row = _cut(title, (bicubic, sr, sample.hr), top, left, self.size)
        self._found = sorted([*self._found, (means.max().item(), row)], key=lambda item: -item[0])[
            : self.count
        ]


def _cut(title: str, images: tuple[Tensor, Tensor, Tensor], top: int, left: int, size: int) -> SheetRow:
    # A copy, so that a sheet of small crops does not keep whole images in memory.
    bicubic, sr, hr = (image[..., top : top + size, left : left + size].clone() for image in images)
    return SheetRow(title, bicubic, sr, hr)


def to_picture(image: Tensor) -> Image.Image:
    """``image`` ``(1, 3, H, W)`` in [0, 1], clamped, as 8-bit RGB."""
    values = round_to_8_bits(image[0].float().cpu()).mul(255).round().byte()
    return Image.fromarray(values.permute(1, 2, 0).contiguous().numpy())
