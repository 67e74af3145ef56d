"""Lines of a text file, packed or not, what to say of one that cannot be read, and the numbers in them."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from state_rag.errors import StateRagError

LONGEST = 64 << 20
"""Characters of a line; a longer one is no line of any format that is read here."""


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file in UTF-8, `.gz` too, without their ends.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    StateRagError
        If it is truncated, damaged, no text, or has a line of more than `LONGEST` characters.
    """
    packed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig") if packed else open(path, encoding="utf-8-sig") as file:
            while line := file.readline(LONGEST):
                if len(line) == LONGEST:
                    raise StateRagError(f"{path}: a line has more than {LONGEST:,} characters; this is no text table.")
                yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise StateRagError(f"{path}: cannot be read, it is no text in UTF-8.") from error
    except (EOFError, OSError, zlib.error) as error:
        raise StateRagError(
            f"{path}: cannot be read, it is truncated or damaged ({error}). Download or write it again."
        ) from error


def number_in(text: str) -> float | None:
    """Return the number that a text is; None for any other text.

    Examples
    --------
    >>> number_in("0.5"), number_in("-1e3"), number_in("TP53"), number_in("")
    (0.5, -1000.0, None, None)
    """
    try:
        return float(text)
    except ValueError:
        return None
