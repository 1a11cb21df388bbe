"""Trains or fine-tunes a generator: python train.py --data photos/ (--help lists every setting)."""

import argparse
import logging
import os
import sys

from sr_hub.config import add_arguments, from_arguments
from sr_hub.journal import NonFiniteLossError
from sr_hub.publishing import check_before_training, push_after_training
from sr_hub.training import train


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        config = from_arguments(arguments)
        first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
        repo_id = check_before_training(config) if config.push_to_hub and first else None
        folder = train(config)
        if folder is not None and first:
            print(f"model written to {folder}")
            if repo_id is not None:
                print(f"pushed to {push_after_training(folder, repo_id, config).url}")
    except (OSError, ValueError, NonFiniteLossError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before or after the steps, which end with a checkpoint
        print("train.py: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
