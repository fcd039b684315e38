"""`.tfrecord`: a file of `tf.train.Example`s, or a folder of such files in the order of names.

The files do not say what they hold: the hints name a feature for each array.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hvd_xai.errors import advise
from hvd_xai.probe.dataset_format import Feature, Hints, Match
from hvd_xai.probe.reading import reading
from hvd_xai.probe.unpacked import ARRAYS, BATCH_ROWS, GrowingArray, array_file

if TYPE_CHECKING:
    import tensorflow as tf

ACCEPTS = ".tfrecord"
_SUFFIXES = (".tfrecord", ".tfrecords", ".tfrec")
_NUMBERS = ("float32", "int64")


def match(source: Path) -> Match:
    """Recognizes a file by its name, and a folder by the names of its files."""
    return Match.CERTAIN if _files(source) else Match.NO


def unpack(source: Path, folder: Path, hints: Hints) -> None:
    """Decodes the features that the hints name, batch by batch."""
    import tensorflow as tf

    features = hints.features
    several = hints.find_several(list(features))
    if "inputs" not in features and not several:
        raise ValueError(
            "TFRecord files do not say what is in them: give "
            + advise(
                script="Dataset(features={'inputs': Feature(key, kind, shape), 'targets': ...})",
                command="--feature inputs=key:kind:shape and --feature targets=key:int64",
            )
        )
    unknown = [name for name in features if name not in (*several, *ARRAYS)]
    if unknown:
        raise ValueError(
            f"the feature '{unknown[0]}' is no array of a data set; names:"
            f" {', '.join((*hints.inputs.names, *ARRAYS))}"
        )
    specification = {
        feature.key: (
            tf.io.FixedLenFeature(feature.shape, tf.as_dtype(feature.kind))
            if feature.kind in _NUMBERS
            else tf.io.FixedLenFeature([], tf.string)
        )
        for feature in features.values()
    }
    with ExitStack() as stack:
        arrays = {
            name: stack.enter_context(GrowingArray(array_file(folder, name, several)))
            for name in features
        }
        # File by file: TensorFlow's errors do not say which of many files is damaged.
        for path in _files(source):
            with reading(path, tf.errors.OpError):
                _check_lengths(path)
                for batch in tf.data.TFRecordDataset(str(path)).batch(BATCH_ROWS):
                    parsed = _parse(batch, specification)
                    for name, feature in features.items():
                        arrays[name].append(_decode(feature, parsed[feature.key]))


def _parse(batch: "tf.Tensor", specification: Mapping[str, Any]) -> "dict[str, tf.Tensor]":
    """Returns the features of a batch of records."""
    import tensorflow as tf

    try:
        parsed: dict[str, tf.Tensor] = tf.io.parse_example(batch, specification)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"its records do not hold the features: {error.message}") from error
    return parsed


def _check_lengths(path: Path) -> None:
    """Checks that every record ends within its file.

    TensorFlow allocates as many bytes as a record's length says, and ends the process where there
    are not so many.
    """
    # a record: length uint64, its crc uint32, content, the content's crc uint32
    size = path.stat().st_size
    with path.open("rb") as file:
        while header := file.read(12):
            n_bytes = int.from_bytes(header[:8], "little")
            end = file.tell() + n_bytes + 4
            if len(header) < 12 or end > size:
                raise ValueError("a record is cut off, or its length is damaged")
            file.seek(end)


def _files(source: Path) -> list[Path]:
    candidates = sorted(source.iterdir()) if source.is_dir() else [source]
    return [path for path in candidates if path.suffix in _SUFFIXES]


def _decode(feature: Feature, values: "tf.Tensor") -> np.ndarray:
    """Returns the values of one feature, one row for each example of a batch."""
    import tensorflow as tf

    if feature.kind in _NUMBERS:
        return np.asarray(values)
    if feature.kind == "image":
        # 0 channels keeps as many as the image has
        channels = feature.shape[-1] if feature.shape else 0
        images = [tf.io.decode_image(one, channels, expand_animations=False) for one in values]
        return np.stack([image.numpy().reshape(feature.shape or image.shape) for image in images])
    dtype = np.dtype(feature.kind).newbyteorder("<")
    return np.stack([np.frombuffer(one, dtype).reshape(feature.shape) for one in values.numpy()])
