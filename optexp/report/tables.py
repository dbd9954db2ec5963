"""Tables for a terminal or a pipe: aligned, as wide as the terminal at most, coloured only where people look."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optexp.records.console import is_live
from optexp.records.numbers import setting

GAP = 2


@dataclass(frozen=True)
class Column:
    """One column: the key in the rows, how its values are written, and what may become of it.

    `optional` 0 is always shown; of the others, the highest are left out first when the terminal is too narrow.
    `style` turns a value into a rich style; it is not used when the output is piped.
    """

    key: str
    title: str = ""
    text: Callable[[Any], str] = setting
    numeric: bool = False
    optional: int = 0
    style: Callable[[Any], str] | None = None

    def cell(self, row: Mapping[str, Any]) -> str:
        """Return the text of the column in a row: nothing where the row has no such key."""
        return self.text(row[self.key]) if self.key in row else ""

    @property
    def heading(self) -> str:
        return self.title or self.key

    def width(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Return the width of the widest cell, heading included, in characters."""
        return max(map(len, [self.heading, *(self.cell(row) for row in rows)]))


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return one column for each key of the rows, in the order in which the keys appear, numbers to the right."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [Column(key, numeric=all(isinstance(row.get(key, 0), (int, float)) for row in rows)) for key in keys]


def fitting(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], width: int) -> list[Column]:
    """Return the columns without as many optional ones as it takes to keep within `width` characters."""
    kept = list(columns)
    while True:
        needed = sum(column.width(rows) for column in kept) + GAP * (len(kept) - 1)
        least = max(kept, key=lambda column: column.optional)
        if needed <= width or least.optional == 0:
            return kept
        kept.remove(least)


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column] | None = None) -> list[Column]:
    """Print rows as a table and return the columns that did not fit.

    A pipe has no width: there every column is printed, one line per row, without colour.
    """
    columns = columns_of(rows) if columns is None else columns
    if not is_live():
        widths = [column.width(rows) for column in columns]
        print(_line([column.heading for column in columns], widths, columns))
        for row in rows:
            print(_line([column.cell(row) for column in columns], widths, columns))
        return []
    kept = fitting(rows, columns, shutil.get_terminal_size().columns)
    _print_coloured(rows, kept)
    return [column for column in columns if column not in kept]


def _line(cells: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> str:
    aligned = [
        cell.rjust(width) if column.numeric else cell.ljust(width)
        for cell, width, column in zip(cells, widths, columns, strict=True)
    ]
    return (" " * GAP).join(aligned).rstrip()


def _print_coloured(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column.heading, justify="right" if column.numeric else "left", no_wrap=True)
    for row in rows:
        cells = []
        for column in columns:
            style = column.style(row[column.key]) if column.style and column.key in row else ""
            cells.append(Text(column.cell(row), style))
        table.add_row(*cells)
    # The columns that must be shown may be wider than the terminal: let it wrap them rather than cut a path short.
    width = sum(column.width(rows) + GAP for column in columns)
    Console(width=max(width, shutil.get_terminal_size().columns), highlight=False).print(table, soft_wrap=True)
