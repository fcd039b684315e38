"""Keeps other jobs out of a run while one writes to it."""

import fcntl
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from hvd_xai.checkpoint.layout import LOCK
from hvd_xai.errors import RunExistsError, advise
from hvd_xai.storage.durable import writing

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    """Locks that a process holds on a run: the descriptors that hold them, and their users."""

    pid: int
    descriptors: tuple[int, ...]
    n_users: int = 1


# By device and inode of the run's folder, which may have several names.
_held: dict[tuple[int, int], _Held] = {}


class RunLock:
    """Locks a run for this process, until it ends or calls `close`.

    The system holds the lock, so that it ends with the process even if that is killed. A process
    may lock a run several times: what is locked out are other processes, forked ones too.

    Args:
        path: folder of the run, which is made if it is missing.

    Raises:
        RunExistsError: if another process holds the lock.
        CheckpointError: if the place cannot be written.

    Example:
        >>> first, again = RunLock(Path("runs/locked")), RunLock(Path("runs/locked"))
        >>> first.close()
        >>> again.close()
    """

    def __init__(self, path: Path) -> None:
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        status = os.fstat(folder)
        self._key: tuple[int, int] | None = (status.st_dev, status.st_ino)
        held = _held.get(self._key)
        # A forked process has a copy of the record, and not the right to what its parent holds.
        if held is not None and held.pid == os.getpid():
            os.close(folder)
            held.n_users += 1
            return
        try:
            with writing(path):
                file = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except BaseException:
            os.close(folder)
            raise
        _held[self._key] = _Held(os.getpid(), _lock(path, file, folder))

    def close(self) -> None:
        """Lets other processes write to the run; may be called twice."""
        key, self._key = self._key, None
        held = None if key is None else _held.get(key)
        if key is None or held is None or held.pid != os.getpid():
            return
        held.n_users -= 1
        if held.n_users == 0:
            del _held[key]
            for descriptor in held.descriptors:
                os.close(descriptor)


def _lock(path: Path, file: int, folder: int) -> tuple[int, ...]:
    """Locks the lock's file and the run's folder; returns the descriptors that hold the locks."""
    # The folder too, in case somebody removes the file. Network filesystems lock no folder.
    errors = [_try_lock(file), _try_lock(folder)]
    if any(isinstance(error, BlockingIOError) for error in errors):
        os.close(file)
        os.close(folder)
        raise RunExistsError(
            f"another job is writing to {path}. Wait until it ends, or give another"
            f" {advise(script='folder', command='--output')}."
        )
    if errors[0] is not None:
        log.warning(
            "%s cannot be locked (%s): see to it that no other job writes there",
            path,
            errors[0].strerror,
        )
    return (file, folder)


def _try_lock(descriptor: int) -> OSError | None:
    # Not `lockf`: the system drops a POSIX lock as soon as its process closes any descriptor of the
    # file, so that whoever read all files of the run once would let others in.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error
    return None
