"""TFRecord files that TensorFlow wrote."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.probe.dataset_format import Feature, Hints
from tests.probe.small import INPUTS, TARGETS, N, check_read_as_mapped, make_picture, read


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A folder of two files, whose features hold the inputs in three ways."""
    folder = tmp_path / "records"
    folder.mkdir()
    for part, rows in enumerate((range(N // 2), range(N // 2, N))):
        with tf.io.TFRecordWriter(str(folder / f"part-{part}.tfrecord")) as writer:
            for row in rows:
                numbers = tf.train.FloatList(value=INPUTS[row].reshape(-1))
                raw = tf.train.BytesList(value=[INPUTS[row].astype("<f8").tobytes()])
                png = tf.train.BytesList(value=[tf.io.encode_png(make_picture(row)).numpy()])
                feature = {
                    "x": tf.train.Feature(float_list=numbers),
                    "y": tf.train.Feature(int64_list=tf.train.Int64List(value=[TARGETS[row]])),
                    "raw": tf.train.Feature(bytes_list=raw),
                    "png": tf.train.Feature(bytes_list=png),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
    return folder


def parse(*texts: str) -> Hints:
    return Hints(dict(map(Feature.parse, texts)))


def test_a_folder_of_files_is_the_data_set(records: Path, tmp_path: Path) -> None:
    hints = parse("inputs=x:float32:4,3,1", "targets=y:int64")
    check_read_as_mapped(read(records, tmp_path / "unpacked", hints=hints))


def test_a_single_file_is_a_data_set(records: Path, tmp_path: Path) -> None:
    hints = parse("inputs=x:float32:4,3,1", "targets=y:int64")
    probe = read(records / "part-1.tfrecord", tmp_path / "unpacked", hints=hints)
    np.testing.assert_array_equal(probe.inputs, INPUTS[N // 2 :])


def test_raw_bytes_and_encoded_images_are_decoded(records: Path, tmp_path: Path) -> None:
    for spelt, expected in (
        ("inputs=raw:float64:4,3,1", INPUTS),
        ("inputs=png:image:4,3,1", np.stack([make_picture(row) for row in range(N)])),
        ("inputs=png:image", np.stack([make_picture(row) for row in range(N)])),
    ):
        probe = read(records, tmp_path / "unpacked", hints=parse(spelt, "targets=y:int64"))
        np.testing.assert_array_equal(probe.inputs, expected)


def test_records_that_do_not_hold_what_is_said_are_refused(records: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"give Dataset\(features="):
        read(records, tmp_path / "unpacked")
    with pytest.raises(ValueError, match=r"part-0\.tfrecord.*do not hold the features"):
        read(records, tmp_path / "unpacked", hints=parse("inputs=absent:float32:4"))


def test_features_of_several_inputs_are_taken_by_the_models_names(
    records: Path, tmp_path: Path
) -> None:
    hints = parse("age=y:int64", "image=x:float32:4,3,1", "targets=y:int64")
    probe = read(records, tmp_path / "unpacked", hints=hints)
    assert probe.packing is not None
    arrays = probe.packing.taken_apart(probe.inputs)
    np.testing.assert_array_equal(arrays["age"], TARGETS)
    np.testing.assert_array_equal(arrays["image"], INPUTS)


def test_a_feature_of_another_name_is_refused(records: Path, tmp_path: Path) -> None:
    hints = parse("inputs=x:float32:4,3,1", "target=y:int64")
    with pytest.raises(ValueError, match=r"the feature 'target' is no array .* inputs, targets"):
        read(records, tmp_path / "unpacked", hints=hints)
