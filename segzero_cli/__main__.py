"""Lets `python -m segzero_cli` do what `segzero` does."""

import sys

from segzero_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
