"""Sets up tests that run on every rank at once, started by `test_in_ranks.py`.

Each rank takes the same steps in the same order.
"""

import os
from pathlib import Path

import pytest

from hvd_xai.cli.console import rank
from hvd_xai.ranks.world import World
from tests.launched import mpi_world

os.environ.setdefault("HOROVOD_TIMELINE", "DYNAMIC")  # one may be started by a test

collect_ignore_glob = [] if os.environ.get("HVD_XAI_TEST_RANKS") else ["*"]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Gives each rank a folder of its own.

    Sessions that share pytest's tidy it up at the same time, and fail over each other.
    """
    folder = os.environ.get("HVD_XAI_TEST_FOLDER")
    if folder:
        config.option.basetemp = str(Path(folder) / f"rank{rank()}")


@pytest.fixture(scope="session")
def world() -> World:
    """Returns the ranks of this session."""
    if "HVD_XAI_TEST_WITHOUT_HOROVOD" in os.environ:
        world = mpi_world.connect()
    else:
        import hvd_xai.keras as hvd

        world = hvd.init(process_sets="dynamic")
    assert world.size == int(os.environ["HVD_XAI_TEST_RANKS"])
    return world
