"""``sr-hub push``: a model folder to the Hub."""

import argparse
from pathlib import Path

from sr_hub.folders import shown
from sr_hub.generator import SRGenerator
from sr_hub.measuring import check_scores
from sr_hub.model_card import CardOptions
from sr_hub.publishing import PushOptions, push_folder


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``push`` to the command line; its ``run`` takes the parsed arguments."""
    parser = subparsers.add_parser(
        "push",
        help="push a model folder to the Hub",
        description="Pushes config.json, the safetensors, the card, before/after pictures and the training "
        "record of a model folder to the Hub, in one commit, and nothing else of the folder.",
    )
    parser.add_argument("folder", type=Path, help="model folder, as training wrote it")
    parser.add_argument("repo_id", metavar="user/name", help="repository; made if missing")
    parser.add_argument("--license", help="licence of the weights (default: what training was told)")
    parser.add_argument(
        "--data-statement",
        metavar="TEXT",
        help="origin and licences of the training images of the runs that were told none",
    )
    parser.add_argument(
        "--dataset", action="append", default=[], metavar="USER/NAME", help="training data set on the Hub"
    )
    parser.add_argument(
        "--card", type=Path, metavar="FILE", help="push this card in place of the rendered one"
    )
    parser.add_argument("--private", action="store_true", help="make the repository private if it is new")
    parser.add_argument("--token", help="Hub token (default: that of the login)")
    parser.add_argument("--revision", metavar="BRANCH", help="push to this branch, made if missing")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead")
    parser.add_argument("--message", default=PushOptions.commit_message, help="of the commit")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Checks the model, pushes it and says where it is.

    Raises:
        OSError, ValueError: With one sentence to show.
    """
    if not arguments.folder.is_dir():
        raise FileNotFoundError(f"no model folder at {arguments.folder}")
    SRGenerator.from_pretrained(arguments.folder)  # weights that do not load are not pushed
    check_scores(arguments.folder)
    pushed = push_folder(
        arguments.folder,
        arguments.repo_id,
        PushOptions(
            private=arguments.private,
            token=arguments.token,
            revision=arguments.revision,
            create_pr=arguments.create_pr,
            commit_message=arguments.message,
            card=arguments.card,
        ),
        CardOptions(
            license=arguments.license,
            data_statement=arguments.data_statement,
            datasets=tuple(arguments.dataset),
        ),
    )
    print(f"{'pushed to' if pushed.changed else 'nothing changed, no commit made:'} {pushed.url}")
    for file in pushed.files if pushed.changed else ():
        print(f"  {shown(file)}")
