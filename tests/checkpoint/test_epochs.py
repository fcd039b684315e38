import json
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.epochs import EpochStack
from hvd_xai.checkpoint.exported import export
from hvd_xai.errors import CheckpointError
from hvd_xai.protocols import ScoreFacts
from tests.checkpoint.small import make_attributions, make_rows, write

h5netcdf = pytest.importorskip("h5netcdf")
parquet = pytest.importorskip("pyarrow.parquet")


def test_variables_have_an_axis_of_epochs_and_one_of_samples(tmp_path: Path) -> None:
    values = [make_attributions(4, (3, 2), seed=epoch) for epoch in (0, 1)]
    stack = EpochStack(
        [
            write(tmp_path, make_rows(of), epoch=epoch)
            for epoch, of in zip((2, 5), values, strict=True)
        ]
    )
    assert (stack.method, stack.epochs) == ("integrated_gradients", (2, 5))
    attributions = stack.variables["attributions"]
    assert (attributions.axes[:2], attributions.shape) == (("epoch", "sample"), (2, 4, 3, 2))
    assert not {"scale", "content_hash", "sample_id"} & stack.variables.keys()
    np.testing.assert_array_equal(
        stack.read("attributions", 1, 1, 3), stack.explanations[1].attributions(1, 3)
    )
    np.testing.assert_array_equal(stack.of_samples("target"), np.arange(4))


def test_epochs_of_other_shapes_or_samples_do_not_stack(tmp_path: Path) -> None:
    first = write(tmp_path, make_rows(make_attributions(4, (3,))), epoch=0)
    other_shape = write(tmp_path, make_rows(make_attributions(4, (2,))), epoch=1)
    other_samples = write(tmp_path, make_rows(make_attributions(4, (3,)), first=1), epoch=2)
    with pytest.raises(CheckpointError, match="has other shapes than epoch 0"):
        EpochStack([first, other_shape])
    with pytest.raises(CheckpointError, match="has other samples than epoch 0"):
        EpochStack([first, other_samples])


def test_files_say_which_class_the_score_belongs_to(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, (2,)))
    known = write(tmp_path / "known", rows, score_facts=ScoreFacts("probability", "1"))
    stack, unknown = EpochStack([known]), EpochStack([write(tmp_path / "unknown", rows)])
    assert stack.score_attributes == {"score_unit": "probability", "score_class": "1"}
    assert unknown.score_attributes == {}
    assert known.to_xarray().attrs["score_class"] == "1"
    export([stack], tmp_path / "out.nc")
    with h5netcdf.File(tmp_path / "out.nc") as file:
        assert file["integrated_gradients"].attrs["score_class"] == "1"
    export([stack], tmp_path / "out.parquet")
    metadata = parquet.read_metadata(tmp_path / "out.parquet").metadata
    told = json.loads(metadata[b"hvd_xai_scores"])
    assert told == {"integrated_gradients": stack.score_attributes}
