"""Collectives over MPI, in a process that MPI takes for a job of one rank.

How several ranks meet over MPI is tested where they are launched. A process of its own: MPI leaves
traces in the environment, which a launcher that is started later would stumble over.
"""

import os
import subprocess
import sys

import pytest

from hvd_xai.ranks import over_mpi

ALONE = """
import numpy as np
from hvd_xai.ranks.over_mpi import OverMpi, import_mpi

carrier = OverMpi(import_mpi(), 30.0)
assert carrier.allgather("testing", b"abc") == [b"abc"]
assert carrier.allgather("testing", b"") == [b""]
records = np.ones(2, [("sample_id", "<i8"), ("values", "<f2", (3,))])
assert (carrier.gather("testing", records, [2]) == records).all()
assert (carrier.exchange("testing", records, [2], [2]) == records).all()
assert carrier.gather("testing", np.empty((0, 3), np.float32), [0]).shape == (0, 3)
with carrier.watch("testing"):
    pass
print("done")
"""


def test_a_rank_alone_gets_back_what_it_sends() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr


@pytest.mark.parametrize(("n_local", "yields"), [("1", None), ("8", "1"), ("many", None)])
def test_idle_ranks_leave_the_cores_to_others_where_cores_are_few(
    monkeypatch: pytest.MonkeyPatch, n_local: str, yields: str | None
) -> None:
    monkeypatch.delenv("OMPI_MCA_mpi_yield_when_idle", raising=False)
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", n_local)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)  # as where mpi4py is not installed
    assert over_mpi.import_mpi() is None
    assert dict(os.environ).get("OMPI_MCA_mpi_yield_when_idle") == yields
