"""Averages blocks of attributions, so that epochs are compared without reading all values."""

import math

import numpy as np
from jaxtyping import Float32, Int

SIDE = 28
"""Blocks on an axis, at most: 28 x 28 keeps what a person sees of an attribution map and is 64
times smaller than 224 x 224."""


def thumbnail_shape(sample_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of the thumbnail of a sample of shape `sample_shape`.

    `[h, w]` and `[h, w, c]` give `[min(h, 28), min(w, 28)]`; every other shape is flattened into
    `[min(size, 784)]` blocks.
    """
    if len(sample_shape) in (2, 3):
        return (min(sample_shape[0], SIDE), min(sample_shape[1], SIDE))
    return (min(math.prod(sample_shape), SIDE * SIDE),)


def thumbnails(attributions: Float32[np.ndarray, "n ..."]) -> Float32[np.ndarray, "n ..."]:
    """Averages blocks of each sample's attributions; the channels of `[h, w, c]` are summed first.

    A block with a NaN in it is NaN. Each row depends on its own sample alone, to the bit, so that
    rows of any batch are equal.

    Returns:
        `[n, *thumbnail_shape]` float32.
    """
    n, sample_shape = len(attributions), attributions.shape[1:]
    shape = thumbnail_shape(sample_shape)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf is NaN, and is meant to be
        if len(sample_shape) == 3:
            attributions = attributions.sum(axis=3)
        elif len(sample_shape) != 2:
            attributions = attributions.reshape(n, math.prod(sample_shape))
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
