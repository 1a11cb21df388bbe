"""Tables and pictures of what was measured."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from benchmarks.machine import as_sentence
from benchmarks.quality import Result
from benchmarks.workers import workers_table


def find_reference(results: Sequence[Result]) -> Result | None:
    """Ours that the others' times are compared with: the first that could be measured."""
    return next((result for result in results if result.name.startswith("ours") and result.seconds), None)


def quality_table(results: Sequence[Result]) -> str:
    """Markdown: one row for each contender, with the reason where there are no numbers."""
    reference = find_reference(results)
    lines = [
        "| | PSNR-Y dB | LPIPS | s per output MP (quartiles) | time, ours = 1 | peak memory MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        if result.error is not None or result.seconds is None or result.quartiles is None:
            lines.append(f"| {_cell(result.name)} | could not run: {_cell(result.error or '')} | | | | |")
            continue
        ratio = (
            "" if reference is None or not reference.seconds else f"{result.seconds / reference.seconds:.2g}"
        )
        low, high = result.quartiles
        lines.append(
            f"| {_cell(result.name)} | {_number(result.psnr_y, 2)} | {_number(result.lpips, 3)} "
            f"| {result.seconds:.3g} ({low:.3g} to {high:.3g}) | {ratio} "
            f"| {(result.peak_memory or 0) / 1e6:.0f} |"
        )
    return "\n".join(lines)


def scaling_table(points: Sequence[dict[str, Any]]) -> str:
    """Markdown: one row for each side. Matrix products are in the precision of the network, but for one."""
    lines = [
        "| input | s | s per input MP | peak memory MB | network, share of one convolution's rate "
        "| of a matrix product's | of one in bf16 | call / network |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for point in points:
        lines.append(
            f"| {point['side']}x{point['side']} | {point['seconds']:.3g} "
            f"| {point['seconds_per_megapixel']:.3g} | {point['peak_memory'] / 1e6:.0f} "
            f"| {point['share_of_convolution']:.0%} | {point['share_of_matrix_product']:.0%} "
            f"| {point['share_of_bf16_matrix_product']:.0%} "
            f"| {point['call_over_network']:.2f} |"
        )
    return "\n".join(lines)


def startup_table(startup: dict[str, Any]) -> str:
    """Markdown: whole processes, then the parts of the command."""
    lines = ["| cold process | ms |", "|---|---:|"]
    lines += [f"| `{name}` | {seconds * 1e3:.0f} |" for name, seconds in startup["processes"].items()]
    lines += [f"| of it: {name} | {seconds * 1e3:.0f} |" for name, seconds in startup["stages"].items()]
    lines.append(f"| (the network once more in the same process) | {startup['network_again'] * 1e3:.0f} |")
    return "\n".join(lines)


def as_markdown(content: dict[str, Any], results: Sequence[Result]) -> str:
    """The whole report."""
    parts = [as_sentence(content["machine"])]
    if results:
        pictures = content["pictures"]
        sets = ", ".join(f"{name} ({count})" for name, count in pictures.items())
        lr = "LR as published" if "degradation" not in content else f"LR by {content['degradation']}"
        parts.append(f"Pictures: {sets}; x4, {lr}. Decoding and encoding are not timed.")
        parts.append(quality_table(results))
    if content.get("scaling"):
        parts.append("How time and memory grow, bundled default model:")
        parts.append(scaling_table(content["scaling"]))
    if content.get("startup"):
        parts.append("`sr-hub upscale` on a 256x256 PNG, cold:")
        parts.append(startup_table(content["startup"]))
        parts.append(
            f"Without the network the command takes {content['startup']['over_torch']:.2f} times "
            "`import torch` alone."
        )
    if content.get("workers"):
        parts.append("Workers on this machine, pictures of a folder in shards and training in processes:")
        parts.append(workers_table(content["workers"]))
    return "\n\n".join(parts) + "\n"


def as_short_markdown(content: dict[str, Any], results: Sequence[Result]) -> str:
    """What the README shows: the comparison, and what it ran on."""
    return f"{quality_table(results)}\n\n{as_sentence(content['machine'])}\n"


def insert_between_markers(text: str, name: str, table: str) -> str:
    """``text`` with ``table`` between the comments ``<!-- name:start -->`` and ``<!-- name:end -->``.

    Raises:
        ValueError: If the markers are not there, once each and in order.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"expected {start} and, after it, {end}, once each")
    return f"{text[: text.index(start) + len(start)]}\n{table.strip()}\n{text[text.index(end) :]}"


def plot_front(results: Sequence[Result], path: Path) -> None:
    """Quality against time, both measures: up and to the left is better. A line joins each of our models.

    Ours are shown in the precision that was measured at several fidelities, if there is one.
    """
    fidelities: dict[str, list[Result]] = {}
    for result in results:
        fidelities.setdefault(_line(result.name), []).append(result)
    most = max((len(line) for line in fidelities.values()), default=0)
    shown = [
        result
        for result in results
        if result.seconds is not None
        and (not result.name.startswith("ours") or len(fidelities[_line(result.name)]) == most)
    ]
    with_lpips = any(result.lpips is not None for result in shown)
    figure, axes = plt.subplots(1, 1 + with_lpips, figsize=(6 + 6 * with_lpips, 4.8), squeeze=False)
    panels: list[tuple[Axes, str, str]] = [(axes[0][0], "psnr_y", "PSNR-Y, dB")]
    if with_lpips:
        panels.append((axes[0][1], "lpips", "LPIPS (lower is better)"))
        axes[0][1].invert_yaxis()
    for axis, measure, label in panels:
        lines: dict[str, list[tuple[float, float]]] = {}
        for result in shown:
            value = getattr(result, measure)
            if value is None or result.seconds is None:
                continue
            model, _, settings = result.name.removeprefix("ours: ").partition(", ")
            ours = result.name.startswith("ours")
            if ours:
                lines.setdefault(_line(result.name), []).append((result.seconds, value))
            name = f"{model} {settings.removeprefix('fidelity ')}" if ours else result.name.split(" (")[0]
            beside_line = ours and len(fidelities[_line(result.name)]) > 1
            slowest = len(shown) > 1 and result.seconds == max(other.seconds or 0 for other in shown)
            axis.plot(result.seconds, value, "o" if ours else "s", color="tab:red" if ours else "tab:grey")
            axis.annotate(
                name,
                (result.seconds, value),
                textcoords="offset points",
                xytext=(-6, 3) if beside_line or slowest else (6, -3),
                ha="right" if beside_line or slowest else "left",  # inside the frame
                fontsize=7,
                color="tab:red" if ours else "black",
            )
        for points in lines.values():
            axis.plot(*zip(*points, strict=True), color="tab:red", linewidth=1, alpha=0.5)
        axis.set_xscale("log")
        axis.margins(x=0.3, y=0.1)
        axis.set_xlabel("seconds per output megapixel")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    figure.tight_layout()  # which moves the points
    for axis, *_ in panels:
        _part_labels(axis)
    _save(figure, path)


def _part_labels(axis: Axes) -> None:
    """Moves each label of a point, as little as will do, to where it lies over no other point or label.

    The other side of its point is as far as 8 pixels up or down.
    """
    assert axis.figure is not None
    pixels = axis.figure.dpi / 72  # of a point, in which labels and markers are measured
    places = [
        axis.transData.transform(line.get_xydata()) for line in axis.lines if line.get_marker() != "None"
    ]
    taken = [Bbox.from_bounds(x - 3 * pixels, y - 3 * pixels, 6 * pixels, 6 * pixels) for ((x, y),) in places]
    labels = [text for text in axis.texts if isinstance(text, Annotation)]
    moves = [(turned, step) for turned in (False, True) for step in range(-100, 101)]
    moves.sort(key=lambda move: (abs(move[1]) + 8 * move[0], move))
    for label in sorted(labels, key=lambda label: -label.get_window_extent().y1):
        (x, y), on_left = label.xyann, label.get_horizontalalignment() == "right"
        for turned, step in moves:
            label.xyann = (-x if turned else x, y + step / pixels)
            label.set_horizontalalignment("right" if on_left != turned else "left")
            box = label.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def _line(name: str) -> str:
    """Which of our models, in which precision: ``ours: clean, bf16`` of any fidelity."""
    parts = name.split(", ")
    return f"{parts[0]}, {parts[-1]}"


def plot_scaling(points: Sequence[dict[str, Any]], path: Path) -> None:
    """Time and memory over the size of the input, and the share of the machine's rates."""
    megapixels = [point["side"] ** 2 / 1e6 for point in points]
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8))
    panels = [
        ("seconds per input megapixel", [("", [p["seconds_per_megapixel"] for p in points])]),
        ("peak memory, MB", [("", [p["peak_memory"] / 1e6 for p in points])]),
        (
            "network's FLOP/s as a share of",
            [
                ("one 3x3 convolution alone", [p["share_of_convolution"] for p in points]),
                ("a matrix product", [p["share_of_matrix_product"] for p in points]),
                ("a matrix product in bf16", [p["share_of_bf16_matrix_product"] for p in points]),
            ],
        ),
    ]
    for axis, (label, lines) in zip(axes, panels, strict=True):
        for name, values in lines:
            axis.plot(megapixels, values, "o-", label=name or None)
        axis.set_xscale("log")
        axis.set_xlabel("input megapixels")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[2].axhline(0.85, color="tab:grey", linestyle=":", linewidth=1)
    axes[2].legend(fontsize=7, loc="best")
    figure.tight_layout()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return "-"
    return "equal" if math.isinf(value) else f"{value:.{digits}f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
