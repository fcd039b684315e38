"""`hvd-xai copy`: copies a recipe that ships with hvd-xai, for users to change."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from hvd_xai.cli.console import say
from hvd_xai.errors import RecipeError
from hvd_xai.lookup.modules import nearest
from hvd_xai.lookup.recipes import Folder, shipped
from hvd_xai.storage.durable import writing


def copy(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A shipped recipe, such as digits_cnn or explain_every_epoch.", metavar="RECIPE"
        ),
    ],
    destination: Annotated[
        Path,
        typer.Argument(
            help="A folder, or the name of the new file. [default: this folder]",
            metavar="DESTINATION",
            show_default=False,
        ),
    ] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
) -> None:
    """Copies a shipped recipe for you to read and change.

    hvd-xai copy digits_cnn

    hvd-xai copy digits_cnn my_cnn.py          then: hvd-xai train my_cnn.py

    hvd-xai copy explain_every_epoch mine.py   then: hvd-xai train digits_cnn --callback mine.py
    """
    folders: tuple[Folder, ...] = ("models", "callbacks")
    found = {name: (folder, path) for folder in folders for name, path in shipped(folder).items()}
    if recipe not in found:
        there = (
            ", ".join(f"{name} ({folder})" for name, (folder, _) in sorted(found.items()))
            or "none ships with this installation"
        )
        raise RecipeError(
            f"there is no recipe '{recipe}'{nearest(recipe, found)}. There are: {there}."
        )
    folder, source = found[recipe]
    target = destination / source.name if destination.is_dir() else destination
    if target.exists() and not force:
        raise RecipeError(f"'{target}' exists. Give another name, or overwrite it with --force.")
    if not target.parent.is_dir():
        raise RecipeError(
            f"the folder '{target.parent}' does not exist. Make it, or choose another."
        )
    # With --force only: in a checkout, `copy digits_cnn models` names the shipped file itself.
    if target.exists() and target.samefile(source):
        raise RecipeError(f"'{target}' is the shipped recipe itself. Give another folder or name.")
    with writing(target):
        shutil.copyfile(source, target)
    option = "" if folder == "models" else "RECIPE --callback "
    say(
        str(target),
        f"Run it: hvd-xai train {option}{target if target.suffix == '.py' else target.name}",
    )
