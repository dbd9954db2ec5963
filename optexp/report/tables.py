"""Tables for a terminal or a pipe: aligned, no wider than the terminal, coloured only where people look."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optexp.records.console import is_live, open_terminal
from optexp.records.numbers import setting

GAP = "  "


@dataclass(frozen=True)
class Column:
    """One column: the key in the rows, how its values are written, and what may become of it.

    A column with `optional` 0 is always shown; of the others, the highest are left out first when the terminal is
    too narrow. `style` turns a value into a rich style, for terminals.
    """

    key: str
    title: str = ""
    text: Callable[[Any], str] = setting
    numeric: bool = False
    optional: int = 0
    style: Callable[[Any], str] | None = None

    @property
    def heading(self) -> str:
        """The title, or the key when it has none."""
        return self.title or self.key

    def cell(self, row: Mapping[str, Any]) -> str:
        """Return the text of the column in a row: nothing where the row has no such key."""
        return self.text(row[self.key]) if self.key in row else ""

    def width(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Return the width of the widest cell, heading included, in characters."""
        return max(map(len, [self.heading, *(self.cell(row) for row in rows)]))

    def aligned(self, text: str, width: int) -> str:
        """Return a cell's text padded to the width: numbers to the right, all else to the left."""
        return text.rjust(width) if self.numeric else text.ljust(width)


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return one column for each key of the rows, in the order in which the keys appear."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [Column(key, numeric=all(isinstance(row.get(key, 0), (int, float)) for row in rows)) for key in keys]


def terminal_width() -> float:
    """Return the number of characters in a line of the terminal; a pipe has no end."""
    return shutil.get_terminal_size().columns if is_live() else float("inf")


def table_width(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> int:
    """Return the width of the table in characters."""
    return sum(column.width(rows) + len(GAP) for column in columns) - len(GAP)


def fitting(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], width: float) -> list[Column]:
    """Return the columns without as many of the optional ones as it takes to keep within `width` characters."""
    kept = list(columns)
    while table_width(rows, kept) > width and any(column.optional for column in kept):
        kept.remove(max(kept, key=lambda column: column.optional))
    return kept


def print_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[Column] | None = None, group_by: str | None = None
) -> list[Column]:
    """Print one line per row, aligned under the headings; return the columns there was no room for.

    `group_by` is a key whose value is printed above the rows that share it. Without `columns` every key of the rows
    makes one. What must be shown and does not fit is wrapped by the terminal and never cut short.
    """
    columns = columns_of(rows) if columns is None else columns
    kept = fitting(rows, columns, terminal_width())
    widths = [column.width(rows) for column in kept]
    lines = [[(column.aligned(column.heading, width), "dim") for column, width in zip(kept, widths, strict=True)]]
    group = None
    for row in rows:
        if group_by and row[group_by] != group:
            group = row[group_by]
            lines.append([(str(group), "bold")])
        line = []
        for column, width in zip(kept, widths, strict=True):
            style = column.style(row[column.key]) if column.style and column.key in row else ""
            line.append((column.aligned(column.cell(row), width), style))
        lines.append(line)
    _print_lines(lines)
    return [column for column in columns if column not in kept]


def _print_lines(lines: Sequence[Sequence[tuple[str, str]]]) -> None:
    """Print lines of (text, style) cells, with the styles on a terminal only."""
    if not is_live():
        for line in lines:
            print(GAP.join(text for text, _ in line).rstrip())
        return
    from rich.text import Text

    terminal = open_terminal()
    for line in lines:
        text = Text(GAP).join(Text(*cell) for cell in line)
        text.rstrip()
        terminal.print(text, soft_wrap=True)
