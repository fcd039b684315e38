"""Puts the command line together: a module that defines a function of its own name is a command."""

import io
import os
import pkgutil
import sys
from importlib import import_module
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from hvd_xai import __version__, cli
from hvd_xai.cli.console import report_errors, say
from hvd_xai.errors import advising_command_line
from hvd_xai.log import printable

_HELP = """\
Trains Keras 3 models on many ranks with Horovod, and records why they predict what they do.

Train on two ranks, and explain 256 images after every epoch:

  mpirun -np 2 hvd-xai train digits_cnn --epochs 5 --output runs/demo

Look at the explanations:

  hvd-xai show runs/demo

Explain a model that is trained already, over a whole data set:

  mpirun -np 2 hvd-xai explain model.keras test.npz --output runs/test

If something does not work:

  hvd-xai doctor
"""


# Typer keeps the class of all errors of usage private, and shows one that is derived from it.
_USAGE_ERROR = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])


class _Group(TyperGroup):
    """The commands; what is wrong with their use is said in text that cannot steer a terminal."""

    def invoke(self, ctx: Any) -> Any:  # typer keeps the type of a context private
        """Runs a command. Its words may be names of files, which a shell's pattern has found."""
        try:
            return super().invoke(ctx)
        except _USAGE_ERROR as error:
            error.message = printable(error.message)
            raise


def _version(asked: bool) -> bool:
    if asked:
        say(__version__)
        raise typer.Exit
    return asked


def build() -> typer.Typer:
    """Returns the command line, with a command for each module of this package that defines one."""
    app = typer.Typer(
        name="hvd-xai",
        cls=_Group,
        help=_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def options(
        version: Annotated[
            bool,
            typer.Option(
                "--version", callback=_version, is_eager=True, help="Print the version and exit."
            ),
        ] = False,
    ) -> None:
        """Takes the options that stand before the command."""

    # Typer shows this docstring above the options, where it would else find that of `options`.
    options.__doc__ = _HELP
    for module in pkgutil.iter_modules(cli.__path__):
        command = (
            getattr(import_module(f"hvd_xai.cli.{module.name}"), module.name, None)
            if module.name != "main"
            else None
        )
        if command is not None:
            app.command(module.name.replace("_", "-"))(command)
    return app


def main() -> None:
    """Runs the command line; an error ends it with one line and exit code 1, wrong usage with 2."""
    # Must be set before TensorFlow is loaded, which else greets with 20 lines on every rank.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for stream in (sys.stdout, sys.stderr):
        # An ASCII terminal shows the names that it cannot write as escapes.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with report_errors(), advising_command_line():
        build()()
