"""Kills the storage, fills its disk and takes its rights away, on real filesystems."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.probe_writer import write_probe
from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.run_directory import Mode, open_run
from hvd_xai.checkpoint.verify import verify
from hvd_xai.checkpoint.writer import Writer, sweep
from hvd_xai.errors import CheckpointError
from hvd_xai.probe.probe import Probe
from hvd_xai.storage.staging import leftovers
from tests import processes
from tests.checkpoint.small import begin, make_attributions, make_rows, write
from tests.mounts import mount, mounted

N_KILLS = int(os.environ.get("HVD_XAI_TEST_KILLS", "100"))
REPOSITORY = Path(__file__).parents[2]

# Imports once and forks, so that a kill costs milliseconds. Each child commits explanations until
# it is killed.
KILLED_AT_RANDOM = """
import os, signal, sys, time
from pathlib import Path
from tests.checkpoint.small import make_attributions, make_rows, write
explanations_dir, delays = Path(sys.argv[1]), [float(delay) for delay in sys.argv[2:]]
rows = make_rows(make_attributions(20, (4, 4)))
write(explanations_dir, rows, epoch=10**6)  # a starved machine may commit nothing in a short life
for life, delay in enumerate(delays):
    child = os.fork()
    if child == 0:
        for epoch in range(1000 * life, 1000 * life + 1000):
            write(explanations_dir, rows, epoch=epoch)
        os._exit(1)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
"""


def test_kills_at_random_instants_leave_whole_checkpoints_and_sweepable_rests(
    tmp_path: Path,
) -> None:
    explanations_dir = open_run(tmp_path, config={})
    delays = [str(random.Random(kill).uniform(0.02, 0.25)) for kill in range(N_KILLS)]
    words = [sys.executable, "-c", KILLED_AT_RANDOM, str(explanations_dir), *delays]
    done = processes.run(words, cwd=REPOSITORY, limits=processes.Limits(cpu=60 + 2 * N_KILLS))
    assert done.code == 0, done.stderr
    left = leftovers(explanations_dir / "epochs")
    committed = open_explanations(tmp_path).epochs
    assert left
    assert committed
    assert verify(tmp_path, deep=True) == []
    for lease in (explanations_dir / "epochs").glob("*.lease"):
        os.utime(lease, (0, 0))  # one that was made but not written is swept when it is old
    assert set(left) <= set(sweep(explanations_dir))
    assert [
        path.name for path in (explanations_dir / "epochs").iterdir() if path.name.startswith(".")
    ] == []
    assert verify(tmp_path, deep=True) == []
    assert open_explanations(tmp_path).epochs == committed


def test_killed_job_commits_its_epoch_again(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(20, (4, 4)))
    code = """
import os, signal, sys
from pathlib import Path
from tests.checkpoint.small import begin, make_attributions, make_rows
writer = begin(Path(sys.argv[1]), make_rows(make_attributions(20, (4, 4))))
writer.append(make_rows(make_attributions(20, (4, 4)))[:7])
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = processes.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY)
    assert killed.code == -9
    assert len(leftovers(tmp_path / "epochs")) == 1
    assert write(tmp_path, rows).rows().tobytes() == rows.tobytes()
    sweep(tmp_path)
    assert sorted(path.name for path in (tmp_path / "epochs").iterdir()) == ["000000"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 1 MiB in memory."""
    with mounted(tmp_path / "disk", "size=1m") as path:
        yield path


def test_full_disk_commits_nothing_and_gives_its_space_back(disk: Path) -> None:
    run_dir = disk
    explanations_dir = open_run(run_dir, config={})
    before = write(explanations_dir, make_rows(make_attributions(10, (4, 4))))
    used = shutil.disk_usage(run_dir).used
    # 3 MiB as float16, which hardly compress
    noise = np.random.default_rng(0).normal(size=(400, 64, 64)).astype(np.float32)
    rows = make_rows(noise)
    writer = begin(explanations_dir, rows, epoch=1)

    def fill() -> Path:
        writer.append(rows)
        return writer.commit()

    with pytest.raises(
        CheckpointError,
        match=(
            r"cannot write .*000001/integrated_gradients: No space left on device. The disk is full"
        ),
    ):
        fill()
    assert open_explanations(run_dir).epochs == [0]
    writer.discard()
    assert leftovers(explanations_dir / "epochs") == []
    assert shutil.disk_usage(run_dir).used == used
    assert before.attributions().shape == (10, 4, 4)
    assert (
        write(explanations_dir, make_rows(make_attributions(10, (4, 4))), epoch=1).n_samples == 10
    )


def test_disk_that_is_full_from_the_start_is_said_at_once(disk: Path) -> None:
    run_dir = disk
    mount(disk, "remount,size=64k")
    explanations_dir = open_run(run_dir, config={})
    (run_dir / "ballast").write_bytes(bytes(64 * 1024 - 4096 * 6))
    rows = make_rows(make_attributions(10, (4, 4)))
    with pytest.raises(CheckpointError, match="The disk is full"):
        begin(explanations_dir, rows)
    assert leftovers(explanations_dir / "epochs") == []
    with pytest.raises(CheckpointError, match="The disk is full"):
        write_probe(
            explanations_dir, Probe(inputs=np.zeros((3, 8, 8), np.float32), targets=np.arange(3))
        )
    assert [path.name for path in explanations_dir.iterdir() if path.name.startswith(".")] == []


def test_read_only_filesystem_is_said_before_anything_is_computed(disk: Path) -> None:
    run_dir = disk
    write(open_run(run_dir, config={}), make_rows(make_attributions(3, ())))
    mount(disk, "remount,ro")
    modes: tuple[Mode, ...] = ("resume", "overwrite")
    for mode in modes:
        with pytest.raises(CheckpointError, match="mounted read-only: write to another place"):
            open_run(run_dir, config={}, mode=mode)
    with pytest.raises(CheckpointError, match="mounted read-only"):
        open_run(run_dir / "new", config={})
    with pytest.raises(CheckpointError, match="mounted read-only"):
        begin(run_dir / "explanations", make_rows(make_attributions(3, ())), epoch=1)
    assert verify(run_dir, deep=True) == []


RACING = """
import sys, time
from pathlib import Path
from hvd_xai.errors import CheckpointError
from tests.checkpoint.small import begin, make_attributions, make_rows
rows = make_rows(make_attributions(20, (4, 4)))
writer = begin(Path(sys.argv[1]), rows, weights_digest=sys.argv[2])
writer.append(rows)
time.sleep(max(0, float(sys.argv[3]) - time.time()))
try:
    writer.commit()
except CheckpointError as error:
    assert "committed before by another writer" in str(error), error
    print("lost")
else:
    print("won")
"""


@pytest.mark.parametrize("same", [False, True])
def test_two_jobs_commit_one_checkpoint(tmp_path: Path, same: bool) -> None:
    start = time.time() + 4
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", RACING, str(tmp_path), "w0" if same else f"w{job}", str(start)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        for job in range(3)
    ]
    verdicts = sorted(job.communicate()[0].strip() for job in jobs)
    assert verdicts == (["won", "won", "won"] if same else ["lost", "lost", "won"])
    assert sorted(path.name for path in (tmp_path / "epochs").iterdir()) == ["000000"]
    assert verify(tmp_path, deep=True) == []


def test_writer_that_cannot_begin_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "_create", interrupted)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, make_rows(make_attributions(3, ())))
    assert list((tmp_path / "epochs").iterdir()) == []
