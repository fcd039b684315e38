"""Packs an explanation's rows into records of one NumPy dtype, and unpacks them.

A sample's row travels as one record, so that all values of a sample move together and every buffer
between ranks has a bounded size.
"""

import math
import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import xxhash
from jaxtyping import Float32, UInt64

from hvd_xai.checkpoint.thumbnail import thumbnail_shape, thumbnails

MAX_RANK = 4
STANDARD_ERRORS = "standard_errors"
"""Name of the values beside attributions that have the attributions' shape. They are kept as
float32, without a scale of their own: methods that have them attribute to few features."""
BUILT_IN = (
    "attributions",
    "scale",
    "sample_id",
    "label",
    "target",
    "prediction",
    "score",
    "rank",
    "content_hash",
    "thumbnail",
)
_SAMPLE_AXES = {
    0: (),
    1: ("feature",),
    2: ("y", "x"),
    3: ("y", "x", "channel"),
    4: ("z", "y", "x", "channel"),
}
_CHANNELS_FIRST = {
    2: ("channel", "x"),
    3: ("channel", "y", "x"),
    4: ("channel", "z", "y", "x"),
}
NAME_FORM = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")


def row_dtype(
    sample_shape: tuple[int, ...],
    *,
    target: npt.DTypeLike = "<i4",
    prediction: npt.DTypeLike = "<i4",
    per_sample: Mapping[str, npt.DTypeLike] | None = None,
    channels_first: bool = False,
) -> np.dtype:
    """Returns the dtype of one row.

    Args:
        sample_shape: shape of one sample's attributions: 0 to 4 axes, none of them empty.
        target: dtype of targets and labels: an integer dtype for class ids, a floating one for
            values.
        prediction: dtype of predictions: an integer dtype for class ids, a floating one for values.
        per_sample: dtypes of further values that each sample has, by name, such as
            `convergence_delta`; `standard_errors` have the shape of the attributions.
        channels_first: whether the first axis of one sample's attributions has channels.

    Raises:
        ValueError: if the shape, a name or a dtype cannot be stored.
    """
    if len(sample_shape) > MAX_RANK or not all(length > 0 for length in sample_shape):
        raise ValueError(
            f"attributions of one sample must have rank 0 to {MAX_RANK} and no empty axis; got"
            f" shape {tuple(sample_shape)}"
        )
    # Sorted, because the bytes of the rows must not depend on the order in which a method names its
    # values.
    extra = dict(sorted((per_sample or {}).items()))
    for name in extra:
        if name in BUILT_IN or not NAME_FORM.fullmatch(name):
            raise ValueError(
                "a value per sample needs a name of letters, digits and '_' other than"
                f" {', '.join(BUILT_IN)}; got {name!r}"
            )
    columns = {"label": target, "target": target, "prediction": prediction, **extra}
    plain_dtypes = {name: np.dtype(dtype).newbyteorder("<") for name, dtype in columns.items()}
    for name, dtype in plain_dtypes.items():
        if dtype.kind not in "biuf" or dtype.shape:
            raise ValueError(
                f"values of '{name}' must be booleans, integers or floating; got dtype {dtype}"
            )
    return np.dtype(
        [
            ("attributions", "<f2", tuple(sample_shape)),
            ("scale", "<f4"),
            ("sample_id", "<i8"),
            *((name, plain_dtypes[name]) for name in ("label", "target", "prediction")),
            ("score", "<f4"),
            ("rank", "<i4"),
            ("content_hash", "<u8"),
            ("thumbnail", "<f4", thumbnail_shape(tuple(sample_shape), channels_first)),
            *(
                (name, plain_dtypes[name], sample_shape if name == STANDARD_ERRORS else ())
                for name in extra
            ),
        ]
    )


def axes_of(name: str, ndim: int, *, channels_first: bool = False) -> tuple[str, ...]:
    """Returns the names of an array's `ndim` axes after the first, which is `sample`."""
    if name in ("attributions", STANDARD_ERRORS):
        return (_CHANNELS_FIRST if channels_first else _SAMPLE_AXES)[ndim]
    if name == "thumbnail":
        return ("thumbnail_y", "thumbnail_x") if ndim == 2 else ("thumbnail_block",)
    return ()


def encode(
    dtype: np.dtype,
    attributions: Float32[np.ndarray, "n ..."],
    *,
    rank: int,
    channels_first: bool = False,
    **columns: np.ndarray,
) -> np.ndarray:
    """Packs attributions, and the numbers of each sample, into rows.

    Each sample is stored as float16 next to a float32 `scale`, its largest finite magnitude (1
    where that is 0): plain float16 flushes small attributions to zero. NaN and infinities stay as
    they are. Each row depends on its own sample alone, to the bit.

    Args:
        dtype: dtype of the rows, from `row_dtype`.
        attributions: attributions, `[n, *sample_shape]`; n may be 0.
        rank: number of the rank that computed them.
        channels_first: whether the first axis of one sample's attributions has channels, as for
            `row_dtype`.
        columns: arrays `[n]`: `sample_id`, `target`, `prediction`, `score` and each name given to
            `row_dtype` as `per_sample`; also `label` where it differs from the target.

    Returns:
        The rows: `[n]` records of `dtype`.

    Raises:
        ValueError: if a shape is wrong, a column is missing or unknown, or a value does not fit its
            dtype.
    """
    n, sample_shape = len(attributions), dtype["attributions"].shape
    if attributions.shape[1:] != sample_shape:
        raise ValueError(
            f"attributions of one sample must have shape {sample_shape}; got"
            f" {attributions.shape[1:]}"
        )
    columns = (
        {**columns, "label": columns.get("label", columns["target"])}
        if "target" in columns
        else columns
    )
    computed = {"attributions", "scale", "rank", "content_hash", "thumbnail"}
    expected = set(dtype.names or ()) - computed
    if columns.keys() != expected:
        raise ValueError(f"rows need the columns {sorted(expected)}; got {sorted(columns)}")
    rows = np.zeros(n, dtype)
    for name, values in columns.items():
        if np.shape(values) != (n, *dtype[name].shape):
            raise ValueError(
                f"column '{name}' must have shape {(n, *dtype[name].shape)}, the first axis being"
                f" examples; got {np.shape(values)}"
            )
        rows[name] = _cast(name, values, dtype[name].base)
    # NaN and infinities do not count for the scale, or every value of their sample would be lost.
    flat = np.where(np.isfinite(attributions), np.abs(attributions), 0).reshape(
        n, math.prod(sample_shape)
    )
    largest = flat.max(axis=1, initial=0)
    rows["scale"] = np.where(largest > 0, largest, 1)
    rows["attributions"] = attributions / rows["scale"].reshape((n,) + (1,) * len(sample_shape))
    rows["thumbnail"] = thumbnails(attributions, channels_first)
    rows["rank"] = rank
    rows["content_hash"] = content_hashes(rows)
    return rows


def _cast(name: str, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Casts values to a dtype; refuses class ids that would change.

    Raises:
        ValueError: if the dtype holds integers or booleans, and a value does not fit it exactly.
    """
    if dtype.kind in "biu" and (
        values.dtype.kind not in "biu" or not np.array_equal(values.astype(dtype), values)
    ):
        raise ValueError(
            f"values of column '{name}' ({values.dtype}) do not fit the rows' dtype {dtype}; give"
            " row_dtype a wider dtype for it"
        )
    return values.astype(dtype)


def decode(rows: np.ndarray) -> Float32[np.ndarray, "n ..."]:
    """Returns the attributions of rows: the stored float16 values times each sample's scale."""
    scale = rows["scale"].reshape((len(rows),) + (1,) * (rows["attributions"].ndim - 1))
    attributions: np.ndarray = rows["attributions"].astype(np.float32) * scale
    return attributions


def content_hashes(rows: np.ndarray) -> UInt64[np.ndarray, "n"]:
    """Returns the xxh3-64 of each row's attributions and scale, as their bytes lie on disk."""
    # Copied into records without padding or other fields, so that a row is one run of bytes.
    packed = np.empty(
        len(rows), [("attributions", "<f2", rows.dtype["attributions"].shape), ("scale", "<f4")]
    )
    packed["attributions"], packed["scale"] = rows["attributions"], rows["scale"]
    content, size = packed.tobytes(), packed.dtype.itemsize
    hashes = (
        xxhash.xxh3_64_intdigest(content[start : start + size])
        for start in range(0, len(content), size)
    )
    return np.fromiter(hashes, np.uint64, len(rows))


def dtypes_of(dtype: np.dtype) -> dict[str, str]:
    """Returns the dtype of a single value in each field, by the field's name."""
    return {name: dtype[name].base.str for name in dtype.names or ()}
