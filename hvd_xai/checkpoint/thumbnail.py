"""Averages blocks of attributions, so that epochs can be compared without reading all values."""

import math

import numpy as np
from jaxtyping import Float32, Int

SIDE = 28
"""Largest number of blocks on an axis: 28 x 28 keeps what a person sees of an attribution map and
is 64 times smaller than 224 x 224."""


def thumbnail_shape(sample_shape: tuple[int, ...], channels_first: bool = False) -> tuple[int, ...]:
    """Returns the shape of the thumbnail of one sample.

    `[h, w]` and `[h, w, c]`, or `[c, h, w]` if channels come first, become `[min(h, 28), min(w,
    28)]`; a sample of any other shape is flattened and becomes `[min(size, 784)]`.
    """
    if channels_first and len(sample_shape) == 3:
        sample_shape = sample_shape[1:]
    if len(sample_shape) in (2, 3):
        return (min(sample_shape[0], SIDE), min(sample_shape[1], SIDE))
    return (min(math.prod(sample_shape), SIDE * SIDE),)


def thumbnails(
    attributions: Float32[np.ndarray, "n ..."], channels_first: bool = False
) -> Float32[np.ndarray, "n ..."]:
    """Averages blocks of each sample's attributions; the channels of images are summed first.

    A block with a NaN in it is NaN. Each row depends on its own sample alone, to the bit, whatever
    the batch.

    Returns:
        `[n, *thumbnail_shape]` float32.
    """
    n, sample_shape = len(attributions), attributions.shape[1:]
    shape = thumbnail_shape(sample_shape, channels_first)
    # inf - inf gives NaN, which is meant.
    with np.errstate(invalid="ignore", over="ignore"):
        if len(sample_shape) == 3:
            attributions = attributions.sum(axis=1 if channels_first else 3)
        elif len(sample_shape) != 2:
            attributions = attributions.reshape(n, math.prod(sample_shape))
        # Each axis is averaged in turn, over blocks of nearly one length. Ten entries, four blocks:
        #
        #   0 1 | 2 3 4 | 5 6 | 7 8 9     edges 0, 2, 5, 7, 10
        for axis, n_blocks in enumerate(shape, start=1):
            edges = _edges(attributions.shape[axis], n_blocks)
            counts = (
                np.diff(edges)
                .astype(np.float32)
                .reshape((-1,) + (1,) * (attributions.ndim - axis - 1))
            )
            attributions = np.add.reduceat(attributions, edges[:-1], axis=axis) / counts
    return attributions


def _edges(length: int, n_blocks: int) -> Int[np.ndarray, "b"]:
    """Returns `n_blocks + 1` edges that cut `length` entries into blocks of nearly one length."""
    return np.arange(n_blocks + 1) * length // n_blocks
