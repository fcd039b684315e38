"""Ranks are connected once, and code that needs them says so."""

import subprocess
import sys

import hvd_xai.keras as hvd
from hvd_xai.keras.start import init, is_started, require_started


def test_a_second_call_returns_the_same_world() -> None:
    world = init()
    assert init() is world is hvd.init()
    assert (world.rank, world.size) == (0, 1)
    assert is_started()
    require_started("Something")


def test_what_needs_the_ranks_is_refused_before_they_are_connected() -> None:
    ask = "from hvd_xai.keras.start import require_started; require_started('MyCallback')"
    ended = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "WorldError: MyCallback needs the ranks to be connected first" in ended.stderr
