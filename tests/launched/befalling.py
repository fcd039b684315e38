"""Lets a rank fail in a test."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path


def _raise() -> None:
    raise RuntimeError("this rank has had enough")


_DEEDS: dict[str, Callable[[], object]] = {
    "raise": _raise,
    "exit0": lambda: sys.exit(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sleep": lambda: time.sleep(100_000),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def befall(what: str, run: Path) -> None:
    """Does `what` to this process, after it has noted the time beside the run."""
    mark_of(run).touch()
    _DEEDS[what]()


def mark_of(run: Path) -> Path:
    """Returns the file whose time of modification says when it happened."""
    return run.with_name(f"{run.name}-befallen")
