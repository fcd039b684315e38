"""Runs in object stores: fsspec's memory filesystem, and a server that speaks S3."""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvd_xai import open_explanations
from hvd_xai.checkpoint.verify import verify
from hvd_xai.errors import CheckpointError
from hvd_xai.storage.paths import RemotePath, place
from tests.runs_under_test import make_probe, make_run

fsspec = pytest.importorskip("fsspec")

ATTRIBUTIONS = "explanations/epochs/000000/integrated_gradients/attributions/c/0/0/0/0"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", make_probe(), epochs=[0], cam=False)


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """Returns the URL of a bucket on a server of our own."""
    boto3 = pytest.importorskip("boto3")
    moto_server = pytest.importorskip("moto.server")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "NO_PROXY": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(params=["memory", "s3"])
def remote(request: pytest.FixtureRequest, run: Path) -> Any:
    """Returns the URL of a run in a store, and means to change it that are not ours."""
    url = (
        f"memory://{uuid.uuid4()}"
        if request.param == "memory"
        else f"{request.getfixturevalue('s3_url')}/{uuid.uuid4()}"
    )
    filesystem, path = fsspec.core.url_to_fs(f"{url}/demo")
    filesystem.put(str(run), path, recursive=True)
    return filesystem, f"{url}/demo", path


def test_a_remote_run_reads_as_the_local_one(remote: Any, run: Path) -> None:
    _, url, _ = remote
    local, far = open_explanations(run), open_explanations(url)
    assert far.epochs == local.epochs
    assert far.config == local.config
    assert open_explanations(str(far.path)).path == far.path
    here, there = (
        explanations.explanation(0, "integrated_gradients") for explanations in (local, far)
    )
    assert there.manifest.to_json() == here.manifest.to_json()
    np.testing.assert_array_equal(there.attributions_of([7, 2]), here.attributions_of([7, 2]))
    np.testing.assert_array_equal(there.column("score"), here.column("score"))
    probes = [explanations.probe() for explanations in (local, far)]
    assert probes[0] is not None
    assert probes[1] is not None
    np.testing.assert_array_equal(probes[1].inputs([3, 1]), probes[0].inputs([3, 1]))
    assert verify(url, deep=True) == []


def test_a_shard_is_asked_for_its_index_and_for_what_is_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem, path = fsspec.core.url_to_fs(f"memory://{uuid.uuid4()}/demo")
    filesystem.put(str(run), path, recursive=True)
    explanation = open_explanations(f"memory:/{path}").explanation(0, "integrated_gradients")
    explanation.attributions_of([7])  # opens what is needed
    asked: list[tuple[str, int]] = []
    cat_file = type(filesystem).cat_file

    def counted(self: object, path: str, start: int, end: int) -> bytes:
        asked.append((path, end - start))
        content: bytes = cat_file(self, path, start=start, end=end)
        return content

    monkeypatch.setattr(type(filesystem), "cat_file", counted)
    explanation.attributions_of([2])
    sizes = [size for path, size in asked if path.endswith(ATTRIBUTIONS)]
    assert len(sizes) == 2
    assert sizes[0] == 16 + 4  # the place of the one chunk there is, and a checksum


def test_what_was_damaged_in_a_store_is_found_and_not_read(remote: Any) -> None:
    filesystem, url, path = remote
    shard = f"{path}/{ATTRIBUTIONS}"
    content = bytearray(filesystem.cat_file(shard))
    content[10] ^= 1
    filesystem.pipe_file(shard, bytes(content))
    explanation = open_explanations(url).explanation(0, "integrated_gradients")
    with pytest.raises(CheckpointError, match="damaged"):
        explanation.attributions()
    assert ["was changed" in problem.what for problem in verify(url, deep=True)] == [True]
    filesystem.pipe_file(shard, bytes(content[:-1]))
    with pytest.raises(CheckpointError, match=r"bytes; the manifest says"):
        explanation.attributions()
    filesystem.rm_file(shard)
    with pytest.raises(CheckpointError, match="c/0/0/0/0 is missing"):
        explanation.attributions()
    assert ["is missing" in problem.what for problem in verify(url)] == [True]


def test_an_epoch_that_was_committed_since_is_seen(remote: Any, run: Path) -> None:
    filesystem, url, path = remote
    explanations = open_explanations(url)
    assert explanations.epochs == [0]
    manifest = "integrated_gradients/manifest.json"
    filesystem.put_file(
        f"{run}/explanations/epochs/000000/{manifest}",
        f"{path}/explanations/epochs/000001/{manifest}",
    )
    assert explanations.epochs == [0, 1]


def test_what_is_no_run_is_refused(remote: Any) -> None:
    _, url, _ = remote
    with pytest.raises(CheckpointError, match="there is no such folder"):
        open_explanations(f"{url}/absent")
    with pytest.raises(CheckpointError, match="has no folder 'explanations'"):
        open_explanations(f"{url}/explanations/probe")


class Unreachable(fsspec.AbstractFileSystem):  # type: ignore[misc, name-defined]  # it ships no types
    """A store whose client raises an error of its own."""

    protocol = "unreachable"

    def info(self, path: str, **_: object) -> dict[str, object]:
        raise RuntimeError(f"no network to {path}")


def test_a_store_that_does_not_answer_is_said() -> None:
    fsspec.register_implementation("unreachable", Unreachable, clobber=True)
    with pytest.raises(
        OSError, match=r"unreachable://bucket/x cannot be reached: RuntimeError: no network"
    ):
        place("unreachable://bucket/x").is_file()


def test_nothing_is_written_to_a_store() -> None:
    with pytest.raises(OSError, match="only read"):
        (place("memory://x") / "y").open("wb")


@pytest.mark.parametrize("spelt", ["{}", "file://{}"])
def test_what_is_on_this_disk_needs_no_fsspec_to_be_read(spelt: str, tmp_path: Path) -> None:
    assert place(spelt.format(tmp_path)) == tmp_path


def test_a_url_nobody_knows_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no URL that fsspec reads"):
        open_explanations("nonsense://bucket/run")


def test_missing_fsspec_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImportError, match=r"hvd_xai\[remote\]"):
        open_explanations("s3://bucket/run")


def test_a_remote_path_is_taken_apart_like_a_path() -> None:
    path = place("memory://a/b/c.json")
    assert isinstance(path, RemotePath)
    assert (path.name, str(path.parent), str(path.parents[1])) == (
        "c.json",
        "memory:///a/b",
        "memory:///a",
    )
    assert path.parent / "c.json" == path
    assert sorted([path, path.parent])[0] == path.parent
