"""These tests run on every rank at once: `test_in_ranks.py` starts them. Each rank takes the same steps in the same order."""

import os

import pytest

from hvd_xai.world import World

os.environ.setdefault("HOROVOD_TIMELINE", "DYNAMIC")  # one may be started by a test

collect_ignore_glob = [] if os.environ.get("HVD_XAI_TEST_RANKS") else ["*"]


@pytest.fixture(scope="session")
def world() -> World:
    import hvd_xai.keras as hvd

    world = hvd.init(process_sets="dynamic")
    assert world.size == int(os.environ["HVD_XAI_TEST_RANKS"])
    return world
