"""A folder that holds a folder of images for each class.

`keras.utils.image_dataset_from_directory` reads it, in the model's image size.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hvd_xai.probe.dataset_format import Hints, Match
from hvd_xai.probe.reading import reading
from hvd_xai.probe.unpacked import BATCH_ROWS, GrowingArray, write_names

ACCEPTS = "a folder with a folder for each class"
_COLORS = {1: "grayscale", 3: "rgb", 4: "rgba"}


def match(source: Path) -> Match:
    """Takes every folder that no other format recognizes: nothing marks a folder of images."""
    return Match.POSSIBLE if source.is_dir() else Match.NO


def unpack(source: Path, folder: Path, hints: Hints) -> None:
    """Decodes and resizes the images; the classes are the folders in the order of their names."""
    import keras
    import tensorflow as tf

    input_shape = hints.input_shape
    if not input_shape:
        raise ValueError(
            "images need a model of one input that says its shape, and this model does not; save"
            " the images as an .npz file of inputs and targets"
        )
    if len(input_shape) != 3 or None in input_shape or input_shape[2] not in _COLORS:
        raise ValueError(
            "images need a model whose inputs have shape (height, width, 1, 3 or 4 channels); this"
            f" one's is {tuple(input_shape)}"
        )
    if not any(path.is_dir() for path in source.iterdir()):
        raise ValueError(
            f"'{source}' holds no data set: images must lie in it in a folder for each class, as"
            f" '{source / 'cat' / '1.png'}'"
        )
    with reading(source, tf.errors.OpError):
        images = keras.utils.image_dataset_from_directory(
            source,
            label_mode="int",
            image_size=tuple(input_shape[:2]),
            color_mode=_COLORS[input_shape[2]],
            batch_size=BATCH_ROWS,
            # the order of names, which is the same on every host
            shuffle=False,
            verbose=False,
        )
    write_names(folder, "class_names", list(images.class_names))
    n_read = 0
    with (
        GrowingArray(folder / "inputs.npy") as inputs,
        GrowingArray(folder / "targets.npy") as targets,
    ):
        try:
            for batch, labels in images:
                inputs.append(np.asarray(batch))
                targets.append(np.asarray(labels))
                n_read += len(labels)
        except tf.errors.OpError:
            # The error does not name the file: it is one of the batch that did not come.
            _find_broken(images.file_paths[n_read : n_read + BATCH_ROWS], input_shape[2])
            raise


def _find_broken(paths: Sequence[str], n_channels: int) -> None:
    """Raises for the first image that cannot be decoded."""
    import tensorflow as tf

    for path in paths:
        with reading(Path(path), tf.errors.OpError):
            tf.io.decode_image(tf.io.read_file(path), n_channels, expand_animations=False)
