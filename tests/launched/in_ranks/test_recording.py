"""The bytes do not show who wrote them, and an error of one rank leaves no checkpoint on any."""

import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.retention import Retention
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.checkpoint.verify import verify
from hvd_xai.errors import CheckpointError, PeerError
from hvd_xai.ranks.world import World
from hvd_xai.recording.recorder import Merge, Recorder, Recording
from hvd_xai.recording.row_buffer import RowBuffer
from hvd_xai.storage import arrays
from hvd_xai.storage.staging import leftovers
from tests.checkpoint.small import make_attributions, make_header, make_rows, write

N_SAMPLES = 45
SHAPE = (3, 2)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes Zarr shards of 16 rows of attributions and of 8 of thumbnails."""
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 64)
    monkeypatch.setattr(arrays, "SHARD_BYTES", 256)


@pytest.fixture
def shared(world: World, tmp_path: Path) -> Path:
    """Returns one folder for all ranks."""
    return Path(str(world.allgather("testing", str(tmp_path))[0]))


def _rows() -> np.ndarray:
    attributions = make_attributions(N_SAMPLES, SHAPE)
    attributions[20, 0, 0], attributions[44, 1, 1] = np.nan, np.inf
    return make_rows(attributions)


def _counts(size: int, cut: str) -> list[int]:
    """Returns how many rows each rank has: even, uneven with an empty last rank, or all on one
    rank."""
    if cut == "even":
        edges = [N_SAMPLES * rank // size for rank in range(size + 1)]
        return [stop - start for start, stop in itertools.pairwise(edges)]
    if cut == "one":
        return [0] * (size - 1) + [N_SAMPLES]
    few = [5 * rank % 11 for rank in range(size)]
    few[0], few[-1] = N_SAMPLES - sum(few[1:-1]), 0 if size > 1 else N_SAMPLES
    return few


def _record(world: World, folder: Path, counts: list[int], merge: Merge, **header: object) -> None:
    first = sum(counts[: world.rank])
    directory = RunDirectory(folder, mode="resume")
    with world.together("opening"):
        if world.is_root:
            directory.open()
    recorder = Recorder(world, directory, recording=Recording(merge=merge))
    buffer = RowBuffer(_rows().dtype)
    buffer.append(_rows()[first : first + counts[world.rank]])
    recorder.merge(make_header(N_SAMPLES, SHAPE, world_size=world.size, **header), buffer)  # type: ignore[arg-type]  # the caller's
    recorder.settle()
    recorder.close()


@pytest.mark.parametrize("cut", ["even", "uneven", "one"])
@pytest.mark.parametrize("merge", ["direct", "root"])
def test_bytes_are_those_of_one_writer(world: World, shared: Path, merge: Merge, cut: str) -> None:
    _record(world, shared, _counts(world.size, cut), merge)
    if world.is_root:
        (explanation,) = open_explanations(shared)
        assert explanation.manifest.files == write(shared / "alone", _rows()).manifest.files
        assert explanation.manifest.nonfinite == 2
        assert verify(shared, deep=True) == []
        assert (
            leftovers(shared / "explanations" / "epochs")
            == leftovers(shared / "explanations")
            == []
        )


def test_ranks_that_share_no_filesystem_merge_at_the_root(world: World, tmp_path: Path) -> None:
    own = tmp_path / f"rank{world.rank}"
    (own / "explanations").mkdir(parents=True)
    if world.size > 1:
        with pytest.raises(CheckpointError, match=r"rank 1 on .* cannot write to .*merge='root'"):
            _record(world, own, _counts(world.size, "even"), "direct")
    _record(world, own, _counts(world.size, "even"), "auto")
    assert (own / "explanations" / "epochs" / "000000").exists() == world.is_root
    assert [path.name for path in (own / "explanations").glob(".*")] == []


@pytest.mark.parametrize("merge", ["direct", "root"])
def test_a_rank_that_cannot_write_leaves_no_checkpoint_and_all_go_on(
    world: World, shared: Path, merge: Merge, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = _counts(world.size, "even")
    directory = RunDirectory(shared)
    with world.together("opening"):
        if world.is_root:
            directory.open()
    recorder = Recorder(world, directory, recording=Recording(merge=merge))
    spoilt = threading.Event()
    recorder._thread.submit(spoilt.wait, 60)  # before anything is written
    buffer = RowBuffer(_rows().dtype)
    buffer.append(_rows()[sum(counts[: world.rank]) : sum(counts[: world.rank + 1])])
    recorder.merge(make_header(N_SAMPLES, SHAPE, world_size=world.size), buffer)
    staged = leftovers(shared / "explanations" / "epochs")
    world.agree("testing")
    if world.is_root:
        (staged[0] / "attributions" / "c").mkdir()
        (staged[0] / "attributions" / "c" / "2").write_text(
            "stands where the last Zarr shard's folder must be made"
        )
    world.agree("testing")
    spoilt.set()
    with pytest.raises((PeerError, CheckpointError), match="cannot write"):
        recorder.settle()
    recorder.close()
    assert world.allgather("testing", world.rank) == list(range(world.size))
    if world.is_root:
        assert list((shared / "explanations" / "epochs").glob("0*")) == []
        assert leftovers(shared / "explanations" / "epochs") == []
    world.agree("testing")
    _record(world, shared, counts, merge)
    assert [explanation.n_samples for explanation in open_explanations(shared)] == [N_SAMPLES]


def test_what_is_written_is_committed_before_anybody_waits_for_it(
    world: World, shared: Path
) -> None:
    counts = _counts(world.size, "even")
    directory = RunDirectory(shared)
    with world.together("opening"):
        if world.is_root:
            directory.open()
    released = threading.Event()

    class Slow:
        def __call__(self, run: object, explanation: object, /) -> None:
            assert released.wait(60)

        def close(self) -> None:
            pass

    recorder = Recorder(world, directory, [Slow()])
    for epoch in (0, 1):
        buffer = RowBuffer(_rows().dtype)
        buffer.append(_rows()[sum(counts[: world.rank]) : sum(counts[: world.rank + 1])])
        recorder.merge(make_header(N_SAMPLES, SHAPE, world_size=world.size, epoch=epoch), buffer)
    for _ in range(10_000):
        recorder.advance()
        there = (shared / "explanations" / "epochs" / "000000" / "integrated_gradients").is_dir()
        if world.allgather("testing", there)[0]:
            break
        time.sleep(0.01)
    assert there or not world.is_root
    assert not recorder.has_settled(0) or not world.is_root  # a sink has not seen it yet
    released.set()
    recorder.settle()
    recorder.close()
    assert recorder.has_settled(1)
    assert open_explanations(shared).epochs == [0, 1]


def test_older_epochs_are_removed_only_once_a_newer_one_is_committed_whole(
    world: World, shared: Path
) -> None:
    class FullAtEpoch2:
        def __call__(self, run: object, explanation: Explanation, /) -> None:
            if explanation.manifest.epoch == 2 and explanation.manifest.method == "grad_cam":
                raise OSError("No space left on device")

        def close(self) -> None:
            pass

    counts = _counts(world.size, "even")
    directory = RunDirectory(shared, retention=Retention(last=1))
    with world.together("opening"):
        if world.is_root:
            directory.open()
    recorder = Recorder(
        world,
        directory,
        [FullAtEpoch2()],
        Recording(on_error="warn"),
    )
    left = []
    for epoch in (0, 1, 2, 3):
        for method in ("grad_cam", "integrated_gradients"):
            buffer = RowBuffer(_rows().dtype)
            buffer.append(_rows()[sum(counts[: world.rank]) : sum(counts[: world.rank + 1])])
            recorder.merge(
                make_header(N_SAMPLES, SHAPE, world_size=world.size, epoch=epoch, method=method),
                buffer,
            )
        recorder.settle()
        left.append(open_explanations(shared).epochs)
    recorder.close()
    assert left == [[0], [1], [1, 2], [3]]
    assert verify(shared, deep=True) == []


def test_closing_discards_what_was_not_committed(world: World, shared: Path) -> None:
    counts = _counts(world.size, "uneven")
    directory = RunDirectory(shared)
    with world.together("opening"):
        if world.is_root:
            directory.open()
    recorder = Recorder(world, directory)
    buffer = RowBuffer(_rows().dtype)
    buffer.append(_rows()[sum(counts[: world.rank]) : sum(counts[: world.rank + 1])])
    recorder.merge(make_header(N_SAMPLES, SHAPE, world_size=world.size), buffer)
    recorder.close()
    recorder.close()
    world.agree("testing")
    assert open_explanations(shared).epochs == []
    assert leftovers(shared / "explanations" / "epochs") == [] or not world.is_root
