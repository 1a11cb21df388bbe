"""Trains or fine-tunes a generator: python train.py --data photos/ (--help lists every setting)."""

import argparse
import logging
import sys

from sr_hub.config import add_arguments, from_arguments
from sr_hub.training import NonFiniteLossError, train


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        folder = train(from_arguments(arguments))
    except (OSError, ValueError, NonFiniteLossError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    if folder is not None:
        print(f"model written to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
