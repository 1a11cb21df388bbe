"""``sr-hub export``: a model as an ONNX file."""

import argparse
from pathlib import Path

from sr_hub.folders import shown
from sr_hub.generator import SRGenerator
from sr_hub.onnx_export import export_onnx
from sr_hub.whole_files import check_place


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``export`` to the command line; its ``run`` takes the parsed arguments."""
    parser = subparsers.add_parser(
        "export",
        help="write a model as an ONNX file",
        description="Writes a model as an ONNX file for any height and width, and checks it against torch. "
        "Input lr and output sr: float32 RGB in [0, 1], (N, 3, H, W). Needs pip install 'sr_hub[onnx]'.",
    )
    parser.add_argument("model", help="bundled name, model folder, .safetensors file or Hub repository")
    parser.add_argument("out", type=Path, metavar="OUT.onnx")
    parser.add_argument(
        "--fidelity", type=float, help="blend of a two-ended model, 0 (detail) to 1 (fidelity)"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a repository")
    parser.add_argument("--token", help="Hub token (default: that of the login)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Exports, checks and says how near to torch.

    Raises:
        OSError, ValueError, RuntimeError: With one sentence to show.
    """
    out: Path = arguments.out
    if out.suffix != ".onnx":
        raise ValueError(f"the file to write must end in .onnx, got {out}")
    check_place(out)
    generator = SRGenerator.from_pretrained(
        arguments.model, fidelity=arguments.fidelity, revision=arguments.revision, token=arguments.token
    )
    difference = export_onnx(generator, out)
    print(f"{shown(out)} ({out.stat().st_size:,} bytes) agrees with torch to {difference:.1g} on three sizes")
