"""The plot of a training run."""

import json
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure


def plot_curves(metrics: Path, target: Path) -> None:
    """Draws all values of ``metrics.jsonl`` over the steps, one panel per phase and kind, as a PNG."""
    series: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for line in metrics.read_text().splitlines():
        values = json.loads(line)
        phase, step = values.pop("phase"), values.pop("step")
        for name, value in values.items():
            kind = name.split("_")[0] if name.startswith(("psnr", "probability")) else "loss"
            if name not in ("seconds", "rate"):
                series[f"{phase}: {kind}"][name].append((step, value))
    figure = Figure(figsize=(7, 3 * max(1, len(series))), layout="constrained")
    for index, (title, lines) in enumerate(series.items(), start=1):
        axes = figure.add_subplot(len(series), 1, index)
        for name, points in lines.items():
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 50 else "")
        axes.set(title=title, xlabel="step", yscale="log" if title.endswith("loss") else "linear")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    temporary = target.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=110)
    temporary.replace(target)
