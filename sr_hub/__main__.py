"""``python -m sr_hub`` is the command ``sr-hub``."""

import sys

from sr_hub.cli import main

if __name__ == "__main__":
    sys.exit(main())
