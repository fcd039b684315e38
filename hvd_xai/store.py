"""What the launcher keeps for the ranks that it starts without MPI: small values by key, which outlive each rank, until the next reset."""

import json
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPResponse

from hvd_xai.types import Json

_SECONDS = 5.0


class Store:
    """The key-value store that `horovodrun --gloo` runs for its ranks to meet, and for whatever else they leave there.

    Args:
        url: of our part of it; None if there is no such place.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Store":
        """Returns the store of the job that this process was started in."""
        address, port = (environment.get(f"HOROVOD_GLOO_RENDEZVOUS_{part}", "") for part in ("ADDR", "PORT"))
        return cls(f"http://{address}:{port}/hvd_xai" if address else None)

    def write(self, key: str, value: Json) -> None:
        """Leaves a value; a launcher that is gone needs no telling."""
        if self._url is not None:
            with suppress(OSError):
                self._open(urllib.request.Request(f"{self._url}/{key}", json.dumps(value).encode(), method="PUT")).close()

    def read(self, key: str) -> Json:
        """Returns what was left under a key; None if that is nothing, or there is no store."""
        if self._url is None:
            return None
        try:
            with self._open(urllib.request.Request(f"{self._url}/{key}")) as answer:
                value: Json = json.loads(answer.read())
        except OSError:  # 404: nobody left anything
            return None
        return value

    def _open(self, request: urllib.request.Request) -> HTTPResponse:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the launcher is not behind a proxy
        answer: HTTPResponse = direct.open(request, timeout=_SECONDS)
        return answer
