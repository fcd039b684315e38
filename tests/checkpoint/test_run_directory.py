import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvd_xai.checkpoint import run_directory
from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.probe_writer import write_probe
from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.retention import Retention
from hvd_xai.checkpoint.run_directory import Mode, RunDirectory, add_to_config, open_run
from hvd_xai.errors import CheckpointError, RunExistsError, advising_command_line
from hvd_xai.probe.probe import Probe
from hvd_xai.storage.staging import leftovers
from tests.checkpoint.small import (
    files_under,
    make_attributions,
    make_header,
    make_rows,
    read_plain,
    write,
)


def make_probe(**changes: Any) -> Probe:
    values = {
        "inputs": np.random.default_rng(0).normal(size=(7, 8, 8, 1)).astype(np.float32),
        "targets": np.arange(7),
        "sample_ids": np.arange(7) * 2,
        "class_names": ("zero", "one"),
    }
    return Probe(**{**values, **changes})


def test_new_run_is_an_empty_zarr_group(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    explanations_dir = open_run(
        tmp_path / "runs" / "demo", config={"epochs": 5, "nested": {"a": (1, 2)}}
    )
    assert explanations_dir == tmp_path / "runs" / "demo" / "explanations"
    assert files_under(tmp_path / "runs" / "demo") == {
        "explanations/zarr.json",
        "explanations/run.json",
        "explanations/epochs/zarr.json",
    }
    assert zarr.open_group(explanations_dir, mode="r")["epochs"].attrs.asdict() == {}
    explanations = open_explanations(explanations_dir)
    assert explanations.config == {"epochs": 5, "nested": {"a": [1, 2]}}
    assert list(explanations) == []


def test_run_that_is_there_is_refused_with_what_to_write(tmp_path: Path) -> None:
    open_run(tmp_path, config={})
    with pytest.raises(
        RunExistsError,
        match=r"holds a run already. Pass .*mode='resume'.* mode='overwrite' .* another folder",
    ):
        open_run(tmp_path, config={})
    with (
        advising_command_line(),
        pytest.raises(
            RunExistsError,
            match=r"holds a run already. Add --resume .* --overwrite .* another --output",
        ),
    ):
        open_run(tmp_path, config={})


def test_resume_keeps_what_is_there(tmp_path: Path) -> None:
    write(open_run(tmp_path, config={"seed": 1}), make_rows(make_attributions(2, ())), epoch=4)
    open_run(tmp_path, config={"seed": 2}, mode="resume")
    assert open_explanations(tmp_path).config == {"seed": 1}
    assert open_explanations(tmp_path).epochs == [4]


def test_resume_starts_what_is_not_there(tmp_path: Path) -> None:
    open_run(tmp_path, config={"seed": 1}, mode="resume")
    assert open_explanations(tmp_path).config == {"seed": 1}


def test_overwrite_removes_explanations_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").mkdir()
    write(open_run(tmp_path, config={"seed": 1}), make_rows(make_attributions(2, ())))
    open_run(tmp_path, config={"seed": 2}, mode="overwrite")
    assert open_explanations(tmp_path).config == {"seed": 2}
    assert open_explanations(tmp_path).epochs == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["explanations", "tensorboard"]


def test_overwrite_spares_what_hvd_xai_did_not_write(tmp_path: Path) -> None:
    open_run(tmp_path, config={})
    (tmp_path / "explanations" / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"holds thesis.tex, which hvd_xai did not write"):
        open_run(tmp_path, config={}, mode="overwrite")
    assert (tmp_path / "explanations" / "thesis.tex").exists()


def test_opening_sweeps_what_the_dead_left(tmp_path: Path) -> None:
    explanations_dir = open_run(tmp_path, config={})
    left = explanations_dir / "epochs" / ".staging-000000-x-00000000"
    left.mkdir()
    (left.with_name(f"{left.name}.lease")).write_text("{}")
    (tmp_path / ".trash-explanations-00000000").mkdir()
    for path in (left, left.with_name(f"{left.name}.lease")):
        os.utime(path, (0, 0))
    open_run(tmp_path, config={}, mode="resume")
    assert leftovers(explanations_dir / "epochs") == []
    open_run(tmp_path, config={}, mode="overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["explanations"]


def test_wrong_mode_and_config_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="mode"):
        open_run(tmp_path, config={}, mode="append")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ValueError, match="JSON"):
        open_run(tmp_path, config={"rate": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file")
    with pytest.raises(
        CheckpointError,
        match=r"cannot write .*demo/explanations: .*A file stands where a folder is needed",
    ):
        open_run(tmp_path / "demo", config={})


def test_run_of_a_higher_schema_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_directory, "SCHEMA", "2.0")
    open_run(tmp_path, config={"probe_digest": "a"})
    with pytest.raises(CheckpointError, match="Upgrade hvd_xai"):
        open_run(tmp_path, config={"probe_digest": "a"}, mode="resume")


def test_resume_refuses_another_probe(tmp_path: Path) -> None:
    open_run(tmp_path / "told", config={"probe_digest": "a"})
    with pytest.raises(CheckpointError, match="explains another probe"):
        open_run(tmp_path / "told", config={"probe_digest": "b"}, mode="resume")
    explanations_dir = open_run(tmp_path / "stored", config={})
    write_probe(explanations_dir, make_probe())
    before = files_under(explanations_dir)
    write_probe(explanations_dir, make_probe(class_names=("none", "eins")))
    with pytest.raises(CheckpointError, match="explains another probe"):
        write_probe(explanations_dir, make_probe(targets=np.arange(7) + 1))
    assert files_under(explanations_dir) == before


def test_facts_are_added_to_the_config(tmp_path: Path) -> None:
    explanations_dir = open_run(tmp_path, config={"seed": 1, "methods": []})
    add_to_config(explanations_dir, {"methods": ["grad_cam"], "probe_digest": "a"})
    assert open_explanations(tmp_path).config == {
        "seed": 1,
        "methods": ["grad_cam"],
        "probe_digest": "a",
    }


def commit(run: RunDirectory, rows: np.ndarray, **header: object) -> Explanation:
    writer = run.begin(
        make_header(len(rows), rows.dtype["attributions"].shape, **header),  # type: ignore[arg-type]  # the caller's
        rows.dtype,
    )
    writer.append(rows)
    return run.commit(writer)


def test_committed_rows_lie_in_the_run(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(5, (3, 3)))
    run = RunDirectory(tmp_path / "demo", config={"seed": 1})
    explanation = commit(run, rows, epoch=3)
    run.close()
    assert run.name == "demo"
    assert (
        explanation.path
        == tmp_path / "demo" / "explanations" / "epochs" / "000003" / "integrated_gradients"
    )
    np.testing.assert_array_equal(
        read_plain(Path(str(explanation.path)) / "attributions"), rows["attributions"]
    )


def test_making_one_touches_no_file(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "demo").close()
    assert list(tmp_path.iterdir()) == []


def test_run_that_is_there_is_refused_unless_the_mode_says_otherwise(tmp_path: Path) -> None:
    RunDirectory(tmp_path).open()
    with pytest.raises(RunExistsError, match="mode='resume'"):
        RunDirectory(tmp_path).open()
    modes: tuple[Mode, ...] = ("resume", "overwrite")
    for mode in modes:
        assert RunDirectory(tmp_path, mode=mode).open() == tmp_path / "explanations"


def test_opening_stores_probe_and_facts(tmp_path: Path) -> None:
    probe = Probe(inputs=np.zeros((3, 2), np.float32), targets=np.arange(3))
    run = RunDirectory(tmp_path, config={"seed": 1})
    run.open()
    run.open(probe, {"methods": ["grad_cam"]})
    explanations = open_explanations(tmp_path)
    stored = explanations.probe()
    assert stored is not None
    assert explanations.config == {
        "seed": 1,
        "methods": ["grad_cam"],
        "probe_digest": stored.digest,
    }
    with pytest.raises(CheckpointError, match="another probe"):
        RunDirectory(tmp_path, mode="resume").open(
            Probe(inputs=np.ones((3, 2), np.float32), targets=np.arange(3))
        )


def test_resumed_epoch_takes_the_place_of_the_lost_one(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(5, (3,)))
    commit(RunDirectory(tmp_path), rows)
    assert (
        commit(
            RunDirectory(tmp_path, mode="resume"), rows, weights_digest="w1"
        ).manifest.weights_digest
        == "w1"
    )


def test_a_job_goes_on_with_the_run_that_it_began_whichever_rank_writes(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(5, (3,)))
    probe = Probe(inputs=np.zeros((5, 3), np.float32), targets=np.arange(5))
    first = RunDirectory(tmp_path)
    first.open(probe, {"job": "a"})
    commit(first, rows)
    first.begin(make_header(5, (3,), epoch=1), rows.dtype)  # what a root that died leaves
    modes: tuple[Mode, ...] = ("new", "overwrite")
    for mode in modes:
        another = RunDirectory(tmp_path, mode=mode)
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
    RunDirectory(tmp_path).open(facts={"job": "a"})
    run = RunDirectory(tmp_path)
    run.rejoin("b")
    with pytest.raises(RunExistsError):
        run.open()
    RunDirectory(tmp_path / "nothing").rejoin("b")


def test_close_discards_what_was_not_committed(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, ()))
    run = RunDirectory(tmp_path)
    run.begin(make_header(4, ()), rows.dtype)
    run.begin(make_header(4, ()), rows.dtype)
    assert len(leftovers(tmp_path / "explanations" / "epochs")) == 1  # one place, one that is begun
    run.begin(make_header(4, (), epoch=1), rows.dtype)
    assert len(leftovers(tmp_path / "explanations" / "epochs")) == 2
    run.close()
    assert leftovers(tmp_path / "explanations" / "epochs") == []


def test_a_run_that_another_job_writes_is_refused_until_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from hvd_xai.checkpoint.run_directory import RunDirectory;"
        " RunDirectory(sys.argv[1]).open(); print('open', flush=True); input()"
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
                RunDirectory(tmp_path / "run", mode=mode).open()
        job.kill()
    run = RunDirectory(tmp_path / "run", mode="resume")
    assert commit(run, make_rows(make_attributions(4, ()))).n_samples == 4
    run.close()


def test_what_the_retention_does_not_keep_is_removed(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, ()))
    run, limited = RunDirectory(tmp_path), RunDirectory(tmp_path, retention=Retention(last=1))
    for epoch in (0, 1, 2):
        commit(run, rows, epoch=epoch)
    assert run.retain() == []
    assert limited.retain() == [0, 1]
    assert limited.explanations().epochs == run.explanations().epochs == [2]
