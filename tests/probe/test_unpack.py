"""Data sets of every kind, written by other means than ours, and read back as one probe."""

import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvd_xai.errors import CheckpointError
from hvd_xai.probe import unpack as unpack_module
from hvd_xai.probe.probe import Probe
from hvd_xai.probe.unpack import Feature, open_unpacked, unpack

N = 70
INPUTS = np.random.default_rng(0).random((N, 4, 3, 1), np.float32)
TARGETS = (np.arange(N) % 3).astype(np.int32)


def _npz(folder: Path) -> tuple[Path, dict[str, Any]]:
    np.savez_compressed(folder / "data.npz", inputs=INPUTS, targets=TARGETS)
    return folder / "data.npz", {}


def _npy(folder: Path) -> tuple[Path, dict[str, Any]]:
    np.save(folder / "x.npy", INPUTS)
    np.save(folder / "y.npy", TARGETS)
    return folder / "x.npy", {"targets": folder / "y.npy"}


def _zarr(folder: Path) -> tuple[Path, dict[str, Any]]:
    zarr = pytest.importorskip("zarr")
    group = zarr.create_group(folder / "data.zarr")
    group.create_array("inputs", data=INPUTS, chunks=(16, 4, 3, 1))
    group.create_array("targets", data=TARGETS)
    return folder / "data.zarr", {}


def _zarr_array(folder: Path) -> tuple[Path, dict[str, Any]]:
    zarr = pytest.importorskip("zarr")
    zarr.create_array(folder / "x.zarr", data=INPUTS, chunks=(16, 4, 3, 1))
    np.save(folder / "y.npy", TARGETS)
    return folder / "x.zarr", {"targets": folder / "y.npy"}


def _tfrecord(folder: Path) -> tuple[Path, dict[str, Any]]:
    import tensorflow as tf

    (folder / "records").mkdir()
    for part, rows in enumerate((range(N // 2), range(N // 2, N))):
        with tf.io.TFRecordWriter(str(folder / "records" / f"part-{part}.tfrecord")) as writer:
            for row in rows:
                feature = {
                    "x": tf.train.Feature(
                        float_list=tf.train.FloatList(value=INPUTS[row].reshape(-1))
                    ),
                    "y": tf.train.Feature(int64_list=tf.train.Int64List(value=[TARGETS[row]])),
                    "raw": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[INPUTS[row].astype("<f8").tobytes()])
                    ),
                    "png": tf.train.Feature(
                        bytes_list=tf.train.BytesList(
                            value=[tf.io.encode_png(_picture(row)).numpy()]
                        )
                    ),
                }
                writer.write(
                    tf.train.Example(
                        features=tf.train.Features(feature=feature)
                    ).SerializeToString()
                )
    return folder / "records", {
        "features": dict(map(Feature.parse, ("inputs=x:float32:4,3,1", "targets=y:int64")))
    }


def _picture(row: int) -> np.ndarray:
    picture: np.ndarray = (INPUTS[row] * 255).astype(np.uint8)
    return picture


WRITERS: tuple[Callable[[Path], tuple[Path, dict[str, Any]]], ...] = (
    _npz,
    _npy,
    _zarr,
    _zarr_array,
    _tfrecord,
)


@pytest.mark.parametrize("write", WRITERS)
def test_every_kind_gives_the_same_probe(
    write: Callable[[Path], tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    source, options = write(tmp_path)
    unpack(source, tmp_path / "unpacked", **options)
    probe = open_unpacked(tmp_path / "unpacked")
    assert isinstance(probe.inputs, np.memmap)
    np.testing.assert_array_equal(probe.inputs, INPUTS)
    np.testing.assert_array_equal(probe.targets, TARGETS)
    assert probe.sample_ids.tolist() == list(range(N))


def test_raw_bytes_and_encoded_images_are_decoded(tmp_path: Path) -> None:
    source, _ = _tfrecord(tmp_path)
    targets = Feature.parse("targets=y:int64")[1]
    for spelt, expected in (
        ("inputs=raw:float64:4,3,1", INPUTS),
        ("inputs=png:image:4,3,1", np.stack([_picture(row) for row in range(N)])),
    ):
        unpack(
            source,
            tmp_path / "unpacked",
            features={"inputs": Feature.parse(spelt)[1], "targets": targets},
        )
        np.testing.assert_array_equal(open_unpacked(tmp_path / "unpacked").inputs, expected)


def test_an_image_folder_has_a_class_for_each_folder(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for row in range(6):
        folder = tmp_path / "images" / ("cat", "ant")[row % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray(_picture(row)[..., 0]).save(folder / f"{row}.png")
    unpack(tmp_path / "images", tmp_path / "unpacked", input_shape=(4, 3, 1))
    probe = open_unpacked(tmp_path / "unpacked")
    assert probe.class_names == ("ant", "cat")
    assert probe.targets.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(
        probe.inputs, np.stack([_picture(row) for row in (1, 3, 5, 0, 2, 4)]).astype(np.float32)
    )
    with pytest.raises(ValueError, match="need a model whose inputs have shape"):
        unpack(tmp_path / "images", tmp_path / "unpacked", input_shape=(12,))
    with pytest.raises(
        ValueError, match=r"images must lie in it in a folder for each class, as '.*ant.cat.1.png'"
    ):
        unpack(tmp_path / "images" / "ant", tmp_path / "unpacked", input_shape=(4, 3, 1))


def test_labels_and_sample_ids_are_taken_where_they_are(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "data.npz",
        inputs=INPUTS,
        targets=TARGETS,
        labels=TARGETS + 1,
        sample_ids=np.arange(N) * 5,
        other=np.zeros(3),
    )
    unpack(tmp_path / "data.npz", tmp_path / "unpacked")
    probe = open_unpacked(tmp_path / "unpacked")
    assert probe.labels is not None
    assert (probe.labels[4], probe.sample_ids[4]) == (2, 20)


def test_names_of_classes_and_features_are_taken_where_they_are(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    classes, features, table = ["no", "maybe", "yes"], ["age", "income", "debt"], INPUTS[:, 0, :, 0]
    np.savez(
        tmp_path / "data.npz",
        inputs=table,
        targets=TARGETS,
        class_names=classes,
        feature_names=features,
    )
    group = zarr.create_group(
        tmp_path / "data.zarr", attributes={"class_names": classes, "feature_names": features}
    )
    group.create_array("inputs", data=table)
    group.create_array("targets", data=TARGETS)
    for source in ("data.npz", "data.zarr"):
        unpack(tmp_path / source, tmp_path / "unpacked")
        probe = open_unpacked(tmp_path / "unpacked")
        assert (probe.class_names, probe.feature_names) == (tuple(classes), tuple(features))
    np.savez(tmp_path / "few.npz", inputs=table, targets=TARGETS, feature_names=features[:2])
    with pytest.raises(ValueError, match="must be 3 names; got 2: age, income"):
        _refused(tmp_path, "few.npz")
    np.savez(tmp_path / "numbers.npz", inputs=table, targets=TARGETS, feature_names=np.arange(3))
    with pytest.raises(
        ValueError,
        match=r"'feature_names' of the data set must be a list of strings; got \[0, 1, 2\]",
    ):
        _refused(tmp_path, "numbers.npz")


def test_the_words_of_texts_are_taken_where_they_are(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    words, tokens = ["", "[UNK]", "schön"], np.arange(N * 2).reshape(N, 2) % 3
    np.savez(tmp_path / "data.npz", inputs=tokens, targets=TARGETS, vocabulary=words)
    group = zarr.create_group(tmp_path / "data.zarr", attributes={"vocabulary": words})
    group.create_array("inputs", data=tokens)
    group.create_array("targets", data=TARGETS)
    for source in ("data.npz", "data.zarr"):
        unpack(tmp_path / source, tmp_path / "unpacked")
        assert open_unpacked(tmp_path / "unpacked").vocabulary == tuple(words)
    np.savez(tmp_path / "few.npz", inputs=tokens, targets=TARGETS, vocabulary=words[:2])
    with pytest.raises(ValueError, match="sample id 1 has token id 2"):
        _refused(tmp_path, "few.npz")


def _refused(tmp_path: Path, source: str, **options: Any) -> Probe:
    unpack(tmp_path / source, tmp_path / "unpacked", **options)
    return open_unpacked(tmp_path / "unpacked")


def test_targets_may_be_left_out_where_they_are_not_needed(tmp_path: Path) -> None:
    np.savez(tmp_path / "alone.npz", inputs=INPUTS)
    assert not unpack(tmp_path / "alone.npz", tmp_path / "unpacked", needs_targets=False)
    probe = open_unpacked(tmp_path / "unpacked")
    np.testing.assert_array_equal(probe.inputs, INPUTS)
    assert probe.targets.tolist() == [0] * N
    np.savez(tmp_path / "both.npz", inputs=INPUTS, targets=TARGETS)
    assert unpack(tmp_path / "both.npz", tmp_path / "unpacked", needs_targets=False)
    np.testing.assert_array_equal(open_unpacked(tmp_path / "unpacked").targets, TARGETS)
    np.savez(tmp_path / "neither.npz", labels=TARGETS)
    with pytest.raises(ValueError, match="has no inputs and no targets"):
        unpack(tmp_path / "neither.npz", tmp_path / "unpacked", needs_targets=False)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "alone.npz", inputs=INPUTS)
    np.savez(
        tmp_path / "unsorted.npz", inputs=INPUTS, targets=TARGETS, sample_ids=np.arange(N)[::-1]
    )
    np.savez(tmp_path / "pickled.npz", inputs=np.array([{}] * N), targets=TARGETS)
    (tmp_path / "torn.npz").write_bytes((tmp_path / "alone.npz").read_bytes()[:200])
    (tmp_path / "data.csv").write_text("1,2")
    np.savez(tmp_path / "single.npz", inputs=np.float32(1), targets=TARGETS)
    with zipfile.ZipFile(tmp_path / "hollow.npz", "w") as archive:
        archive.writestr("inputs.npy", b"")
        archive.writestr("targets.npy", b"")
    (tmp_path / "list.zarr").mkdir()
    (tmp_path / "list.zarr" / "zarr.json").write_text("[]")
    for source, message in (
        (
            "alone.npz",
            (
                "has no targets; give --targets FILE.npy, or --set score=predicted to explain the"
                " class"
            ),
        ),
        ("unsorted.npz", "must ascend"),
        ("pickled.npz", "Python objects"),
        ("torn.npz", "is damaged"),
        ("data.csv", "is no data set"),
        ("absent", "there is no data set"),
        ("absent.npz", "there is no data set"),
        ("single.npz", "'inputs' must have one row an example"),
        ("hollow.npz", "'inputs' of the data set cannot be read: No data left"),
        ("list.zarr", "has no inputs and no targets; they are found by these names"),
    ):
        with pytest.raises(ValueError, match=message):
            _refused(tmp_path, source)
    with pytest.raises(ValueError, match="there is no file of targets"):
        _refused(tmp_path, "alone.npz", targets=tmp_path / "absent.npy")


def test_a_full_disk_says_what_could_not_be_written(tmp_path: Path) -> None:
    source, options = _npz(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(
            CheckpointError, match=r"cannot write .*unpacked/(inputs|targets)\.npy: "
        ):
            unpack(source, tmp_path / "unpacked", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="A file stands where a folder is needed"):
        unpack(source, tmp_path / "file" / "unpacked", **options)


def test_records_that_do_not_hold_what_is_said_are_refused(tmp_path: Path) -> None:
    source, _ = _tfrecord(tmp_path)
    with pytest.raises(ValueError, match="give --feature inputs"):
        unpack(source, tmp_path / "unpacked")
    with pytest.raises(ValueError, match="do not hold what --feature says"):
        unpack(
            source, tmp_path / "unpacked", features={"inputs": Feature("absent", "float32", (4,))}
        )
    for text in ("inputs", "outputs=x:float32:1", "inputs=x:float32:a"):
        with pytest.raises(ValueError, match="a feature is written as"):
            Feature.parse(text)
    with pytest.raises(ValueError, match=r"'foo' .* must be 'image' or a dtype"):
        Feature.parse("inputs=x:foo:4")


def test_a_file_that_grew_by_many_digits_is_a_plain_npy(tmp_path: Path) -> None:
    with unpack_module._Growing(tmp_path / "x.npy") as file:
        for start in range(0, 1200, 7):
            file.append(np.arange(start, min(start + 7, 1200)))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(1200))
