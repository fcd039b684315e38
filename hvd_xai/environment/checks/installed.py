"""Checks of Python and of the packages that are installed in it."""

import json
import os
import platform
import sys
from pathlib import Path

from hvd_xai.environment.checks.check import Check, Machine
from hvd_xai.environment.packages import TENSORFLOWS, find_distribution


def python(machine: Machine) -> Check:
    """Checks that this Python is one that hvd_xai supports."""
    found = f"{platform.python_version()} {sys.executable}, {platform.platform()}"
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        return Check("python", "failed", found, "Use Python 3.10 to 3.13.")
    return Check("python", "ok", found)


def tensorflow(machine: Machine) -> Check:
    """Checks that TensorFlow is installed, from whichever of its distributions."""
    return _look_for("tensorflow", "pip install 'hvd_xai[cpu]'", *TENSORFLOWS)


def keras(machine: Machine) -> Check:
    """Checks that Keras is installed."""
    return _look_for("keras", "pip install 'hvd_xai[train]'")


def horovod(machine: Machine) -> Check:
    """Checks that Horovod is installed."""
    return _look_for("horovod", "hvd-xai install-horovod")


def mpi4py(machine: Machine) -> Check:
    """Checks that mpi4py is installed."""
    return _look_for("mpi4py", "pip install 'hvd_xai[train]'")


def numpy(machine: Machine) -> Check:
    """Checks that NumPy is installed."""
    return _look_for("numpy", "pip install numpy")


def store(machine: Machine) -> Check:
    """Checks that the package that reads and writes checkpoints is installed."""
    # There is no zarr 3 for Python 3.10; TensorStore stands in for it there.
    name = "zarr" if sys.version_info >= (3, 11) else "tensorstore"
    return _look_for(name, f"pip install {name}")


def keras_backend(machine: Machine) -> Check | None:
    """Checks that Keras runs on TensorFlow, whose operations Horovod's collectives are."""
    backend = os.environ.get("KERAS_BACKEND", "")
    if not backend:
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        try:
            backend = str(json.loads((home / "keras.json").read_text("utf-8")).get("backend", ""))
        except (OSError, ValueError):
            backend = ""
    if backend in ("", "tensorflow"):
        return None
    advice = "Set KERAS_BACKEND=tensorflow: Horovod runs inside TensorFlow."
    return Check("keras backend", "failed", backend, advice)


def _look_for(name: str, advice: str, *distributions: str) -> Check:
    found = find_distribution(*(distributions or (name,)))
    if found is None:
        return Check(name, "failed", "not installed", advice)
    return Check(
        name, "ok", found.version if found.name == name else f"{found.version} ({found.name})"
    )
