"""Scores of a generator on known pictures, always beside those of bicubic resizing."""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from sr_hub.data import decode, is_usable, list_images
from sr_hub.degradations import Degradation
from sr_hub.metrics import LPIPS, psnr_y, round_to_8_bits, ssim_y
from sr_hub.resample import downscale_bicubic, upscale_bicubic

Observer = Callable[["Sample", Tensor, Tensor], None]
"""``(sample, bicubic, sr) -> None``; both images are like ``sample.hr``, rounded to 8 bits, on the CPU."""


@dataclass(frozen=True)
class Pair:
    """One picture of an evaluation set: its ``hr`` file and, where the set has one, its ``lr`` file."""

    name: str
    hr: Path
    lr: Path | None = None


@dataclass(frozen=True)
class Sample:
    """``hr`` ``(1, 3, scale*H, scale*W)`` and ``lr`` ``(1, 3, H, W)``, both in [0, 1] on the CPU."""

    name: str
    hr: Tensor
    lr: Tensor


@dataclass(frozen=True)
class Scores:
    """What one image, or the mean over images, got.

    ``psnr_y`` in dB and ``ssim_y`` leave ``scale`` pixels of each border out, as papers do. ``lpips`` is None
    where it was not measured. ``lr_consistency`` is the PSNR-Y in dB between ``lr`` and the result shrunk
    again by bicubic. A PSNR is infinite where the images are equal.
    """

    psnr_y: float
    ssim_y: float
    lpips: float | None
    lr_consistency: float


@dataclass(frozen=True)
class ImageScores:
    """The scores of one image; ``height`` and ``width`` are HR pixels."""

    name: str
    height: int
    width: int
    sr: Scores
    bicubic: Scores


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of images. ``settings`` says how they came about: model, data, seed and so on."""

    scale: int
    images: tuple[ImageScores, ...]
    settings: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def sr(self) -> Scores:
        """Means over the images of the generator's scores."""
        return _mean([image.sr for image in self.images])

    @property
    def bicubic(self) -> Scores:
        """Means over the images of bicubic's scores."""
        return _mean([image.bicubic for image in self.images])

    def to_json(self) -> str:
        """Returns JSON with settings, means and images; an infinite PSNR and an unmeasured score are null."""
        content = {
            "scale": self.scale,
            "settings": dict(self.settings),
            "mean": {"sr": asdict(self.sr), "bicubic": asdict(self.bicubic)},
            "images": [asdict(image) for image in self.images],
        }
        return json.dumps(_without_infinity(content), indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """Returns a Markdown table: the means, then each image; bicubic's score in brackets."""
        lines = [f"- {name}: {value}" for name, value in self.settings.items()]
        lines += [
            "",
            "| image | PSNR-Y dB | SSIM-Y | LPIPS | LR-consistency dB |",
            "|---|---:|---:|---:|---:|",
            _markdown_row(f"**mean of {len(self.images)}**", self.sr, self.bicubic),
        ]
        lines += [_markdown_row(image.name, image.sr, image.bicubic) for image in self.images]
        lines += ["", f"Ours (bicubic). x{self.scale}; higher is better, except for LPIPS."]
        return "\n".join(lines).lstrip("\n") + "\n"


def find_pairs(
    folder: Path, scale: int, *, use_lr: bool = True, leave_out: Sequence[Path] = ()
) -> list[Pair]:
    """Returns the pictures of an evaluation set, sorted by name.

    Args:
        folder: Any tree of HR images; or a folder with ``HR/`` and, optionally, ``LRx4/`` (``LRx2/``, ...)
            inside, whose files belong together by their names, ``a/b.png`` to ``a/b.png`` or ``a/bx4.png``;
            where not all names are such, in the order of their names.
        scale: HR pixels per LR pixel; says which LR folder is meant.
        use_lr: Whether to use the LR folder where there is one.
        leave_out: As for ``list_images``.

    Raises:
        FileNotFoundError: When ``folder`` is not a folder.
        ValueError: When it holds no images, not one LR image for each HR image, or an LR image that by its
            name is another's than by its place.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of evaluation images at {folder}")
    hr_folder = folder / "HR" if (folder / "HR").is_dir() else folder
    lr_folder = folder / f"LRx{scale}"
    hr_paths = list_images(hr_folder, leave_out)
    if not hr_paths:
        raise ValueError(f"no images in {hr_folder}")
    names = [path.relative_to(hr_folder).as_posix() for path in hr_paths]
    if not use_lr or hr_folder == folder or not lr_folder.is_dir():
        return [Pair(name, path) for name, path in zip(names, hr_paths, strict=True)]
    lr_paths = list_images(lr_folder)
    if len(lr_paths) != len(hr_paths):
        raise ValueError(f"{len(hr_paths)} images in {hr_folder}, but {len(lr_paths)} in {lr_folder}")
    stems = [Path(name).with_suffix("").as_posix() for name in names]
    lr_stems = [path.relative_to(lr_folder).with_suffix("").as_posix() for path in lr_paths]
    order = _order(stems, lr_stems, scale)
    return [Pair(name, hr_paths[at], lr_paths[order[at]]) for at, name in enumerate(names)]


def _order(stems: list[str], lr_stems: list[str], scale: int) -> list[int]:
    """Which of the LR images is that of each HR image."""
    bare = [re.sub(rf"[-_]?x{scale}$", "", stem, flags=re.IGNORECASE) for stem in lr_stems]
    for of_lr, of_hr in ((lr_stems, stems), (bare, stems), (_own_parts(lr_stems), _own_parts(stems))):
        if sorted(of_lr) == sorted(set(of_hr)):
            return [of_lr.index(stem) for stem in of_hr]
    for stem, lr_stem, name in zip(stems, lr_stems, bare, strict=True):
        owner = lr_stem if lr_stem in stems else name
        if owner in stems and owner != stem:
            raise ValueError(
                f"LR image {lr_stem} must be that of {stem} by its place, but is {owner}'s by its name: "
                f"name both alike"
            )
    return list(range(len(stems)))


def _own_parts(stems: list[str]) -> list[str]:
    """What is left of the names without the beginning and the end that all share: ``1`` of ``1_bicubic``."""
    ends = [stem[len(os.path.commonprefix(stems)) :] for stem in stems]
    shared = len(os.path.commonprefix([end[::-1] for end in ends]))
    return [end[: len(end) - shared] for end in ends]


def hold_out(paths: Sequence[Path], scale: int) -> list[Path]:
    """The four training images to validate on, of 20 or more spread over all, else the first ones.

    Fewer where there are not as many. For one that cannot be read or scored the next that can steps in; what
    was wrong with it, the training crops report.

    Args:
        paths: Of all training images, sorted.
        scale: HR pixels per LR pixel.
    """
    usable = cache(lambda path: is_usable(path, least_side(scale)))
    apart = len(paths) // 4 if len(paths) >= 20 else 1
    chosen: list[Path] = []
    for first in range(0, len(paths), apart)[:4]:
        following = (path for path in (*paths[first:], *paths[:first]) if path not in chosen)
        chosen += [path for path in following if usable(path)][:1]
    return chosen


def least_side(scale: int) -> int:
    """HR pixels, each way, of the smallest image that ``evaluate`` can score."""
    # SSIM's window is 11x11, and scale pixels of each border are left out.
    return math.ceil((11 + 2 * scale) / scale) * scale


def load_samples(
    pairs: Sequence[Pair],
    scale: int,
    *,
    degradation: Degradation,
    seed: int = 0,
    largest_side: int | None = None,
) -> Iterator[Sample]:
    """Reads the pairs one by one, making ``lr`` of ``hr`` where a pair has no LR file.

    Args:
        pairs: From ``find_pairs``.
        scale: HR pixels per LR pixel.
        degradation: Makes ``lr``; draws from ``(seed, index of the pair)`` alone. HR sides are first cut to
            multiples of ``scale`` at the right and the bottom.
        seed: Of the degradation.
        largest_side: HR pixels; larger images are cut to their centre. None keeps them whole.

    Raises:
        ValueError: When a file cannot be read or an LR image has not the HR size divided by ``scale``.
    """
    for index, pair in enumerate(pairs):
        hr = _read(pair.hr)
        if pair.lr is None:
            height, width = (side // scale * scale for side in hr.shape[-2:])
            hr = hr[..., :height, :width]
            if not hr.numel():
                raise ValueError(f"{pair.hr} is smaller than {scale}x{scale} pixels")
            random = torch.Generator().manual_seed(seed * 1_000_003 + index)
            lr = degradation(hr, scale, [random])
        else:
            lr = _read(pair.lr)
        lr_size = tuple(lr.shape[-2:])
        if tuple(hr.shape[-2:]) != (scale * lr_size[0], scale * lr_size[1]):
            raise ValueError(f"{pair.lr} must be {scale} times smaller than {pair.hr}, got {lr_size} (h, w)")
        yield _cut_centre(Sample(pair.name, hr, lr), scale, largest_side)


def evaluate(
    generator: Callable[[Tensor], Tensor],
    samples: Iterable[Sample],
    scale: int,
    *,
    lpips: LPIPS | None = None,
    device: torch.device | str = "cpu",
    observers: Sequence[Observer] = (),
    settings: Mapping[str, str | int] | None = None,
) -> Evaluation:
    """Scores ``generator`` and bicubic resizing on ``samples``.

    A module is put into eval mode meanwhile. Nothing is tiled and no precision chosen here: that is the
    generator's own affair.

    Args:
        generator: ``lr`` ``(1, 3, H, W)`` in [0, 1] on ``device`` to ``sr`` ``(1, 3, scale*H, scale*W)``.
        samples: From ``load_samples``.
        scale: HR pixels per LR pixel, also the border that PSNR-Y and SSIM-Y leave out.
        lpips: Measures LPIPS too; on the CPU.
        device: Where ``lr`` goes before the call.
        observers: Called with each sample, bicubic and result, such as ``WorstCrops``.
        settings: Kept in the result.

    Raises:
        ValueError: When there are no samples, an image is too small for a metric, or a result has the wrong
            size or is not finite.
    """
    images = []
    with _eval_mode(generator), torch.inference_mode():
        for sample in samples:
            try:
                sr = _checked(generator(sample.lr.to(device)), sample)
                bicubic = round_to_8_bits(upscale_bicubic(sample.lr, scale))
                scores = [_score(image, sample, scale, lpips) for image in (sr, bicubic)]
            except ValueError as error:
                raise ValueError(f"{sample.name}: {error}") from error
            height, width = sample.hr.shape[-2:]
            images.append(ImageScores(sample.name, height, width, *scores))
            for observer in observers:
                observer(sample, bicubic, sr)
    if not images:
        raise ValueError("no images to evaluate on")
    return Evaluation(scale, tuple(images), dict(settings or {}))


def _score(image: Tensor, sample: Sample, scale: int, lpips: LPIPS | None) -> Scores:
    return Scores(
        psnr_y=psnr_y(image, sample.hr, scale).item(),
        ssim_y=ssim_y(image, sample.hr, scale).item(),
        lpips=None if lpips is None else lpips(image, sample.hr).item(),
        lr_consistency=psnr_y(downscale_bicubic(image, scale), sample.lr, 0).item(),
    )


def _checked(sr: Tensor, sample: Sample) -> Tensor:
    if sr.shape != sample.hr.shape:
        raise ValueError(f"the generator must return {tuple(sample.hr.shape)}, got {tuple(sr.shape)}")
    if not sr.isfinite().all():
        raise ValueError("the generator returned values that are not finite")
    return round_to_8_bits(sr.float().cpu())


def _read(path: Path) -> Tensor:
    try:
        return torch.tensor(decode(path)).permute(2, 0, 1)[None].float() / 255
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def _cut_centre(sample: Sample, scale: int, largest_side: int | None) -> Sample:
    if largest_side is None:
        return sample
    top, left = (max(0, side - largest_side // scale) // 2 for side in sample.lr.shape[-2:])
    height, width = (min(side, largest_side // scale) for side in sample.lr.shape[-2:])
    lr = sample.lr[..., top : top + height, left : left + width]
    rows, columns = (slice(scale * a, scale * (a + b)) for a, b in ((top, height), (left, width)))
    return Sample(sample.name, sample.hr[..., rows, columns], lr)


@contextmanager
def _eval_mode(generator: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Puts a module into eval mode and restores every submodule's mode, also after an error."""
    modes = [(m, m.training) for m in generator.modules()] if isinstance(generator, nn.Module) else []
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


def _mean(scores: Sequence[Scores]) -> Scores:
    def mean(values: Iterable[float]) -> float:
        return math.fsum(values) / len(scores)

    distances = [score.lpips for score in scores if score.lpips is not None]
    return Scores(
        psnr_y=mean(score.psnr_y for score in scores),
        ssim_y=mean(score.ssim_y for score in scores),
        lpips=mean(distances) if len(distances) == len(scores) else None,
        lr_consistency=mean(score.lr_consistency for score in scores),
    )


def _without_infinity(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_infinity(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinity(item) for item in value]
    return None if value == math.inf else value


def _markdown_row(name: str, sr: Scores, bicubic: Scores) -> str:
    def cell(ours: float | None, theirs: float | None, digits: int) -> str:
        if ours is None or theirs is None:
            return "-"
        return f"{ours:.{digits}f} ({theirs:.{digits}f})"

    cells = [
        cell(sr.psnr_y, bicubic.psnr_y, 2),
        cell(sr.ssim_y, bicubic.ssim_y, 4),
        cell(sr.lpips, bicubic.lpips, 4),
        cell(sr.lr_consistency, bicubic.lr_consistency, 2),
    ]
    in_one_line = " ".join(name.split()).replace("|", "\\|")
    return f"| {' | '.join([in_one_line, *cells])} |"
