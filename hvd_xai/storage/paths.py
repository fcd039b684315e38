"""Where a checkpoint lies: on this disk, or in an object store, which is read through fsspec.

`RemotePath` answers to what readers ask of a `pathlib.Path`, and to no more; nothing is ever
written through it. Credentials, endpoints and the like are what fsspec and its filesystems find
themselves: in the environment (`AWS_ENDPOINT_URL`, `FSSPEC_S3_PROFILE`) and in their own files.
"""

import glob
import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from hvd_xai.errors import CheckpointError

# A listing that is kept would hide the epochs that were committed since.
_OPTIONS = {"use_listings_cache": False}


class RemotePath:
    """A file or folder of a filesystem of fsspec.

    Every method raises `OSError` if the filesystem cannot be asked.

    Args:
        filesystem: an `fsspec.AbstractFileSystem`.
        path: within it, as it names paths itself.
    """

    def __init__(self, filesystem: Any, path: str) -> None:
        self._filesystem = filesystem
        self._path = path.rstrip("/")

    @property
    def name(self) -> str:
        """The last part."""
        return self._path.rpartition("/")[2]

    @property
    def parent(self) -> "RemotePath":
        """The folder it is in."""
        return RemotePath(self._filesystem, self._path.rpartition("/")[0])

    @property
    def parents(self) -> "tuple[RemotePath, ...]":
        """The folders it is in, the nearest first."""
        above = self.parent
        return () if not above._path else (above, *above.parents)

    def resolve(self) -> "RemotePath":
        """Returns itself: there are no links."""
        return self

    def is_dir(self) -> bool:
        """Returns whether there is a folder of this name, or something in one."""
        return self._type() == "directory"

    def is_file(self) -> bool:
        """Returns whether there is a file of this name."""
        return self._type() == "file"

    def exists(self) -> bool:
        """Returns whether there is anything of this name."""
        return self._type() is not None

    def glob(self, pattern: str) -> "Iterator[RemotePath]":
        """Goes through what matches a pattern, relative to this folder."""
        with _asking(self):
            found = self._filesystem.glob(f"{glob.escape(self._path)}/{pattern}")
        return (RemotePath(self._filesystem, path) for path in sorted(found))

    def open(self, mode: str = "rb", buffering: int = -1) -> io.IOBase:
        """Opens the file for reading."""
        if mode != "rb":
            raise io.UnsupportedOperation(f"{self} is only read; got mode {mode!r}")
        with _asking(self):
            file: io.IOBase = self._filesystem.open(self._path, "rb")
        return file

    def read_bytes(self) -> bytes:
        """Returns the whole content."""
        return self.read_range(0, None)

    def read_range(self, offset: int, size: int | None) -> bytes:
        """Returns `size` bytes from `offset` on, or all that follow.

        The request asks for no more than these.
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
        # fsspec's own isfile, isdir and exists say False where the store could not be asked
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
"""A file or folder that can be read."""


def place(where: str | Place) -> Place:
    """Returns what a path, or a URL such as `s3://bucket/runs/demo`, means.

    Raises:
        ImportError: if the URL needs fsspec, or a filesystem of it, that is not installed.
        CheckpointError: if fsspec knows no such URL, or its filesystem cannot be reached.
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


def size_of_file(path: Place) -> int | None:
    """Returns the size of a plain file in bytes; None if it is a folder, a link or anything else.

    Raises:
        OSError: if there is nothing.
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
    """Turns whatever a filesystem raises into an `OSError`.

    Every client library has errors of its own for a lost network or a wrong key.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{path} cannot be reached: {type(error).__name__}: {error}") from error
