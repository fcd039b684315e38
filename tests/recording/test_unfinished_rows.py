"""A job that dies while it explains leaves its rows, and the next one ends as if nothing had
happened."""

import shutil
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from hvd_xai import open_explanations
from hvd_xai.checkpoint.manifest import RankRows
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.checkpoint.verify import verify
from hvd_xai.errors import CheckpointError
from hvd_xai.explain.compiled_methods import CompiledMethods
from hvd_xai.explain.runner import Runner
from hvd_xai.lookup.resolve import resolve
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Attribution, Methods
from hvd_xai.ranks.world import World
from hvd_xai.recording.recorder import Recording
from hvd_xai.recording.unfinished_rows import UnfinishedRows, reuse_rows
from tests.checkpoint.small import make_attributions, make_header, make_rows
from tests.models_under_test import functional

N = 200  # in blocks of 64, 64, 64 and 8
SEEN: list[int] = []


def gradients(
    model: keras.Model,
    inputs: tf.Tensor,
    targets: tf.Tensor,
    /,
    *,
    ids: tf.Tensor,
    times: float = 1.0,
) -> tf.Tensor:
    """Remembers which samples it attributed, and fails at the sample that `DIES` names."""

    def remember(sample_ids: tf.Tensor) -> None:
        if DIES in sample_ids.numpy():
            raise RuntimeError("killed")
        SEEN.extend(np.unique(sample_ids.numpy()).tolist())

    with tf.control_dependencies([tf.py_function(remember, [ids], [])]), tf.GradientTape() as tape:
        x = tf.identity(inputs)
        tape.watch(x)
        score = tf.gather(model(x), targets, batch_dims=1)
    return times * tape.gradient(score, x)


DIES = -1


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return functional()


@pytest.fixture
def probe() -> Probe:
    generator = np.random.default_rng(0)
    return Probe(generator.random((N, 8, 8, 1), np.float32), (np.arange(N) % 3).astype(np.int32))


def run(
    model: keras.Model,
    probe: Probe,
    path: Path,
    methods: Attribution | Methods = gradients,
    *,
    mode: str = "resume",
    dies: int = -1,
) -> list[int]:
    """Explains, and returns the samples that were computed."""
    global DIES  # noqa: PLW0603
    DIES = dies
    SEEN.clear()
    directory = RunDirectory(path, mode=mode)  # type: ignore[arg-type]  # a mode
    given = [methods] if isinstance(methods, Attribution) else methods
    runner = Runner(
        CompiledMethods(model, probe, resolve(given)),
        world=World.alone(),
        run=directory,
        recording=Recording(overlap=False),
        row_files=UnfinishedRows(path / "rows"),
    )
    runner.run(0, 0)
    runner.close()
    return sorted(set(SEEN))


def digests(path: Path) -> dict[str, str]:
    return {
        file.key: file.xxh3_128
        for file in open_explanations(path).explanation(0, "gradients").manifest.files
    }


def test_a_job_goes_on_behind_the_rows_it_has(
    model: keras.Model, probe: Probe, tmp_path: Path
) -> None:
    assert run(model, probe, tmp_path / "whole", mode="new") == list(range(N))
    assert not (tmp_path / "whole/rows").exists()
    with pytest.raises(Exception, match="killed"):
        run(model, probe, tmp_path / "dead", mode="new", dies=150)
    (rows,) = (tmp_path / "dead/rows").iterdir()
    # as a job leaves them that is killed while it writes
    for field in (
        "attributions",
        "sample_id",
    ):
        with (rows / field).open("ab") as file:
            file.write(b"torn" * 99)
    # as it would be of a rank of another job, which had fewer rows
    rows.rename(rows.with_name(rows.name.replace(f"-{N}", "-150")))
    assert run(model, probe, tmp_path / "dead") == list(range(128, N))
    assert digests(tmp_path / "dead") == digests(tmp_path / "whole")
    assert not (tmp_path / "dead/rows").exists()
    assert run(model, probe, tmp_path / "dead") == []  # committed already


def test_rows_that_were_damaged_or_are_of_another_method_are_computed_again(
    model: keras.Model, probe: Probe, tmp_path: Path
) -> None:
    run(model, probe, tmp_path / "whole", mode="new")
    with pytest.raises(Exception, match="killed"):
        run(model, probe, tmp_path / "dead", mode="new", dies=150)
    (rows,) = (tmp_path / "dead/rows").iterdir()
    content = bytearray((rows / "attributions").read_bytes())
    content[len(content) // 128 * 70 + 9] ^= 1  # of sample 70, in the second block
    (rows / "attributions").write_bytes(content)
    shutil.copytree(rows, tmp_path / "other/rows" / rows.name)
    assert run(model, probe, tmp_path / "dead") == list(range(64, N))
    assert digests(tmp_path / "dead") == digests(tmp_path / "whole")
    assert run(model, probe, tmp_path / "other", partial(gradients, times=2.0)) == list(range(N))


def test_each_configuration_of_a_method_goes_on_by_itself(
    model: keras.Model, probe: Probe, tmp_path: Path
) -> None:
    both: dict[str, Attribution] = {"once": gradients, "twice": partial(gradients, times=2.0)}
    assert run(model, probe, tmp_path, {"once": gradients}, mode="new") == list(range(N))
    with pytest.raises(Exception, match="killed"):
        run(model, probe, tmp_path, both, dies=150)
    assert sorted(SEEN) == list(range(128))  # of the second: the first was committed already
    assert run(model, probe, tmp_path, both) == list(range(128, N))
    first, second = (open_explanations(tmp_path).explanation(0, name) for name in both)
    assert first.manifest.function == second.manifest.function == "gradients"
    np.testing.assert_array_equal(second.attributions(), 2 * first.attributions())
    with pytest.raises(
        CheckpointError, match="committed with other method and options, and is not replaced"
    ):
        run(model, probe, tmp_path, {"once": "saliency"})


def test_what_is_committed_is_not_replaced_by_another_and_is_computed_again_where_it_is_damaged(
    model: keras.Model, probe: Probe, tmp_path: Path
) -> None:
    run(model, probe, tmp_path, mode="new")
    before, config = digests(tmp_path), open_explanations(tmp_path).config
    with pytest.raises(CheckpointError, match="committed with other options, and is not replaced"):
        run(model, probe, tmp_path, partial(gradients, times=2.0))
    other = keras.models.clone_model(model)
    other.set_weights([weight + 1 for weight in model.get_weights()])
    with pytest.raises(CheckpointError, match="committed with other weights, and is not replaced"):
        run(other, probe, tmp_path)
    assert digests(tmp_path) == before
    assert {**open_explanations(tmp_path).config, "job": config["job"]} == config
    assert (
        "test_unfinished_rows.py"
        in open_explanations(tmp_path).explanation(0, "gradients").manifest.versions
    )
    (tmp_path / "explanations/epochs/000000/gradients/score/c/0").unlink()
    assert run(model, probe, tmp_path) == list(range(N))
    assert verify(tmp_path, deep=True) == []


def test_the_rows_of_all_ranks_are_counted(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(30, (2,)))
    header = make_header(90, (2,), world_size=3)
    mine, other = UnfinishedRows(tmp_path), UnfinishedRows(tmp_path)
    with mine.open(header, rows.dtype, 0) as first, other.open(header, rows.dtype, 1) as second:
        first.append(rows[:20])
        second.append(rows[:10])
        # of the third, which is on another host, half of its 30 are taken to be there
        assert mine.n_rows() == 45
        with UnfinishedRows(tmp_path).open(header, rows.dtype, 2) as third:
            third.append(rows)
            assert mine.n_rows() == 60
    assert header.ranks[2] == RankRows(2, "host2", 60, 90)


def test_other_ranks_take_over_what_follows_on_the_rows_they_have(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(90, (2,)))
    before, now = (make_header(90, (2,), world_size=size) for size in (3, 2))
    for rank, n_left in enumerate([20, 30, 10]):
        with UnfinishedRows(tmp_path).open(before, rows.dtype, rank) as buffer:
            buffer.append(rows[30 * rank :][:n_left])
    for rank, found in enumerate([rows[:20], rows[45:70]]):
        expected = found.copy()
        expected["rank"] = rank
        for _ in range(2):  # what was taken over once is there
            with UnfinishedRows(tmp_path).open(now, rows.dtype, rank) as buffer:
                assert buffer.read(0, len(buffer)).tobytes() == expected.tobytes()


def test_ranks_without_rows_keep_none(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(1, (2,)))
    header = make_header(1, (2,), world_size=3)
    files = [UnfinishedRows(tmp_path / "rows") for _ in header.ranks]
    for rank, one in enumerate(files):
        with one.open(header, rows.dtype, rank) as buffer:
            buffer.append(rows[: header.ranks[rank].stop - header.ranks[rank].start])
    assert [one.n_rows() for one in files] == [1, 1, 1]
    for one in files:
        one.remove()
    assert not (tmp_path / "rows").exists()


def test_no_field_of_the_rows_that_are_taken_over_is_trusted_beyond_its_hash(
    tmp_path: Path,
) -> None:
    rows = make_rows(make_attributions(20, (4, 4)))
    before, now = (make_header(20, (4, 4), world_size=size) for size in (1, 2))
    for name in rows.dtype.names or ():
        folder = tmp_path / name
        with UnfinishedRows(folder).open(before, rows.dtype, 0) as buffer:
            buffer.append(rows)
        (file,) = folder.glob(f"*/{name}")
        # as a machine leaves a file that crashed before its blocks were written: zeros from row 8
        content, row_bytes = file.read_bytes(), rows.dtype[name].itemsize
        file.write_bytes(content[: 8 * row_bytes] + bytes(len(content) - 8 * row_bytes))
        with UnfinishedRows(folder).open(now, rows.dtype, 0) as buffer:
            found = len(buffer)
            assert buffer.read(0, found).tobytes() == rows[:found].tobytes()
            # where the value is 0 anyway, as the rank is, nothing was lost
            assert found == (10 if name == "rank" else 8)
        with UnfinishedRows(folder).open(before, rows.dtype, 0) as buffer:
            assert (reuse_rows(buffer, 0, rows["sample_id"]) is None) == (name != "rank"), name
