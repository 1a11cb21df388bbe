"""The page: drop a picture, see it enlarged beside bicubic, download it. ``python app.py --help``."""

import argparse
import gc
import math
import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as sr_hub.cli does, before torch is loaded
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "24")  # likewise
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported: nothing is sent anywhere
gc.disable()  # until all is imported, which makes little garbage: the page is there 0.8 s sooner

from gradio.utils import get_upload_folder  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402

from sr_hub.page import STYLE, build_page, theme  # noqa: E402
from sr_hub.page_files import RoomForUploads, WithoutLeadingDots  # noqa: E402
from sr_hub.pretrained import DEFAULT_MODEL, bundled_models  # noqa: E402
from sr_hub.service import Limits, Service  # noqa: E402

gc.enable()


def main() -> int:
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that files are deleted then, too
    try:
        with ExitStack() as closing:
            _launch(arguments, closing)
    except (OSError, ValueError) as error:  # a missing or bad model, or a port that is taken
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    return 0


def _launch(arguments: argparse.Namespace, closing: ExitStack) -> None:
    """Serves the page until the program is ended."""
    limits = Limits(**{field.name: getattr(arguments, f"max_{field.name}") for field in fields(Limits)})
    page = build_page(Service(limits, models=_models(arguments)), arguments.model, closing)
    page.launch(
        server_name=f"[{arguments.host}]" if ":" in arguments.host else arguments.host,  # as in an address
        server_port=arguments.port,
        share=arguments.share,
        auth=arguments.auth,
        # Beyond the limit, so that it is the page that says what to do; far beyond, nothing is taken in.
        max_file_size=round(4e6 * limits.megabytes),
        run_history=False,  # would keep people's pictures in the browser
        footer_links=[],
        mcp_server=arguments.mcp,
        app_kwargs={
            "middleware": [_room_for_uploads(arguments.max_disk_megabytes), Middleware(WithoutLeadingDots)]
        },
        theme=theme(),
        css=STYLE,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="bundled name, folder or Hub repository (default: %(default)s)"
    )
    parser.add_argument(
        "--host",
        type=lambda text: text.strip("[]"),  # of IPv6, as in addresses
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),  # set where the Hub runs the page
        help="address to listen on (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=_port, help="port to listen on (default: the first free one from 7860)"
    )
    parser.add_argument("--share", action="store_true", help="open a public link through gradio's servers")
    parser.add_argument(
        "--any-model",
        action="store_true",
        help="let everybody choose folders of this machine and repositories of the Hub, as it is while "
        "nobody else can reach the page",
    )
    parser.add_argument(
        "--mcp", action="store_true", help="serve the API to language models, too (needs gradio[mcp])"
    )
    parser.add_argument(
        "--auth", type=_name_and_password, action="append", metavar="NAME:PASSWORD",
        help="let in only who knows it; may be repeated",
    )  # fmt: skip
    for field in fields(Limits):
        parser.add_argument(
            f"--max-{field.name.replace('_', '-')}", type=_above_0, default=field.default, metavar="NUMBER",
            help="largest picture that is taken, or made (default: %(default)g)",
        )  # fmt: skip
    parser.add_argument(
        "--max-disk-megabytes",
        type=_above_0,
        default=4000,
        metavar="NUMBER",
        help="that uploads and results of everybody may take (default: %(default)g)",
    )
    return parser


def _room_for_uploads(megabytes: float) -> Middleware:
    return Middleware(RoomForUploads, folder=Path(get_upload_folder()), megabytes=megabytes)


def _models(arguments: argparse.Namespace) -> list[str] | None:
    """The models that may be asked for; None for any."""
    alone = arguments.host in ("127.0.0.1", "::1", "localhost") and not arguments.share
    return None if alone or arguments.any_model else list({*bundled_models(), arguments.model})


def _port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 65535, got {text}")
    return int(text)


def _above_0(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def _name_and_password(text: str) -> tuple[str, str]:
    name, colon, password = text.partition(":")
    if not (name and colon and password):
        raise argparse.ArgumentTypeError(f"expected NAME:PASSWORD, got {text}")
    return name, password


if __name__ == "__main__":
    try:
        status = main()
    except SystemExit as end:  # argparse's, or that of SIGTERM
        status = end.code if isinstance(end.code, int) else 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # an ordinary end would abort while a run is still inside torch
