"""Shows explanations as xarray's labelled arrays, which read values when they are asked for.

Every read goes through the manifest, so that a missing or damaged file raises an error and does not
read as NaN.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xarray
from xarray.core import indexing

from hvd_xai.checkpoint.epochs import OF_SAMPLE, EpochStack, Variable
from hvd_xai.checkpoint.json_record import plain

_IN_ATTRIBUTES = ("run", "schema", "weights_digest", "probe_digest", "created")


def dataset(stack: EpochStack) -> xarray.Dataset:
    """Returns a stack as a `Dataset` with the dimensions `epoch` and `sample`.

    Choose samples by `sel(sample_id=...)`, and features that have names by `sel(feature=...)`. The
    attributes name the method and its options, and repeat the manifest if the stack has a single
    explanation.
    """
    manifest = stack.explanations[0].manifest
    variables = {
        variable.name: (variable.axes, indexing.LazilyIndexedArray(_Lazy(stack, variable)))
        for variable in stack.variables.values()
    }
    coordinates: dict[str, Any] = {
        "epoch": ("epoch", list(stack.epochs)),
        "step": ("epoch", [explanation.manifest.step for explanation in stack.explanations]),
        "sample_id": ("sample", stack.sample_ids),
        **{name: ("sample", stack.of_samples(name)) for name in OF_SAMPLE},
    }
    if stack.feature_names:
        coordinates["feature"] = ("feature", list(stack.feature_names))
    options = json.dumps(plain(manifest.options), sort_keys=True)
    attributes: dict[str, Any] = {
        "method": stack.method,
        "function": stack.function,
        "options": options,
        **stack.score_attributes,
    }
    if len(stack.epochs) == 1:
        attributes |= {name: getattr(manifest, name) for name in _IN_ATTRIBUTES}
    made = xarray.Dataset(variables, coordinates, attributes).set_coords("prediction")
    return made.set_xindex("sample_id")


def tree(stacks: Sequence[EpochStack]) -> xarray.DataTree:
    """Returns stacks of several methods as a `DataTree` with a node for each."""
    return xarray.DataTree.from_dict({stack.method: dataset(stack) for stack in stacks})


class _Lazy(xarray.backends.BackendArray):  # type: ignore[misc]  # xarray's own types are not followed
    """Reads the values of one variable when xarray asks for them."""

    def __init__(self, stack: EpochStack, variable: Variable) -> None:
        self.shape, self.dtype = variable.shape, variable.dtype
        self._stack, self._name = stack, variable.name

    def __getitem__(self, key: Any) -> np.ndarray:
        values: np.ndarray = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )
        return values

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Reads an outer index: a number, a slice or an array of numbers for each axis."""
        epochs, rows = (
            np.arange(length)[chosen] for length, chosen in zip(self.shape, key[:2], strict=False)
        )
        # Where no epoch is chosen, one is read all the same: its rows tell the shape of the result.
        wanted = np.atleast_1d(epochs).tolist() or [0]
        values = np.stack([self._rows(epoch, np.atleast_1d(rows), key[2:]) for epoch in wanted])[
            : np.size(epochs)
        ]
        squeezed = tuple(axis for axis, chosen in enumerate((epochs, rows)) if np.ndim(chosen) == 0)
        return np.asarray(values.squeeze(squeezed))

    def _rows(self, epoch: int, rows: np.ndarray, rest: tuple[Any, ...]) -> np.ndarray:
        """Reads rows in as few pieces as possible, and selects from each along the other axes."""
        # A piece ends where the next row is not the next number: rows 3 4 5 | 9 | 2 3 have the
        # edges 0, 3, 4, 6. Where no row is chosen, one empty piece tells the shape.
        edges = (
            [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
            if len(rows)
            else [0, 0]
        )
        parts = []
        for start, stop in pairwise(edges):
            first = int(rows[start]) if stop > start else 0
            part = self._stack.read(self._name, epoch, first, first + stop - start)
            # From the last axis backward: a number removes its axis, which would shift the axes
            # after it.
            for axis in reversed(range(len(rest))):
                part = part[(slice(None),) * (axis + 1) + (rest[axis],)]
            parts.append(part)
        return np.concatenate(parts)
