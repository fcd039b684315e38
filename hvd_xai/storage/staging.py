"""Keeps what is being written in a staging directory until it is renamed into place.

A lease beside it says who writes.
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
"""Seconds after which a lease of another host counts as abandoned. A writer at work renews its
lease with every Zarr shard."""

_LEASE = ".lease"
_UNREADABLE_AGE = 60.0


@dataclass(frozen=True, slots=True)
class Lease:
    """Who writes a staging directory.

    A process is told from a later one with the same pid by its start time, and its pid means
    something only on its boot of its host, within its pid namespace: containers may share a host
    name and a disk.
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
        """Returns whether its process, alive or dead, is one of this boot of this host."""
        return (self.host, self.boot, self.namespace) == (
            socket.gethostname(),
            _boot(),
            _namespace(),
        )

    def is_dead(self) -> bool:
        """Returns whether its process has certainly ended.

        Nothing is certain of a process on another host.
        """
        return self.is_here() and _started(self.pid) != self.started


class Staging:
    """A directory beside its destination, invisible to readers, that becomes the destination whole.

    Args:
        parent: directory it is made in; on the filesystem of the destination.
        name: what is staged, for people who look.
    """

    def __init__(self, parent: Path, name: str) -> None:
        self.directory = parent / f"{STAGING}{name}-{secrets.token_hex(4)}"
        self._lease = self.directory.with_name(self.directory.name + _LEASE)
        try:
            # The lease first: of a directory without one, sweepers know nothing but its age.
            self._lease.write_text(json.dumps(asdict(Lease.own())))
            self.directory.mkdir()
        except BaseException:
            self._lease.unlink(missing_ok=True)
            raise

    def renew(self) -> None:
        """Says that the writer is alive, to sweepers on other hosts."""
        with suppress(FileNotFoundError):
            os.utime(self._lease)

    def publish(self, destination: Path, *, replace: bool = False) -> None:
        """Makes everything durable and renames the directory to `destination`.

        Raises:
            FileExistsError: if the destination exists and is not to be replaced.
        """
        # The content before the name: what is seen under the final name after a crash is whole.
        fsync_tree(self.directory)
        try:
            rename_no_replace(self.directory, destination)
        except FileExistsError:
            if not replace:
                raise
            # What was there takes the staged name, and is removed below.
            exchange(self.directory, destination)
        fsync_directory(destination.parent)
        fsync_directory(self.directory.parent)
        self.discard()

    def discard(self) -> None:
        """Removes the directory and the lease, if they are still there.

        If a broken disk keeps them, `sweep` of a later job removes them.
        """
        shutil.rmtree(self.directory, ignore_errors=True)
        with suppress(OSError):
            self._lease.unlink()


def leftovers(parent: Path) -> list[Path]:
    """Returns what is staged in `parent`, by writers at work and by writers that died."""
    return sorted(path for path in parent.glob(f"{STAGING}*") if path.suffix != _LEASE)


def sweep(parent: Path) -> list[Path]:
    """Removes what nobody will finish.

    Its process is dead on this host, or its lease was not renewed for 24 hours.

    Returns:
        What was removed.
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
        # killed within the microseconds before the lease's content was written, or not ours
        if lease is None:
            return age > (MAX_AGE if path.exists() else _UNREADABLE_AGE)
        return lease.is_dead() if lease.is_here() else age > MAX_AGE
    with suppress(FileNotFoundError):
        return time.time() - path.lstat().st_mtime > MAX_AGE
    return False


def _read_lease(path: Path) -> Lease | None:
    try:
        values = json.loads(path.read_bytes())
    except ValueError:
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

    It is "" if none runs, and "alive" if the system does not tell.
    """
    if Path("/proc/self/stat").exists():
        with suppress(OSError):
            # The second field, the name, may hold spaces and brackets; after it come the state and,
            # 19 on, the start time.
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
