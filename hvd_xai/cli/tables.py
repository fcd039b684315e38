"""Tables, numbers and JSON as the terminal shows them."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from hvd_xai.cli.console import make_console
from hvd_xai.log import printable
from hvd_xai.protocols import Json

# Width of a line, in columns, where the output goes to a file or a pipe.
_WITHOUT_TERMINAL = 200


def print_table(table: Table) -> None:
    """Prints a table; where there is no terminal, its lines may be long."""
    _console().print(table)


def make_table(columns: Mapping[str, Sequence[str]], *, left: Sequence[str] = ()) -> Table:
    """Makes a table without lines, whose cells are broken rather than cut.

    Args:
        columns: cells of each column, by its title.
        left: titles of the columns that are aligned to the left; numbers are not.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in columns:
        justify: Literal["left", "right"] = "left" if title in left else "right"
        table.add_column(printable(title), justify=justify, overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(printable, row))
    return table


def fit_table(
    columns: Mapping[str, Sequence[str]], starts: Sequence[int], least_important: Sequence[str]
) -> Table:
    """Makes a table that fits the terminal; columns are left out, the least important first.

    Args:
        columns: cells of each column, by its title.
        starts: rows that have an empty line above them, unless every row would have one.
        least_important: titles of the columns that may be left out, in this order.
    """
    columns = dict(columns)
    available, unlimited = _console().width, make_console(width=10_000)
    for left_out in ("", *least_important):
        columns.pop(left_out, None)
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for title in columns:
            justify: Literal["left", "right"] = "left" if title == "method" else "right"
            table.add_column(printable(title), justify=justify, no_wrap=True)
        rows = list(zip(*columns.values(), strict=True))
        for index, row in enumerate(rows):
            if index in starts and len(rows) > len(starts) + 1:
                table.add_row()
            table.add_row(*map(printable, row))
        if Measurement.get(unlimited, unlimited.options, table).maximum <= available:
            break
    return table


def find_starts(values: Sequence[object]) -> list[int]:
    """Returns where a value differs from the one before it.

    Example:
        >>> find_starts([0, 0, 1, 1, 2])
        [2, 4]
    """
    return [index for index in range(1, len(values)) if values[index] != values[index - 1]]


def write_number(value: Json, form: str) -> str:
    """Writes a number in a format; a dash if there is none.

    Example:
        >>> write_number(0.123, ".1%"), write_number(None, ".1%"), write_number(math.nan, "g")
        ('12.3%', '-', '-')
    """
    return "-" if not isinstance(value, int | float) or math.isnan(value) else format(value, form)


def write_bytes(n_bytes: int) -> str:
    """Writes a number of bytes in decimal units.

    Example:
        >>> write_bytes(999), write_bytes(1_500_000)
        ('999 B', '1.5 MB')
    """
    if n_bytes < 1000:
        return f"{n_bytes} B"
    size = float(n_bytes)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def write_json(record: Json) -> str:
    r"""Writes JSON that every program reads: a number that is not finite becomes null.

    Example:
        >>> write_json({"score": math.nan})
        '{\n  "score": null\n}'
    """

    def replace_not_finite(value: Json) -> Json:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, dict):
            return {key: replace_not_finite(item) for key, item in value.items()}
        return [replace_not_finite(item) for item in value] if isinstance(value, list) else value

    return json.dumps(replace_not_finite(record), indent=2)


def _console() -> "Console":
    console = make_console()
    return console if console.is_terminal else make_console(width=_WITHOUT_TERMINAL)
