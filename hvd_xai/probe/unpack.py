"""Data sets as a probe: unpacked once a host into `.npy` files, which its ranks map into memory and
read as they need.

| what is given | how it is read |
|---|---|
| `.npz` | arrays `inputs`, `targets` and, if they are there, `labels`, `sample_ids`, `class_names`, `feature_names` and `vocabulary` |
| `.npy` | the inputs, which are mapped where they lie; the targets are another `.npy` |
| a Zarr array, or a group of arrays of the names above | as `.npy`, or as `.npz`, the last three as attributes |
| `.tfrecord`, or a folder of such files in order of name | `tf.train.Example`s, whose features are told by `Feature` |
| a folder with a folder of images for each class | as `keras.utils.image_dataset_from_directory` reads it, in the model's image size |
"""

import json
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Shaped

from hvd_xai.probe.probe import Probe
from hvd_xai.storage.arrays import METADATA, open_array
from hvd_xai.storage.durable import writing

_NAMES = ("inputs", "targets", "labels", "sample_ids")
_FOR_PEOPLE = ("class_names", "feature_names", "vocabulary")  # each becomes a list in a .json file
_BLOCK_BYTES = 16 * 2**20
_BATCH = 64
_TFRECORD = (".tfrecord", ".tfrecords", ".tfrec")
_COLORS = {1: "grayscale", 3: "rgb", 4: "rgba"}


@dataclass(frozen=True, slots=True)
class Feature:
    """Where something stands in the examples of a TFRecord file.

    Args:
        key: of the feature.
        kind: `float32` or `int64` for lists of numbers, `image` for an encoded JPEG or PNG, any
            other dtype for raw little-endian bytes.
        shape: of one example's value.
    """

    key: str
    kind: str
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> "tuple[str, Feature]":
        """Reads `inputs=x:float32:8,8,1` as what the feature is taken for, and the feature.

        Raises:
            ValueError: if the text is not of this form.
        """
        found = re.fullmatch(r"(\w+)=([^:]+):(\w+)(?::(\d+(?:,\d+)*))?", text)
        if found is None or found[1] not in _NAMES:
            raise ValueError(
                "a feature is written as name=key:kind:shape, such as inputs=x:float32:8,8,1;"
                f" names: {', '.join(_NAMES)}; got '{text}'"
            )
        try:
            np.dtype("u1" if found[3] == "image" else found[3])
        except TypeError as error:
            raise ValueError(
                f"'{found[3]}' in the feature '{text}' must be 'image' or a dtype of NumPy"
            ) from error
        return found[1], cls(
            found[2],
            found[3],
            tuple(int(length) for length in (found[4] or "").split(",") if length),
        )


def unpack(
    source: Path,
    folder: Path,
    *,
    targets: Path | None = None,
    features: Mapping[str, Feature] | None = None,
    input_shape: Sequence[int | None] = (),
    needs_targets: bool = True,
) -> bool:
    """Unpacks a data set into a folder, in bounded memory; what was unpacked there before is
    removed.

    Args:
        source: the data set, as the table above has it.
        folder: where to.
        targets: a `.npy` file, for inputs that come without.
        features: of TFRecord files, by what they are taken for.
        input_shape: shape of one input of the model, which says the size and the channels of
            images.
        needs_targets: False takes inputs that come without, too.

    Returns:
        Whether there are targets.

    Raises:
        ValueError: if it is no data set that can be read, or lacks inputs or targets.
        OSError: if it cannot be read.
        CheckpointError: if the folder cannot be written.
    """
    for path, what in ((source, "data set"), (targets, "file of targets")):
        if path is not None and not path.exists():
            raise ValueError(f"there is no {what} '{path}'")
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    if source.suffix == ".npz":
        _unpack_npz(source, folder)
    elif source.suffix == ".npy":
        (folder / "inputs.npy").symlink_to(source.resolve(strict=True))
    elif (source / METADATA).is_file():
        _unpack_zarr(source, folder)
    elif files := _tfrecords(source):
        _unpack_tfrecords(files, folder, features or {})
    elif source.is_dir():
        _unpack_images(source, folder, input_shape)
    else:
        raise ValueError(
            f"'{source}' is no data set: give .npz, .npy, .tfrecord, a Zarr array or group, or a"
            " folder with a folder for each class"
        )
    if targets is not None:
        (folder / "targets.npy").unlink(missing_ok=True)
        (folder / "targets.npy").symlink_to(targets.resolve(strict=True))
    absent = [name for name in ("inputs", "targets") if not (folder / f"{name}.npy").exists()]
    if absent and (needs_targets or absent != ["targets"]):
        without = (
            "give --targets FILE.npy, or --set score=predicted to explain the class that the model"
            " finds most likely"
        )
        remedy = without if absent == ["targets"] else "they are found by these names"
        raise ValueError(f"'{source}' has no {' and no '.join(absent)}; {remedy}")
    return not absent


def open_unpacked(folder: Path) -> Probe:
    """Returns the data set that was unpacked, its inputs mapped into memory; where it has no
    targets, they are zeros.

    Raises:
        ValueError: if the arrays do not fit each other, or the sample ids do not ascend.
    """
    parts: dict[str, Any] = {}
    for name in _NAMES:
        path = folder / f"{name}.npy"
        if path.exists():
            try:
                parts[name] = np.load(
                    path, mmap_mode="r" if name == "inputs" else None, allow_pickle=False
                )
            except (ValueError, EOFError) as error:
                raise ValueError(f"'{name}' of the data set cannot be read: {error}") from error
    sample_ids = parts.get("sample_ids")
    if sample_ids is not None and np.any(np.diff(sample_ids) <= 0):
        raise ValueError(
            "sample_ids of a data set must ascend, each once: its inputs are read where they lie."
            " Sort the data set by them."
        )
    parts.setdefault("targets", np.zeros(np.shape(parts["inputs"])[:1], np.int32))
    for name in _FOR_PEOPLE:
        path = folder / f"{name}.json"
        if path.exists():
            parts[name] = tuple(json.loads(path.read_text()))
    return Probe(**parts)


def _unpack_npz(source: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            for name in set(archive.namelist()) & {f"{name}.npy" for name in _NAMES}:
                with (
                    writing(folder / name),
                    archive.open(name) as member,
                    (folder / name).open("wb") as file,
                ):
                    shutil.copyfileobj(member, file, _BLOCK_BYTES)
            for name in _FOR_PEOPLE:
                if f"{name}.npy" in archive.namelist():
                    with archive.open(f"{name}.npy") as member:
                        _write_names(
                            folder,
                            name,
                            np.lib.format.read_array(member, allow_pickle=False).tolist(),
                        )
    except zipfile.BadZipFile as error:
        raise ValueError(f"'{source}' is damaged, or no .npz file: {error}") from error


def _write_names(folder: Path, name: str, names: object) -> None:
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise ValueError(
            f"'{name}' of the data set must be a list of strings; got {str(names)[:80]}"
        )
    (folder / f"{name}.json").write_text(json.dumps(names))


def _unpack_zarr(source: Path, folder: Path) -> None:
    metadata = json.loads((source / METADATA).read_text("utf-8"))
    is_array = isinstance(metadata, dict) and metadata.get("node_type") == "array"
    for name in _FOR_PEOPLE if isinstance(metadata, dict) else ():
        if name in metadata.get("attributes", {}):
            _write_names(folder, name, metadata["attributes"][name])
    members = (
        {"inputs": source}
        if is_array
        else {name: source / name for name in _NAMES if (source / name / METADATA).is_file()}
    )
    for name, path in members.items():
        array = open_array(path)
        size = max(1, _BLOCK_BYTES // max(1, array[:1].nbytes))
        with _Growing(folder / f"{name}.npy") as file:
            for start in range(0, array.shape[0], size):
                file.append(array[start : start + size])


def _tfrecords(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(path for path in source.iterdir() if path.suffix in _TFRECORD)
    return [source] if source.suffix in _TFRECORD and source.exists() else []


def _unpack_tfrecords(files: Sequence[Path], folder: Path, features: Mapping[str, Feature]) -> None:
    import tensorflow as tf

    if "inputs" not in features:
        raise ValueError(
            "TFRecord files do not say what is in them: give --feature inputs=key:kind:shape and"
            " --feature targets=key:int64"
        )
    kinds = {"float32": tf.float32, "int64": tf.int64}
    specification = {
        feature.key: (
            tf.io.FixedLenFeature(feature.shape, kinds[feature.kind])
            if feature.kind in kinds
            else tf.io.FixedLenFeature([], tf.string)
        )
        for feature in features.values()
    }

    def decode(feature: Feature, values: tf.Tensor) -> np.ndarray:
        if feature.kind in kinds:
            return np.asarray(values)
        if feature.kind == "image":
            decoded = [
                tf.io.decode_image(
                    value, feature.shape[-1] if feature.shape else 0, expand_animations=False
                )
                for value in values
            ]
            return np.stack(
                [image.numpy().reshape(feature.shape or image.shape) for image in decoded]
            )
        return np.stack(
            [
                np.frombuffer(value, np.dtype(feature.kind).newbyteorder("<")).reshape(
                    feature.shape
                )
                for value in values.numpy()
            ]
        )

    outputs = {name: _Growing(folder / f"{name}.npy") for name in features}
    try:
        for batch in tf.data.TFRecordDataset([str(path) for path in files]).batch(_BATCH):
            parsed = tf.io.parse_example(batch, specification)
            for name, feature in features.items():
                outputs[name].append(decode(feature, parsed[feature.key]))
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise ValueError(
            f"the TFRecord files do not hold what --feature says: {error.message}"
        ) from error
    finally:
        for output in outputs.values():
            output.close()


def _unpack_images(source: Path, folder: Path, input_shape: Sequence[int | None]) -> None:
    import keras

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
        batch_size=_BATCH,
        shuffle=False,
        verbose=False,
    )
    _write_names(folder, "class_names", images.class_names)
    with _Growing(folder / "inputs.npy") as inputs, _Growing(folder / "targets.npy") as targets:
        for batch, labels in images:
            inputs.append(np.asarray(batch))
            targets.append(np.asarray(labels))


class _Growing:
    """A `.npy` file whose number of rows is known when it is closed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._header: tuple[np.dtype, tuple[int, ...]] | None = None
        self._n_rows = 0

    def append(self, values: Shaped[np.ndarray, "n ..."]) -> None:
        """Adds rows."""
        if self._header is None:
            self._header = (values.dtype, values.shape[1:])
            self._write_header()
        if self._header != (values.dtype, values.shape[1:]):
            raise ValueError(
                f"all examples must have one shape and dtype; got {self._header} and"
                f" {(values.dtype, values.shape[1:])}"
            )
        with writing(Path(self._file.name)):
            self._file.write(np.ascontiguousarray(values).tobytes())
        self._n_rows += len(values)

    def _write_header(self) -> None:
        if self._header is not None:
            dtype, shape = self._header
            # NumPy leaves room in the header for the first axis to grow
            record = {"descr": dtype.str, "fortran_order": False, "shape": (self._n_rows, *shape)}
            np.lib.format.write_array_header_1_0(self._file, record)

    def close(self) -> None:
        """Writes how many rows there are."""
        with writing(Path(self._file.name)), self._file:
            self._file.seek(0)
            self._write_header()

    def __enter__(self) -> "_Growing":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
