"""Tables of the terminal."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from hvd_xai.cli import tables


def render(table: Table, width: int = 200) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_table_that_is_too_wide_loses_its_least_important_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "15")
    monkeypatch.setenv("FORCE_COLOR", "1")
    columns = {"method": ["grad_cam"], "first": ["1" * 10], "second": ["2" * 10]}
    table = tables.fit_table(columns, [], ["second", "first"])
    assert [column.header for column in table.columns] == ["method"]


def test_rows_that_begin_something_have_an_empty_line_above_them() -> None:
    columns = {"method": ["a", "b", "a", "b"], "epoch": ["0", "0", "1", "1"]}
    lines = render(tables.fit_table(columns, tables.find_starts(columns["epoch"]), []))
    assert [line.split() for line in lines][3] == []
    alone = {"method": ["a", "a"], "epoch": ["0", "1"]}
    assert len(render(tables.fit_table(alone, tables.find_starts(alone["epoch"]), []))) == 3


def test_cells_of_any_table_do_not_steer_the_terminal() -> None:
    columns = {"method": ["\x1b[2J\n"], "a\x07": ["a\u202eb"]}
    for table in (tables.make_table(columns), tables.fit_table(columns, [], [])):
        assert render(table)[0].split() == ["method", "a\\x07"]
        assert render(table)[1].split() == ["\\x1b[2J\\n", "a\\u202eb"]


def test_cells_and_titles_are_shown_as_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"method": ["[red]cat[/red]"], ":bee:": ["a\\"], "[bold]": ["[/]"]}
    for table in (tables.make_table(columns), tables.fit_table(columns, [], [])):
        tables.print_table(table)
        said = capsys.readouterr().out.splitlines()
        assert [line.split() for line in said] == [
            ["method", ":bee:", "[bold]"],
            ["[red]cat[/red]", "a\\", "[/]"],
        ]


def test_bytes_and_numbers_are_written_for_people() -> None:
    assert [tables.write_bytes(size) for size in (7, 1000, 2_500_000, 10**13)] == [
        "7 B",
        "1.0 kB",
        "2.5 MB",
        "10.0 TB",
    ]
    assert tables.write_number(float("nan"), ".2f") == "-"


def test_json_has_null_where_a_number_is_not_finite() -> None:
    assert tables.write_json({"a": [float("inf"), 1.0]}).split() == [
        *("{", '"a":', "[", "null,", "1.0", "]", "}"),
    ]
