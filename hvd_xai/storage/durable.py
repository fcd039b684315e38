"""Makes files appear whole or not at all, by durable writes and renames that replace nothing."""

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import xxhash

from hvd_xai.errors import CheckpointError
from hvd_xai.storage.paths import Place

STAGING = ".staging-"
"""Prefix of names that are not committed yet. Readers pass over such names, and `staging.sweep`
removes them once their writer is dead."""
TRASH = ".trash-"
"""Prefix of names that are being removed."""

_BLOCK = 2**20
_N_THREADS = 8
_AT_FDCWD = -100
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
# Errors of a kernel or a filesystem that lacks the call or the flag.
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)

_ADVICE = {
    errno.ENOSPC: "The disk is full: free some space, or write to another place.",
    errno.EDQUOT: "The quota is used up: free some space, or write to another place.",
    errno.EROFS: "The filesystem is mounted read-only: write to another place.",
    errno.EACCES: "The folder's permissions forbid it: change them, or write to another place.",
    errno.EPERM: "The folder's permissions forbid it: change them, or write to another place.",
    errno.EEXIST: "A file stands where a folder is needed: remove it, or write to another place.",
    errno.ENOENT: "The folder is gone: somebody moved or removed it while this job wrote there. Put"
    " it back, or write to another place.",
    errno.ENOTDIR: "A file stands where a folder is needed: remove it, or write to another place.",
}


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a checkpoint: its path within the checkpoint, size in bytes, and xxh3-128."""

    key: str
    size: int
    xxh3_128: str


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an `OSError` of the body into a `CheckpointError`.

    Its message says which path could not be written, and what to do about it.
    """
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(
            error.errno or 0, "Nothing was committed; what was committed before is untouched."
        )
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}. {advice}"
        ) from error


def fsync_directory(directory: Path) -> None:
    """Makes durable which names a directory has, after some were made, renamed or removed."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(directory: Path) -> None:
    """Makes a directory and everything in it durable.

    It flushes many files at a time, which a journalling filesystem combines into few writes of its
    journal: a small checkpoint has 20 files in 40 folders.
    """
    files: list[Path] = []
    folders: list[Path] = []
    # Not `rglob`, which passes over a folder that cannot be read.
    for folder, _, names in os.walk(directory, onerror=_raise):
        folders.append(Path(folder))
        files += [Path(folder) / name for name in names]
    with ThreadPoolExecutor(_N_THREADS) as pool:
        # Files before the directories that name them: a durable name must have durable content.
        for _ in pool.map(fsync_file, files):
            pass
        for _ in pool.map(fsync_directory, folders):
            pass


def _raise(error: OSError) -> None:
    raise error


def fsync_file(path: Path) -> None:
    """Makes a file's content durable; `fsync_directory` of its folder makes its name durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def replace_durably(path: Path, content: bytes) -> None:
    """Writes or replaces a file; readers see the old content or the new, never a part.

    The file is durable when this returns.
    """
    temporary = path.with_name(f"{STAGING}{path.name}-{secrets.token_hex(4)}")
    try:
        # In this order: a rename may reach the disk before the content that it names, and a crash
        # in between would leave an empty file under the final name.
        temporary.write_bytes(content)
        fsync_file(temporary)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def remove_durably(directory: Path) -> None:
    """Removes a directory, which vanishes for readers in one step."""
    # Renamed first: files are deleted one by one, and readers would see a checkpoint with some of
    # them.
    trash = directory.with_name(f"{TRASH}{directory.name}-{secrets.token_hex(4)}")
    directory.rename(trash)
    fsync_directory(directory.parent)
    _remove(trash)


def remove_trash(parent: Path) -> None:
    """Removes the directories that a killed job had begun to remove."""
    for trash in parent.glob(f"{TRASH}*"):
        with suppress(OSError):
            _remove(trash)


def _remove(trash: Path) -> None:
    # Where the name is a link, somebody keeps the directory elsewhere: only the link goes.
    if trash.is_symlink():
        trash.unlink()
    else:
        shutil.rmtree(trash)


def digest_file(path: Place) -> tuple[int, str]:
    """Returns a file's size in bytes and its xxh3-128, and reads it in small blocks."""
    # Not a CRC: where each piece of a file ends in its own CRC, as in a Zarr shard, a CRC of the
    # file does not depend on the content.
    digest, size = xxhash.xxh3_128(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def rename_no_replace(source: Path, destination: Path) -> None:
    """Renames a non-empty directory to a name that does not exist.

    Raises:
        FileExistsError: if the name exists, even if another process made it a moment ago.
    """
    if _renameat2(source, destination, _RENAME_NOREPLACE):
        return
    # Without the flag, POSIX still refuses to rename a directory onto one that is not empty, and a
    # checkpoint never is empty.
    try:
        source.rename(destination)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(
                errno.EEXIST, os.strerror(errno.EEXIST), str(destination)
            ) from error
        raise


def exchange(source: Path, destination: Path) -> None:
    """Swaps the names of two directories, in one step if the filesystem can."""
    if _renameat2(source, destination, _RENAME_EXCHANGE):
        return
    # Between the first two renames the destination is missing: a reader may report that, but it
    # never sees half of one directory and half of the other.
    aside = source.with_name(f"{source.name}-replaced")
    destination.rename(aside)
    try:
        source.rename(destination)
    except BaseException:
        # The source may be gone by now, and what was there before must not go with it.
        aside.rename(destination)
        raise
    aside.rename(source)


def _renameat2(source: Path, destination: Path, flags: int) -> bool:
    """Calls Linux's renameat2; returns False if the system or filesystem does not support it."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    function.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )
    if function(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(destination), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(source), None, str(destination))
