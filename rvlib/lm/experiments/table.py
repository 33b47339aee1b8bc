"""A table of texts: as HTML, and in a terminal."""

import html
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.table


@dataclass(frozen=True)
class Table:
    """A table of texts: its title, the heads of its columns, and its rows."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def html(self) -> str:
        """The table with its title as HTML."""
        heads = "".join(f"<th>{html.escape(head)}</th>" for head in self.header)
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        return f"<h3>{html.escape(self.title)}</h3><div class=wide><table><tr>{heads}</tr>{rows}</table></div>"

    def in_terminal(self, width: int, numbers: Collection[str] = ()) -> "rich.table.Table":
        """The table, without its title, for a terminal of so many columns.

        Where it would be too wide, an interval stands under its value. Heads and the first column are broken between
        words, and anything else only where it does not fit alone. numbers: heads of the columns that are on the right.
        """
        import rich.table  # the book, which shows tables as HTML alone, has no rich
        from rich.box import SIMPLE_HEAD
        from rich.markup import escape

        rows, room = self.rows, width - 2 * len(self.header) + 1  # two spaces between columns, one at the end
        if sum(_widths(self.header, rows, room)) > room:
            rows = [[name, *(cell.replace(" [", "\n[") for cell in cells)] for name, *cells in rows]
        printed = rich.table.Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for head, size in zip(self.header, _widths(self.header, rows, room)):
            printed.add_column(head, width=size, justify="right" if head in numbers else "left", overflow="fold")
        for row in rows:
            printed.add_row(*map(escape, row))
        return printed


def _widths(header: list[str], rows: list[list[str]], room: int) -> list[int]:
    """How wide each column is, if only the first breaks its cells, between words, to leave all others their room."""
    words = [max(map(len, head.split())) for head in header]
    lines = [max(len(line) for cell in column for line in cell.split("\n")) for column in zip(*rows)]
    first, *others = map(max, words, lines)
    narrowest = max(words[0], *(len(word) for name, *_ in rows for word in name.split()))
    return [max(narrowest, min(first, room - sum(others))), *others]
