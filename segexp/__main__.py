"""``python -m segexp``."""

import sys

from segexp.cli import main

if __name__ == "__main__":
    sys.exit(main())
