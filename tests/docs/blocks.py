"""The fenced `bash` and `python` blocks of README.md and docs/, and the mark that each carries on the line before it.

| mark | meaning |
|---|---|
| `<!-- run -->` | executed as it stands |
| `<!-- run: small -->` | executed; `SMALL` is appended to its trainings and sweeps, so that they take seconds |
| `<!-- needs: download -->` | needs data that are not here |
| `<!-- needs: cluster -->` | needs Slurm or several machines |
| `<!-- needs: account -->` | needs a W&B account or another service |
| `<!-- needs: time -->` | runs anywhere, but for longer than a test may |
| `<!-- shown: install -->` | changes the Python environment |

README.md and docs/tutorial.md are executed first, in a folder that is empty at the start. Every other page is executed
in a copy of the folder that these two leave behind. In all of them commands fit the evidence engine in few steps
(`QUICK_FITS` of `tests/end_to_end/fork_server.py`).
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.commands import TINY_MODEL

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
NEEDS = ("download", "cluster", "account", "time")
MARKS = ("run", "run: small", "shown: install", *(f"needs: {what}" for what in NEEDS))

SMALL = (
    *TINY_MODEL,
    "data.kwargs.num_workers=0",
    "training.batch_size=8",
    "training.max_steps=12",
    "training.val_freq=6",
)
"""A model that trains in seconds, for the screen of `state-rag data simulate --preset small`."""

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<language>.*)$")
MARK = re.compile(r"^ *<!-- (?P<mark>(?:run|needs|shown)\b.*?) -->$")
LANGUAGES = {**dict.fromkeys(("bash", "sh", "shell", "console"), "bash"), "python": "python"}
TRAINING = re.compile(r"(state tx train|state-rag sweep)\b")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes
    ----------
    page
        The file.
    line
        Number of the line that opens it.
    mark
        What the comment before it says; empty without one.
    text
        What stands between the fences.
    language
        `bash` or `python`.
    """

    page: Path
    line: int
    mark: str
    text: str
    language: str = "bash"

    @property
    def place(self) -> str:
        """Page and line."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[str]:
        """Return the block's command lines: continued ones joined, comments left out; none for Python."""
        if self.language == "python":
            return []
        joined = re.sub(r"\\\n\s*", "", self.text)
        lines = [re.sub(r"(^|\s+)#(\s.*)?$", "", line).strip() for line in joined.splitlines()]
        return [line for line in lines if line]

    def script(self) -> str:
        """Return what a shell executes."""
        if self.language == "python":
            return f"python - <<'END_OF_BLOCK'\n{self.text}END_OF_BLOCK\n"
        added = f" {shlex.join(SMALL)}" if self.mark == "run: small" else ""
        return "\n".join(line + added if TRAINING.match(line) else line for line in self.commands())


def pages() -> list[Path]:
    """Return README.md and every page of docs/ that is written by hand."""
    below = sorted((ROOT / "docs").rglob("*.md"))
    return [README, ROOT / "CONTRIBUTING.md", *(page for page in below if "_build" not in page.parts)]


def marked_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page that have to carry a mark."""
    found = []
    opened: re.Match | None = None
    start, mark, body = 0, "", []
    before = ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = FENCE.match(line)
        if opened is None:
            if fence:
                opened, start, body = fence, number, []
                mark = found_mark["mark"] if (found_mark := MARK.match(before)) else ""
        elif fence and fence["ticks"].startswith(opened["ticks"]) and not fence["language"].strip():
            if language := LANGUAGES.get(opened["language"].strip()):
                found.append(Block(page, start, mark, "\n".join(body) + "\n", language))
            opened = None
        else:
            body.append(line.removeprefix(opened["indent"]))
        before = line
    assert opened is None, f"{page}: the block of line {start} is not closed"
    return found


def all_blocks() -> list[Block]:
    """Return the blocks of every page."""
    return [block for page in pages() for block in marked_blocks(page)]
