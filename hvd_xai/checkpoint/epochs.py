"""Stacks one method's explanations over epochs into arrays `[epoch, sample, ...]`.

Nothing is read before it is asked for, piece by piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Shaped

from hvd_xai.checkpoint.manifest import Manifest
from hvd_xai.checkpoint.rows import STANDARD_ERRORS, axes_of
from hvd_xai.errors import CheckpointError
from hvd_xai.storage.paths import Place

OF_SAMPLE = ("label", "target")
"""Columns that are the same at every epoch; sample ids are too, but stand apart."""

_INTERNAL = ("scale", "content_hash", "sample_id")


@runtime_checkable
class Stackable(Protocol):
    """An explanation that a stack can read."""

    path: Place
    manifest: Manifest

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the values of one sample's attributions, if they have any."""
        ...

    def attributions(self, start: int = 0, stop: int | None = None) -> Float32[np.ndarray, "b ..."]:
        """Returns the attributions of rows `start` to `stop`."""
        ...

    def thumbnails(self, start: int = 0, stop: int | None = None) -> Float32[np.ndarray, "b ..."]:
        """Returns the block means of rows `start` to `stop`."""
        ...

    def standard_errors(
        self, start: int = 0, stop: int | None = None
    ) -> Float32[np.ndarray, "b ..."] | None:
        """Returns the standard errors of rows `start` to `stop`; None if there are none."""
        ...

    def column(self, name: str, start: int = 0, stop: int | None = None) -> Shaped[np.ndarray, "b"]:
        """Returns a column, one number for each of rows `start` to `stop`."""
        ...


@dataclass(frozen=True, slots=True)
class Variable:
    """Describes a named array of a `EpochStack`.

    Args:
        name: name of the array.
        axes: names of the axes, `epoch` and `sample` first.
        shape: shape of the whole array.
        dtype: dtype of the values.
    """

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype


class EpochStack:
    """One method's explanations of the same samples over epochs, which compare row by row.

    Args:
        explanations: explanations by one method, at least one, in ascending order of epoch.

    Attributes:
        explanations: explanations that the stack was made of.
        method: name that the method is committed under.
        function: name of the method's function.
        epochs: epochs of the explanations.
        sample_ids: sample ids `[N]`, ascending.
        variables: arrays over epochs and samples, by name: the attributions with their scale
            applied, and the columns that change with the epoch.

    Raises:
        CheckpointError: if the explanations differ in their samples, shapes or columns, or one is
            damaged.
    """

    def __init__(self, explanations: Sequence[Stackable]) -> None:
        first = explanations[0].manifest
        for explanation in explanations[1:]:
            manifest = explanation.manifest
            differing = [
                what
                for what, name in (
                    ("samples", "sample_order_digest"),
                    ("shapes", "sample_shape"),
                    ("columns", "dtypes"),
                )
                if getattr(manifest, name) != getattr(first, name)
            ]
            if differing:
                raise CheckpointError(
                    f"{explanation.path} has other {' and '.join(differing)} than epoch"
                    f" {first.epoch}, so their rows do not compare; take the epochs one by one"
                )
        self.explanations = tuple(explanations)
        self.method, self.function = first.method, first.function
        self.epochs = tuple(explanation.manifest.epoch for explanation in explanations)
        self.sample_ids = explanations[0].column("sample_id")
        self.variables: dict[str, Variable] = {}
        for name in first.dtype.names or ():
            if name in (*_INTERNAL, *OF_SAMPLE):
                continue
            field = first.dtype[name]
            shape = (len(explanations), first.n_samples, *field.shape)
            # Attributions lie on disk as float16 and are read with their scale applied.
            dtype = np.dtype(np.float32) if name == "attributions" else field.base
            self.variables[name] = Variable(
                name,
                (
                    "epoch",
                    "sample",
                    *axes_of(name, len(field.shape), channels_first=first.channels_first),
                ),
                shape,
                dtype,
            )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the values of one sample's attributions, if they have any."""
        return self.explanations[0].feature_names

    @property
    def score_attributes(self) -> dict[str, str]:
        """Unit of the score, and class that it belongs to, as far as they are known, for files."""
        facts = self.explanations[0].manifest.score_facts
        said = {"score_unit": facts.unit, "score_class": facts.of_class}
        return {name: word for name, word in said.items() if word is not None}

    def read(self, name: str, index: int, start: int, stop: int) -> Shaped[np.ndarray, "n ..."]:
        """Returns rows `start` to `stop` of a variable at the epoch `epochs[index]`.

        Raises:
            CheckpointError: if a file of these rows is missing or damaged.
        """
        explanation = self.explanations[index]
        if name == "attributions":
            return explanation.attributions(start, stop)
        if name == "thumbnail":
            return explanation.thumbnails(start, stop)
        if name == STANDARD_ERRORS:
            errors = explanation.standard_errors(start, stop)
            # the columns say that there are some, and they are the same in all explanations
            return np.asarray(errors)
        return explanation.column(name, start, stop)

    def of_samples(self, name: str) -> Shaped[np.ndarray, "N"]:
        """Returns a column that is the same at every epoch: one of `OF_SAMPLE`."""
        return self.explanations[0].column(name)


def load_xarray_view() -> ModuleType:
    """Imports the module that shows stacks as xarray's labelled arrays.

    Raises:
        ImportError: if xarray is not installed.
    """
    try:
        return import_module("hvd_xai.checkpoint.xarray_view")
    except ImportError as error:
        raise ImportError("`to_xarray` needs xarray: pip install 'hvd_xai[xarray]'") from error
