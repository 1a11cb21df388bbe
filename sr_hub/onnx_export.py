"""A generator as an ONNX file, for programs without PyTorch."""

import json
import logging
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from sr_hub.generator import SRGenerator

TOLERANCE = 1e-4
"""Largest difference to torch, of values in [0, 1]."""

_OPSET = 18
_SIZES = ((1, 16, 16), (1, 23, 40), (2, 41, 17))  # (N, H, W): odd, even, high, wide, and a batch


def export_onnx(generator: SRGenerator, path: Path) -> float:
    """Writes ``generator`` to ``path`` with free batch, height and width, and runs it against torch.

    Input ``lr`` ``(N, 3, H, W)``, output ``sr`` ``(N, 3, scale*H, scale*W)``, float32 RGB in [0, 1], not
    clamped. The config lies in the file's metadata.

    Returns:
        The largest difference to torch that was found on three sizes.

    Raises:
        RuntimeError: If the extra ``onnx`` is not installed, or the file's results differ from torch's.
        OSError: If ``path`` cannot be written.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise RuntimeError(f"an export needs {', '.join(missing)}, not installed: pip install 'sr_hub[onnx]'")
    import onnx
    import onnxruntime

    generator = generator.float().eval()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / "model.onnx"
        _export(generator, part)
        model = onnx.load(part)
        onnx.helper.set_model_props(model, {"sr_hub.config": json.dumps(generator.config)})
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, part)
        session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
        difference = max(_difference(generator, session, *size) for size in _SIZES)
        if not difference <= TOLERANCE:
            raise RuntimeError(
                f"the exported file must agree with torch to {TOLERANCE}, got {difference:.2g}"
            )
        part.replace(path)
    return difference


def _export(generator: SRGenerator, path: Path) -> None:
    free = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(
            generator,
            (torch.rand(2, 3, 24, 32),),
            path,
            input_names=["lr"],
            output_names=["sr"],
            dynamic_shapes={"lr": free},
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _difference(generator: SRGenerator, session: object, batch: int, height: int, width: int) -> float:
    random = torch.Generator().manual_seed(height)
    lr = torch.rand(batch, 3, height, width, generator=random)
    with torch.inference_mode():
        expected = generator(lr).numpy()
    (found,) = session.run(None, {"lr": lr.numpy()})  # type: ignore[attr-defined]  # onnxruntime has no types
    if found.shape != expected.shape:
        raise RuntimeError(f"the exported file must give {expected.shape}, got {found.shape}")
    return float(np.abs(found - expected).max())
