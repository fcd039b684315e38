"""Says what was run, on what, and with which versions, so that somebody else can repeat it."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from hvd_xai import __version__

if TYPE_CHECKING:
    import keras

# What decides the numbers; TensorFlow has several names on the index, the first that is installed
# counts.
_DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "tensorflow": (
        "tensorflow",
        "tensorflow-cpu",
        "tensorflow-gpu",
        "tf-nightly",
        "intel-tensorflow",
        "tensorflow-rocm",
    ),
    "keras": ("keras",),
    "horovod": ("horovod",),
    "mpi4py": ("mpi4py",),
    "numpy": ("numpy",),
    "zarr": ("zarr",),
    "tensorstore": ("tensorstore",),
    "numcodecs": ("numcodecs",),
}
_BLOCK_BYTES = 32 * 2**20


def digest(*arrays: np.ndarray) -> str:
    """Returns the xxh3-128 of shapes, dtypes and values, in hexadecimal.

    A memory-mapped array is read in blocks of 32 MiB.

    Raises:
        TypeError: if an array holds Python objects, whose bytes are addresses.
    """
    state = xxhash.xxh3_128()
    for array in arrays:
        if array.dtype.hasobject:
            raise TypeError(
                f"an array of dtype {array.dtype} has no bytes to digest; give it a numeric or a"
                " fixed-width string dtype"
            )
        state.update(f"{array.dtype.str}{array.shape}".encode())
        rows = array.reshape(1) if array.ndim == 0 else array
        step = max(1, _BLOCK_BYTES // max(1, rows[:1].nbytes))
        for start in range(0, len(rows), step):
            state.update(np.ascontiguousarray(rows[start : start + step]).tobytes())
    return state.hexdigest()


def weights_digest(model: "keras.Model") -> str:
    """Returns the digest of everything that a model predicts with.

    Weights and moving statistics count; metrics and random seeds do not.

    Names are left out: the second model that a process builds has other names and the same weights.
    """
    return digest(*(np.asarray(weight.value) for weight in model.weights))


def versions() -> dict[str, str]:
    """Returns the versions of whatever decides the numbers, hvd_xai's first.

    What is not installed is left out.
    """
    found = {"hvd_xai": __version__, "python": platform.python_version()}
    for name, distributions in _DISTRIBUTIONS.items():
        for distribution in distributions:
            try:
                found[name] = version(distribution)
            except PackageNotFoundError:
                continue
            break
    return found


def git_commit(folder: Path | None = None) -> str | None:
    """Returns the commit that `folder` (the current one) is checked out at; None outside of git.

    It ends in `-dirty` if files differ from the commit.
    """
    folder = folder or Path.cwd()
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return (
            f"{commit}-dirty"
            if _git(folder, "status", "--porcelain", "--untracked-files=no")
            else commit
        )
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
