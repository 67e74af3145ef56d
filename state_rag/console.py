"""Where results are printed: as wide as the terminal, and without limit into files and pipes."""

import os
import sys

from rich.console import Console

UNLIMITED = 1 << 14


def make_console() -> Console:
    """Return the console for standard output.

    Its width is the terminal's, or `COLUMNS` where that is set; what goes to a file or a pipe is not broken.
    """
    narrow = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(width=None if narrow else UNLIMITED, highlight=False)
