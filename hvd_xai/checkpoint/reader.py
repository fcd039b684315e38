"""Reads the explanations of a run, without TensorFlow or MPI."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hvd_xai.checkpoint.epochs import EpochStack, load_xarray_view
from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.gaps import read_gaps
from hvd_xai.checkpoint.integrity import DAMAGED, read_record
from hvd_xai.checkpoint.json_record import unseal
from hvd_xai.checkpoint.layout import EPOCHS, EXPLANATIONS, RUN
from hvd_xai.checkpoint.listing import is_present, list_committed, list_epochs
from hvd_xai.checkpoint.manifest import MANIFEST
from hvd_xai.checkpoint.probe_reader import PROBE, LazyProbe, ProbeReader
from hvd_xai.errors import CheckpointError, write_ranges
from hvd_xai.protocols import Json
from hvd_xai.storage.paths import Place, place

if TYPE_CHECKING:
    import xarray


def open_explanations(run: str | Place) -> "Explanations":
    """Opens the explanations of a run.

    Args:
        run: folder of the run, its folder `explanations`, or the URL of either, such as
            `s3://bucket/runs/demo`. A URL needs the extra `remote`, and the package by which fsspec
            reads such URLs (s3fs, gcsfs, ...).

    Raises:
        CheckpointError: if the folder holds no run.
        ImportError: if a package that the URL needs is not installed.
        OSError: if the store that the URL names cannot be reached.

    Example:
        >>> open_explanations("runs/example").epochs
        [0, 1, 2]
    """
    path = place(run)
    for explanations_dir in (path / EXPLANATIONS, path):
        if is_present(explanations_dir / RUN) or is_present(explanations_dir / EPOCHS):
            return Explanations(explanations_dir)
    why = f"it has no folder '{EXPLANATIONS}'" if path.is_dir() else "there is no such folder"
    raise CheckpointError(
        f"{path} is no run of hvd_xai: {why}. Give the folder that a job wrote its run to, such"
        " as runs/demo."
    )


class Explanations:
    """All committed explanations of a run, each of which is read when it is asked for.

    Args:
        path: folder of the run's explanations.

    Example:
        >>> explanations = open_explanations("runs/example")
        >>> explanations.epochs_by_method
        {'grad_cam': [0, 1, 2], 'integrated_gradients': [0, 1, 2]}
        >>> [one.manifest.step for one in explanations if one.manifest.method == "grad_cam"]
        [10, 20, 30]
    """

    def __init__(self, path: Place) -> None:
        self.path = path
        # Opened once for all explanations.
        self._probe = LazyProbe(path)

    def __repr__(self) -> str:
        return f"Explanations({str(self.path)!r}, {self.epochs_by_method})"

    @property
    def config(self) -> dict[str, Json]:
        """Settings that the run was started with; empty if `run.json` is missing."""
        if not is_present(self.path / RUN):
            return {}
        return dict(unseal(read_record(self.path / RUN), str(self.path / RUN)).mapping("config"))

    @property
    def epochs(self) -> list[int]:
        """Epochs that have an explanation, ascending.

        Raises:
            CheckpointError: if something with the name of an epoch, or of a method, cannot be
                looked at.
        """
        numbers = [int(path.name) for path in list_epochs(self.path).checked()]
        return [number for number in numbers if self.methods(number)]

    def methods(self, epoch: int) -> list[str]:
        """Returns the methods that explain an epoch, sorted by name.

        Raises:
            CheckpointError: if the epoch, or something with the name of a method, cannot be looked
                at.
        """
        return [path.name for path in list_committed(self._epoch_dir(epoch))]

    @property
    def epochs_by_method(self) -> dict[str, list[int]]:
        """Epochs that each method explains, ascending, by the method's name."""
        by_method: dict[str, list[int]] = {}
        for epoch in self.epochs:
            for method in self.methods(epoch):
                by_method.setdefault(method, []).append(epoch)
        return dict(sorted(by_method.items()))

    @property
    def gaps(self) -> dict[str, list[int]]:
        """Epochs, by method, that were due and never committed; empty for most runs."""
        return read_gaps(self.path)

    def explanation(self, epoch: int, method: str) -> Explanation:
        """Opens one explanation.

        Args:
            epoch: epoch that was explained.
            method: name that the method is committed under.

        Raises:
            CheckpointError: if there is no such explanation, its manifest is damaged, or it was
                moved there from another place.
        """
        path = self._epoch_dir(epoch) / method
        if "/" in method or method.startswith(".") or not is_present(path / MANIFEST):
            there = (
                f"epoch {epoch} has {', '.join(self.methods(epoch))}"
                if self.methods(epoch)
                else f"there are the epochs {write_ranges(self.epochs)}"
            )
            raise CheckpointError(
                f"{self.path} has no explanation '{method}' of epoch {epoch}; {there}"
            )
        explanation = Explanation(path, self._probe)
        said = (explanation.manifest.epoch, explanation.manifest.method)
        if said != (epoch, method):
            raise CheckpointError(
                f"{path} was moved here: its manifest says epoch {said[0]}, {said[1]}; {DAMAGED}"
            )
        return explanation

    def newest_before(self, epoch: int, method: str) -> Explanation | None:
        """Opens a method's newest explanation of an epoch before this one; None if there is none.

        Raises:
            CheckpointError: if the manifest is damaged, or was moved there from another place.
        """
        # Newest first, up to the first hit: this is called at every epoch, and must not look
        # through the whole of a long run each time.
        for path in reversed(list_epochs(self.path).checked()):
            if int(path.name) < epoch and is_present(path / method / MANIFEST):
                return self.explanation(int(path.name), method)
        return None

    def probe(self) -> ProbeReader | None:
        """Opens the probe; returns None if the run does not store it."""
        return ProbeReader(self.path / PROBE) if is_present(self.path / PROBE) else None

    def stack(self, method: str, epochs: Sequence[int] | None = None) -> EpochStack:
        """Opens one method's explanations of several epochs as arrays `[epoch, sample, ...]`.

        Args:
            method: name that the method is committed under.
            epochs: epochs to take; all that the method explains if None.

        Raises:
            CheckpointError: if the method has no explanation, or the epochs explain different
                samples.
        """
        chosen = self.epochs_by_method.get(method, []) if epochs is None else sorted(set(epochs))
        if not chosen:
            there = ", ".join(self.epochs_by_method) or "none yet"
            raise CheckpointError(
                f"{self.path} has no explanation by '{method}'; methods with one: {there}"
            )
        return EpochStack([self.explanation(epoch, method) for epoch in chosen])

    def to_xarray(self) -> "xarray.DataTree":
        """Opens the run as an `xarray.DataTree`, which reads values when they are asked for.

        Each method is a node with the dimensions `epoch` and `sample`.

        Raises:
            CheckpointError: if a manifest is damaged, or the epochs explain different samples.
            ImportError: if xarray is not installed.

        Example:
            >>> tree = open_explanations("runs/example").to_xarray()
            >>> tree["integrated_gradients"].attributions.sel(epoch=2).sel(sample_id=1).shape
            (8, 8, 1)
        """
        labelled = load_xarray_view()
        opened: xarray.DataTree = labelled.tree(
            [self.stack(method, epochs) for method, epochs in self.epochs_by_method.items()]
        )
        return opened

    def __iter__(self) -> Iterator[Explanation]:
        """Yields the explanations in order of epoch and method."""
        for epoch in self.epochs:
            for method in self.methods(epoch):
                yield self.explanation(epoch, method)

    def _epoch_dir(self, epoch: int) -> Place:
        return self.path / EPOCHS / f"{epoch:06d}"
