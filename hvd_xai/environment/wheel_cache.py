"""Keeps built wheels of Horovod in the user's cache, by a key of all that decides their bytes."""

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

from hvd_xai.environment.horovod_release import (
    HOOK,
    VERSION,
    build_flags,
    cmake_wrapper_without_paths,
)
from hvd_xai.environment.prerequisites import Target

BUILDING = ".building-"
"""Prefix of the folders in which wheels are being built."""
_STALE_SECONDS = 24 * 3600


def cache_dir() -> Path:
    """Returns the folder of wheels and logs.

    It is `hvd_xai` below `$HVD_XAI_CACHE`, `$XDG_CACHE_HOME` or `~/.cache`, whichever is set first.
    """
    root = os.environ.get("HVD_XAI_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "hvd_xai"


def wheel_key(target: Target) -> str:
    """Returns the name of the folder in which the wheel for a target is kept.

    People can read it, and it ends with a digest of all that decides the wheel's bytes.

    Args:
        target: TensorFlow and MPI that the wheel is built for.
    """
    tag = sys.implementation.cache_tag
    mpi = target.mpi
    # The order is part of the key: another order would rebuild every wheel that is kept today.
    parts = [
        *(VERSION, tag, target.tensorflow, mpi.source, mpi.version, target.rpath),
        *(sysconfig.get_platform(), "".join(platform.libc_ver())),
        json.dumps(build_flags(), sort_keys=True),
        *(HOOK.read_text("utf-8"), cmake_wrapper_without_paths()),
    ]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    built_for = f"{target.tensorflow}_{mpi.version}-{mpi.source}_{platform.machine()}"
    name = f"horovod-{VERSION}_{tag}_{built_for}"
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}_{digest}".lower()


def find_wheel(target: Target) -> Path | None:
    """Finds the wheel that was built for a target before; None if there is none, or it is torn.

    Args:
        target: TensorFlow and MPI that the wheel was built for.
    """
    # Builds rename whole wheels into place, but a cache may have been copied, or its disk full.
    # A zip file has its directory at the end, so a torn one is none.
    wheels = sorted((cache_dir() / "wheels" / wheel_key(target)).glob("*.whl"))
    return wheels[0] if wheels and zipfile.is_zipfile(wheels[0]) else None


def is_kept_wheel(url: str) -> bool:
    """Returns whether a package was installed from a wheel of this cache.

    Args:
        url: address that pip recorded when it installed the package.
    """
    return "/hvd_xai/wheels/" in url


def is_wheel_of(url: str, target: Target) -> bool:
    """Returns whether a package was installed from the wheel that is kept for a target.

    Args:
        url: address that pip recorded when it installed the package.
        target: TensorFlow and MPI that the wheel was built for.
    """
    return is_kept_wheel(url) and f"/{wheel_key(target)}/" in url


def sweep(wheels: Path) -> None:
    """Removes folders that killed builds left behind more than a day ago.

    Args:
        wheels: folder of the wheels.
    """
    for left in wheels.glob(f"{BUILDING}*"):
        try:
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        # Another build has swept it meanwhile.
        except FileNotFoundError:
            continue
