import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvd_xai.errors import CheckpointError
from hvd_xai.storage import arrays
from hvd_xai.storage.arrays import ArrayReader, ArrayWriter, create_array, layout
from tests.checkpoint.small import read_plain


@pytest.mark.parametrize(
    ("n_rows", "row_bytes", "expected"),
    [
        (10**6, 224 * 224 * 2, (1, 256)),  # 25.7 MB
        (10**6, 8 * 8 * 2, (128, 2**17)),  # 16 KiB and 16 MiB
        (10**6, 8, (2048, 2**17)),
        (10**6, 28 * 28 * 2, (8, 16384)),
        (10**6, 2**26, (1, 1)),
        (1, 128, (1, 1)),
        (100, 128, (100, 100)),
        (300, 128, (128, 384)),
        (128, 128, (128, 128)),
        (5, 224 * 224 * 2, (1, 5)),
    ],
)
def test_layout_depends_on_rows_and_their_size_alone(
    n_rows: int, row_bytes: int, expected: tuple[int, int]
) -> None:
    chunk, shard = layout(n_rows, row_bytes)
    assert (chunk, shard) == expected
    assert shard % chunk == 0


def small_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes chunks of 4 and Zarr shards of 16 rows of 8 float32."""
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 128)
    monkeypatch.setattr(arrays, "SHARD_BYTES", 512)


@pytest.mark.parametrize("n_rows", [1, 3, 4, 15, 16, 17, 31, 32, 33, 64])
def test_rows_come_back_at_every_boundary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_rows: int
) -> None:
    small_layout(monkeypatch)
    values = np.random.default_rng(n_rows).normal(size=(n_rows, 8)).astype("<f4")
    create_array(tmp_path / "x", values.shape, values.dtype, ("sample", "feature"))
    writer = ArrayWriter(tmp_path / "x", values.shape, values.dtype)
    for start in range(0, n_rows, 5):
        writer.append(values[start : start + 5])
    files = writer.close()
    assert sorted(file.key for file in files) == sorted(
        f"x/c/{index}/0" for index in range(-(-n_rows // 16))
    )
    assert all((tmp_path / file.key).stat().st_size == file.size for file in files)
    reader = ArrayReader(tmp_path / "x", values.shape, values.dtype)
    for start, stop in ((0, n_rows), (n_rows // 2, n_rows), (n_rows - 1, n_rows)):
        np.testing.assert_array_equal(reader.read(start, stop), values[start:stop])


@pytest.mark.parametrize("fill", [0, np.nan])
def test_rows_equal_to_the_fill_value_are_written(tmp_path: Path, fill: float) -> None:
    create_array(tmp_path / "x", (3, 2), np.dtype("<f4"), ("sample", "feature"))
    writer = ArrayWriter(tmp_path / "x", (3, 2), np.dtype("<f4"))
    writer.append(np.full((3, 2), fill, "<f4"))
    writer.close()
    assert (tmp_path / "x" / "c" / "0" / "0").is_file()
    np.testing.assert_array_equal(read_plain(tmp_path / "x"), np.full((3, 2), fill))


@pytest.mark.parametrize(
    "dtype", ["<f2", "<f4", "<f8", "|b1", "|u1", "|i1", "<i2", "<u4", "<i8", "<u8"]
)
def test_every_dtype_of_a_column_is_stored(tmp_path: Path, dtype: str) -> None:
    zarr = pytest.importorskip("zarr")
    values = np.array([0, 1, 1], dtype)
    create_array(tmp_path / "x", (3,), np.dtype(dtype), ("sample",))
    writer = ArrayWriter(tmp_path / "x", (3,), np.dtype(dtype))
    writer.append(values)
    writer.close()
    array = zarr.open_array(tmp_path / "x", mode="r")
    assert array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(array[:], values)


def test_no_shard_is_held_in_memory(tmp_path: Path) -> None:
    # 32 MiB in all, in blocks of 512 KiB
    n_rows, block = (
        2**13,
        np.random.default_rng(0).normal(size=(2**7, 2**10)).astype("<f4"),
    )
    create_array(tmp_path / "x", (n_rows, 2**10), block.dtype, ("sample", "feature"))
    writer = ArrayWriter(tmp_path / "x", (n_rows, 2**10), block.dtype)
    tracemalloc.start()
    try:
        for _ in range(n_rows // len(block)):
            writer.append(block)
        (file,) = writer.close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert file.size > 2**24
    assert peak < 2**20  # a few chunks of 16 KiB, the index of 32 KiB, and the file's buffer


def test_metadata_says_the_codecs_that_readers_need(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    create_array(tmp_path / "x", (300, 8, 8), np.dtype("<f2"), ("sample", "y", "x"), {"units": "1"})
    array = zarr.open_array(tmp_path / "x", mode="r")
    assert (array.chunks, array.shards, array.metadata.dimension_names) == (
        (128, 8, 8),
        (384, 8, 8),
        ("sample", "y", "x"),
    )
    assert np.isnan(array.fill_value)
    assert dict(array.attrs) == {"units": "1"}
    (sharding,) = json.loads((tmp_path / "x" / "zarr.json").read_text())["codecs"]
    assert sharding["name"] == "sharding_indexed"
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == [
        "bytes",
        "blosc",
        "crc32c",
    ]
    blosc = sharding["configuration"]["codecs"][1]["configuration"]
    assert (blosc["cname"], blosc["clevel"], blosc["shuffle"]) == ("lz4", 5, "bitshuffle")


def test_array_of_another_shape_or_dtype_is_refused(tmp_path: Path) -> None:
    create_array(tmp_path / "x", (3,), np.dtype("<f4"), ("sample",))
    for shape, dtype in (((4,), "<f4"), ((3,), "<f8")):
        with pytest.raises(CheckpointError, match="must have shape"):
            ArrayReader(tmp_path / "x", shape, np.dtype(dtype))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"nonsense", b'{"zarr_format": 3, "node_type": "group"}']
)
def test_broken_metadata_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "zarr.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be opened"):
        ArrayReader(tmp_path / "x", (3,), np.dtype("<f4"))


def test_every_flipped_byte_is_found_by_who_reads_it(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(40, 64)).astype("<f4")
    create_array(tmp_path / "x", values.shape, values.dtype, ("sample", "feature"))
    writer = ArrayWriter(tmp_path / "x", values.shape, values.dtype)
    writer.append(values)
    writer.close()
    path = tmp_path / "x" / "c" / "0" / "0"
    content = path.read_bytes()
    for position in {*range(0, len(content), 97), *range(len(content) - 40, len(content))}:
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :]
        )
        with pytest.raises(CheckpointError, match="damaged"):
            ArrayReader(tmp_path / "x", values.shape, values.dtype).read(0, len(values))


def change_codecs(found: dict[str, Any]) -> None:
    found["codecs"] = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "gzip", "configuration": {"level": 9}},
    ]


def change_rows(chunk: Any, shard: Any) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        found["codecs"][0]["configuration"]["chunk_shape"][0] = chunk
        found["chunk_grid"]["configuration"]["chunk_shape"][0] = shard

    return change


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another compressor": change_codecs,
    "another compressor within the shard": lambda found: found["codecs"][0]["configuration"][
        "codecs"
    ].__setitem__(1, {"name": "gzip", "configuration": {"level": 9}}),
    "no checksum": lambda found: found["codecs"][0]["configuration"]["codecs"].pop(),
    "one more codec": lambda found: found["codecs"].append({"name": "crc32c"}),
    "other names of files": lambda found: found.update(
        chunk_key_encoding={"name": "v2", "configuration": {"separator": "."}}
    ),
    "another fill value": lambda found: found.update(fill_value=7.0),
    "a transformer": lambda found: found.update(storage_transformers=[{"name": "x"}]),
    "one more key": lambda found: found.update(more=1),
    "another format": lambda found: found.update(zarr_format=2),
    "one chunk of 8 GiB": change_rows(2**31, 2**31),
    "chunks of no rows": change_rows(0, 0),
    "chunks of minus one row": change_rows(-1, -1),
    "chunks of half a row": change_rows(0.5, 5),
    "chunks of true rows": change_rows(True, 5),
    "chunks that do not fill a Zarr shard": change_rows(2, 5),
    "a Zarr shard with room for more rows than there are": change_rows(1, 2**40),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_array_that_is_laid_out_otherwise_is_refused(tmp_path: Path, name: str) -> None:
    create_array(tmp_path / "x", (5, 2), np.dtype("<f4"), ("sample", "feature"))
    ArrayReader(tmp_path / "x", (5, 2), np.dtype("<f4"))
    found = json.loads((tmp_path / "x" / "zarr.json").read_text())
    CHANGES[name](found)
    (tmp_path / "x" / "zarr.json").write_text(json.dumps(found))
    with pytest.raises(CheckpointError, match="is laid out otherwise than hvd_xai lays out arrays"):
        ArrayReader(tmp_path / "x", (5, 2), np.dtype("<f4"))


def test_an_array_of_another_version_with_other_chunks_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).normal(size=(37, 8)).astype("<f4")
    with monkeypatch.context() as before:
        small_layout(before)
        create_array(tmp_path / "x", values.shape, values.dtype, ("sample", "feature"))
        writer = ArrayWriter(tmp_path / "x", values.shape, values.dtype)
        writer.append(values)
        writer.close()
    reader = ArrayReader(tmp_path / "x", values.shape, values.dtype)
    assert reader.shard_rows == 16
    np.testing.assert_array_equal(reader.read(2, 35), values[2:35])


def test_metadata_without_end_or_in_a_pipe_are_refused(tmp_path: Path) -> None:
    create_array(tmp_path / "x", (5,), np.dtype("<f4"), ("sample",))
    with (tmp_path / "x" / "zarr.json").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match="has more than"):
        ArrayReader(tmp_path / "x", (5,), np.dtype("<f4"))
    (tmp_path / "x" / "zarr.json").unlink()
    os.mkfifo(tmp_path / "x" / "zarr.json")
    with pytest.raises(CheckpointError, match="no plain file"):
        ArrayReader(tmp_path / "x", (5,), np.dtype("<f4"))
