"""The ranks of one job: who they are and how they talk. The only door to mpi4py."""
