"""Values as aligned tables. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ingot.cli.render.line import Line, Span, cut

Cell = str | Span


def table(
    heads: Sequence[str], rows: Sequence[Sequence[Cell]], *, right: Sequence[int] = (), columns: int = 0
) -> tuple[Line, ...]:
    """Rows under their heads, columns two spaces apart; `right` names columns aligned to the right.

    `columns` cuts lines at a screen's width; 0 leaves them whole. No rows, no lines.
    """
    if not rows:
        return ()
    cells = [[_span(cell) for cell in row] for row in rows]
    wide = [
        max([len(head), *(len(row[place][0]) for row in cells)]) for place, head in enumerate(heads)
    ]  # fmt: skip
    top: list[Span] = [(head.upper(), "dim") for head in heads]
    lines = [_row(row, wide, right) for row in (top, *cells)]
    return tuple(cut(line, columns) if columns else line for line in lines)


def pairs(rows: Sequence[tuple[str, Cell]]) -> tuple[Line, ...]:
    """Names and values, one pair a line; rows without a value are left out."""
    kept = [(name, _span(value)) for name, value in rows if _span(value)[0]]
    wide = max((len(name) for name, _ in kept), default=0)
    return tuple(((f"{name:<{wide}}  ", "dim"), value) for name, value in kept)


def _span(cell: Cell) -> Span:
    return (cell, "") if isinstance(cell, str) else cell


def _row(cells: Sequence[Span], wide: Sequence[int], right: Sequence[int]) -> Line:
    return tuple(
        (
            (f"{text:>{wide[place]}}" if place in right else f"{text:<{wide[place]}}")
            + ("  " if place + 1 < len(cells) else ""),
            style,
        )
        for place, (text, style) in enumerate(cells)
    )
