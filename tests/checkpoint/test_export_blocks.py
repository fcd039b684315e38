"""Explanations as every export format reads them."""

import json

import numpy as np
import pytest

from hvd_xai.checkpoint import export_blocks
from hvd_xai.checkpoint.export_blocks import iterate_blocks, read_small_arrays, write_options
from hvd_xai.checkpoint.reader import Explanations
from tests.checkpoint.small import EXPORTED_EPOCHS


@pytest.mark.usefixtures("any_block")
def test_blocks_cover_every_row_once_and_in_order(to_export: Explanations) -> None:
    blocks = iterate_blocks(to_export.stack("integrated_gradients"))
    rows = [(index, row) for index, start, stop in blocks for row in range(start, stop)]
    assert rows == [(index, row) for index in range(len(EXPORTED_EPOCHS)) for row in range(9)]


def test_a_block_holds_as_many_rows_as_fit(
    to_export: Explanations, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = to_export.stack("integrated_gradients")
    row_bytes = sum(
        stack.read(name, 0, 0, 1).astype(variable.dtype).nbytes
        for name, variable in stack.variables.items()
    )
    monkeypatch.setattr(export_blocks, "BLOCK_BYTES", 4 * row_bytes + row_bytes // 2)
    assert [stop - start for _, start, stop in iterate_blocks(stack)] == [4, 4, 1] * 2


def test_small_arrays_say_their_axis(to_export: Explanations) -> None:
    small = read_small_arrays(to_export.stack("integrated_gradients"))
    assert {name: (axis, len(values)) for name, (axis, values) in small.items()} == {
        "epoch": ("epoch", 2),
        "step": ("epoch", 2),
        "sample_id": ("sample", 9),
        "label": ("sample", 9),
        "target": ("sample", 9),
    }
    np.testing.assert_array_equal(small["sample_id"][1], 3 * np.arange(9))
    assert small["step"][1].tolist() == [20, 30]


def test_options_are_plain_json(to_export: Explanations) -> None:
    options = json.loads(write_options(to_export.stack("integrated_gradients")))
    assert options == {"baseline": None, "n_steps": 50, "window": [1, 2.5]}
