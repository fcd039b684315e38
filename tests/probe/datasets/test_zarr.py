"""Arrays and groups that the Zarr library wrote."""

from pathlib import Path

import numpy as np
import pytest

from tests.probe.small import INPUTS, TARGETS, N, check_read_as_mapped, read

zarr = pytest.importorskip("zarr")


def test_a_group_is_the_data_set(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "data.zarr")
    group.create_array("inputs", data=INPUTS, chunks=(16, 4, 3, 1))
    group.create_array("targets", data=TARGETS)
    check_read_as_mapped(read(tmp_path / "data.zarr", tmp_path / "unpacked"))


def test_an_array_with_a_npy_of_targets_is_the_data_set(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "x.zarr", data=INPUTS, chunks=(16, 4, 3, 1))
    np.save(tmp_path / "y.npy", TARGETS)
    check_read_as_mapped(
        read(tmp_path / "x.zarr", tmp_path / "unpacked", targets=tmp_path / "y.npy")
    )


def test_names_of_classes_and_features_are_attributes(tmp_path: Path) -> None:
    classes, features = ["no", "maybe", "yes"], ["age", "income", "debt"]
    group = zarr.create_group(
        tmp_path / "data.zarr", attributes={"class_names": classes, "feature_names": features}
    )
    group.create_array("inputs", data=INPUTS[:, 0, :, 0])
    group.create_array("targets", data=TARGETS)
    probe = read(tmp_path / "data.zarr", tmp_path / "unpacked")
    assert (probe.class_names, probe.feature_names) == (tuple(classes), tuple(features))


def test_the_words_of_texts_are_an_attribute(tmp_path: Path) -> None:
    words = ["", "[UNK]", "schön"]
    group = zarr.create_group(tmp_path / "data.zarr", attributes={"vocabulary": words})
    group.create_array("inputs", data=np.arange(N * 2).reshape(N, 2) % 3)
    group.create_array("targets", data=TARGETS)
    probe = read(tmp_path / "data.zarr", tmp_path / "unpacked")
    assert probe.vocabulary == tuple(words)


def test_metadata_that_are_no_object_hold_no_inputs(tmp_path: Path) -> None:
    (tmp_path / "list.zarr").mkdir()
    (tmp_path / "list.zarr" / "zarr.json").write_text("[]")
    with pytest.raises(
        ValueError, match="has no inputs and no targets; they are found by these names"
    ):
        read(tmp_path / "list.zarr", tmp_path / "unpacked")


def test_arrays_of_several_inputs_are_taken_by_the_models_names(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "data.zarr")
    several = {"age": np.arange(N), "image": INPUTS}
    for name, values in {**several, "targets": TARGETS}.items():
        group.create_array(name, data=values)
    probe = read(tmp_path / "data.zarr", tmp_path / "unpacked")
    assert probe.packing is not None
    for name, values in probe.packing.taken_apart(probe.inputs).items():
        np.testing.assert_array_equal(values, several[name])
