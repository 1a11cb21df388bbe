"""Imports go up the layers only, and light things stay light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sr_hub"

# Each module imports only from the layers before its own, never from its own or a later one.
LAYERS = (
    {"licenses", "hub_files", "hub_store"},
    {"resample", "metrics", "tiling", "pixels", "deep_color", "exif", "precision", "pretrained"}
    | {"page_pictures"}
    | {"fused", "allocator"}
    | {"whole_files", "row_resize", "memory", "strip_writers", "png_chunks"}
    | {"discriminator", "losses", "expansion", "config", "checkpoint", "curves", "step_graph"}
    | {"loopback_hub"},
    {"training_record", "optimizers", "claims"},
    {"model_card"},
    {"publishing", "run_folder"},
    {"images", "degradations", "generator"},
    {"encoding", "stripping", "row_reader", "ensemble", "consistency"},
    {"data", "inference", "provenance", "folders", "fitting", "animation"},
    {"evaluation", "phases", "comparison", "streaming", "onnx_export", "settings"} | {"known_picture"},
    {"sheet", "enlarging", "measuring", "loupe", "page_words", "page_files"} | {"families"},
    {"lent_gpu"},
    {"pipeline", "service"},
    {"page_viewer", "page_controls", "page_sessions"},
    {"page_loupe", "page_api", "page_batch"},
    {"page_photo"},
    {"page"},
    {"journal"},
    {"training"},
    {
        "cli_card",
        "cli_evaluate",
        "cli_export",
        "cli_hub",
        "cli_inspect",
        "cli_push",
        "cli_upscale",
        "cli_verify",
    },
    {"cli"},
    {"__init__"},
    {"__main__"},
)
LAYER_OF = {module: index for index, layer in enumerate(LAYERS) for module in layer}

# Other people's packages of the field: one is heavy, some are unmaintained, and we need none of them.
UNWANTED = {"torchvision", "cv2", "basicsr", "lpips", "piq", "pyiqa", "timm"}

MODULES = sorted(PACKAGE.rglob("*.py"))
PYTHON_FILES = sorted(
    [*MODULES, *ROOT.glob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
)


def imported(path: Path) -> set[str]:
    """Full dotted names that a file imports, anywhere in it; ``from a import b`` is ``a.b``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: write the import absolute"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def own_modules(path: Path) -> set[str]:
    """Modules of the package that a file imports; names of the package itself count as ``__init__``."""
    paths = [name.split(".") for name in imported(path)]
    inside = [parts[1] if len(parts) > 1 else "__init__" for parts in paths if parts[0] == "sr_hub"]
    return {module if module in LAYER_OF else "__init__" for module in inside}


def test_every_module_has_a_layer_and_a_line_in_the_map() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in MODULES:
        assert path.parent == PACKAGE, f"{path}: the package is flat"
        assert path.stem in LAYER_OF, f"put {path.stem} into a layer in tests/test_layers.py"
        if not path.stem.startswith("__"):
            assert f"`{path.stem}`" in contributing, f"describe `{path.stem}` in CONTRIBUTING.md"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_go_up_the_layers(path: Path) -> None:
    for name in own_modules(path):
        assert LAYER_OF[name] < LAYER_OF[path.stem], f"{path.stem} must not import {name}"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_unwanted_imports(path: Path) -> None:
    names = imported(path)
    assert not {name.split(".")[0] for name in names} & UNWANTED
    assert "__future__.annotations" not in names, "it breaks typed configs and the generated command line"
    if path.parent != ROOT / "tests":
        gradio = {
            name for name in names if name.split(".")[0] in ("gradio", "gradio_client", "gradio_imageslider")
        }
        page = path == ROOT / "app.py" or (path.parent == PACKAGE and path.stem.split("_")[0] == "page")
        assert not gradio or page, "only the page imports gradio"


def test_root_scripts_are_thin() -> None:
    for name in ("app.py", "train.py"):
        roots = {module.split(".")[0] for module in imported(ROOT / name)}
        assert "torch" not in roots and "numpy" not in roots, f"{name} holds no tensor code"


def test_importing_the_package_is_light() -> None:
    program = "import sys, sr_hub; sr_hub.SRGenerator, sr_hub.upscale; print('\\n'.join(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert "sr_hub.generator" in loaded and "sr_hub.inference" in loaded
    training = {"training", "phases", "losses", "discriminator", "data", "optimizers", "evaluation", "cli"}
    assert not {f"sr_hub.{module}" for module in training} & loaded
    assert not {"gradio", "matplotlib", "tensorboard", "skimage", "torchvision"} & loaded


def test_the_layer_test_sees_every_form_of_import(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "import sr_hub.metrics\ndef f():\n    from sr_hub.data import decode\n    import cv2.dnn as d\n"
    )
    assert own_modules(file) == {"metrics", "data"}
    assert "cv2.dnn" in imported(file)
    file.write_text("from sr_hub import metrics, tiling\n")
    assert own_modules(file) == {"metrics", "tiling"}
    file.write_text("from sr_hub import SRGenerator\n")
    assert own_modules(file) == {"__init__"}
    file.write_text("from . import metrics\n")
    with pytest.raises(AssertionError, match="write the import absolute"):
        imported(file)


def test_no_machine_paths() -> None:
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in files.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".json") and path.is_file():
            found = re.search(r"(?<![\w.])/(work|home/\w+|Users/\w+)/", path.read_text(encoding="utf-8"))
            assert found is None or path == Path(__file__), f"{name} names a path of one machine: {found}"
