"""`.npz` files that NumPy wrote."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.probe.dataset_format import Hints, ModelInputs
from tests.probe.small import INPUTS, TARGETS, N, check_read_as_mapped, read


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_the_data_set(save: Callable[..., None], tmp_path: Path) -> None:
    save(tmp_path / "data.npz", inputs=INPUTS, targets=TARGETS)
    check_read_as_mapped(read(tmp_path / "data.npz", tmp_path / "unpacked"))


def test_labels_and_sample_ids_are_taken_where_they_are(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "data.npz",
        inputs=INPUTS,
        targets=TARGETS,
        labels=TARGETS + 1,
        sample_ids=np.arange(N) * 5,
        other=np.zeros(3),
    )
    probe = read(tmp_path / "data.npz", tmp_path / "unpacked")
    assert probe.labels is not None
    assert (probe.labels[4], probe.sample_ids[4]) == (2, 20)


def test_names_of_classes_and_features_are_taken_where_they_are(tmp_path: Path) -> None:
    classes, features, table = ["no", "maybe", "yes"], ["age", "income", "debt"], INPUTS[:, 0, :, 0]
    source, folder = tmp_path / "data.npz", tmp_path / "unpacked"
    np.savez(source, inputs=table, targets=TARGETS, class_names=classes, feature_names=features)
    probe = read(source, folder)
    assert (probe.class_names, probe.feature_names) == (tuple(classes), tuple(features))
    np.savez(source, inputs=table, targets=TARGETS, feature_names=features[:2])
    with pytest.raises(ValueError, match="must be 3 names; got 2: age, income"):
        read(source, folder)
    np.savez(source, inputs=table, targets=TARGETS, feature_names=np.arange(3))
    with pytest.raises(
        ValueError,
        match=r"'feature_names' of the data set must be a list of strings; got \[0, 1, 2\]",
    ):
        read(source, folder)


def test_the_words_of_texts_are_taken_where_they_are(tmp_path: Path) -> None:
    words, tokens = ["", "[UNK]", "schön"], np.arange(N * 2).reshape(N, 2) % 3
    source, folder = tmp_path / "data.npz", tmp_path / "unpacked"
    np.savez(source, inputs=tokens, targets=TARGETS, vocabulary=words)
    assert read(source, folder).vocabulary == tuple(words)
    np.savez(source, inputs=tokens, targets=TARGETS, vocabulary=words[:2])
    with pytest.raises(ValueError, match="sample id 1 has token id 2"):
        read(source, folder)


def test_a_torn_or_hollow_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", inputs=INPUTS)
    (tmp_path / "torn.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"torn\.npz' cannot be read"):
        read(tmp_path / "torn.npz", tmp_path / "unpacked")
    with zipfile.ZipFile(tmp_path / "hollow.npz", "w") as archive:
        archive.writestr("inputs.npy", b"")
        archive.writestr("targets.npy", b"")
    with pytest.raises(ValueError, match=r"\.npz/inputs\.npy' cannot be read: "):
        read(tmp_path / "hollow.npz", tmp_path / "unpacked")


def test_python_objects_in_an_npz_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickled.npz", inputs=np.array([{}] * N), targets=TARGETS)
    with pytest.raises(ValueError, match="Python objects"):
        read(tmp_path / "pickled.npz", tmp_path / "unpacked")


def test_arrays_of_several_inputs_are_taken_by_the_models_names(tmp_path: Path) -> None:
    several: dict[str, np.ndarray] = {"age": np.arange(N), "image": INPUTS}
    data = {**several, "targets": TARGETS, "other": np.zeros(3)}
    np.savez(tmp_path / "data.npz", allow_pickle=False, **data)
    shapes = ((1,), INPUTS.shape[1:])
    hints = Hints(inputs=ModelInputs(shapes, tuple(several), keyed=True))
    probe = read(tmp_path / "data.npz", tmp_path / "unpacked", hints=hints)
    assert probe.packing is not None
    for name, values in probe.packing.taken_apart(probe.inputs).items():
        np.testing.assert_array_equal(values, several[name])


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {"../escaped": INPUTS, "age": np.arange(N)}
    np.savez(tmp_path / "data.npz", allow_pickle=False, **arrays)
    with pytest.raises(ValueError, match=r"'\.\./escaped' cannot be the name of an input"):
        read(tmp_path / "data.npz", tmp_path / "unpacked")
    assert not list(tmp_path.rglob("escaped*"))
