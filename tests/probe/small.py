"""A small data set for the tests of data set formats."""

from pathlib import Path
from typing import Any

import numpy as np

from hvd_xai.probe.probe import Probe
from hvd_xai.probe.unpack import unpack
from hvd_xai.probe.unpacked import open_unpacked

N = 70
INPUTS = np.random.default_rng(0).random((N, 4, 3, 1), np.float32)
TARGETS = (np.arange(N) % 3).astype(np.int32)


def make_picture(row: int) -> np.ndarray:
    """Returns an example as an image of bytes."""
    picture: np.ndarray = (INPUTS[row] * 255).astype(np.uint8)
    return picture


def read(source: Path, folder: Path, **options: Any) -> Probe:
    """Unpacks a data set and opens it; options are those of `unpack`."""
    unpack(source, folder, **options)
    return open_unpacked(folder)


def check_read_as_mapped(probe: Probe) -> None:
    """Checks that a probe is the small data set, its inputs mapped into memory."""
    assert isinstance(probe.inputs, np.memmap)
    np.testing.assert_array_equal(probe.inputs, INPUTS)
    np.testing.assert_array_equal(probe.targets, TARGETS)
    assert probe.sample_ids.tolist() == list(range(N))
