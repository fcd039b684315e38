"""What the launcher says of the job that this process is a rank of, and what it keeps for the
ranks.
"""

import json
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException, HTTPResponse

from hvd_xai.protocols import Json

_SECONDS = 5.0
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE", "SLURM_STEP_NUM_TASKS")


def is_elastic(environment: Mapping[str, str]) -> bool:
    """Returns whether the ranks of this job may come and go."""
    return environment.get("HOROVOD_ELASTIC") == "1"


def is_gloo(environment: Mapping[str, str]) -> bool:
    """Returns whether Horovod runs without MPI."""
    return (
        environment.get("HOROVOD_CONTROLLER") == "gloo"
        or "HOROVOD_GLOO_RENDEZVOUS_ADDR" in environment
    )


def launched_size(environment: Mapping[str, str]) -> int | None:
    """Returns how many ranks the launcher says it started; None if no launcher says."""
    sizes = [int(environment[name]) for name in _SIZES if environment.get(name, "").isdigit()]
    return sizes[0] if sizes else None


class Store:
    """The store that `horovodrun --gloo` runs for its ranks to meet: small values by key, which
    outlive each rank, until the next reset.

    Args:
        url: of our part of it; None if there is no such place.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Store":
        """Returns the store of the job that this process was started in."""
        address, port = (
            environment.get(f"HOROVOD_GLOO_RENDEZVOUS_{part}", "") for part in ("ADDR", "PORT")
        )
        return cls(f"http://{address}:{port}/hvd_xai" if address else None)

    def write(self, key: str, value: Json) -> None:
        """Leaves a value; a launcher that is gone needs no telling."""
        if self._url is not None:
            with suppress(OSError, HTTPException):
                self._open(
                    urllib.request.Request(
                        f"{self._url}/{key}", json.dumps(value).encode(), method="PUT"
                    )
                ).close()

    def read(self, key: str) -> Json:
        """Returns what was left under a key; None if that is nothing, or there is no store."""
        if self._url is None:
            return None
        try:
            with self._open(urllib.request.Request(f"{self._url}/{key}")) as answer:
                value: Json = json.loads(answer.read())
        except (OSError, HTTPException):  # 404: nobody left anything
            return None
        return value

    def _open(self, request: urllib.request.Request) -> HTTPResponse:
        # the launcher is not behind a proxy
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        answer: HTTPResponse = direct.open(request, timeout=_SECONDS)
        return answer
