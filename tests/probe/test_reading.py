"""Data sets that somebody has damaged, or made to do harm: each is one line that names the file."""

import io
import json
import os
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.errors import CheckpointError
from hvd_xai.probe.dataset_format import Feature, Hints, ModelInputs
from hvd_xai.probe.reading import check_plain, check_room, map_array, reading
from tests.probe.small import INPUTS, TARGETS, make_picture, read

TERABYTES = 10**12
Make = Callable[[Path], Path]


def npy(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    """Returns a `.npy` file of a header alone."""
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode("latin1")


def huge(n: object = TERABYTES) -> bytes:
    return header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({n},), }}\n")


def archive(**members: bytes) -> Make:
    """Makes an `.npz` file of members as they are."""

    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "data.npz", "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(f"{name}.npy", content)
        return folder / "data.npz"

    return make


def altered(change: Callable[[bytearray], object]) -> Make:
    """Makes a good `.npz` file, and changes its bytes."""

    def make(folder: Path) -> Path:
        path = archive(inputs=npy(INPUTS), targets=npy(TARGETS))(folder)
        content = bytearray(path.read_bytes())
        change(content)
        path.write_bytes(content)
        return path

    return make


def entry(field: int, value: int) -> Callable[[bytearray], object]:
    """Changes a 16-bit field of the first member, given by its place in the local header."""

    def change(content: bytearray) -> None:
        central = content.index(b"PK\x01\x02")
        struct.pack_into("<H", content, field, value)
        struct.pack_into("<H", content, central + field + 2, value)

    return change


def spoil(content: bytearray) -> None:
    content[200:260] = bytes(60)


def file(name: str, content: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def pipe(name: str) -> Make:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def link(name: str, target: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to(target)
        return folder / name

    return make


def zarr(metadata: bytes | dict[str, Any]) -> Make:
    def make(folder: Path) -> Path:
        (folder / "data.zarr").mkdir()
        content = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
        (folder / "data.zarr" / "zarr.json").write_bytes(content)
        return folder / "data.zarr"

    return make


GROUP = {"zarr_format": 3, "node_type": "group"}
ARRAY = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [TERABYTES, 4],
    "data_type": "float32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 4]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 0.0,
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    "attributes": {},
}


def zarr_with_a_pipe(folder: Path) -> Path:
    source = zarr({**ARRAY, "shape": [1, 4]})(folder)
    (source / "c" / "0").mkdir(parents=True)
    os.mkfifo(source / "c" / "0" / "0")
    return source


def zarr_with_a_short_chunk(folder: Path) -> Path:
    source = zarr({**ARRAY, "shape": [1, 4]})(folder)
    (source / "c" / "0").mkdir(parents=True)
    (source / "c" / "0" / "0").write_bytes(b"abc")
    return source


def images(name: str, content: bytes | None) -> Make:
    """Makes a folder of a good image and a bad one; a pipe if there is no content."""

    def make(folder: Path) -> Path:
        for one in ("ant", "cat"):
            (folder / "images" / one).mkdir(parents=True)
        good = tf.io.encode_png(make_picture(0)).numpy()
        (folder / "images" / "ant" / "0.png").write_bytes(good)
        bad = folder / "images" / "cat" / name
        if content is None:
            os.mkfifo(bad)
        else:
            bad.write_bytes(content)
        return folder / "images"

    return make


def png_of_terabytes() -> bytes:
    content = bytearray(tf.io.encode_png(make_picture(0)).numpy())
    struct.pack_into(">II", content, 16, 2**20, 2**20)
    return bytes(content)


def jpeg_cut_off() -> bytes:
    content: bytes = tf.io.encode_jpeg(np.zeros((64, 64, 3), np.uint8)).numpy()
    return content[:180]


def records(change: Callable[[bytearray], object] = lambda _: None, **features: bytes) -> Make:
    """Makes a TFRecord file of one good record, and one file whose bytes are changed."""

    def make(folder: Path) -> Path:
        raw = {"x": np.zeros(4, "<f8").tobytes(), **features}
        feature = {
            name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
            for name, value in raw.items()
        }
        example = tf.train.Example(features=tf.train.Features(feature=feature))
        (folder / "records").mkdir()
        for name in ("good", "bad"):
            path = folder / "records" / f"{'a' if name == 'good' else 'b'}-{name}.tfrecord"
            with tf.io.TFRecordWriter(str(path)) as writer:
                writer.write(example.SerializeToString())
        content = bytearray(path.read_bytes())
        change(content)
        path.write_bytes(content)
        return folder / "records"

    return make


def record_of_terabytes(content: bytearray) -> None:
    # a length that its checksum fits, as TFRecord masks it
    length = struct.pack("<Q", TERABYTES)
    crc = google_crc32c.value(length)
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    content[:12] = length + struct.pack("<I", masked)


def flip(content: bytearray) -> None:
    content[20] ^= 1


RAW = Hints({"inputs": Feature("x", "float64", (4,))})
PICTURE = Hints({"inputs": Feature("p", "image", ())})
IMAGES = Hints(inputs=ModelInputs(((4, 3, 1),)))
GOOD = {"inputs": npy(INPUTS), "targets": npy(TARGETS)}
IDS = np.arange(len(INPUTS))

CASES: dict[str, tuple[Make, str, Hints]] = {
    # what is damaged -> how it is made, what the line names and says, what users tell beside it
    "empty archive": (file("data.npz", b""), r"data\.npz' cannot be read", Hints()),
    "cut off archive": (
        altered(lambda content: content.__delitem__(slice(-30, None))),
        r"data\.npz' cannot be read",
        Hints(),
    ),
    "encrypted archive": (altered(entry(6, 1)), r"data\.npz/inputs\.npy'.*encrypted", Hints()),
    "unknown compression": (altered(entry(8, 99)), r"data\.npz/inputs\.npy' cannot", Hints()),
    "compression that is not there": (altered(entry(8, 12)), r"data\.npz/inputs\.npy'", Hints()),
    "damaged member": (altered(spoil), r"data\.npz/inputs\.npy' cannot be read", Hints()),
    "a folder named as an archive": (
        lambda folder: (folder / "data.npz").mkdir() or folder / "data.npz",  # type: ignore[func-returns-value]  # to make and to return it
        r"Is a directory: .*data\.npz",
        Hints(),
    ),
    "terabytes in a member": (
        archive(**{**GOOD, "targets": huge()}),
        r"data\.npz/targets\.npy' cannot be read",
        Hints(),
    ),
    "objects in a member": (
        archive(**{**GOOD, "inputs": npy(np.array([{}, {}]))}),
        r"data\.npz/inputs\.npy' cannot be read: .*Python objects",
        Hints(),
    ),
    "terabytes of names": (
        archive(**GOOD, class_names=huge()),
        r"data\.npz/class_names\.npy' cannot be read",
        Hints(),
    ),
    "names that are numbers": (
        archive(**GOOD, class_names=npy(np.arange(3))),
        r"data\.npz' cannot be read: 'class_names' .* must be a list of strings",
        Hints(),
    ),
    "ids that are texts": (
        archive(**GOOD, sample_ids=npy(IDS.astype(str))),
        r"sample_ids must be whole numbers.*<U",
        Hints(),
    ),
    "ids that are not finite": (
        archive(**GOOD, sample_ids=npy(np.full(len(IDS), np.nan))),
        r"sample_ids must be whole numbers",
        Hints(),
    ),
    "ids that descend, unsigned": (
        archive(**GOOD, sample_ids=npy(IDS[::-1].astype(np.uint64))),
        r"sample_ids of a data set must ascend",
        Hints(),
    ),
    "ids that repeat, in bytes": (
        archive(**GOOD, sample_ids=npy(np.zeros(len(IDS), np.uint8))),
        r"sample_ids of a data set must ascend",
        Hints(),
    ),
    "ids in a table": (
        archive(**GOOD, sample_ids=npy(np.stack([IDS, IDS], 1))),
        r"sample_ids.* must have shape",
        Hints(),
    ),
    "empty array file": (file("data.npy", b""), r"data\.npy' cannot be read", Hints()),
    "array of terabytes": (file("data.npy", huge()), r"data\.npy' cannot be read", Hints()),
    "more than there are numbers": (file("data.npy", huge(2**70)), r"data\.npy' ca", Hints()),
    "less than nothing": (file("data.npy", huge(-4)), r"data\.npy' cannot be read", Hints()),
    "a header of code": (
        file("data.npy", header("__import__('os').abort()\n")),
        r"data\.npy' cannot be read",
        Hints(),
    ),
    "a header of brackets": (file("data.npy", header("(" * 9000)), r"data\.npy' cannot", Hints()),
    "a header that never ends": (file("data.npy", header("{'''\n")), r"data\.npy' can", Hints()),
    "a version to come": (file("data.npy", header("{}", b"\x09\x00")), r"data\.npy' can", Hints()),
    "a pickle": (file("data.npy", pickle.dumps([1])), r"data\.npy' cannot be read", Hints()),
    "an archive named as an array": (
        lambda folder: archive(**GOOD)(folder).rename(folder / "data.npy"),
        r"data\.npy' cannot be read",
        Hints(),
    ),
    "a pipe": (pipe("data.npz"), r"data\.npz' is a named pipe", Hints()),
    "a pipe for an array": (pipe("data.npy"), r"data\.npy' is a named pipe", Hints()),
    "a pipe of records": (pipe("data.tfrecord"), r"data\.tfrecord' is a named pipe", RAW),
    "a device": (link("data.npz", "/dev/zero"), r"data\.npz' is a device", Hints()),
    "a link to itself": (link("data.npz", "data.npz"), r"there is no data set '.*data\.n", Hints()),
    "attributes of null": (zarr({**GROUP, "attributes": None}), r"data\.zarr' has no in", Hints()),
    "names of null": (
        zarr({**GROUP, "attributes": {"class_names": None}}),
        r"data\.zarr/zarr\.json' cannot be read: 'class_names' .* list of strings",
        Hints(),
    ),
    "metadata that are no text": (zarr(b"\xff\xfe\x00"), r"data\.zarr/zarr\.json' can", Hints()),
    "metadata of brackets": (zarr(b"[" * 200_000), r"data\.zarr/zarr\.json' cannot", Hints()),
    "metadata of a list": (zarr(b"[]"), r"data\.zarr' has no inputs", Hints()),
    "a Zarr array of terabytes": (zarr(ARRAY), r"data\.zarr' announces 16,000,000,", Hints()),
    "a Zarr array of one value": (
        zarr(
            {
                **ARRAY,
                "shape": [],
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": []}},
            }
        ),
        r"data\.zarr' cannot be read: it is a single value",
        Hints(),
    ),
    "a Zarr array without rows": (
        zarr({**ARRAY, "shape": [0, 4]}),
        r"data\.zarr' holds no examples",
        Hints(),
    ),
    "Zarr of an unknown codec": (
        zarr({**ARRAY, "codecs": [{"name": "\x1b[31m"}]}),
        r"data\.zarr cannot be opened",
        Hints(),
    ),
    "a pipe in a Zarr array": (zarr_with_a_pipe, r"data\.zarr/c/0/0' is a named pipe", Hints()),
    "a Zarr chunk cut off": (zarr_with_a_short_chunk, r"data\.zarr' cannot be read", Hints()),
    "an empty image": (images("1.png", b""), r"cat/1\.png' cannot be read", IMAGES),
    "no image": (images("1.png", b"<svg/>"), r"cat/1\.png' cannot be read", IMAGES),
    "an image cut off": (images("1.jpg", jpeg_cut_off()), r"cat/1\.jpg' cannot be read", IMAGES),
    "an enormous image": (images("1.png", png_of_terabytes()), r"cat/1\.png' cannot be", IMAGES),
    "a pipe among images": (images("1.png", None), r"cat/1\.png' is a named pipe", IMAGES),
    "a changed record": (records(flip), r"b-bad\.tfrecord' cannot be read", RAW),
    "a record cut off": (
        records(lambda content: content.__delitem__(slice(-3, None))),
        r"b-bad\.tfrecord' cannot be read: a record is cut off",
        RAW,
    ),
    "a record of terabytes": (
        records(record_of_terabytes),
        r"b-bad\.tfrecord' cannot be read: a record is cut off, or its length",
        RAW,
    ),
    "records of another length": (
        records(),
        r"a-good\.tfrecord' cannot be read: cannot reshape",
        Hints({"inputs": Feature("x", "float64", (3,))}),
    ),
    "records of half a number": (
        records(x=b"abc"),
        r"a-good\.tfrecord' cannot be read: buffer size",
        RAW,
    ),
    "records without the feature": (
        records(),
        r"a-good\.tfrecord' cannot be read: its records do not hold",
        PICTURE,
    ),
    "records of a broken image": (records(p=b"\x89PNG"), r"a-good\.tfrecord' cannot be", PICTURE),
    "a file without records": (file("data.tfrecord", b""), r"d' holds no examples", RAW),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_damaged_is_one_line_that_names_it(case: str, tmp_path: Path) -> None:
    make, says, hints = CASES[case]
    (tmp_path / "given").mkdir()
    source = make(tmp_path / "given")
    with pytest.raises((ValueError, OSError, CheckpointError)) as caught:
        read(source, tmp_path / "unpacked", hints=hints, needs_targets=False)
    said = str(caught.value)
    assert re.search(says, said), said
    assert len(said.splitlines()) == 1
    assert len(said) < 600


def test_a_file_of_targets_is_looked_at_too(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", INPUTS)
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "short.npy").write_bytes(huge())
    for name, says in (("pipe", "is a named pipe"), ("short", "cannot be read")):
        with pytest.raises(ValueError, match=rf"{name}\.npy' {says}"):
            read(tmp_path / "x.npy", tmp_path / "unpacked", targets=tmp_path / f"{name}.npy")


def test_an_error_is_named_once_and_the_innermost_file_wins(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"^'a/b' cannot be read: no sense$"),
        reading(Path("a")),
        reading(Path("a/b")),
    ):
        raise ZeroDivisionError("no\nsense")
    with pytest.raises(ValueError, match=r"'a' cannot be read: MemoryError"), reading(Path("a")):
        raise MemoryError
    with pytest.raises(PermissionError, match="secret"), reading(Path("a")):
        raise PermissionError(13, "denied", "secret")
    with pytest.raises(CheckpointError), reading(Path("a")):
        raise CheckpointError("not of the file")


def test_folders_that_link_to_themselves_are_plain(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "again").symlink_to(tmp_path)
    (tmp_path / "cat" / "0.png").touch()
    check_plain(tmp_path)
    (tmp_path / "cat" / "1.png").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"1\.png' is a link that leads to no file"):
        check_plain(tmp_path)


def test_room_is_asked_of_the_disk(tmp_path: Path) -> None:
    check_room(Path("x.npz"), tmp_path, shutil.disk_usage(tmp_path).free // 2)
    with pytest.raises(ValueError, match=r"'x\.npz' announces 1,152,921,504,606,846,976 bytes"):
        check_room(Path("x.npz"), tmp_path, 2**60)


def test_an_array_without_rows_is_whole(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((0, 3)))
    assert map_array(tmp_path / "x.npy").shape == (0, 3)


@pytest.mark.parametrize("kind", ["object", "str", "datetime64", "complex64", "V8"])
def test_a_feature_is_of_numbers(kind: str) -> None:
    with pytest.raises(ValueError, match="must be 'image' or a NumPy dtype of numbers"):
        Feature.parse(f"inputs=x:{kind}")
