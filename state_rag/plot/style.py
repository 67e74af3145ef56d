"""Colours, names and files of pictures.

Colours are Okabe and Ito's (2008), which people with any of the common colour-vision deficiencies can tell apart.
"""

from collections.abc import Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from state_rag.files import atomic_path

BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#7F7F7F",
)
CYCLE = (BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY, YELLOW)
STROKES = ("-", "--", ":", "-.")
"""Of lines, from one round of colours to the next."""
LONGEST = 36
"""Characters of a name in a picture; longer ones are cut in the middle."""


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as `name.png` and `name.svg`."""
    settle(figure)
    layout = figure.get_layout_engine()
    try:
        for suffix in ("png", "svg"):
            with atomic_path(folder / f"{name}.{suffix}") as path:
                figure.savefig(path, format=suffix, dpi=150)
            figure.set_layout_engine("none")  # the second is laid out as the first, which took longer than to draw it
    finally:
        figure.set_layout_engine(layout)


def settle(figure: Figure) -> None:
    """Lay a figure out once ahead: axes of equal aspect find their place, and room for their labels, only then."""
    figure.draw_without_rendering()


def plain(text: str) -> str:
    """Return a text that matplotlib draws as it is, dollar signs included."""
    return text.replace("$", r"\$")


def labels(names: Iterable[str], longest: int = LONGEST) -> list[str]:
    """Return names to draw: plain, long ones cut in the middle unless that would make two of them alike.

    Examples
    --------
    >>> labels(["short", "a_run_of_ptrag_with_K_32_and_hidden_128"], longest=17)
    ['short', 'a_run_of…dden_128']
    """
    names = list(names)
    head = (longest - 1) // 2
    tail = longest - 1 - head
    short = [name if len(name) <= longest else f"{name[:head]}…{name[-tail:]}" for name in names]
    return [plain(cut if short.count(cut) == 1 else name) for cut, name in zip(short, names, strict=True)]


def axes_or_current(ax: Axes | None) -> Axes:
    """Return the axes, or pyplot's current ones where None is given, as seaborn and scanpy do."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.gca()


def stroke(number: int) -> tuple[str, str]:
    """Return colour and style of a line; only the styles of `STROKES` times as many lines repeat both."""
    return CYCLE[number % len(CYCLE)], STROKES[number // len(CYCLE) % len(STROKES)]


def ticks(ax: Axes, down: list[str], across: list[str]) -> None:
    """Name the rows and columns of a matrix."""
    ax.set_xticks(range(len(across)), across, rotation=30, ha="right")
    ax.set_yticks(range(len(down)), down)
