"""Several inputs of a model, packed into the rows of one array.

Everything that computes, merges and stores attributions takes one array of inputs. So several
inputs are flattened and laid one behind the other, in float32:

    age [n]   history [n, 3]   photo [n, 2, 2]
      |        |                |
    [ a | h0 h1 h2 | p00 p01 p10 p11 ]        one row [f], f = 1 + 3 + 4

`Packing` records how this was done, and takes the inputs and their attributions apart again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# float32 holds every whole number up to this one, and not all beyond.
_LARGEST_INTEGER = 2**24


@dataclass(frozen=True, slots=True)
class Packing:
    """Records how several inputs lie in one row.

    Args:
        names: names of the inputs; "0", "1", ... for a model that takes a list.
        shapes: shape of one example of each input.
        dtypes: dtype of each input.
        keyed: whether the model takes a dict by these names, and not a list.

    Example:
        >>> Packing(("age", "history"), ((), (3,)), ("int64", "float32"), keyed=True).n_features
        4
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    keyed: bool

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values in one example of each input."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def n_features(self) -> int:
        """Number of values in one row."""
        return sum(self.sizes)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the values of one row, such as `age` and `history[0]`.

        There are none if an input has more than one axis, as an image has.
        """
        if any(len(shape) > 1 for shape in self.shapes):
            return ()
        names = tuple(f"input {name}" if name.isdecimal() else name for name in self.names)
        return tuple(
            name if size == 1 else f"{name}[{place}]"
            for name, size in zip(names, self.sizes, strict=True)
            for place in range(size)
        )

    def columns(self, name: str) -> slice:
        """Returns the columns of a row in which an input lies.

        Raises:
            KeyError: if no input has this name.

        Example:
            >>> rows, packing = pack({"age": np.zeros(2), "history": np.zeros((2, 3))})
            >>> packing.columns("history")
            slice(1, 4, None)
        """
        if name not in self.names:
            raise KeyError(f"there is no input '{name}'; there are {', '.join(self.names)}")
        index = self.names.index(name)
        start = sum(self.sizes[:index])
        return slice(start, start + self.sizes[index])

    def is_whole(self) -> np.ndarray:
        """Returns which values of a row are whole numbers, `[f]` bool.

        Whole numbers are tokens and categories: nothing lies between two of them.

        Example:
            >>> rows, packing = pack([np.zeros(2), np.zeros((2, 2), int)])
            >>> packing.is_whole()
            array([False,  True,  True])
        """
        return np.repeat(
            [np.issubdtype(dtype, np.integer) or dtype == "bool" for dtype in self.dtypes],
            self.sizes,
        )

    def taken_apart(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Takes rows `[n, f]` of inputs or their attributions apart into an array for each input.

        The arrays keep the dtype of the rows.

        Example:
            >>> rows, packing = pack({"age": np.zeros(2), "photo": np.zeros((2, 4, 4))})
            >>> packing.taken_apart(rows)["photo"].shape
            (2, 4, 4)
        """
        return {
            name: rows[:, self.columns(name)].reshape(len(rows), *shape)
            for name, shape in zip(self.names, self.shapes, strict=True)
        }


def pack(inputs: Mapping[str, Any] | Sequence[Any]) -> tuple[np.ndarray, Packing]:
    """Packs several inputs into the rows of one array, float32.

    Args:
        inputs: arrays `[n, ...]` by name, or in order.

    Returns:
        The rows `[n, f]`, and the record of how the inputs lie in them.

    Raises:
        TypeError: if an input is no NumPy array of numbers.
        ValueError: if there is no input, the inputs differ in length, or a whole number is too
            large for float32.

    Example:
        >>> rows, packing = pack({"age": np.array([41, 35]), "history": np.zeros((2, 3))})
        >>> rows.shape, packing.names
        ((2, 4), ('age', 'history'))
    """
    keyed = isinstance(inputs, Mapping)
    arrays: dict[str, Any] = dict(
        inputs.items()
        if isinstance(inputs, Mapping)
        else ((str(place), one) for place, one in enumerate(inputs))
    )
    _check(arrays)
    packing = Packing(
        names=tuple(arrays),
        shapes=tuple(tuple(values.shape[1:]) for values in arrays.values()),
        dtypes=tuple(
            "float32" if values.dtype.kind == "f" else str(values.dtype)
            for values in arrays.values()
        ),
        keyed=keyed,
    )
    n_rows = len(next(iter(arrays.values())))
    # A value beyond float32 becomes an infinity, which the probe refuses later, by its sample id.
    with np.errstate(over="ignore"):
        flat = [
            np.asarray(values, np.float32).reshape(n_rows, math.prod(values.shape[1:]))
            for values in arrays.values()
        ]
    return np.concatenate(flat, axis=1), packing


def _check(arrays: Mapping[str, Any]) -> None:
    """Refuses inputs that are no arrays of numbers, differ in length, or do not fit float32."""
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
            # As Python's integers: -128 has no magnitude in int8, and uint64 does not fit int64.
            and max(int(values.max()), -int(values.min())) > _LARGEST_INTEGER
        ):
            raise ValueError(
                f"input '{name}' has whole numbers beyond {_LARGEST_INTEGER}, which float32 does"
                " not hold; number its categories anew"
            )
