from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.probe_writer import write_probe
from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.rows import decode
from hvd_xai.checkpoint.run_directory import open_run
from hvd_xai.checkpoint.thumbnail import thumbnails
from hvd_xai.errors import CheckpointError
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import AttributedTo
from hvd_xai.storage import arrays
from tests.checkpoint.small import (
    SHAPES,
    make_attributions,
    make_header,
    make_rows,
    make_rows_with_errors,
    read_plain,
    write,
)

AXES: tuple[tuple[str, ...], ...] = (
    (),
    ("feature",),
    ("y", "x"),
    ("y", "x", "channel"),
    ("z", "y", "x", "channel"),
)
SMALL = "epochs/000000/integrated_gradients"  # where `write` puts an explanation


@pytest.mark.parametrize("shape", SHAPES)
def test_everything_written_is_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    attributions = make_attributions(13, shape)
    rows = make_rows(attributions)
    explanation = write(tmp_path, rows)
    assert (explanation.n_samples, explanation.sample_shape) == (13, shape)
    expected = [
        "scale",
        "sample_id",
        "label",
        "target",
        "prediction",
        "score",
        "rank",
        "content_hash",
        "convergence_delta",
    ]
    assert explanation.columns == expected
    for name in explanation.columns:
        np.testing.assert_array_equal(explanation.column(name), rows[name])
    np.testing.assert_array_equal(explanation.attributions(), decode(rows))
    np.testing.assert_array_equal(explanation.attributions(-3, 12), decode(rows)[-3:12])
    assert explanation.attributions(5, 5).shape == (0, *shape)
    np.testing.assert_array_equal(explanation.thumbnails(2, 4), thumbnails(attributions)[2:4])
    assert explanation.rows(3, 9).tobytes() == rows[3:9].tobytes()
    with pytest.raises(CheckpointError, match="no column 'attributions'; it has scale"):
        explanation.column("attributions")


@pytest.mark.parametrize("n_bytes", [1, 100, 1000, 10**9])
def test_blocks_cover_every_row_once(tmp_path: Path, n_bytes: int) -> None:
    rows = make_rows(make_attributions(13, (3, 2)))
    blocks = list(write(tmp_path, rows).blocks(n_bytes))
    assert [start for start, _ in blocks] == np.cumsum(
        [0, *(len(block) for _, block in blocks[:-1])]
    ).tolist()
    assert all(len(block) == 1 or block.nbytes <= n_bytes for _, block in blocks)
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), decode(rows))


def test_rows_are_found_by_sample_id(tmp_path: Path) -> None:
    explanation = write(tmp_path, make_rows(make_attributions(5, ())))
    assert explanation.rows_of([12, 0, 3]).tolist() == [4, 0, 1]
    assert explanation.rows_of([]).tolist() == []
    with pytest.raises(
        CheckpointError, match=r"no sample ids \[4, 99, -1\]; its ids are 0 to 12, 5 of them"
    ):
        explanation.rows_of([4, 0, 99, -1])


def test_attributions_are_read_by_sample_id(tmp_path: Path) -> None:
    explanation = write(tmp_path, make_rows(make_attributions(5, (2,))))
    np.testing.assert_array_equal(
        explanation.attributions_of([12, 0, 12]), explanation.attributions()[[4, 0, 4]]
    )
    assert explanation.attributions_of([]).shape == (0, 2)


def test_missing_shard_is_an_error_not_fill_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 8)
    monkeypatch.setattr(arrays, "SHARD_ROWS", 4)
    explanation = write(tmp_path, make_rows(make_attributions(12, (2,))))
    assert explanation.attributions().shape == (12, 2)
    (tmp_path / SMALL / "attributions" / "c" / "1" / "0").unlink()
    # what Zarr makes of it
    assert np.isnan(read_plain(tmp_path / SMALL / "attributions")[4:8]).all()
    for start, stop in ((0, None), (3, 5), (7, 8)):
        with pytest.raises(CheckpointError, match=r"c/1/0 is missing.*verify --deep"):
            explanation.attributions(start, stop)
    assert explanation.attributions(8).shape == (4, 2)


def test_shard_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    explanation = write(tmp_path, make_rows(make_attributions(4, ())))
    shard = tmp_path / SMALL / "score" / "c" / "0"
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is no plain file"):
        explanation.column("score")


@pytest.mark.parametrize("shape", SHAPES)
def test_plain_xarray_shows_names_coordinates_and_values(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    zarr = pytest.importorskip("zarr")
    xarray = pytest.importorskip("xarray")
    explanation = write(tmp_path, make_rows(make_attributions(9, shape)))
    with pytest.warns(zarr.errors.ZarrUserWarning, match="manifest.json"):
        dataset = xarray.open_zarr(tmp_path / SMALL, consolidated=False, chunks=None)
    assert set(dataset.coords) == {"sample_id", "label", "target", "prediction"}
    assert dataset.attributions.dims == ("sample", *AXES[len(shape)])
    np.testing.assert_array_equal(
        (dataset.attributions * dataset.scale).values, explanation.attributions()
    )
    assert dataset.attrs["Conventions"] == "CF-1.11"


def test_header_is_read_back(tmp_path: Path) -> None:
    path = write(tmp_path, make_rows(make_attributions(4, (2,))), epoch=3, world_size=2).path
    header = make_header(4, (2,), epoch=3, world_size=2)
    read = Explanation(path).manifest.header()
    assert (read.run, read.epoch, read.ranks, read.versions, read.n_samples) == (
        header.run,
        header.epoch,
        header.ranks,
        header.versions,
        header.n_samples,
    )


def test_attributions_have_the_names_of_the_features_they_are_of(tmp_path: Path) -> None:
    names = tuple("abcde")
    explanations_dir = open_run(tmp_path, config={})
    write_probe(
        explanations_dir, Probe(np.zeros((6, 5), np.float32), np.arange(6), feature_names=names)
    )

    def named(
        method: str, attributed_to: AttributedTo | None, shape: tuple[int, ...] = (5,)
    ) -> tuple[str, ...]:
        rows = make_rows(make_attributions(6, shape))
        # names of options say nothing: a user's method calls its own as it likes
        options = {"layer": None, "unit_layer": "dense"}
        return write(
            explanations_dir, rows, method=method, attributed_to=attributed_to, options=options
        ).feature_names

    assert named("saliency", "inputs") == names
    assert named("attention_rollout", "inputs", (4,)) == named("occlusion", "inputs", ()) == ()
    # a layer may have as many units, or places, as the inputs have features
    assert named("conductance", "units") == named("grad_cam", "places") == named("mine", None) == ()
    assert open_explanations(tmp_path).explanation(0, "saliency").feature_names == names
    alone = write(tmp_path / "alone", make_rows(make_attributions(6, (5,))), attributed_to="inputs")
    assert alone.feature_names == ()


def test_attributions_have_the_words_of_the_tokens_they_are_of(tmp_path: Path) -> None:
    words = ("", "[UNK]", "fine")
    explanations_dir = open_run(tmp_path, config={})
    write_probe(explanations_dir, Probe(np.ones((6, 5), np.int64), np.arange(6), vocabulary=words))

    def worded(
        method: str, attributed_to: AttributedTo | None, shape: tuple[int, ...] = (5,)
    ) -> tuple[str, ...]:
        rows = make_rows(make_attributions(6, shape))
        return write(explanations_dir, rows, method=method, attributed_to=attributed_to).vocabulary

    assert worded("attention_rollout", "inputs") == worded("grad_cam", "places") == words
    # with a class token, or of what a valid convolution leaves
    assert worded("gradient_x_attention", "inputs", (6,)) == ()
    assert worded("layer_conductance", "units") == worded("mine", None) == ()
    explanation = open_explanations(tmp_path).explanation(0, "attention_rollout")
    assert (explanation.vocabulary, explanation.feature_names) == (words, ())
    run = open_explanations(tmp_path)  # which reads the words once
    assert (
        run.explanation(0, "grad_cam").vocabulary
        is run.explanation(0, "attention_rollout").vocabulary
    )
    alone = write(tmp_path / "alone", make_rows(make_attributions(6, (5,))), attributed_to="inputs")
    assert alone.vocabulary == ()


@pytest.mark.parametrize("shape", SHAPES)
def test_standard_errors_are_read_as_they_were_written(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    rows, errors = make_rows_with_errors(make_attributions(13, shape))
    explanation = write(tmp_path / "with", rows)
    # exactly: attributions are float16 with a scale, these are not
    for start, stop in ((0, None), (-3, 12), (5, 5)):
        read = explanation.standard_errors(start, stop)
        assert read is not None
        np.testing.assert_array_equal(read, errors[start:stop])
    assert "standard_errors" not in explanation.columns
    assert explanation.rows(3, 9).tobytes() == rows[3:9].tobytes()
    without = write(tmp_path / "without", make_rows(make_attributions(4, shape)))
    assert without.standard_errors() is None
