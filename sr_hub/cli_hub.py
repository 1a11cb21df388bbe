"""``sr-hub hub serve``: a Hub on this machine, to try push and pull without an account."""

import argparse
from pathlib import Path

from sr_hub.folders import shown
from sr_hub.loopback_hub import DEFAULT_TOKEN, DEFAULT_USER, LoopbackHub


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``hub`` to the command line; its ``run`` takes the parsed arguments."""
    parser = subparsers.add_parser("hub", help="a Hub on this machine, to try push and pull")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    serve = actions.add_parser(
        "serve",
        help="serve a folder as a Hub until Ctrl-C",
        description="Serves a folder as a Hub, reachable from this machine only, until Ctrl-C. It prints "
        "what to set so that sr-hub, train.py and huggingface_hub use it.",
    )
    serve.add_argument(
        "--store", type=Path, default=Path("hub"), metavar="FOLDER", help="where it keeps all (default: hub)"
    )
    serve.add_argument("--port", type=int, default=8900, help="0 takes a free one (default: %(default)s)")
    serve.add_argument("--user", default=DEFAULT_USER, help="name of the account (default: %(default)s)")
    serve.add_argument("--token", default=DEFAULT_TOKEN, help="its token (default: %(default)s)")
    serve.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Serves until interrupted.

    Raises:
        OSError: If the port is taken or the folder cannot be written.
    """
    try:
        hub = LoopbackHub(arguments.store, port=arguments.port, user=arguments.user, token=arguments.token)
    except OverflowError as error:
        raise ValueError(f"port must lie in 0 to 65535, got {arguments.port}") from error
    with hub:
        repositories = ", ".join(hub.store.names()) or "none yet"
        print(f"Hub of {hub.user} in {shown(hub.store.folder)}; repositories: {repositories}")
        print("In another terminal:")
        print(f"  export HF_ENDPOINT={hub.url} HF_TOKEN={hub.token} HF_HUB_DISABLE_XET=1", flush=True)
        try:
            hub.serve_forever()
        except KeyboardInterrupt:
            print("\nstopped")
