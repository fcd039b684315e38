"""Starts the tests in `in_ranks/`: every rank runs all of them, and all must pass on every rank."""

import re
import sys
from pathlib import Path

import pytest

from tests.launched.launch import Launcher, launch
from tests.processes import Limits

pytestmark = pytest.mark.launched

HERE = Path(__file__).parent


# Everything on two ranks. What depends on how many there are on one and three too, what depends on
# the transport over Gloo too. Five ranks start neither Horovod nor TensorFlow.
WITHOUT_HOROVOD = ("test_world.py", "test_merge.py", "test_recording.py")
BY_SIZE = (*WITHOUT_HOROVOD, "test_explain.py")
LAUNCHES: list[tuple[Launcher, int, tuple[str, ...]]] = [
    ("mpirun", 1, BY_SIZE),
    ("mpirun", 2, ("",)),
    (
        "mpirun",
        3,
        (
            *BY_SIZE,
            "test_optimizer.py",
            "test_reduction.py",
            "test_distribute.py",
            "test_endless_batches.py",
            "test_equal_steps.py",
            "test_sharding.py",
        ),
    ),
    ("mpirun", 5, WITHOUT_HOROVOD),
    (
        "gloo",
        2,
        (
            "test_world.py",
            "test_merge.py",
            "test_recording.py",
            "test_state.py",
            "test_run.py",
            "test_tuning.py",
        ),
    ),
]

TABLE = re.compile(r"^\d ranks against one process:.*\n(?:  .*\n)+", re.MULTILINE)


@pytest.mark.parametrize(
    ("launcher", "size", "files"),
    LAUNCHES,
    ids=lambda value: "" if isinstance(value, tuple) else str(value),
)
def test_every_rank_passes_every_test(
    launcher: Launcher,
    size: int,
    files: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = {"HVD_XAI_TEST_RANKS": str(size), "HVD_XAI_TEST_FOLDER": str(tmp_path)}
    if not set(files) - set(WITHOUT_HOROVOD):
        told["HVD_XAI_TEST_WITHOUT_HOROVOD"] = "1"
    ended = launch(
        launcher,
        size,
        *(
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--color=no",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            # at the end of every session its plugin imports Hypothesis, of which no test here makes
            # use: seconds of each rank's core, and minutes on a busy machine
            "-p",
            "no:hypothesispytest",
        ),
        *(str(HERE / "in_ranks" / name) for name in files),
        env={
            **told,
            "HVD_XAI_DEADLINE": "600",
            **(_tuning(tmp_path) if "test_tuning.py" in files else {}),
        },
        limits=Limits(cpu=2400),
    )
    closing = re.findall(r"(\d+) passed in ", ended.output)
    assert ended.code == 0, ended.output[-6000:]
    assert len(closing) == size, ended.output[-6000:]
    assert len(set(closing)) == 1
    assert int(closing[0]) > 30
    tables = TABLE.findall(ended.output)
    assert len(tables) == ("test_optimizer.py" in files or files == ("",))
    with capsys.disabled():
        sys.stdout.writelines(f"\n{table}" for table in tables)
    if "test_tuning.py" in files:
        _check_tuning(tmp_path)


def _tuning(folder: Path) -> dict[str, str]:
    """Makes Horovod record its timeline, and tune itself in few steps instead of hundreds."""
    steps = {"WARMUP_SAMPLES": "1", "STEPS_PER_SAMPLE": "2", "BAYES_OPT_MAX_SAMPLES": "4"}
    autotune = {"HOROVOD_AUTOTUNE": "1", "HOROVOD_AUTOTUNE_LOG": str(folder / "autotune.csv")}
    return {
        "HOROVOD_TIMELINE": str(folder / "timeline.json"),
        **autotune,
        **{f"HOROVOD_AUTOTUNE_{name}": n for name, n in steps.items()},
    }


def _check_tuning(folder: Path) -> None:
    tried = [
        line.split(",")
        for line in (folder / "autotune.csv").read_text().splitlines()
        if not line.startswith("#")
    ]
    # settings, and the last one its score
    assert len({tuple(line[:-1]) for line in tried}) > 2, tried
    timeline = (folder / "timeline.json").read_text()
    assert re.search(r'"tuned\.\d+\.group0_1of1"', timeline)
    assert '"ALLREDUCE"' in timeline
