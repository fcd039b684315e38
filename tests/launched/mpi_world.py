"""Brings ranks together over MPI alone.

`World.connect` starts Horovod, and with it TensorFlow, which takes seconds of each rank. What needs
neither is tested without.
"""

import os

from hvd_xai.ranks.launcher import is_gloo
from hvd_xai.ranks.over_mpi import OverMpi, import_mpi
from hvd_xai.ranks.uncaught_errors import end_job_on_uncaught_error
from hvd_xai.ranks.watchdog import read_deadline
from hvd_xai.ranks.world import World


def connect() -> World:
    """Brings the launched ranks together, over Horovod only where they are no MPI processes.

    Collective: every rank must call this.
    """
    if is_gloo(os.environ):
        return World.connect()
    mpi = import_mpi()
    assert mpi is not None
    rank, size = mpi.COMM_WORLD.Get_rank(), mpi.COMM_WORLD.Get_size()
    world = World(rank, size, rank, size, OverMpi(mpi, read_deadline(os.environ)))
    end_job_on_uncaught_error(world)
    return world
