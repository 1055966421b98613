"""Lets `python -m domainfusion` do what the command `domainfusion` does."""

from __future__ import annotations

import sys

from domainfusion.cli.main import main

if __name__ == "__main__":
    sys.argv[0] = (
        "domainfusion"  # the run keeps the command that made it, in words that can be typed again
    )
    sys.exit(main())
