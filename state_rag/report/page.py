"""A page of HTML that needs no other file, put together piece by piece."""

import base64
import html
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from state_rag.files import atomic_path
from state_rag.plot import style

HEAD = 2**20
"""Characters of a page in which its head ends."""
LONGEST_FILE = 120
"""Characters of a picture's file name, before the number that tells equal ones apart."""
PICTURES = "state-rag-pictures"
"""Name of the page's entry that says which pictures were written with it."""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0; }
th, td { padding: 3px 9px; border-bottom: 1px solid #ddd; text-align: right; }
.words th, .words td { text-align: left; vertical-align: top; } .words code { white-space: normal; }
summary { cursor: pointer; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #444; vertical-align: bottom; }
img { max-width: 100%; height: auto; }
figure { margin: 1.5em 0; } figcaption, .note { font-size: 13px; color: #555; }
"""


@dataclass
class Report:
    """A page that is put together piece by piece.

    Attributes
    ----------
    title
        Heading of the page.
    folder
        Where page and pictures go.
    """

    title: str
    folder: Path
    parts: list[str] = field(default_factory=list)
    pictures: list[tuple[str, Figure]] = field(default_factory=list)
    names: dict[tuple[str, ...], str] = field(default_factory=dict)

    def file_name(self, *parts: str) -> str:
        """Return a file name, without suffix, for a picture of something: its parts, and a number where it is taken.

        Runs `a-b` and `a_b` thus have pictures of their own, on systems that ignore case too.
        """
        stem = "_".join("".join(sign if sign.isalnum() else "_" for sign in part) for part in parts)[:LONGEST_FILE]
        name, count = stem, 1
        while name.lower() in (taken.lower() for key, taken in self.names.items() if key != parts):
            count += 1
            name = f"{stem}_{count}"
        return self.names.setdefault(parts, name)

    def heading(self, text: str) -> None:
        """Start a section."""
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def subheading(self, text: str) -> None:
        """Start a part of a section."""
        self.parts.append(f"<h3>{html.escape(text)}</h3>")

    def text(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def note(self, text: str) -> None:
        """Add small print; line breaks are kept."""
        self.parts.append(f'<p class="note">{html.escape(text).replace(chr(10), "<br>")}</p>')

    def table(self, head: list[str], rows: list[list[str]], kind: str = "numbers") -> None:
        """Add a table of `numbers` or of `words`; cells are HTML."""
        cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        self.parts.append(f'<table class="{kind}"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>')

    def folded(self, title: str, head: list[str], rows: list[list[str]], note: str) -> None:
        """Add a table, with small print below it, that is shown on a click on its title."""
        self.parts.append(f"<details><summary>{html.escape(title)}</summary>")
        self.table(head, rows, "words")
        self.note(note)
        self.parts.append("</details>")

    def picture(self, name: str, figure: Figure, caption: str) -> None:
        """Add a picture; it is embedded in the page and also written as `name.png` and `name.svg`.

        Parameters
        ----------
        name
            From `file_name` where it has a run's or cell line's name in it.
        figure
            The picture.
        caption
            What it shows.
        """
        stream = io.BytesIO()
        style.settle(figure)
        figure.savefig(stream, format="png", dpi=130)
        data = base64.b64encode(stream.getvalue()).decode()
        text = html.escape(caption)
        self.parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
        )
        self.pictures.append((name, figure))

    def write(self) -> Path:
        """Write the pictures and, last, `index.html`; pictures that only an earlier page in the folder had go."""
        index, names = self.folder / "index.html", [name for name, _ in self.pictures]
        for name, figure in self.pictures:
            style.save_figure(figure, self.folder / "plots", name)
        for name in _pictures_of(index):
            if name.lower() not in map(str.lower, names):
                for suffix in ("png", "svg"):
                    (self.folder / "plots" / f"{name}.{suffix}").unlink(missing_ok=True)
        title = html.escape(self.title)
        page = (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="{PICTURES}" content="{" ".join(names)}">'
            f"<style>{STYLE}</style></head><body><h1>{title}</h1>\n" + "\n".join(self.parts) + "\n</body></html>\n"
        )
        with atomic_path(index) as path:
            path.write_text(page, encoding="utf-8")
        return index


def _pictures_of(index: Path) -> list[str]:
    """Return the names of the pictures that were written with a page; none where it does not say."""
    if not index.is_file():
        return []
    with open(index, encoding="utf-8", errors="replace") as stream:
        said = re.search(rf'<meta name="{PICTURES}" content="([\w ]*)">', stream.read(HEAD))
    return said[1].split() if said else []
