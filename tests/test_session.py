import os
import sys
from pathlib import Path

import pytest

from tests import processes

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("launched", "expected"),
    [
        ({}, pytest.ExitCode.NO_TESTS_COLLECTED),
        ({"HOROVOD_SIZE": "2"}, pytest.ExitCode.TESTS_FAILED),
    ],
)
def test_a_launched_session_in_which_no_test_ran_fails(
    launched: dict[str, str], expected: int
) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.endswith("_SIZE")
    } | launched
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/test_session.py",
        "-k",
        "no_such_test",
    ]
    done = processes.run(command, cwd=ROOT, env=environment)
    assert done.code == expected
