"""The command line: ``sr-hub COMMAND ...``.

A command is a module ``cli_NAME`` with ``add_parser(subparsers)``, which sets the parser's default ``run`` to
a function of the parsed arguments. It returns the exit code, None for 0, and raises built-in errors, or
subclasses of them, whose message is one sentence for the user. To add one: write the module and name it in
`COMMANDS`.
"""

import argparse
import atexit
import gc
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

COMMANDS = {
    "upscale": "enlarge a picture or a folder of pictures",
    "evaluate": "score a model on known pictures, beside bicubic",
    "verify": "measure again what a model's card claims",
    "inspect": "tell what a model is",
    "export": "write a model as an ONNX file",
    "push": "push a model folder to the Hub",
    "hub": "a Hub on this machine, to try push and pull",
    "card": "write the model card from the facts in a model's folder",
}
"""Name and line of help. Only the module of the command that is called is imported: they are slow to load."""

EXPECTED_ERRORS = (ValueError, TypeError, OSError, RuntimeError, MemoryError)
"""What wrong arguments, files, models, networks and full memories raise."""


def program() -> int:
    """`main` as a process of its own, which ends without a last search of all it has loaded for garbage."""
    atexit.register(gc.freeze)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that nothing half is left
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, 1 if a part of the work failed, 2 for wrong use or input, 130 if interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # Read by GNU's OpenMP when torch is loaded. Its threads wait spinning, by default so long that a network
    # takes up to twice as long where another program shares a core; this is as fast where none does.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # Read by oneDNN. It keeps the last 1024 of its programs, one for each kind and size of convolution: 0.4
    # GB for the tiles of a picture of 2048x2048. Making them anew takes no time that could be measured.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "24")
    try:
        with _garbage_left():
            parser = _parser(arguments)
        parsed = parser.parse_args(arguments)
    except SystemExit as done:  # argparse has printed the help or the error
        return int(done.code or 0)
    except KeyboardInterrupt:  # while torch was being imported
        print("sr-hub: interrupted; nothing was done yet", file=sys.stderr)
        return 130
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # about files that we report on ourselves
            return parsed.run(parsed) or 0
    except KeyboardInterrupt:
        print("sr-hub: interrupted; every file written is whole", file=sys.stderr)
        return 130
    except EXPECTED_ERRORS as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        print(f"sr-hub: {lines[0]}", file=sys.stderr)
        return 2


@contextmanager
def _garbage_left() -> Iterator[None]:
    """Looks for no garbage meanwhile: of the 250,000 objects that importing torch makes, few are."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sr-hub", description="Photo super-resolution.", epilog="sr-hub COMMAND --help tells more."
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, help_line in COMMANDS.items():
        if name == called:
            importlib.import_module(f"sr_hub.cli_{name}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=help_line)
    return parser


if __name__ == "__main__":
    sys.exit(program())
