"""Writes into a staging directory, which is renamed into place when it is complete.

A lease beside the directory says which process writes.
"""

import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hvd_xai.storage.durable import (
    STAGING,
    exchange,
    fsync_directory,
    fsync_tree,
    rename_no_replace,
)

MAX_AGE = 24 * 3600.0
"""Seconds after which another host's lease counts as abandoned. A writer at work renews its lease
whenever it writes."""

_LEASE = ".lease"
_UNREADABLE_AGE = 60.0


@dataclass(frozen=True, slots=True)
class Lease:
    """Names the process that writes a staging directory.

    The start time tells the process from a later one with the same pid. A pid is unique only within
    one boot of one host and one pid namespace: containers may share a host name and a disk.

    Args:
        host: name of the host.
        boot: id of the host's boot.
        namespace: pid namespace of the process.
        pid: id of the process.
        started: start time of the process, in clock ticks since boot.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @classmethod
    def own(cls) -> "Lease":
        """Returns the lease of this process."""
        return cls(socket.gethostname(), _boot(), _namespace(), os.getpid(), _started(os.getpid()))

    def is_here(self) -> bool:
        """Returns whether its process runs, or ran, in this boot and namespace of this host."""
        return (self.host, self.boot, self.namespace) == (
            socket.gethostname(),
            _boot(),
            _namespace(),
        )

    def is_dead(self) -> bool:
        """Returns whether its process has certainly ended.

        A process on another host cannot be looked at, so this returns False for it.
        """
        return self.is_here() and _started(self.pid) != self.started


class Staging:
    """A directory that readers do not see until `publish` gives it its final name.

    Args:
        parent: directory to make it in, on the same filesystem as the destination.
        name: part of the directory's name that tells people what is being written.
    """

    def __init__(self, parent: Path, name: str) -> None:
        self.directory = parent / f"{STAGING}{name}-{secrets.token_hex(4)}"
        self._lease = self.directory.with_name(self.directory.name + _LEASE)
        try:
            # The lease comes first: all that sweepers know of a directory without one is its age.
            self._lease.write_text(json.dumps(asdict(Lease.own())))
            self.directory.mkdir()
        except BaseException:
            self._lease.unlink(missing_ok=True)
            raise

    def renew(self) -> None:
        """Renews the lease, by which sweepers on other hosts know that the writer is alive."""
        with suppress(FileNotFoundError):
            os.utime(self._lease)

    def publish(self, destination: Path, *, replace: bool = False) -> None:
        """Makes everything durable and renames the directory to `destination`.

        Args:
            destination: final name of the directory.
            replace: whether an existing destination is replaced.

        Raises:
            FileExistsError: if the destination exists and `replace` is False.
        """
        # The content is flushed before the name: after a crash the final name stands for whole
        # content.
        fsync_tree(self.directory)
        try:
            rename_no_replace(self.directory, destination)
        except FileExistsError:
            if not replace:
                raise
            # The old directory takes the staged name, and is removed below.
            exchange(self.directory, destination)
        fsync_directory(destination.parent)
        fsync_directory(self.directory.parent)
        self.discard()

    def discard(self) -> None:
        """Removes the directory and the lease, if they exist.

        If the disk refuses, `sweep` of a later job removes them.
        """
        shutil.rmtree(self.directory, ignore_errors=True)
        with suppress(OSError):
            self._lease.unlink()


def leftovers(parent: Path) -> list[Path]:
    """Returns the staging directories in `parent`, of writers at work and of dead writers."""
    return sorted(path for path in parent.glob(f"{STAGING}*") if path.suffix != _LEASE)


def sweep(parent: Path) -> list[Path]:
    """Removes staging directories that nobody will finish.

    Nobody will finish a directory whose process has died on this host, or whose lease was not
    renewed for 24 hours.

    Returns:
        The paths that were removed.
    """
    swept = []
    names = {path.with_name(path.name.removesuffix(_LEASE)) for path in parent.glob(f"{STAGING}*")}
    for path in sorted(names):
        if not _is_stale(path):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        path.with_name(path.name + _LEASE).unlink(missing_ok=True)
        swept.append(path)
    return swept


def _is_stale(path: Path) -> bool:
    lease_path = path.with_name(path.name + _LEASE)
    with suppress(FileNotFoundError):
        age = time.time() - lease_path.stat().st_mtime
        lease = _read_lease(lease_path)
        # The writer was killed between making the lease and filling it, or the file is not ours.
        if lease is None:
            return age > (MAX_AGE if path.exists() else _UNREADABLE_AGE)
        return lease.is_dead() if lease.is_here() else age > MAX_AGE
    with suppress(FileNotFoundError):
        return time.time() - path.lstat().st_mtime > MAX_AGE
    return False


def _read_lease(path: Path) -> Lease | None:
    # Looked at before it is opened: opening a pipe would wait for a writer.
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(values, Mapping)
        or set(values) != set(Lease.__slots__)
        or not isinstance(values["pid"], int)
    ):
        return None
    return Lease(*(values[name] for name in Lease.__slots__))


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _namespace() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _started(pid: int) -> str:
    """Returns when a process started, in clock ticks since boot.

    The text is "" if no such process runs, and "alive" if the system does not tell start times.
    """
    if Path("/proc/self/stat").exists():
        with suppress(OSError):
            # The second field, the name in brackets, may itself hold spaces and brackets. After the
            # last bracket come the state and, 19 fields further on, the start time.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return "" if fields[0] in "ZX" else fields[19]
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
