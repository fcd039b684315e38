"""Defines a target that needs nothing of this machine."""

from pathlib import Path

from hvd_xai.environment.mpi import Mpi
from hvd_xai.environment.prerequisites import Target

MPI = Mpi("wheel", "Open MPI 5.0.11", Path("/opt/bin/mpicxx"), ("$ORIGIN/../../../..",))
TARGET = Target("tensorflow_cpu-2.21.0", MPI, "$ORIGIN/../../../..;$ORIGIN/../../tensorflow")
