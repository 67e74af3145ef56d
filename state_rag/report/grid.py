"""A table as rows of cells, and its three renderings: terminal, Markdown and LaTeX."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

NARROWEST = 10
"""Characters of a leading column in a narrow terminal; longer names go on in the next line."""


@dataclass(frozen=True)
class Cell:
    """One value.

    Attributes
    ----------
    text
        The value, or what stands in its place.
    best
        Whether it is the best of those it is compared with; shown in bold.
    dagger, star
        Marks of the two tests, see `tables.marks`.
    spread
        Standard deviation; empty for none.
    """

    text: str
    best: bool = False
    dagger: str = ""
    star: str = ""
    spread: str = ""

    @property
    def plain(self) -> str:
        """Return the cell without markup."""
        return self.text + self.dagger + self.star + (f" ± {self.spread}" if self.spread else "")


@dataclass
class Grid:
    """A table.

    Attributes
    ----------
    heads
        Titles of the leading columns, which name the row.
    columns
        Titles of the columns of values.
    rows
        For each row its names, as many as `heads`, and its cells, as many as `columns`.
    notes
        What a reader should know, one remark a line.
    """

    heads: tuple[str, ...]
    columns: list[str]
    rows: list[tuple[tuple[str, ...], list[Cell]]] = field(default_factory=list)
    notes: str = ""


def mark_best(values: Iterable[float], higher_is_better: bool) -> list[bool]:
    """Return which of the values are the best; NaN never are.

    Examples
    --------
    >>> mark_best([0.2, float("nan"), 0.1], higher_is_better=False)
    [False, False, True]
    """
    values = list(values)
    known = [value for value in values if math.isfinite(value)]
    best = (max(known) if higher_is_better else min(known)) if known else math.nan
    return [value == best for value in values]


def terminal(grid: Grid, width: int = 80) -> list:
    """Return `rich` tables, each of which fits into `width` characters and repeats the leading columns."""
    from rich.markup import escape
    from rich.table import Table

    heads = [max(map(len, texts)) for texts in zip(grid.heads, *(names for names, _ in grid.rows), strict=True)]
    columns = [
        max([7, _on_two_lines(title), *(len(cells[place].plain) for _, cells in grid.rows)])
        for place, title in enumerate(grid.columns)
    ]
    heads = _narrowed(heads, width - 1 - (max(columns, default=0) + 3))
    left = width - sum(head + 3 for head in heads) - 1
    tables = []
    for start, stop in _blocks([column + 3 for column in columns], left):
        table = Table()
        for title, room in zip(grid.heads, heads, strict=True):
            table.add_column(escape(title), width=room, overflow="fold")
        for place in range(start, stop):
            room = max(1, min(columns[place], left - 3))
            table.add_column(escape(grid.columns[place]), justify="right", min_width=room, overflow="fold")
        for number, (names, cells) in enumerate(grid.rows):
            if number and len(names) > 1 and names[0] != grid.rows[number - 1][0][0]:
                table.add_section()
            table.add_row(*map(escape, _told_once(grid, number)), *map(_in_terminal, cells[start:stop]))
        tables.append(table)
    return tables


def _on_two_lines(title: str) -> int:
    """Return the characters that a title needs if it may be broken once, between words."""
    words = title.split()
    return min(
        (max(len(" ".join(words[:cut])), len(" ".join(words[cut:]))) for cut in range(1, len(words))),
        default=len(title),
    )


def _blocks(widths: list[int], room: int) -> list[tuple[int, int]]:
    """Return from where to where the columns of each block go: as few blocks as fit, of much the same length."""
    greedy = [0]
    for place in range(1, len(widths)):
        if sum(widths[greedy[-1] : place + 1]) > room:
            greedy.append(place)
    even = [math.ceil(len(widths) * block / len(greedy)) for block in range(len(greedy) + 1)]
    pairs = list(itertools.pairwise(even))
    if any(sum(widths[start:stop]) > room for start, stop in pairs):
        pairs = list(itertools.pairwise([*greedy, len(widths)]))
    return [(start, stop) for start, stop in pairs if start < stop]


def _narrowed(widths: list[int], room: int) -> list[int]:
    """Return widths that fit into `room`, frames included: the widest are cut, to no less than `NARROWEST`."""
    widths = list(widths)
    while sum(width + 3 for width in widths) > room and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return widths


def markdown(grid: Grid) -> str:
    """Return the table and its notes as Markdown."""
    lines = [
        "| " + " | ".join(map(_escape, [*grid.heads, *grid.columns])) + " |",
        "|" + "---|" * len(grid.heads) + "---:|" * len(grid.columns),
    ]
    for number, (_, cells) in enumerate(grid.rows):
        lines.append("| " + " | ".join([*map(_escape, _told_once(grid, number)), *map(_in_markdown, cells)]) + " |")
    return "\n".join(lines) + "\n\n" + _escape(grid.notes).replace("\n", "  \n") + "\n"


def latex(grid: Grid) -> str:
    """Return the table as a LaTeX `table` that needs the package booktabs."""
    lines = [
        "\\begin{table}",
        "\\centering",
        "\\begin{tabular}{" + "l" * len(grid.heads) + "r" * len(grid.columns) + "}",
        "\\toprule",
        " & ".join(_latex_text(title) for title in [*map(str.capitalize, grid.heads), *grid.columns]) + r" \\",
        "\\midrule",
    ]
    for number in range(len(grid.rows)):
        names, cells = _told_once(grid, number), grid.rows[number][1]
        lines.append(" & ".join([*map(_latex_text, names), *map(_in_latex, cells)]) + r" \\")
    caption = _latex_text(grid.notes).replace("\n", " ")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", f"\\caption{{{caption}}}", "\\end{table}"]) + "\n"


def _told_once(grid: Grid, number: int) -> list[str]:
    """Return a row's names, the first left empty where it is the row above's and another follows it."""
    names = list(grid.rows[number][0])
    if number and len(names) > 1 and grid.rows[number - 1][0][0] == names[0]:
        names[0] = ""
    return names


def _in_terminal(cell: Cell) -> str:
    rest = cell.plain[len(cell.text) :]
    return (f"[bold]{cell.text}[/bold]" if cell.best else cell.text) + rest


def _in_markdown(cell: Cell) -> str:
    rest = _escape(cell.plain[len(cell.text) :])
    return (f"**{cell.text}**" if cell.best else cell.text) + rest


def _in_latex(cell: Cell) -> str:
    value = cell.text.replace("-", "$-$", 1)
    marks = cell.dagger.replace("\u2020", r"\dagger").replace("\u2021", r"\ddagger") + cell.star.replace("*", r"\ast")
    return (
        (rf"\textbf{{{value}}}" if cell.best else value)
        + (f"$^{{{marks}}}$" if marks else "")
        + (rf" $\pm$ {cell.spread}" if cell.spread else "")
    )


def _escape(text: str) -> str:
    return text.replace("*", "\\*").replace("|", "\\|")


_LATEX = {
    "\\": r"\textbackslash{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "\u2020": r"$\dagger$",
    "\u2021": r"$\ddagger$",
    "<": "$<$",
    ">": "$>$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    **{sign: "\\" + sign for sign in "&%_#{}$"},
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
