"""Starts the tests in `in_ranks/` on ranks; every rank runs all of them, and all must pass on every rank."""

import re
import sys
from pathlib import Path

import pytest

from tests.launched.launch import Launcher, launch

pytestmark = pytest.mark.launched

HERE = Path(__file__).parent


# Everything on two ranks. What depends on how many there are on one and three too, what depends on the transport over Gloo too.
BY_SIZE = ("test_world.py", "test_merge.py", "test_recording.py", "test_explain.py")
LAUNCHES: list[tuple[Launcher, int, tuple[str, ...]]] = [
    ("mpirun", 1, BY_SIZE),
    ("mpirun", 2, ("",)),
    ("mpirun", 3, (*BY_SIZE, "test_optimizer.py", "test_data.py")),
    ("mpirun", 5, ("test_merge.py", "test_recording.py")),
    ("gloo", 2, ("test_world.py", "test_merge.py", "test_recording.py", "test_elastic.py")),
]


@pytest.mark.parametrize(("launcher", "size", "files"), LAUNCHES, ids=lambda value: "" if isinstance(value, tuple) else str(value))
def test_every_rank_passes_every_test(launcher: Launcher, size: int, files: tuple[str, ...]) -> None:
    ended = launch(
        launcher,
        size,
        *(sys.executable, "-m", "pytest", "-q", "--color=no", "--tb=short", "-p", "no:cacheprovider"),
        *(str(HERE / "in_ranks" / name) for name in files),
        env={"HVD_XAI_TEST_RANKS": str(size), "HVD_XAI_DEADLINE": "60"},
        limit=600,
    )
    closing = re.findall(r"(\d+) passed in ", ended.output)
    assert ended.code == 0, ended.output[-6000:]
    assert len(closing) == size, ended.output[-6000:]
    assert len(set(closing)) == 1
    assert int(closing[0]) > 30
