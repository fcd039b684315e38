"""From outside: a rank raises, exits, is killed or gets stuck.

The job ends in seconds, non-zero, and what was committed is whole.
"""

import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from hvd_xai import open_explanations
from hvd_xai.checkpoint.verify import verify
from tests.launched.launch import BIN, Launcher, end, launch, start

pytestmark = pytest.mark.launched

FAILING = str(Path(__file__).with_name("failing.py"))
DEADLINE = 12  # the first step of training counts in it, with its compilation
SECONDS = 75  # start-up of TensorFlow on busy cores included; a hang would last for ever


@pytest.mark.parametrize(
    ("launcher", "what", "when", "rank", "says"),
    [
        ("mpirun", "raise", "explaining", 1, "RuntimeError: this rank has had enough"),
        ("mpirun", "raise", "training", 1, "RuntimeError: this rank has had enough"),
        ("mpirun", "exit0", "explaining", 1, "rank 1 exited while rank 0 waits for it"),
        ("mpirun", "kill", "explaining", 1, "signal 9"),
        ("mpirun", "kill", "training", 0, "signal 9"),
        (
            "mpirun",
            "stop",
            "explaining",
            1,
            f"waited {DEADLINE} s for the other ranks.*Missing: rank 1\\.",
        ),
        (
            "mpirun",
            "stop",
            "explaining",
            0,
            f"waited {DEADLINE} s for the other ranks.*Rank 0, .* is one of them",
        ),
        ("gloo", "raise", "explaining", 1, "RuntimeError: this rank has had enough"),
        ("gloo", "exit0", "explaining", 1, ""),
        ("gloo", "kill", "training", 1, ""),
        (
            "gloo",
            "sleep",
            "explaining",
            1,
            f"waited {DEADLINE} s for the other ranks.*Missing: rank 1\\.",
        ),
        (
            "mpirun",
            "stop",
            "training",
            1,
            f"waited {DEADLINE} s for the other ranks in 'a training step'.*Missing: rank 1\\.",
        ),
        (
            "mpirun",
            "sleep",
            "training",
            0,
            (
                f"waited {DEADLINE} s for the other ranks in 'a training step'.*Rank 0, .* is one"
                " of them"
            ),
        ),
        (
            "gloo",
            "stop",
            "training",
            1,
            f"waited {DEADLINE} s for the other ranks in 'a training step'.*Missing: rank 1\\.",
        ),
    ],
)
def test_one_ranks_end_is_the_end_of_all(
    launcher: Launcher, what: str, when: str, rank: int, says: str, tmp_path: Path
) -> None:
    run, env = tmp_path / "run", {"HVD_XAI_DEADLINE": str(DEADLINE)}
    ended = launch(
        launcher,
        3 - (launcher == "gloo"),
        sys.executable,
        FAILING,
        what,
        when,
        str(run),
        str(rank),
        limit=SECONDS,
        env=env,
    )
    assert ended.code != 0
    assert re.search(says, ended.output), ended.output[-3000:]
    assert "ended well" not in ended.output
    assert not verify(run, deep=True)
    # of the first epoch they are there, unless they were being written; of the second none is
    assert open_explanations(run).epochs in ([[0], []] if when == "training" else [[0]])


def _ranks(job: psutil.Process) -> list[psutil.Process]:
    return [
        child
        for child in job.children(recursive=True)
        if "train" in child.cmdline() and "hvd-xai" in " ".join(child.cmdline())
    ]


@pytest.mark.parametrize("seed", range(int(os.environ.get("HVD_XAI_TEST_KILLED_JOBS", "2"))))
def test_a_rank_killed_at_any_instant_leaves_nothing_torn_and_the_run_goes_on(
    seed: int, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    words = [
        str(BIN / "hvd-xai"),
        "train",
        "digits_cnn",
        "--set",
        "filters=4",
        "--set",
        "n_steps=20",
        "--output",
        str(tmp_path / "run"),
    ]
    job = start("mpirun", 2, *words, "--epochs", "1000")
    try:
        assert job.stdout is not None
        seen = next((line for line in job.stdout if re.search(r"epoch 1 ", line)), "")
        assert seen, "the job ended before its second epoch"
        time.sleep(draw.uniform(0, 2))
        ranks = _ranks(psutil.Process(job.pid))
        assert len(ranks) == 2
        killed = time.monotonic()
        draw.choice(ranks).send_signal(signal.SIGKILL)
        rest = job.stdout.read()
        assert job.wait(timeout=SECONDS) != 0
        assert time.monotonic() - killed < SECONDS, rest[-2000:]
    finally:
        end(job)
    assert not verify(tmp_path / "run", deep=True)
    done = open_explanations(tmp_path / "run").epochs
    assert done[:1] == [0]  # the second epoch's may have been on their way
    epochs = done[-1] + 2
    again = launch("mpirun", 2, *words, "--epochs", str(epochs), "--resume")
    assert again.code == 0, again.output[-3000:]
    assert open_explanations(tmp_path / "run").epochs == list(range(epochs))
    assert not verify(tmp_path / "run", deep=True)
    assert not list((tmp_path / "run" / "explanations").rglob(".staging-*"))
