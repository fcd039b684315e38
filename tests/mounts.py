"""Filesystems in memory: small ones, which fill up, and ones that cannot be written."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def mount(path: Path, options: str) -> None:
    """Mounts a filesystem at a path; with `remount` among the options, the one there changes.

    Whoever may not mount fails, and is told how he may: a test that is left out shows nothing.
    """
    path.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(
            f"this test mounts a filesystem, which this user may not: {done.stderr.strip()}. Run"
            " the tests as root, or in a namespace of your own: unshare -Urm make test"
        )


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """Mounts a filesystem for the time of the block."""
    mount(path, options)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)
