"""The launcher's variables are read, and its store keeps what the ranks leave there."""

import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from hvd_xai.errors import WorldError
from hvd_xai.protocols import Json
from hvd_xai.ranks.launcher import (
    Store,
    check_sizes,
    is_elastic,
    is_gloo,
    launched_rank,
    launched_size,
)


class _Handler(BaseHTTPRequestHandler):
    """Answers as horovodrun's store does: PUT keeps, GET returns, 404 where there is nothing."""

    kept: dict[str, bytes]

    def do_PUT(self) -> None:
        self.kept[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        value = self.kept.get(self.path)
        self.send_response(404 if value is None else 200)
        self.end_headers()
        self.wfile.write(value or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def environment() -> Iterator[Mapping[str, str]]:
    """Returns the variables that a launcher sets whose store runs on this host."""
    _Handler.kept = {}
    with HTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield {
                "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
                "HOROVOD_GLOO_RENDEZVOUS_PORT": str(server.server_port),
            }
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("value", [12, "\u00e9", [1, "host", "the disk is full"], None])
def test_every_rank_reads_what_one_of_them_wrote(
    environment: Mapping[str, str], value: Json
) -> None:
    Store.from_environment(environment).write("waits-1", value)
    assert Store.from_environment(environment).read("waits-1") == value
    assert list(_Handler.kept) == ["/hvd_xai/waits-1"]


def test_a_key_that_nobody_wrote_reads_as_none(environment: Mapping[str, str]) -> None:
    assert Store.from_environment(environment).read("failure") is None


def test_the_users_proxy_is_not_asked(
    environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    Store.from_environment(environment).write("waits-1", 3)
    assert Store.from_environment(environment).read("waits-1") == 3


def test_a_launcher_that_is_gone_neither_fails_nor_answers() -> None:
    gone = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": "9"}
    Store.from_environment(gone).write("failure", "lost")
    assert Store.from_environment(gone).read("failure") is None


@pytest.mark.parametrize(
    ("environment", "size"),
    [
        ({}, None),
        ({"OMPI_COMM_WORLD_SIZE": "3", "SLURM_STEP_NUM_TASKS": "1"}, 3),
        ({"PMI_SIZE": "", "HOROVOD_SIZE": "2"}, 2),
        ({"SLURM_STEP_NUM_TASKS": "4"}, 4),
    ],
)
def test_the_first_launcher_that_says_how_many_ranks_it_started_is_believed(
    environment: Mapping[str, str], size: int | None
) -> None:
    assert launched_size(environment) == size


def test_the_rank_is_the_first_that_a_launcher_says() -> None:
    assert launched_rank({"HOROVOD_RANK": "1", "OMPI_COMM_WORLD_RANK": "0"}) == 1
    assert launched_rank({"OMPI_COMM_WORLD_RANK": "0"}) == 0
    assert launched_rank({"PMI_RANK": "x"}) is None


@pytest.mark.parametrize(
    ("environment", "gloo", "elastic"),
    [
        ({}, False, False),
        ({"HOROVOD_CONTROLLER": "mpi"}, False, False),
        ({"HOROVOD_CONTROLLER": "gloo"}, True, False),
        ({"HOROVOD_GLOO_RENDEZVOUS_ADDR": "node-1", "HOROVOD_ELASTIC": "1"}, True, True),
    ],
)
def test_gloo_and_elastic_jobs_are_known_by_their_variables(
    environment: Mapping[str, str], gloo: bool, elastic: bool
) -> None:
    assert (is_gloo(environment), is_elastic(environment)) == (gloo, elastic)


@pytest.mark.parametrize(
    ("launched", "horovod", "mpi", "gloo", "message"),
    [
        (2, 1, 1, False, "the launcher started 2 ranks but Horovod sees 1"),
        (2, 2, 1, False, "Horovod sees 2 ranks but mpi4py sees 1"),
        (None, 2, None, False, "mpi4py is not installed"),
    ],
)
def test_ranks_that_are_counted_differently_are_refused(
    launched: int | None, horovod: int, mpi: int | None, gloo: bool, message: str
) -> None:
    with pytest.raises(WorldError, match=message):
        check_sizes(launched, horovod, mpi, gloo=gloo)


@pytest.mark.parametrize(
    ("launched", "horovod", "mpi", "gloo"),
    [(None, 1, 1, False), (2, 2, 2, False), (2, 2, None, True), (2, 2, 1, True)],
)
def test_ranks_that_are_counted_alike_go_on(
    launched: int | None, horovod: int, mpi: int | None, gloo: bool
) -> None:
    check_sizes(launched, horovod, mpi, gloo=gloo)
