"""Errors say what happened, and some of them are raised on every rank."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from hvd_xai import errors
from hvd_xai.errors import (
    HvdXaiError,
    PeerError,
    advise,
    advising_command_line,
    is_agreed,
    mark_agreed,
)


def test_a_peers_error_says_who_failed_where_at_what() -> None:
    error = PeerError("opening the run", [(2, "node-7", "OSError: the disk is full")])
    assert str(error) == "opening the run: rank 2 on node-7 failed: OSError: the disk is full"
    assert (error.phase, error.failures[0][0]) == ("opening the run", 2)


def test_of_several_peers_the_first_is_named_and_the_others_are_counted() -> None:
    failures = [(rank, f"node-{rank}", f"OSError: disk {rank} is full") for rank in (1, 2, 5)]
    said = str(PeerError("writing", failures))
    assert "rank 1 on node-1 failed (2 more ranks failed too): OSError: disk 1 is full" in said


def test_an_error_is_agreed_once_it_is_marked() -> None:
    error = ValueError("the ranks hold different weights")
    assert not is_agreed(error)
    assert mark_agreed(error) is error
    assert is_agreed(error)


def test_an_attribute_that_only_looks_like_the_mark_is_none() -> None:
    error = OSError("the disk is full")
    error.agreed = "by the committee"  # type: ignore[attr-defined]
    assert not is_agreed(error)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if getattr(kind, "__module__", "") == errors.__name__ and isinstance(kind, type)
    ],
)
def test_every_error_is_caught_by_its_base(kind: type) -> None:
    assert issubclass(kind, HvdXaiError)


def test_a_missing_horovod_is_an_import_error_too() -> None:
    assert issubclass(errors.HorovodMissingError, ImportError)


def test_advice_is_in_the_words_of_who_started_the_job() -> None:
    def said() -> str:
        return advise(script="pass mode='resume'", command="add --resume")

    # a thread that writes files is of the same process
    with advising_command_line(), ThreadPoolExecutor(1) as thread:
        assert thread.submit(said).result() == said() == "add --resume"
    assert said() == "pass mode='resume'"
