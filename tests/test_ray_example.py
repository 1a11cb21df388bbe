"""The example for clusters, on one machine with two workers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_hub.generator import SRGenerator
from sr_hub.images import read_picture

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_two_workers_enlarge_a_folder_with_bad_files(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "sr_hub[ray]"')
    SRGenerator(features=4, blocks=1).save_pretrained(tmp_path / "model")
    for index in range(8):
        path = tmp_path / "in" / str(index % 2) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((10, 12, 3), 20 * index, np.uint8)).save(path)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    (tmp_path / "in" / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0half")
    command = [sys.executable, str(ROOT / "examples" / "ray_upscale.py"), str(tmp_path / "in")]
    command += [str(tmp_path / "out"), "--model", str(tmp_path / "model"), "--workers", "2"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 1, run.stderr[-2000:]
    assert "8 enlarged, 0 done before, 2 failed, 0 skipped" in run.stdout
    for index in range(8):
        pixels = read_picture(tmp_path / "out" / str(index % 2) / f"{index}.png").pixels
        assert pixels.shape == (40, 48, 3)
    lines = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == ["bad.png", "half.jpg"]
    (tmp_path / "in" / "bad.png").unlink()
    (tmp_path / "in" / "half.jpg").unlink()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "0 enlarged, 8 done before, 0 failed" in again.stdout
