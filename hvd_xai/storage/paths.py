"""Paths to read from, on this disk or through fsspec in an object store.

`RemotePath` has the methods of `pathlib.Path` that readers use, and no others; nothing is ever
written through it. fsspec and its filesystems find credentials and endpoints themselves, in the
environment (`AWS_ENDPOINT_URL`, `FSSPEC_S3_PROFILE`) and in their own files.
"""

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from hvd_xai.errors import CheckpointError

# A cached listing would hide epochs that are committed after it was made.
_OPTIONS = {"use_listings_cache": False}


class RemotePath:
    """A file or folder in one of fsspec's filesystems.

    Every method raises `OSError` if the filesystem cannot be reached.

    Args:
        filesystem: an `fsspec.AbstractFileSystem`.
        path: path within the filesystem, in the form that the filesystem uses.
    """

    def __init__(self, filesystem: Any, path: str) -> None:
        self._filesystem = filesystem
        self._path = path.rstrip("/")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._path.rpartition("/")[2]

    @property
    def parent(self) -> "RemotePath":
        """The folder that contains this path."""
        return RemotePath(self._filesystem, self._path.rpartition("/")[0])

    @property
    def parents(self) -> "tuple[RemotePath, ...]":
        """The folders that contain this path, the nearest first."""
        above = self.parent
        return () if not above._path else (above, *above.parents)

    def resolve(self) -> "RemotePath":
        """Returns this path itself, because object stores have no links."""
        return self

    def is_dir(self) -> bool:
        """Returns whether this is a folder; in a store, any path with something below it is one."""
        return self._type() == "directory"

    def is_file(self) -> bool:
        """Returns whether a file of this name exists."""
        return self._type() == "file"

    def exists(self) -> bool:
        """Returns whether a file or folder of this name exists."""
        return self._type() is not None

    def entries(self) -> list[tuple[str, bool]]:
        """Returns the names in this folder, each with whether it is a folder itself.

        Raises:
            FileNotFoundError: if nothing has this name, or begins with it.
            NotADirectoryError: if this is a file.
        """
        # Not fsspec's own glob, which leaves out what it could not list.
        with _asking(self):
            found = self._filesystem.ls(self._path, detail=True)
        # Of a file, stores list the file itself; some mark a folder by an object with its name.
        if any(info["name"] == self._path and info["type"] == "file" for info in found):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self))
        paths = [(str(info["name"]).rstrip("/"), info["type"]) for info in found]
        return [
            (path.rpartition("/")[2], kind == "directory")
            for path, kind in paths
            if path != self._path
        ]

    def open(self, mode: str = "rb", buffering: int = -1) -> io.IOBase:
        """Opens the file for reading."""
        if mode != "rb":
            raise io.UnsupportedOperation(f"{self} is only read; got mode {mode!r}")
        with _asking(self):
            file: io.IOBase = self._filesystem.open(self._path, "rb")
        return file

    def read_bytes(self) -> bytes:
        """Returns the whole content of the file."""
        return self.read_range(0, None)

    def read_range(self, offset: int, size: int | None) -> bytes:
        """Returns `size` bytes from `offset` on, or all bytes that follow if `size` is None.

        The request asks the store for these bytes only.
        """
        with _asking(self):
            content: bytes = self._filesystem.cat_file(
                self._path, start=offset, end=None if size is None else offset + size
            )
        return content

    def size(self) -> int | None:
        """Returns the file's size in bytes; None if this is a folder."""
        info = self._info()
        return int(info["size"]) if info["type"] == "file" else None

    def _type(self) -> str | None:
        # fsspec's own isfile, isdir and exists return False where the store could not be reached.
        try:
            return str(self._info()["type"])
        except FileNotFoundError:
            return None

    def _info(self) -> dict[str, Any]:
        with _asking(self):
            return dict(self._filesystem.info(self._path))

    def __truediv__(self, other: str) -> "RemotePath":
        return RemotePath(self._filesystem, f"{self._path}/{other}")

    def __str__(self) -> str:
        return str(self._filesystem.unstrip_protocol(self._path))

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(other) == str(self)

    def __lt__(self, other: "RemotePath") -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))


Place: TypeAlias = Path | RemotePath
"""A file or folder on this disk or in an object store."""


def place(where: str | Place) -> Place:
    """Returns the place that a path, or a URL such as `s3://bucket/runs/demo`, names.

    Raises:
        ImportError: if fsspec, or the package that it needs for the URL, is not installed.
        CheckpointError: if fsspec cannot read URLs of this form.
    """
    if isinstance(where, RemotePath):
        return where
    url = str(where)
    if "://" not in url:
        return Path(where)
    try:
        import fsspec
    except ImportError as error:
        raise ImportError(f"{url} is read through fsspec: pip install 'hvd_xai[remote]'") from error
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **_OPTIONS)
    except ImportError as error:
        raise ImportError(f"{url} needs another package beside fsspec: {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{url} is no URL that fsspec reads: {error}") from error
    return Path(path) if "file" in _protocols(filesystem) else RemotePath(filesystem, path)


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder.

    Args:
        name: the name.
        obstacle: why the name cannot be used as a folder; "" if it is one, or leads to one.
    """

    name: str
    obstacle: str


def list_folder(folder: Place) -> list[Entry]:
    """Lists a folder, in order of name.

    Raises:
        OSError: if it cannot be read; never returns a part.
    """
    no_folder = "is no folder"
    if isinstance(folder, RemotePath):
        return [
            Entry(name, "" if is_dir else no_folder) for name, is_dir in sorted(folder.entries())
        ]
    entries = []
    for path in sorted(folder.iterdir()):
        try:
            is_dir = stat.S_ISDIR(path.stat().st_mode)
            entries.append(Entry(path.name, "" if is_dir else no_folder))
        except OSError as error:
            entries.append(Entry(path.name, f"cannot be looked at: {error.strerror or error}"))
    return entries


def is_there(path: Place) -> bool:
    """Returns whether anything has this name, be it a link that leads nowhere.

    Raises:
        OSError: if that cannot be found out, as in a folder that may not be searched.
    """
    if isinstance(path, RemotePath):
        return path.exists()
    # Not `Path.exists`, which takes a link to itself, and in later versions of Python whatever may
    # not be looked at, for a name that is free.
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def size_of_file(path: Place) -> int | None:
    """Returns the size of a plain file in bytes; None if it is a folder, a link or anything else.

    Raises:
        OSError: if nothing exists at the path, or it cannot be reached.
    """
    if isinstance(path, RemotePath):
        return path.size()
    status = path.lstat()
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


@contextmanager
def _asking(path: RemotePath) -> Iterator[None]:
    """Turns every exception of a filesystem into an `OSError`.

    Each client library raises its own types for a lost network or a wrong key.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{path} cannot be reached: {type(error).__name__}: {error}") from error
