"""Gives the tests of exported files explanations to export, and blocks of any size."""

from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint import export_blocks
from hvd_xai.checkpoint.reader import Explanations, open_explanations
from hvd_xai.checkpoint.run_directory import open_run
from tests.checkpoint.small import EXPORTED_EPOCHS, make_attributions, make_rows, write


@pytest.fixture
def to_export(tmp_path: Path) -> Explanations:
    """Returns a run of two epochs of maps, one value of which is not finite, and one epoch of
    numbers."""
    explanations_dir = open_run(tmp_path, config={})
    for epoch in EXPORTED_EPOCHS:
        attributions = make_attributions(9, (4, 5), seed=epoch)
        attributions[1, 0, 0] = np.nan
        write(explanations_dir, make_rows(attributions), epoch=epoch)
    write(
        explanations_dir,
        make_rows(make_attributions(9, ())),
        epoch=3,
        method="occlusion",
        function="of_patches",
    )
    return open_explanations(tmp_path)


@pytest.fixture(params=[1, 2**24])
def any_block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports in blocks of one row, and in one block of all rows."""
    monkeypatch.setattr(export_blocks, "BLOCK_BYTES", request.param)
