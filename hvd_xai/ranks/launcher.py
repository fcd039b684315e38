"""Reads what the launcher says of the job, and uses the store that it keeps for the ranks."""

import json
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException, HTTPResponse

from hvd_xai.errors import WorldError
from hvd_xai.protocols import Json

# Key in the store under which a rank of an elastic job leaves why it ended.
FAILURE = "failure"

_SECONDS = 5.0
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE", "SLURM_STEP_NUM_TASKS")

# Launchers tell a process its rank in one of these, before MPI or Horovod is loaded.
_RANKS = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")


def is_elastic(environment: Mapping[str, str]) -> bool:
    """Returns whether ranks may leave and join this job."""
    return environment.get("HOROVOD_ELASTIC") == "1"


def is_gloo(environment: Mapping[str, str]) -> bool:
    """Returns whether Horovod runs without MPI."""
    return (
        environment.get("HOROVOD_CONTROLLER") == "gloo"
        or "HOROVOD_GLOO_RENDEZVOUS_ADDR" in environment
    )


def launched_size(environment: Mapping[str, str]) -> int | None:
    """Returns the number of ranks that the launcher says it started; None if no launcher says."""
    # the first that is set counts: an mpirun inside a Slurm step inherits the step's variable
    sizes = [int(environment[name]) for name in _SIZES if environment.get(name, "").isdigit()]
    return sizes[0] if sizes else None


def launched_rank(environment: Mapping[str, str]) -> int | None:
    """Returns the rank that the launcher gave this process; None if no launcher says.

    Example:
        >>> launched_rank({"OMPI_COMM_WORLD_RANK": "3"})
        3
    """
    ranks = [int(environment[name]) for name in _RANKS if environment.get(name, "").isdecimal()]
    return ranks[0] if ranks else None


def check_sizes(
    launched: int | None, horovod_size: int, mpi_size: int | None, *, gloo: bool
) -> None:
    """Refuses a job in which the launcher, Horovod and MPI count different numbers of ranks.

    Each rank of such a job would train alone, and overwrite what the others write.

    Args:
        launched: number of ranks that the launcher says it started; None if no launcher says.
        horovod_size: number of ranks that Horovod sees.
        mpi_size: number of ranks that mpi4py sees; None if it was not asked.
        gloo: whether Horovod runs without MPI.

    Raises:
        WorldError: if two counts differ; the message says which, and what to do.
    """
    if launched is not None and launched != horovod_size:
        raise WorldError(
            f"the launcher started {launched} ranks but Horovod sees {horovod_size}. The launcher"
            " and Horovod use different MPIs: start the job with the mpirun that belongs to the"
            " MPI Horovod was built with (under Slurm: srun --mpi=pmix), or with horovodrun."
            " `hvd-xai doctor` shows which MPI each of them uses."
        )
    if not gloo and mpi_size is not None and mpi_size != horovod_size:
        raise WorldError(
            f"Horovod sees {horovod_size} ranks but mpi4py sees {mpi_size}: they are linked with"
            " different MPIs. Rebuild Horovod with `hvd-xai install-horovod --force`, then look at"
            " `hvd-xai doctor`."
        )
    if not gloo and mpi_size is None and horovod_size > 1:
        raise WorldError(
            "mpi4py is not installed, and the ranks were started over MPI: pip install"
            " 'hvd_xai[train]', or use horovodrun --gloo."
        )


class Store:
    """Keeps small values by key in the store that `horovodrun --gloo` runs for its ranks.

    A value outlives the rank that wrote it; the launcher forgets all values at the next reset.
    Without such a launcher, nothing is kept and nothing is found.

    Args:
        url: address of this project's part of the store; None where there is no store.

    Example:
        >>> store = Store.from_environment({})  # no launcher has set an address
        >>> store.write("failure", "the disk is full")
        >>> store.read("failure") is None
        True
    """

    def __init__(self, url: str | None) -> None:
        self._url = url

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Store":
        """Returns the store of the job that this process was started in."""
        address, port = (
            environment.get(f"HOROVOD_GLOO_RENDEZVOUS_{part}", "") for part in ("ADDR", "PORT")
        )
        return cls(f"http://{address}:{port}/hvd_xai" if address else None)

    def write(self, key: str, value: Json) -> None:
        """Stores a value under a key; does nothing if the launcher cannot be reached."""
        if self._url is not None:
            with suppress(OSError, HTTPException):
                self._open(
                    urllib.request.Request(
                        f"{self._url}/{key}", json.dumps(value).encode(), method="PUT"
                    )
                ).close()

    def read(self, key: str) -> Json:
        """Returns the value under a key; None if nobody stored one, or there is no store."""
        if self._url is None:
            return None
        try:
            with self._open(urllib.request.Request(f"{self._url}/{key}")) as answer:
                value: Json = json.loads(answer.read())
        # the store answers 404 where nobody stored anything, which is an OSError too
        except (OSError, HTTPException):
            return None
        return value

    def _open(self, request: urllib.request.Request) -> HTTPResponse:
        # the user's proxy, which urllib would take from the environment, does not know the launcher
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        answer: HTTPResponse = direct.open(request, timeout=_SECONDS)
        return answer
