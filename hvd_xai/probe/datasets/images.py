"""A folder that holds a folder of images for each class.

`keras.utils.image_dataset_from_directory` reads it, in the model's image size.
"""

from pathlib import Path

import numpy as np

from hvd_xai.probe.dataset_format import Hints, Match
from hvd_xai.probe.unpacked import BATCH_ROWS, GrowingArray, write_names

ACCEPTS = "a folder with a folder for each class"
_COLORS = {1: "grayscale", 3: "rgb", 4: "rgba"}


def match(source: Path) -> Match:
    """Takes every folder that no other format recognizes: nothing marks a folder of images."""
    return Match.POSSIBLE if source.is_dir() else Match.NO


def unpack(source: Path, folder: Path, hints: Hints) -> None:
    """Decodes and resizes the images; the classes are the folders in the order of their names."""
    import keras

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
    write_names(folder, "class_names", images.class_names)
    with (
        GrowingArray(folder / "inputs.npy") as inputs,
        GrowingArray(folder / "targets.npy") as targets,
    ):
        for batch, labels in images:
            inputs.append(np.asarray(batch))
            targets.append(np.asarray(labels))
