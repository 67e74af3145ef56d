"""The rooms of `state_rag` and the arrows between them, from the table in `tests/test_arrows.py`."""

import ast
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "state_rag"
Arrows = dict[str, set[str]]

BOX = (118, 30)
GAP = (18, 58)
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
    rows: dict[int, list[str]] = {}
    for room in sorted(arrows):
        rows.setdefault(depth(arrows, room), []).append(room)
    levels = sorted(rows, reverse=True)
    (width, height), (across, down) = BOX, GAP
    widest = max(len(row) for row in rows.values())
    whole = 2 * MARGIN + widest * (width + across) - across
    place: dict[str, tuple[float, float]] = {}
    for index, level in enumerate(levels):
        row = rows[level]
        if index:  # stand below the mean of those who point here
            users = {room: [place[user][0] for user in place if room in shown[user]] for room in row}
            row.sort(key=lambda room: sum(users[room]) / len(users[room]) if users[room] else whole / 2)
        step = whole / len(row)
        for position, room in enumerate(row):
            place[room] = (step * (position + 0.5), MARGIN + index * (height + down))
    tall = 2 * MARGIN + len(levels) * (height + down) - down
    lines = []
    for room, others in shown.items():
        for other in sorted(others):
            (x1, y1), (x2, y2) = place[room], place[other]
            y1 += height
            bend = min(0.5 * (y2 - y1), 40)
            lines.append(
                f'<path d="M{x1:.0f} {y1:.0f} C{x1:.0f} {y1 + bend:.0f} '
                f'{x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2 - 6:.0f}" '
                'fill="none" stroke="#7a8794" stroke-width="1.3" marker-end="url(#tip)"/>'
            )
    for room, (x, y) in place.items():
        lines.append(
            f'<rect x="{x - width / 2:.0f}" y="{y:.0f}" width="{width}" height="{height}" rx="6" '
            'fill="#e8f0f7" stroke="#2b5c88"/>'
            f'<text x="{x:.0f}" y="{y + height / 2 + 4:.0f}" text-anchor="middle" font-size="13" '
            f'font-family="sans-serif" fill="#12293d">{escape(room)}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole:.0f} {tall:.0f}" width="{whole:.0f}" '
        f'role="img" aria-label="Rooms of state_rag and the imports between them">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#7a8794"/></marker></defs>'
        f"{''.join(lines)}</svg>"
    )
