"""Checks arrays that a probe is made of, and says what to make of those that do not fit."""

import numpy as np

_NUMBERS = "fiub"


def check_numbers(name: str, values: np.ndarray) -> None:
    """Refuses an array of strings or objects, and says how it becomes numbers.

    Args:
        name: what the probe calls the array: inputs, targets or labels.
        values: array `[n, ...]`.

    Raises:
        ValueError: if the values are no numbers.

    Example:
        >>> check_numbers("targets", np.array([0, 2, 1]))
    """
    if values.dtype.kind in _NUMBERS:
        return
    first = values.reshape(-1)[0] if values.size else None
    if not isinstance(first, str | bytes):
        raise ValueError(  # noqa: TRY004  # it is of the array's dtype
            f"{name} must be numbers; got dtype {values.dtype}, as columns of several kinds have,"
            " or rows of several lengths. Make one array of numbers: number categories, pad rows,"
            " then np.asarray(..., 'float32')."
        )
    example = f"such as {str(first)[:40]!r}"
    if name == "inputs":
        raise ValueError(
            f"inputs must be numbers; got strings, {example}. Give what the model computes with:"
            " token ids of texts, as keras.layers.TextVectorization makes them, and in a table"
            " numbers for categories."
        )
    raise ValueError(
        f"{name} must be numbers; got strings, {example}. Number the classes: names, {name} ="
        f" np.unique({name}, return_inverse=True), and give tuple(names) as class_names."
    )


def make_column(name: str, values: np.ndarray, n_samples: int) -> np.ndarray:
    """Returns an array with one value an example, `[n]`; a column `[n, 1]` is taken as well.

    Args:
        name: what the probe calls the array.
        values: array `[n]` or `[n, 1]`.
        n_samples: number of examples.

    Raises:
        ValueError: if the array has another shape, as rows of one-hot targets have.

    Example:
        >>> make_column("targets", np.array([[3], [5]]), 2)
        array([3, 5])
    """
    if values.shape == (n_samples,):
        return values
    if values.shape == (n_samples, 1):
        column: np.ndarray = values[:, 0]
        return column
    if values.ndim == 2 and len(values) == n_samples and values.shape[1] > 1:
        remedy = (
            f" If the rows are one-hot or probabilities of classes, pass {name}.argmax(axis=1)."
        )
    elif values.size == n_samples:
        remedy = f" Pass {name}.ravel()."
    else:
        remedy = ""
    raise ValueError(
        f"the probe has {n_samples} inputs, so '{name}' must have shape ({n_samples},); got"
        f" {values.shape}.{remedy}"
    )
