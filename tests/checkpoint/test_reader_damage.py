"""The reader answers every kind of damage with an error, and never with a number."""

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.json_record import MAX_BYTES, seal
from hvd_xai.checkpoint.probe_writer import write_probe
from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.run_directory import open_run
from hvd_xai.checkpoint.verify import verify
from hvd_xai.errors import CheckpointError
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Json
from hvd_xai.storage import arrays
from hvd_xai.storage.durable import digest_file, exchange
from tests.checkpoint.small import make_attributions, make_rows, write

LIBRARY = Path(arrays.__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose arrays have three Zarr shards of four samples, with another epoch and a probe."""
    run = tmp_path_factory.mktemp("built") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_BYTES", 8)
        patch.setattr(arrays, "SHARD_ROWS", 4)
        explanations_dir = open_run(run, config={})
        inputs = np.random.default_rng(0).random((12, 2), np.float32)
        write_probe(explanations_dir, Probe(inputs, np.arange(12)))
        for epoch in (0, 1):
            rows = make_rows(make_attributions(12, (2,), seed=epoch))
            rows["score"] += epoch
            write(explanations_dir, rows, epoch=epoch)
    return run


@pytest.fixture
def path(built: Path, tmp_path: Path) -> Path:
    """The folder of an explanation in a copy of the run."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return tmp_path / "explanations" / "epochs" / "000001" / "integrated_gradients"


def read_all(path: Path) -> None:
    """Reads all of an explanation and of the probe, as users do."""
    explanations = open_explanations(path.parents[2])
    explanation = explanations.explanation(1, "integrated_gradients")
    for start in range(12):
        explanation.attributions(start, start + 1)
    for name in explanation.columns:
        explanation.column(name)
    explanation.thumbnails()
    probe = explanations.probe()
    assert probe is not None
    probe.inputs(slice(None))
    probe.column("targets")


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    assert len(first) == len(second)
    assert first != second
    one.write_bytes(second)
    other.write_bytes(first)


def of_other_epoch(path: Path, key: str) -> Path:
    return path.parents[1] / "000000" / path.name / key


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def forge(path: Path, **changes: Json) -> None:
    record = json.loads(path.read_text())
    record.pop("digest")
    path.write_bytes(seal({**record, **changes}))


def claim_rows(path: Path, n_rows: int) -> None:
    """Makes the manifest and the arrays' metadata agree on more rows than there are."""
    record = json.loads((path / "manifest.json").read_text())
    for file in record["files"]:
        if file["key"].endswith("/zarr.json"):
            metadata = json.loads((path / file["key"]).read_text())
            metadata["shape"][0] = n_rows
            (path / file["key"]).write_text(json.dumps(metadata))
            file["size"], file["xxh3_128"] = digest_file(path / file["key"])
    forge(
        path / "manifest.json",
        n_samples=n_rows,
        ranks=[{**record["ranks"][0], "stop": n_rows}],
        files=record["files"],
    )


def forge_layout(path: Path, how: str) -> None:
    """Lays the column `score` out as zarr-python would read it, and mends every digest."""
    metadata = json.loads((path / "score/zarr.json").read_text())
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = metadata["shape"]
    metadata["codecs"] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if how == "gzip":
        metadata["codecs"].append({"name": "gzip", "configuration": {"level": 9}})
        (path / "score/c/0").write_bytes(gzip.compress(bytes(2**26)))
    else:
        metadata["chunk_key_encoding"] = {"name": "v2", "configuration": {"separator": "."}}
        metadata["fill_value"] = 7.0
    (path / "score/zarr.json").write_text(json.dumps(metadata))
    record = json.loads((path / "manifest.json").read_text())
    for file in record["files"]:
        file["size"], file["xxh3_128"] = digest_file(path / file["key"])
    forge(path / "manifest.json", files=record["files"])


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "shards of one array swapped": lambda path: swap(
        path / "attributions/c/0/0", path / "attributions/c/2/0"
    ),
    "attributions of two epochs swapped": lambda path: swap(
        path / "attributions/c/1/0", of_other_epoch(path, "attributions/c/1/0")
    ),
    "scores of two epochs swapped": lambda path: swap(
        path / "score/c/1", of_other_epoch(path, "score/c/1")
    ),
    "two columns swapped": lambda path: swap(path / "score/c/1", path / "convergence_delta/c/1"),
    "thumbnails swapped": lambda path: swap(path / "thumbnail/c/0/0", path / "thumbnail/c/1/0"),
    "shards of the probe swapped": lambda path: swap(
        path.parents[2] / "probe/inputs/c/0/0", path.parents[2] / "probe/inputs/c/1/0"
    ),
    "bit flipped in attributions": lambda path: flip(path / "attributions/c/1/0", 3),
    "bit flipped in a shard's index": lambda path: flip(path / "attributions/c/1/0", -6),
    "bit flipped in a column": lambda path: flip(path / "score/c/2", 3),
    "bit flipped in metadata": lambda path: flip(path / "attributions/zarr.json", 20),
    "shard cut off": (
        lambda path: (path / "score/c/2").write_bytes((path / "score/c/2").read_bytes()[:-1])
    ),
    "shard deleted": lambda path: (path / "attributions/c/1/0").unlink(),
    "two epochs swapped": lambda path: exchange(path, path.parents[1] / "000000" / path.name),
    "manifest edited": lambda path: flip(path / "manifest.json", 40),
    "manifest of a higher schema": lambda path: forge(path / "manifest.json", schema="2.0"),
    "manifest without end": (
        lambda path: (path / "manifest.json").write_bytes(b" " * (MAX_BYTES + 1))
    ),
    "manifest that names files elsewhere": lambda path: forge(
        path / "manifest.json",
        files=[{"key": "../../../run.json", "size": 1, "xxh3_128": "0" * 32}],
    ),
    "manifest that names a file from the root": lambda path: forge(
        path / "manifest.json", files=[{"key": "/etc/passwd", "size": 1, "xxh3_128": "0" * 32}]
    ),
    "manifest of more rows than fit into memory": lambda path: claim_rows(path, 10**15),
    "gzip bomb, with all its digests": lambda path: forge_layout(path, "gzip"),
    "other names of files, with all their digests": lambda path: forge_layout(path, "v2"),
    "manifest that is a pipe": lambda path: replace_by_pipe(path / "manifest.json"),
    "probe of a higher schema": lambda path: forge(
        path.parents[2] / "probe/manifest.json", schema="2.0"
    ),
    "probe without rows": lambda path: forge(path.parents[2] / "probe/manifest.json", n_samples=0),
    "probe of a dtype that there is not": lambda path: forge(
        path.parents[2] / "probe/manifest.json", dtypes={"inputs": "../x"}
    ),
    "probe of objects": lambda path: forge(
        path.parents[2] / "probe/manifest.json", dtypes={"inputs": "O"}
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_an_error_to_the_reader_and_a_problem_to_verify(path: Path, name: str) -> None:
    read_all(path)
    DAMAGE[name](path)
    with pytest.raises(CheckpointError):
        read_all(path)
    assert verify(path.parents[3], deep=True)


def test_keys_of_a_higher_minor_schema_are_passed_over(path: Path) -> None:
    forge(path / "manifest.json", schema="1.9", colour={"of": "later"})
    read_all(path)
    assert verify(path.parents[3], deep=True) == []


def test_what_is_whole_is_read_beside_what_is_not(path: Path) -> None:
    swap(path / "attributions/c/0/0", path / "attributions/c/2/0")
    explanation = open_explanations(path.parents[2]).explanation(1, "integrated_gradients")
    assert explanation.attributions(4, 8).shape == (4, 2)
    with pytest.raises(
        CheckpointError,
        match=r"has 2 rows that do not fit their content hash, the first 2;.*verify --deep",
    ):
        explanation.attributions(2, 6)
    with pytest.raises(CheckpointError, match="the first 8"):
        explanation.attributions(-8)


def test_no_module_unpickles() -> None:
    for module in LIBRARY.rglob("*.py"):
        text = module.read_text("utf-8")
        assert not re.search(
            r"^\s*(import|from) (cloud)?pickle|^\s*(import|from) (dill|joblib)|allow_pickle=True",
            text,
            re.MULTILINE,
        ), module
