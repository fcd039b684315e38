"""Lists what a run holds; a thing that cannot be looked at is a problem, and never taken for empty.

`pathlib` passes over folders that may not be read, and over links to themselves, in silence. All
that is asked of a run's folders goes through this module.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hvd_xai.checkpoint.integrity import Problem
from hvd_xai.checkpoint.layout import EPOCHS
from hvd_xai.checkpoint.manifest import MANIFEST
from hvd_xai.checkpoint.rows import NAME_FORM
from hvd_xai.errors import CheckpointError
from hvd_xai.storage.paths import Place, is_there, list_folder


@dataclass(frozen=True, slots=True)
class Listing:
    """The folders of epochs or methods, in order of name, and what stands in the place of one.

    Args:
        folders: folders that can be looked into.
        problems: things with the name of an epoch or a method that are no folder, or cannot be
            looked at.
    """

    folders: tuple[Place, ...] = ()
    problems: tuple[Problem, ...] = ()

    def checked(self) -> tuple[Place, ...]:
        """Returns the folders if there is no problem.

        Raises:
            CheckpointError: if there is one.
        """
        if self.problems:
            raise CheckpointError(
                f"{self.problems[0]}; whatever it holds is not seen. Move it away, or make it"
                " readable. `hvd-xai verify` lists all such places."
            )
        return self.folders


def is_present(path: Place) -> bool:
    """Returns whether anything has this name, be it a link that leads nowhere.

    Raises:
        CheckpointError: if that cannot be found out, as in a folder that may not be searched.
    """
    try:
        return is_there(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be looked at: {error.strerror or error}") from error


def list_epochs(explanations_dir: Place) -> Listing:
    """Lists the folders of a run's epochs, in order of epoch."""
    listing = _list(explanations_dir / EPOCHS, lambda name: name.isascii() and name.isdecimal())
    misnamed = [path for path in listing.folders if path.name != f"{int(path.name):06d}"]
    problems = [
        Problem(path, f"must be called {int(path.name):06d} to be an epoch that is read")
        for path in misnamed
    ]
    return Listing(
        tuple(
            sorted(
                (path for path in listing.folders if path not in misnamed),
                key=lambda path: int(path.name),
            )
        ),
        (*listing.problems, *problems),
    )


def list_methods(epoch_dir: Place) -> Listing:
    """Lists the folders of an epoch's methods, those without a manifest included."""
    return _list(epoch_dir, lambda name: NAME_FORM.fullmatch(name) is not None)


def find_renamed(epoch_dir: Place) -> list[Problem]:
    """Finds folders with a manifest whose names no method has, which readers pass over."""
    try:
        names = [entry.name for entry in list_folder(epoch_dir) if not entry.obstacle]
    except OSError:
        # `list_epochs` and `list_methods` say that of it.
        return []
    return [
        Problem(epoch_dir / name, "holds a manifest, and is not read: no method has this name")
        for name in names
        # What begins with a point is not committed yet, or being removed.
        if not name.startswith(".")
        and not NAME_FORM.fullmatch(name)
        and is_present(epoch_dir / name / MANIFEST)
    ]


def list_committed(epoch_dir: Place) -> tuple[Place, ...]:
    """Returns the folders of an epoch's methods that have a manifest.

    Raises:
        CheckpointError: if the epoch, or a thing with the name of a method, cannot be looked at.
    """
    folders = list_methods(epoch_dir).checked()
    return tuple(path for path in folders if is_present(path / MANIFEST))


def _list(folder: Place, is_name: Callable[[str], bool]) -> Listing:
    """Lists the folders that have a name of this form; a folder that does not exist has none."""
    try:
        entries = list_folder(folder)
    except FileNotFoundError:
        return Listing()
    except OSError as error:
        return Listing((), (Problem(folder, f"cannot be listed: {error.strerror or error}"),))
    named = [entry for entry in entries if is_name(entry.name)]
    return Listing(
        tuple(folder / entry.name for entry in named if not entry.obstacle),
        tuple(Problem(folder / entry.name, entry.obstacle) for entry in named if entry.obstacle),
    )
