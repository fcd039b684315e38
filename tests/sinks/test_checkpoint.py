import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.reader import Explanation, open_explanations
from hvd_xai.checkpoint.run_directory import Mode
from hvd_xai.errors import CheckpointError, RunExistsError
from hvd_xai.probe.probe import Probe
from hvd_xai.sinks.checkpoint import Checkpoint
from hvd_xai.storage.staging import leftovers
from tests.checkpoint.small import make_attributions, make_header, make_rows, read_plain, write


def commit(checkpoint: Checkpoint, rows: np.ndarray, **header: object) -> Explanation:
    writer = checkpoint.begin(
        make_header(len(rows), rows.dtype["attributions"].shape, **header),  # type: ignore[arg-type]  # the caller's
        rows.dtype,
    )
    writer.append(rows)
    return checkpoint.commit(writer)


def test_committed_rows_lie_in_the_run(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(5, (3, 3)))
    checkpoint = Checkpoint(tmp_path / "demo", config={"seed": 1})
    explanation = commit(checkpoint, rows, epoch=3)
    checkpoint.close()
    assert checkpoint.run == "demo"
    assert (
        explanation.path
        == tmp_path / "demo" / "explanations" / "epochs" / "000003" / "integrated_gradients"
    )
    np.testing.assert_array_equal(
        read_plain(Path(str(explanation.path)) / "attributions"), rows["attributions"]
    )


def test_making_one_touches_no_file(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "demo").close()
    assert list(tmp_path.iterdir()) == []


def test_run_that_is_there_is_refused_unless_the_mode_says_otherwise(tmp_path: Path) -> None:
    Checkpoint(tmp_path).open()
    with pytest.raises(RunExistsError, match="--resume"):
        Checkpoint(tmp_path).open()
    modes: tuple[Mode, ...] = ("resume", "overwrite")
    for mode in modes:
        assert Checkpoint(tmp_path, mode=mode).open() == tmp_path / "explanations"


def test_opening_stores_probe_and_facts(tmp_path: Path) -> None:
    probe = Probe(inputs=np.zeros((3, 2), np.float32), targets=np.arange(3))
    checkpoint = Checkpoint(tmp_path, config={"seed": 1})
    checkpoint.open()
    checkpoint.open(probe, {"methods": ["grad_cam"]})
    explanations = open_explanations(tmp_path)
    stored = explanations.probe()
    assert stored is not None
    assert explanations.config == {
        "seed": 1,
        "methods": ["grad_cam"],
        "probe_digest": stored.digest,
    }
    with pytest.raises(CheckpointError, match="another probe"):
        Checkpoint(tmp_path, mode="resume").open(
            Probe(inputs=np.ones((3, 2), np.float32), targets=np.arange(3))
        )


def test_resumed_epoch_takes_the_place_of_the_lost_one(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(5, (3,)))
    commit(Checkpoint(tmp_path), rows)
    assert (
        commit(
            Checkpoint(tmp_path, mode="resume"), rows, weights_digest="w1"
        ).manifest.weights_digest
        == "w1"
    )


def test_a_job_goes_on_with_the_run_that_it_began_whichever_rank_writes(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(5, (3,)))
    probe = Probe(inputs=np.zeros((5, 3), np.float32), targets=np.arange(5))
    first = Checkpoint(tmp_path)
    first.open(probe, {"job": "a"})
    commit(first, rows)
    first.begin(make_header(5, (3,), epoch=1), rows.dtype)  # what a root that died leaves
    modes: tuple[Mode, ...] = ("new", "overwrite")
    for mode in modes:
        another = Checkpoint(tmp_path, mode=mode)
        another.rejoin("a")
        another.open(probe, {"job": "a"})
        assert (
            commit(another, rows, weights_digest=f"retrained, {mode}").manifest.weights_digest
            == f"retrained, {mode}"
        )
    first.rejoin("a")
    assert commit(first, rows, weights_digest="w2").manifest.weights_digest == "w2"
    assert leftovers(tmp_path / "explanations" / "epochs") == []


def test_a_run_of_another_job_is_refused_after_a_reset_too(tmp_path: Path) -> None:
    Checkpoint(tmp_path).open(facts={"job": "a"})
    checkpoint = Checkpoint(tmp_path)
    checkpoint.rejoin("b")
    with pytest.raises(RunExistsError):
        checkpoint.open()
    Checkpoint(tmp_path / "nothing").rejoin("b")


def test_explanation_is_copied_to_the_bit(tmp_path: Path) -> None:
    original = write(
        tmp_path / "source", make_rows(make_attributions(9, (4, 2))), epoch=2, world_size=3
    )
    checkpoint = Checkpoint(tmp_path / "copy")
    checkpoint(original)
    checkpoint.close()
    checkpoint.close()
    (copy,) = open_explanations(tmp_path / "copy")
    assert copy.manifest.files == original.manifest.files
    assert copy.manifest.header() == original.manifest.header()


def test_explanation_of_the_run_itself_is_left_alone(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    explanation = commit(checkpoint, make_rows(make_attributions(4, ())))
    checkpoint(explanation)
    assert Explanation(explanation.path).manifest == explanation.manifest


def test_damaged_explanation_is_not_copied(tmp_path: Path) -> None:
    original = write(tmp_path / "source", make_rows(make_attributions(9, (4, 2))))
    Path(str(original.path), "score", "c", "0").unlink()
    checkpoint = Checkpoint(tmp_path / "copy")
    with pytest.raises(CheckpointError, match="is missing"):
        checkpoint(original)
    assert list(open_explanations(tmp_path / "copy")) == []
    assert leftovers(tmp_path / "copy" / "explanations" / "epochs") == []


def test_close_discards_what_was_not_committed(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, ()))
    checkpoint = Checkpoint(tmp_path)
    checkpoint.begin(make_header(4, ()), rows.dtype)
    checkpoint.begin(make_header(4, ()), rows.dtype)
    assert len(leftovers(tmp_path / "explanations" / "epochs")) == 1  # one place, one that is begun
    checkpoint.begin(make_header(4, (), epoch=1), rows.dtype)
    assert len(leftovers(tmp_path / "explanations" / "epochs")) == 2
    checkpoint.close()
    assert leftovers(tmp_path / "explanations" / "epochs") == []


def test_a_run_that_another_job_writes_is_refused_until_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from hvd_xai.sinks.checkpoint import Checkpoint;"
        " Checkpoint(sys.argv[1]).open(); print('open', flush=True); input()"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "open\n"
        modes: tuple[Mode, ...] = ("resume", "overwrite")
        for mode in modes:
            with pytest.raises(
                RunExistsError, match=r"another job is writing to .*run. Wait until it ends"
            ):
                Checkpoint(tmp_path / "run", mode=mode).open()
        job.kill()
    checkpoint = Checkpoint(tmp_path / "run", mode="resume")
    assert commit(checkpoint, make_rows(make_attributions(4, ()))).n_samples == 4
    checkpoint.close()
