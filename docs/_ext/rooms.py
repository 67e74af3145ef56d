"""The rooms of `state_rag` and the arrows between them, from the table in `tests/test_arrows.py`."""

import ast
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "state_rag"
Arrows = dict[str, set[str]]
Stop = str | tuple[str, str, int]
"""A room, or the gap through which the arrow between two rooms passes a level."""

BOX = (118, 30)
GAP = (18, 46)
MARGIN = 14
HIDDEN = ("__main__",)


def read_arrows(path: Path = ROOT / "tests" / "test_arrows.py") -> Arrows:
    """Return, for each room, those that it may import; the tests fail where one imports another."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "MAY_USE":
            found = {room: set(others) for room, others in ast.literal_eval(node.value).items()}
            found.setdefault("cli", {room for room in found if room not in ("startup", "__main__")})
            return {room: others for room, others in found.items() if room not in HIDDEN}
    raise LookupError(f"{path} has no table MAY_USE")


def captions(arrows: Arrows) -> dict[str, str]:
    """Return the first line of each room's docstring, top rooms first."""
    ordered = sorted(arrows, key=lambda room: (-depth(arrows, room), room))
    return {room: caption(room) for room in ordered}


def caption(room: str) -> str:
    """Return the first line of a room's docstring."""
    for file in (PACKAGE / room / "__init__.py", PACKAGE / f"{room}.py"):
        if file.exists() and (text := ast.get_docstring(ast.parse(file.read_text()))):
            return text.splitlines()[0].replace("|", "\\|")
    return ""


def depth(arrows: Arrows, room: str) -> int:
    """Return how many arrows the longest way down from a room has."""
    return max((1 + depth(arrows, other) for other in arrows.get(room, ())), default=0)


def direct(arrows: Arrows) -> Arrows:
    """Leave out arrows that a longer way already implies."""

    def below(room: str) -> set[str]:
        return arrows.get(room, set()).union(*(below(other) for other in arrows.get(room, set())))

    return {
        room: {other for other in others if not any(other in below(between) for between in others - {other})}
        for room, others in arrows.items()
    }


def picture(arrows: Arrows) -> str:
    """Draw the rooms as SVG: who imports stands above, and arrows that follow from others are left out."""
    shown = direct(arrows)
    rows, ways = layers(arrows, shown)
    place, whole, tall = positions(rows, ways)
    lines = [_arrow([place[stop] for stop in way]) for way in ways]
    lines += [_box(stop, *place[stop]) for row in rows for stop in row if isinstance(stop, str)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole:.0f} {tall:.0f}" width="{whole:.0f}" '
        f'role="img" aria-label="Rooms of state_rag and the imports between them">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#7a8794"/></marker></defs>'
        f"{''.join(lines)}</svg>"
    )


def layers(arrows: Arrows, shown: Arrows) -> tuple[list[list[Stop]], list[list[Stop]]]:
    """Return rows of stops from top to bottom, and each arrow as the stops it passes, one a row.

    A stop is a room, or a gap that an arrow needs to pass a row between rooms.
    """
    levels = {room: depth(arrows, room) for room in arrows}
    top = max(levels.values())
    rows: list[list[Stop]] = [sorted(room for room in levels if levels[room] == top - row) for row in range(top + 1)]
    ways = []
    for room in sorted(shown):
        for other in sorted(shown[room]):
            gaps: list[Stop] = [(room, other, level) for level in range(levels[room] - 1, levels[other], -1)]
            for gap, level in zip(gaps, range(levels[room] - 1, levels[other], -1), strict=True):
                rows[top - level].append(gap)
            ways.append([room, *gaps, other])
    return rows, ways


def positions(rows: list[list[Stop]], ways: list[list[Stop]]) -> tuple[dict[Stop, tuple[float, float]], float, float]:
    """Return where each stop is (middle, top), and width and height of the picture.

    The stops of a row are ordered by the mean of those that they are joined to, above and below in turn.
    """
    above: dict[Stop, list[Stop]] = {}
    below: dict[Stop, list[Stop]] = {}
    for way in ways:
        for one, next_one in zip(way, way[1:], strict=False):
            below.setdefault(one, []).append(next_one)
            above.setdefault(next_one, []).append(one)
    widths = [sum(_width(stop) + GAP[0] for stop in row) - GAP[0] for row in rows]
    whole = max(widths) + 2 * MARGIN
    x: dict[Stop, float] = {}

    def spread(row: list[Stop]) -> None:
        left = (whole - sum(_width(stop) + GAP[0] for stop in row) + GAP[0]) / 2
        for stop in row:
            x[stop] = left + _width(stop) / 2
            left += _width(stop) + GAP[0]

    for row in rows:
        spread(row)
    best, fewest = [list(row) for row in rows], _crossings(ways, rows, x)
    for turn in range(24):
        joined = above if turn % 2 == 0 else below
        for row in rows if turn % 2 == 0 else rows[::-1]:
            wish = {stop: sum(x[o] for o in joined[stop]) / len(joined[stop]) for stop in row if joined.get(stop)}
            row.sort(key=lambda stop: (wish.get(stop, x[stop]), str(stop)))
            spread(row)
        if (found := _crossings(ways, rows, x)) < fewest:
            best, fewest = [list(row) for row in rows], found
    for row, kept in zip(rows, best, strict=True):
        row[:] = kept
        spread(row)
    step = BOX[1] + GAP[1]
    place = {stop: (x[stop], MARGIN + number * step) for number, row in enumerate(rows) for stop in row}
    return place, whole, 2 * MARGIN + len(rows) * step - GAP[1]


def _crossings(ways: list[list[Stop]], rows: list[list[Stop]], x: dict[Stop, float]) -> float:
    """Return how many pairs of arrows cross; of equal numbers, the shorter way across is the smaller."""
    row_of = {stop: number for number, row in enumerate(rows) for stop in row}
    parts = [(row_of[a], x[a], x[b]) for way in ways for a, b in zip(way, way[1:], strict=False)]
    crossed = sum(
        one[0] == other[0] and (one[1] - other[1]) * (one[2] - other[2]) < 0
        for number, one in enumerate(parts)
        for other in parts[:number]
    )
    return crossed + sum(abs(start - end) for _, start, end in parts) / 1e5


def _width(stop: Stop) -> int:
    return BOX[0] if isinstance(stop, str) else 14


def _arrow(points: list[tuple[float, float]]) -> str:
    """Draw an arrow from the foot of the first box, down through gaps, to the head of the last."""
    x, y = points[0][0], points[0][1] + BOX[1]
    path = f"M{x:.0f} {y:.0f}"
    for number, (to_x, to_y) in enumerate(points[1:], 1):
        end = to_y - (2 if number == len(points) - 1 else 0)
        middle = (y + end) / 2
        path += f" C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {end:.0f}"
        x, y = to_x, to_y + BOX[1]
        if number < len(points) - 1:
            path += f" L{x:.0f} {y:.0f}"
    return f'<path d="{path}" fill="none" stroke="#7a8794" stroke-width="1.3" marker-end="url(#tip)"/>'


def _box(room: str, x: float, y: float) -> str:
    width, height = BOX
    return (
        f'<rect x="{x - width / 2:.0f}" y="{y:.0f}" width="{width}" height="{height}" rx="6" '
        'fill="#e8f0f7" stroke="#2b5c88"/>'
        f'<text x="{x:.0f}" y="{y + height / 2 + 4:.0f}" text-anchor="middle" font-size="13" '
        f'font-family="sans-serif" fill="#12293d">{escape(room)}</text>'
    )
