"""The inputs of a model that takes several, as rows of one array.

All that computes, merges and stores attributions sees one array of inputs. Several inputs become
one: flattened, one behind the other, in float32. The record of how that was done takes them, and
their attributions, apart again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_LARGEST_INTEGER = 2**24  # the whole numbers that float32 holds are those up to here


@dataclass(frozen=True, slots=True)
class Packing:
    """How several inputs lie in one row.

    Attributes:
        names: of the inputs; those of a model that takes a list are "0", "1", ...
        shapes: of one example of each.
        dtypes: of each.
        keyed: whether the model takes a dict by these names, and not a list.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    keyed: bool

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values of one example of each input."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def n_features(self) -> int:
        """Values of one row."""
        return sum(self.sizes)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the values of one row, as `age` and `history[0]`; none if an input has places,
        as an image has.
        """
        if any(len(shape) > 1 for shape in self.shapes):
            return ()
        names = self.names if self.keyed else tuple(f"input {name}" for name in self.names)
        return tuple(
            name if size == 1 else f"{name}[{place}]"
            for name, size in zip(names, self.sizes, strict=True)
            for place in range(size)
        )

    def columns(self, name: str) -> slice:
        """Returns where an input lies in a row.

        Raises:
            KeyError: if there is none of that name.
        """
        if name not in self.names:
            raise KeyError(f"there is no input '{name}'; there are {', '.join(self.names)}")
        index = self.names.index(name)
        start = sum(self.sizes[:index])
        return slice(start, start + self.sizes[index])

    def is_whole(self) -> np.ndarray:
        """Returns which values of a row are whole numbers, `[f]` bool, as tokens and categories,
        between which there is nothing.
        """
        return np.repeat(
            [np.issubdtype(dtype, np.integer) or dtype == "bool" for dtype in self.dtypes],
            self.sizes,
        )

    def taken_apart(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the array of each input, from rows `[n, f]` of inputs or of their attributions;
        float32 as the rows are.
        """
        return {
            name: rows[:, self.columns(name)].reshape(len(rows), *shape)
            for name, shape in zip(self.names, self.shapes, strict=True)
        }


def pack(inputs: Mapping[str, Any] | Sequence[Any]) -> tuple[np.ndarray, Packing]:
    """Packs several inputs into one array `[n, f]`, float32.

    Args:
        inputs: arrays `[n, ...]` by name, or in order.

    Raises:
        TypeError: if one is no NumPy array of numbers.
        ValueError: if there is none, they differ in length, or a whole number is too large for
            float32.
    """
    keyed = isinstance(inputs, Mapping)
    arrays: dict[str, Any] = dict(
        inputs.items()
        if isinstance(inputs, Mapping)
        else ((str(place), one) for place, one in enumerate(inputs))
    )
    if not arrays:
        raise ValueError("the inputs are an empty collection; give at least one array")
    for name, values in arrays.items():
        if (
            not isinstance(values, np.ndarray)
            or values.dtype.kind not in "fiub"
            or values.ndim == 0
        ):
            what = (
                f"dtype {values.dtype}, shape {values.shape}"
                if isinstance(values, np.ndarray)
                else type(values).__name__
            )
            raise TypeError(
                f"input '{name}' must be a NumPy array of numbers [n, ...]; got {what}. Pass"
                " np.asarray(...) of it."
            )
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(
            "all inputs must have one row an example; got"
            f" {', '.join(f'{name}: {n} rows' for name, n in lengths.items())}"
        )
    for name, values in arrays.items():
        if (
            values.dtype.kind in "iu"
            and values.size
            and int(np.abs(values.astype(np.int64)).max()) > _LARGEST_INTEGER
        ):
            raise ValueError(
                f"input '{name}' has whole numbers beyond {_LARGEST_INTEGER}, which float32 does"
                " not hold; number its categories anew"
            )
    packing = Packing(
        names=tuple(arrays),
        shapes=tuple(tuple(values.shape[1:]) for values in arrays.values()),
        dtypes=tuple(
            "float32" if values.dtype.kind == "f" else str(values.dtype)
            for values in arrays.values()
        ),
        keyed=keyed,
    )
    n_rows = next(iter(lengths.values()))
    # what is beyond float32 becomes an infinity, which the probe refuses
    with np.errstate(over="ignore"):
        flat = [
            np.asarray(values, np.float32).reshape(n_rows, math.prod(values.shape[1:]))
            for values in arrays.values()
        ]
    return np.concatenate(flat, axis=1), packing
