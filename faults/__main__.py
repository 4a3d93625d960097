"""`python -m faults`: see `--help`."""

import sys

from faults.cli import main

if __name__ == "__main__":
    sys.exit(main())
