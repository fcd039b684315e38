"""Reads explanation checkpoints. Needs neither TensorFlow nor MPI."""

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int64, Shaped

from hvd_xai.checkpoint.files import CommittedArray, find_damage, read_manifest, read_record
from hvd_xai.checkpoint.probe import PROBE, ProbeReader
from hvd_xai.checkpoint.run import EXPLANATIONS, RUN
from hvd_xai.checkpoint.schema import MANIFEST, Manifest, decode
from hvd_xai.checkpoint.sealed import unseal
from hvd_xai.checkpoint.writer import EPOCHS
from hvd_xai.errors import CheckpointError
from hvd_xai.types import Json

if TYPE_CHECKING:
    import xarray


def open_explanations(run: str | Path) -> "Explanations":
    """Opens the explanations of a run.

    Args:
        run: the run's folder, or its folder `explanations`.

    Raises:
        CheckpointError: if there are none.
    """
    path = Path(run)
    for explanations_dir in (path / EXPLANATIONS, path):
        if (explanations_dir / RUN).is_file() or (explanations_dir / EPOCHS).is_dir():
            return Explanations(explanations_dir)
    why = f"it has no folder '{EXPLANATIONS}'" if path.is_dir() else "there is no such folder"
    raise CheckpointError(f"{path} is no run of hvd_xai: {why}. Give the folder that was the --output of `hvd-xai train`.")


class Explanations:
    """All committed explanations of a run.

    Example:
        for explanation in open_explanations("runs/demo"): print(explanation.manifest.epoch)
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> dict[str, Json]:
        """What the run was started with; empty where `run.json` was not copied along."""
        if not (self.path / RUN).exists():
            return {}
        return dict(unseal(read_record(self.path / RUN), str(self.path / RUN)).mapping("config"))

    @property
    def epochs(self) -> list[int]:
        """The epochs that have an explanation, ascending."""
        return [epoch for epoch in sorted(self._epoch_dirs()) if self.methods(epoch)]

    def methods(self, epoch: int) -> list[str]:
        """Returns the methods explained at an epoch, by name; none where the epoch has no explanation."""
        directory = self._epoch_dirs().get(epoch)
        if directory is None:
            return []
        return sorted(path.parent.name for path in directory.glob(f"*/{MANIFEST}") if not path.parent.name.startswith("."))

    def explanation(self, epoch: int, method: str) -> "Explanation":
        """Opens one explanation.

        Raises:
            CheckpointError: if it was not committed, or its manifest is damaged.
        """
        if method not in self.methods(epoch):
            there = f"epoch {epoch} has {', '.join(self.methods(epoch))}" if self.methods(epoch) else f"there are the epochs {self.epochs}"
            raise CheckpointError(f"{self.path} has no explanation '{method}' of epoch {epoch}; {there}")
        return Explanation(self._epoch_dirs()[epoch] / method)

    def probe(self) -> ProbeReader | None:
        """Opens the probe; None if it was not stored."""
        return ProbeReader(self.path / PROBE) if (self.path / PROBE).is_dir() else None

    def __iter__(self) -> "Iterator[Explanation]":
        """Opens the explanations one by one, in order of epoch and method."""
        for epoch in self.epochs:
            for method in self.methods(epoch):
                yield self.explanation(epoch, method)

    def _epoch_dirs(self) -> dict[int, Path]:
        return {int(path.name): path for path in (self.path / EPOCHS).glob("*") if path.name.isdecimal() and path.is_dir()}


class Explanation:
    """One committed explanation: a method's attributions of the probe at one epoch.

    Args:
        path: the checkpoint's folder.

    Raises:
        CheckpointError: if there is none, or its manifest is damaged or of a higher schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path)
        self._dtype = self.manifest.dtype
        self._files = {file.key: file for file in self.manifest.files}
        self._arrays: dict[str, CommittedArray] = {}

    @property
    def n_samples(self) -> int:
        """Rows."""
        return self.manifest.n_samples

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample's attributions."""
        return self.manifest.sample_shape

    @property
    def columns(self) -> list[str]:
        """Names of what has one number a sample, the method's own values last."""
        return [name for name in self._dtype.names or () if name not in ("attributions", "thumbnail")]

    def column(self, name: str) -> Shaped[np.ndarray, "N"]:
        """Returns one number a sample.

        Raises:
            CheckpointError: if there is no such column, or it is damaged.
        """
        if name not in self.columns:
            raise CheckpointError(f"{self.path} has no column '{name}'; it has {', '.join(self.columns)}")
        return self._array(name).read()

    def attributions(self, start: int = 0, stop: int | None = None) -> Float32[np.ndarray, "b ..."]:
        """Returns the attributions of rows `start` to `stop`, `[b, *sample_shape]`; `blocks` goes through all in bounded memory.

        Raises:
            CheckpointError: if a file of these rows is missing or damaged.
        """
        rows = self._read(("attributions", "scale"), start, stop)
        return decode(rows)

    def blocks(self, n_bytes: int = 32 * 2**20) -> Iterator[tuple[int, Float32[np.ndarray, "b ..."]]]:
        """Goes through all attributions in blocks of `n_bytes` at most (or one sample), each with the row it starts at."""
        size = max(1, n_bytes // (4 * math.prod(self.sample_shape)))
        for start in range(0, self.n_samples, size):
            yield start, self.attributions(start, start + size)

    def thumbnails(self, start: int = 0, stop: int | None = None) -> Float32[np.ndarray, "b ..."]:
        """Returns the block means of rows `start` to `stop`."""
        return self._array("thumbnail").read(start, stop)

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Returns the records of rows `start` to `stop` as they are stored, `[b]` of the dtype `manifest.dtype`."""
        return self._read(self._dtype.names or (), start, stop)

    def rows_of(self, sample_ids: npt.ArrayLike) -> Int64[np.ndarray, "m"]:
        """Returns the rows of the given sample ids, in the order given.

        Raises:
            CheckpointError: if some are not in the explanation.
        """
        wanted, stored = np.asarray(sample_ids, np.int64).reshape(-1), self.column("sample_id")
        rows = np.searchsorted(stored, wanted).astype(np.int64)
        absent = wanted[stored[np.minimum(rows, len(stored) - 1)] != wanted]
        if len(absent):
            ids = f"{stored[0]} to {stored[-1]}, {len(stored)} of them"
            raise CheckpointError(f"{self.path} has no sample ids {absent[:10].tolist()}{' ...' * (len(absent) > 10)}; its ids are {ids}")
        return rows

    def to_xarray(self) -> "xarray.Dataset":
        """Opens the explanation as an `xarray.Dataset`, lazily; its attributions times its scale are what `attributions` returns.

        Raises:
            CheckpointError: if a file is missing.
            ImportError: if xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError("`to_xarray` needs xarray: pip install 'hvd-xai[xarray]'") from error
        damage = find_damage(self.path, self.manifest.files)
        if damage:
            raise CheckpointError(f"{damage[0]}; the checkpoint is damaged, and xarray would read what is missing as NaN")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", f"Object at {MANIFEST} is not recognized")  # Zarr lists the folder; the manifest is ours
            dataset: xarray.Dataset = xarray.open_zarr(self.path, consolidated=False, chunks=None)
        return dataset

    def _array(self, name: str) -> CommittedArray:
        if name not in self._arrays:
            field = self._dtype[name]
            self._arrays[name] = CommittedArray(self.path, name, self._files, (self.n_samples, *field.shape), field.base)
        return self._arrays[name]

    def _read(self, names: Sequence[str], start: int, stop: int | None) -> np.ndarray:
        first, last, _ = slice(start, stop).indices(self.n_samples)
        rows = np.empty(max(0, last - first), [(name, self._dtype[name]) for name in names])
        for name in names:
            rows[name] = self._array(name).read(first, last)
        return rows
