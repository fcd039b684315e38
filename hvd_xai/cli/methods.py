"""`hvd-xai methods`: lists the attribution methods, or describes one."""

import ast
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hvd_xai import attributions
from hvd_xai.cli.console import make_console, say
from hvd_xai.errors import RecipeError
from hvd_xai.lookup.methods import shipped_methods
from hvd_xai.lookup.modules import nearest


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A method to describe: its equation, options and paper.", metavar="METHOD"
        ),
    ] = None,
) -> None:
    """Lists the attribution methods, or describes one.

    hvd-xai methods

    hvd-xai methods integrated_gradients
    """
    names = shipped_methods()
    if name is None:
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="bold")
        table.add_column()
        for one in names:
            table.add_row(one, (ast.get_docstring(_definition(one)) or "").partition("\n")[0])
        make_console().print(table)
        return
    if name not in names:
        raise RecipeError(
            f"there is no method '{name}'{nearest(name, names)}. `hvd-xai methods` lists those"
            " there are."
        )
    function = _definition(name)
    options = [
        f"  {argument.arg} = {'(must be given)' if default is None else ast.unparse(default)}"
        for argument, default in zip(
            function.args.kwonlyargs, function.args.kw_defaults, strict=True
        )
        if argument.arg != "ids"
    ]
    described = (ast.get_docstring(function) or "").splitlines()
    say(name, "", *described, "", "Options and defaults:", *options)


def _definition(name: str) -> ast.FunctionDef:
    """Returns a method's definition from its source, because importing it would need TensorFlow."""
    source = Path(attributions.__path__[0], f"{name}.py").read_text("utf-8")
    return next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
