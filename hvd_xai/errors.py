"""The errors this project raises itself.

Mistakes of the caller are `ValueError` and `TypeError`; these are for what can go wrong around him:
the ranks, the recipes, the files.
"""


class HvdXaiError(Exception):
    """Base of every error below, so that a caller can catch them all."""


class WorldError(HvdXaiError):
    """The ranks cannot be brought together: the launcher, Horovod and MPI disagree, or one of them
    is missing.
    """


class PeerError(HvdXaiError):
    """Raised on all ranks when one of them failed.

    Args:
        phase: what the ranks were doing.
        failures: `(rank, host, message)` of each rank that failed, lowest rank first.
    """

    def __init__(self, phase: str, failures: list[tuple[int, str, str]]) -> None:
        self.phase = phase
        self.failures = failures
        rank, host, message = failures[0]
        also = f" ({len(failures) - 1} more ranks failed too)" if len(failures) > 1 else ""
        super().__init__(f"{phase}: rank {rank} on {host} failed{also}: {message}")


class RecipeError(HvdXaiError):
    """A recipe, callback or method cannot be found or loaded, or does not define what it must."""


class CheckpointError(HvdXaiError):
    """An explanation checkpoint is missing, damaged, or of a schema that this version does not
    read.
    """


class RunExistsError(HvdXaiError):
    """The run directory already holds a run, and the caller said neither resume nor overwrite."""


class HorovodMissingError(HvdXaiError, ImportError):
    """Horovod is not installed, or cannot be loaded."""


class BuildError(HvdXaiError):
    """Horovod could not be built."""
