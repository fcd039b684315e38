"""Our Zarr shards equal those that the libraries write, byte for byte."""

import sys
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from hvd_xai.errors import CheckpointError
from hvd_xai.storage import arrays, shards
from hvd_xai.storage.arrays import ArrayReader, ArrayWriter, create_array
from hvd_xai.storage.durable import FileEntry, digest_file
from tests import processes


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 2**9)
    monkeypatch.setattr(arrays, "SHARD_BYTES", 2**11)


def written(directory: Path, values: np.ndarray) -> list[FileEntry]:
    """Writes an array as we do, in blocks of five rows."""
    axes = ("sample", "y", "x")[: values.ndim]
    create_array(directory, values.shape, values.dtype, axes)
    writer = ArrayWriter(directory, values.shape, values.dtype)
    for start in range(0, len(values), 5):
        writer.append(values[start : start + 5])
    return writer.close()


def with_crc32c(content: bytes) -> bytes:
    return content + int(google_crc32c.value(content)).to_bytes(4, "little")


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def by_zarr(directory: Path, values: np.ndarray) -> None:
    zarr = pytest.importorskip("zarr")
    create_array(directory, values.shape, values.dtype, ("sample", "y", "x")[: values.ndim])
    zarr.open_array(directory, mode="r+").with_config({"order": "C", "write_empty_chunks": True})[
        :
    ] = values


def by_tensorstore(directory: Path, values: np.ndarray) -> None:
    tensorstore = pytest.importorskip("tensorstore")
    create_array(directory, values.shape, values.dtype, ("sample", "y", "x")[: values.ndim])
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{directory}/"},
        "store_data_equal_to_fill_value": True,
    }
    tensorstore.open(spec, open=True, write=True).result().write(values).result()


def drawn(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    numbers: np.ndarray = np.random.default_rng(shape[0]).normal(size=shape) * 50
    return numbers.astype(dtype)


# Of 64 half floats, 4 rows are a chunk and 16 a Zarr shard.
VALUES = [
    *(drawn((n_rows, 8, 8), "<f2") for n_rows in (1, 3, 4, 5, 15, 16, 17, 31, 32, 33)),
    *(
        drawn((300,), dtype)
        for dtype in ("<f2", "<f4", "<f8", "|b1", "|u1", "|i1", "<i2", "<u4", "<i8", "<u8")
    ),
    np.full((33, 8, 8), np.nan, "<f2"),  # the fill value, which is stored all the same
    np.zeros((33, 8), "<f4"),
    drawn((3, 700), "<f4"),  # a row larger than a chunk, and than a Zarr shard
]


@pytest.mark.parametrize("write", [by_zarr, by_tensorstore])
@pytest.mark.parametrize("values", VALUES, ids=lambda values: f"{values.dtype}{values.shape}")
def test_the_bytes_are_those_of_the_libraries(
    tmp_path: Path, values: np.ndarray, write: object
) -> None:
    assert callable(write)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    write(tmp_path / "theirs" / "x", values)
    files = written(tmp_path / "ours" / "x", values)
    ours = contents(tmp_path / "ours")
    assert ours == contents(tmp_path / "theirs")
    assert {file.key: file.size for file in files} == {
        key: len(content) for key, content in ours.items() if "/c/" in key
    }


@pytest.mark.parametrize("write", [by_zarr, by_tensorstore])
@pytest.mark.parametrize("values", VALUES, ids=lambda values: f"{values.dtype}{values.shape}")
def test_what_the_libraries_write_is_read(
    tmp_path: Path, values: np.ndarray, write: object
) -> None:
    assert callable(write)
    write(tmp_path / "x", values)
    reader = ArrayReader(tmp_path / "x", values.shape, values.dtype)
    for start in {0, 1, 3, 4, 17, len(values) - 1} & set(range(len(values))):
        for stop in {start, start + 1, start + 5, len(values)} & set(range(start, len(values) + 1)):
            np.testing.assert_array_equal(reader.read(start, stop), values[start:stop])


@pytest.mark.parametrize("span_bytes", [1, 600, 1100])
def test_chunks_are_read_one_by_one_or_some_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, span_bytes: int
) -> None:
    monkeypatch.setattr(shards, "_SPAN_BYTES", span_bytes)
    values = drawn((33, 8, 8), "<f2")  # chunks of about 520 bytes
    written(tmp_path / "x", values)
    for start, stop in ((0, 33), (3, 4), (3, 18), (16, 33)):
        np.testing.assert_array_equal(
            ArrayReader(tmp_path / "x", values.shape, values.dtype).read(start, stop),
            values[start:stop],
        )


def test_a_shard_that_ends_early_or_lacks_a_chunk_is_damaged(tmp_path: Path) -> None:
    values = drawn((16, 8, 8), "<f2")
    written(tmp_path / "x", values)
    shard = tmp_path / "x" / "c" / "0" / "0" / "0"
    content = shard.read_bytes()
    index = np.frombuffer(content[-68:-4], "<u8").reshape(4, 2).copy()
    index[2] = 2**64 - 1
    for damaged in (
        b"",
        content[:3],
        content[:-1],
        content[1:],
        content[:-68] + with_crc32c(index.tobytes()),
    ):
        shard.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            ArrayReader(tmp_path / "x", values.shape, values.dtype).read(0, 16)


def test_size_and_digest_are_the_files(tmp_path: Path) -> None:
    for file in written(tmp_path / "x", drawn((33, 8, 8), "<f2")):
        assert (file.size, file.xxh3_128) == digest_file(tmp_path / file.key)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"cut")])
def test_a_shard_that_somebody_took_away_is_not_begun_again(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    values = drawn((4, 8, 8), "<f2")
    for last in (lambda shard: shard.append(values), shards.ShardFile.close):
        shard = shards.ShardFile(tmp_path / "0", 4, 2)
        shard.append(values)
        spoil(tmp_path / "0")
        with pytest.raises(OSError, match=r"No such file|it has 3 bytes"):
            last(shard)
        (tmp_path / "0").unlink(missing_ok=True)


def test_no_folder_is_made_for_a_shard_whose_array_is_gone(tmp_path: Path) -> None:
    writer = ArrayWriter(tmp_path / "x", (4, 8), np.dtype("<f4"))
    writer.append(np.zeros((3, 8), "<f4"))
    with pytest.raises(FileNotFoundError):
        writer.close()
    assert list(tmp_path.iterdir()) == []


# A process of its own, because what is tested is that it survives. Every chunk has a checksum that
# fits, so that it reaches the decompressor.
FUZZED = """
import random, struct, sys
from pathlib import Path
import google_crc32c, numpy as np
from numcodecs.blosc import BITSHUFFLE, Blosc
from hvd_xai.storage.shards import read_shard

def with_crc32c(content):
    return content + int(google_crc32c.value(content)).to_bytes(4, "little")

def mutate(draw, chunk):
    chunk = bytearray(chunk)
    if draw.random() < 0.4:  # the header says more than there is
        del chunk[draw.randrange(16, min(400, len(chunk))) :]
    odd = (0, 1, 16, 17, 2**31 - 1, 2**31, 2**32 - 1, draw.randrange(2**32), draw.randrange(9999))
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        kind = draw.randrange(4)
        if kind == 0:
            chunk[draw.randrange(len(chunk))] ^= 1 << draw.randrange(8)
        elif kind == 1:
            chunk[draw.randrange(min(len(chunk), 64))] = draw.randrange(256)
        elif kind == 2:
            struct.pack_into("<I", chunk, draw.choice((4, 8, 12)), draw.choice(odd))
        elif len(chunk) > 24:
            place = draw.randrange(16, min(len(chunk) - 4, 200))
            struct.pack_into("<I", chunk, place, draw.choice(odd))
    return bytes(chunk)

path, n_chunks = Path(sys.argv[1]), int(sys.argv[2])
blosc, drawn = Blosc(cname="lz4", clevel=5, shuffle=BITSHUFFLE), np.random.default_rng(0)
originals = [
    (values, blosc.encode(values))
    for values in (
        drawn.normal(size=4096).astype("<f4"),
        np.zeros(4096, "<f4"),
        drawn.integers(0, 3, 20_000).astype("<i8"),
        drawn.integers(0, 255, 3_000_000).astype("u1"),  # which blosc stores as it is
    )
]
refused = 0
for number in range(n_chunks):
    draw = random.Random(number)
    values, original = draw.choice(originals)
    chunk = with_crc32c(mutate(draw, original))
    path.write_bytes(chunk + with_crc32c(struct.pack("<QQ", 0, len(chunk))))
    into = np.empty_like(values)
    try:
        read_shard(path, len(values), 1, 0, into)
    except (ValueError, RuntimeError):
        refused += 1
for values, original in originals:
    chunk = with_crc32c(original)
    path.write_bytes(chunk + with_crc32c(struct.pack("<QQ", 0, len(chunk))))
    into = np.empty_like(values)
    read_shard(path, len(values), 1, 0, into)
    assert np.array_equal(into, values)
print(refused)
"""
N_FUZZED = 3000


def test_no_forged_chunk_ends_the_process(tmp_path: Path) -> None:
    words = [sys.executable, "-c", FUZZED, str(tmp_path / "shard"), str(N_FUZZED)]
    done = processes.run(words, cwd=Path(__file__).parents[2])
    assert done.code == 0, done.stderr
    # A flipped bit within the values of a chunk decodes, to other values.
    assert N_FUZZED / 2 < int(done.stdout) < N_FUZZED


def test_a_chunk_that_claims_more_bytes_than_its_rows_have_is_refused_unread(
    tmp_path: Path,
) -> None:
    index = np.array([[0, 2**30]], "<u8")
    with (tmp_path / "shard").open("wb") as file:
        file.truncate(2**30)
        file.seek(0, 2)
        file.write(with_crc32c(index.tobytes()))
    with pytest.raises(ValueError, match="claims more than the 32788 bytes"):
        shards.read_shard(tmp_path / "shard", 4096, 1, 0, np.empty(4096, "<f8"))
