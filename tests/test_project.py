"""What the project promises about its own packaging and commands."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_ci_runs_the_command_of_the_readme() -> None:
    last = (ROOT / ".ci" / "run").read_text(encoding="utf-8").rstrip().splitlines()[-1]
    assert last == 'pip install -q -r requirements.txt -e ".[dev]" && make check'
    command = last.replace(" -q ", " ")
    for name in ("README.md", "CONTRIBUTING.md"):
        assert command in (ROOT / name).read_text(encoding="utf-8"), f"{name} must say: {command}"


def test_wheel_holds_the_package_its_weights_and_the_card(tmp_path: Path) -> None:
    """Built offline by the build backend itself, from a copy, as hatchling reads the whole folder."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "model_card.md", ".gitignore", "app.py"):
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "sr_hub", copy / "sr_hub", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    run = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {path.relative_to(copy).as_posix() for path in (copy / "sr_hub").rglob("*") if path.is_file()}
    outside = {name for name in names if ".dist-info/" not in name}
    assert outside == inside | {"sr_hub/model_card.md"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    _works_away_from_the_checkout(wheel, tmp_path)
    (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
    assert "sr-hub = sr_hub.cli:program" in zipfile.ZipFile(wheel).read(entry_points).decode()


def _works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Save, load, card and commands, from another folder, by what is in the wheel."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    shutil.rmtree(tmp_path / "copy")
    program = (
        "import sys, torch, sr_hub\n"
        "from sr_hub import SRGenerator, cli\n"
        "assert 'installed' in sr_hub.__file__, sr_hub.__file__\n"
        "generator, lr = SRGenerator(features=8, blocks=1).eval(), torch.rand(1, 3, 8, 8)\n"
        "generator.save_pretrained('model')\n"
        "assert torch.equal(SRGenerator.from_pretrained('model')(lr), generator(lr))\n"
        "assert 'not for identification' in open('model/README.md').read()\n"
        "sys.exit(cli.main(['inspect', 'model']) or cli.main(['card', 'model', '--license', 'mit']))\n"
    )
    (tmp_path / "elsewhere").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "license: mit" in (tmp_path / "elsewhere" / "model" / "README.md").read_text()


def test_requirements_keep_the_floors_of_the_package() -> None:
    """``requirements.txt`` narrows each floor of pyproject.toml to a range, and forgets none."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = re.findall(r"^(?:dependencies|app|train) = \[(.*?)\]$", project, re.MULTILINE | re.DOTALL)
    floors = re.findall(r'"(\w+>=[\d.]+)"', "".join(lists))
    assert len(lists) == 3 and {"torch", "gradio", "matplotlib"} <= {floor.split(">=")[0] for floor in floors}
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    ranges = [line for line in lines if line and not line.startswith("#")]
    assert sorted(line.split(",")[0] for line in ranges) == sorted(floors)
    assert all(",<" in line for line in ranges)
