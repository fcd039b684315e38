"""A job ends in seconds, non-zero, when a rank raises, exits, is killed or gets stuck.

What was committed is whole.
"""

import os
import random
import re
import signal
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from hvd_xai import open_explanations
from hvd_xai.checkpoint.verify import verify
from tests.launched.befalling import mark_of
from tests.launched.launch import BIN, Launcher, launch, slowness, start
from tests.processes import Running

pytestmark = pytest.mark.launched

FAILING = str(Path(__file__).with_name("failing.py"))
RECORDED = str(Path(__file__).with_name("recorded.py"))
SECONDS = 30  # in which a job ends when nothing has to be waited for
WAITED = r"waited \d+ s for the other ranks"
IN_TRAINING = f"{WAITED} in 'a training step'"


def _fail(
    launcher: Launcher, size: int, program: list[str], run: Path, deadline: float = 12
) -> str:
    """Runs a job that must end soon after what happens to one rank; returns what the job said."""
    # the first step of training counts in it, with its compilation
    deadline *= slowness()
    began = time.time()
    env = {"HVD_XAI_DEADLINE": f"{deadline:.0f}"}
    ended = launch(launcher, size, sys.executable, *program, env=env)
    befallen = mark_of(run).stat().st_mtime
    # On a busy machine everything takes longer: starting, of which this is how long it took, too.
    # The root names those that are missing after the deadline, the other ranks end 2 s later.
    assert time.time() - befallen < deadline + 2 + max(SECONDS, befallen - began), ended.output
    assert ended.code != 0
    assert "ended well" not in ended.output
    assert not verify(run, deep=True)
    return ended.output


@pytest.mark.parametrize(
    ("what", "rank", "says"),
    [
        ("raise", 1, "RuntimeError: this rank has had enough"),
        ("exit0", 1, "rank 1 exited while rank 0 waits for it"),
        ("kill", 1, "signal 9"),
        ("stop", 1, rf"{WAITED}.*Missing: rank 1\."),
        ("stop", 0, f"{WAITED}.*Rank 0, .* is one of them"),
    ],
)
def test_one_ranks_end_is_the_end_of_those_that_wait_to_record(
    what: str, rank: int, says: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    output = _fail("mpirun", 3, [RECORDED, what, str(rank), str(run)], run, deadline=4)
    assert re.search(says, output), output[-3000:]
    assert open_explanations(run).epochs == [0]


@pytest.mark.parametrize(
    ("launcher", "size", "what", "when", "rank", "says"),
    [
        ("mpirun", 2, "raise", "explaining", 1, "RuntimeError: this rank has had enough"),
        ("mpirun", 2, "raise", "training", 1, "RuntimeError: this rank has had enough"),
        ("mpirun", 2, "kill", "training", 0, "signal 9"),
        ("mpirun", 3, "stop", "training", 1, rf"{IN_TRAINING}.*Missing: rank 1\."),
        ("mpirun", 2, "sleep", "training", 0, f"{IN_TRAINING}.*Rank 0, .* is one of them"),
        ("gloo", 2, "raise", "explaining", 1, "RuntimeError: this rank has had enough"),
        ("gloo", 2, "exit0", "explaining", 1, ""),
        ("gloo", 2, "kill", "training", 1, ""),
        ("gloo", 2, "sleep", "explaining", 1, rf"{WAITED}.*Missing: rank 1\."),
        ("gloo", 2, "stop", "training", 1, rf"{IN_TRAINING}.*Missing: rank 1\."),
    ],
)
def test_one_ranks_end_is_the_end_of_all_that_train(
    launcher: Launcher, size: int, what: str, when: str, rank: int, says: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    output = _fail(launcher, size, [FAILING, what, when, str(run), str(rank)], run)
    assert re.search(says, output), output[-3000:]
    # of the first epoch they are there, unless they were being written; of the second none is
    assert open_explanations(run).epochs in ([[0], []] if when == "training" else [[0]])


def _has_said(job: Running, text: str) -> bool:
    return text in job.output


def _ranks(job: Running) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(job.process.pid).children(recursive=True)
        if "train" in child.cmdline() and "hvd-xai" in " ".join(child.cmdline())
    ]


def test_a_rank_killed_at_any_instant_leaves_nothing_torn_and_the_run_goes_on(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    options = ["--set", "filters=4", "--set", "n_steps=20", "--output", str(run)]
    words = [str(BIN / "hvd-xai"), "train", "digits_cnn", *options]
    epochs = 0
    # each job but the first goes on with what the one before left
    for seed in range(int(os.environ.get("HVD_XAI_TEST_KILLED_JOBS", "2"))):
        draw = random.Random(seed)
        goes_on = ["--resume"] if seed else []
        with start("mpirun", 2, *words, "--epochs", "1000", *goes_on) as job:
            assert job.until(partial(_has_said, job, f"epoch {epochs + 1} ")), job.output
            began = time.monotonic()
            time.sleep(draw.uniform(0, 2))
            ranks = _ranks(job)
            assert len(ranks) == 2
            draw.choice(ranks).send_signal(signal.SIGKILL)
            killed = time.monotonic()
            ended = job.end()
        assert ended.code != 0
        # as above: on a busy machine two seconds take longer, and so does ending
        assert time.monotonic() - killed < SECONDS * max(1, (killed - began) / 2), ended.output
        assert not verify(run, deep=True)
        done = open_explanations(run).epochs
        assert done[: epochs + 1] == list(range(epochs + 1))  # the next may have been on its way
        epochs = done[-1] + 1
    again = launch("mpirun", 2, *words, "--epochs", str(epochs + 1), "--resume")
    assert again.code == 0, again.output[-3000:]
    assert open_explanations(run).epochs == list(range(epochs + 1))
    assert not verify(run, deep=True)
    assert not list((run / "explanations").rglob(".staging-*"))
