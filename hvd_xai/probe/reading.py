"""Reads files that anybody may have made: what is wrong with one is said in a line with its path.

A decoder meets a damaged file with whatever error it happens to run into, most of them without the
file's name; and opening a named pipe waits for ever.
"""

import json
import lzma
import os
import re
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# What NumPy, zipfile, zlib, json and Zarr raise for damaged files. A header may announce more than
# the memory holds, nest deeper than Python goes, or name things that do not exist.
_DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    MemoryError,
    EOFError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)
_LONGEST = 300
_NODE = re.compile(r"\{\{.*?\}\}")
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def reading(path: Path, *more: type[Exception]) -> Iterator[None]:
    """Turns every error that a damaged file causes in the body into one that names the file.

    Args:
        path: file that the body reads.
        more: types of the decoder's own errors.

    Raises:
        ValueError: if the file is damaged.
        OSError: if it cannot be read at all; the message has the file's name already.

    Example:
        >>> with reading(Path("names.json")):
        ...     json.loads("[1,")
        Traceback (most recent call last):
            ...
        ValueError: 'names.json' cannot be read: Expecting value: line 1 column 4 (char 3)
    """
    damage: tuple[type[Exception], ...] = (*_DAMAGE, *more)
    try:
        yield
    except damage as error:
        raise ValueError(_say(path, error)) from error
    except OSError as error:
        if error.filename is not None:
            raise
        raise ValueError(_say(path, error)) from error


def _say(path: Path, error: Exception) -> str:
    """Returns the line that says what is wrong with a file."""
    # TensorFlow's messages have many lines, whose first its errors keep apart, and begin with
    # the names of its own functions: {{function_node ...}}.
    text = " ".join(_NODE.sub("", str(getattr(error, "message", "") or error)).split())
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    if str(path) in text:  # a body within this one has named the file, or a file within it
        return text
    return f"'{path}' cannot be read: {text or type(error).__name__}"


def check_plain(source: Path) -> None:
    """Checks that a file is plain, or that a folder holds nothing but plain files and folders.

    Opening a named pipe waits for somebody who writes to it, and a device has no end.

    Raises:
        ValueError: if anything else lies there; it is named.
        OSError: if a folder cannot be looked into.
    """
    if not source.is_dir():
        _check_plain_file(source)
        return

    def fail(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()
    for folder, names, files in os.walk(source, onerror=fail, followlinks=True):
        # A link to a folder above would be followed for ever.
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            names.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in files:
            _check_plain_file(Path(folder, name))


def _check_plain_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if not path.is_symlink():
            raise
        raise ValueError(f"'{path}' is a link that leads to no file; remove it") from error
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no plain file")
        raise ValueError(f"'{path}' is {kind}; data sets are made of plain files. Copy it to one.")


def check_room(source: Path, folder: Path, n_bytes: int) -> None:
    """Checks that a folder has room for what a data set says that it holds.

    A file of some kilobytes may announce terabytes.

    Args:
        source: data set, for the message.
        folder: folder that it is unpacked into.
        n_bytes: bytes that it announces.

    Raises:
        ValueError: if there is less room.
    """
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if n_bytes > free:
        raise ValueError(
            f"'{source}' announces {n_bytes:,} bytes of data, and {folder} has room for {free:,}."
            " Is it damaged? If not, free some space, or write to another place."
        )


def map_array(path: Path, named: Path | None = None) -> np.ndarray:
    """Maps a `.npy` file into memory, so that what is not touched is not read.

    Args:
        path: the file.
        named: path to name in messages; the file's own if None.

    Raises:
        ValueError: if the file is damaged, holds Python objects, or is shorter than it announces.

    Example:
        >>> np.save("x.npy", np.zeros((2, 3)))
        >>> map_array(Path("x.npy")).shape
        (2, 3)
    """
    with reading(named or path):
        # Not `np.load`, which takes a zip or a pickle of this name for what it is.
        values: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    return values


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
        ValueError: if it is no JSON.
    """
    with reading(path):
        return json.loads(path.read_text("utf-8"))
