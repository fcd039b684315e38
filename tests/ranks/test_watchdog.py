"""A wait that is too long is reported and ended; a short one, and the time between two, is left
alone."""

import itertools
import math
import queue
import threading
import time

import pytest

from hvd_xai.errors import WorldError
from hvd_xai.ranks.watchdog import Watch, read_deadline

SECONDS = 30  # for a thread that does its work at once


class Watched:
    """A watch, with the waits that it reported and ended."""

    def __init__(self, deadline: float) -> None:
        self.told: queue.Queue[int] = queue.Queue()
        self.ended: queue.Queue[int] = queue.Queue()
        before = set(threading.enumerate())
        self.watch = Watch(deadline, itertools.count(1), self.told.put, self.ended.put)
        self.threads = set(threading.enumerate()) - before


def test_the_wait_that_takes_too_long_is_told_and_ended() -> None:
    watched = Watched(0.5)
    with watched.watch:
        pass
    with watched.watch:
        assert watched.told.get(timeout=SECONDS) == 2
        assert watched.ended.empty()
        assert watched.ended.get(timeout=SECONDS) == 2
    assert watched.told.empty()


def test_the_time_between_waits_does_not_count() -> None:
    watched = Watched(0.3)
    for _ in range(2):
        with watched.watch:
            pass
        time.sleep(0.6)
    watched.watch.stop()
    assert watched.told.empty()
    assert watched.ended.empty()


def test_a_wait_that_ends_with_an_error_has_ended() -> None:
    watched = Watched(0.3)
    with pytest.raises(OSError, match="lost"), watched.watch:
        raise OSError("lost")
    time.sleep(0.6)
    watched.watch.stop()
    assert watched.ended.empty()


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_watch_that_is_stopped_or_forgotten_leaves_no_thread(forgotten: bool) -> None:
    watched = Watched(1000.0)
    (thread,) = watched.threads
    if forgotten:
        del watched
    else:
        watched.watch.stop()
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_nobody_is_waited_for_without_a_thread() -> None:
    watched = Watched(math.inf)
    with watched.watch:
        assert watched.threads == set()


@pytest.mark.parametrize("text", ["abc", "0", "-1", "nan", "inf", ""])
def test_a_deadline_that_is_no_number_of_seconds_is_refused(text: str) -> None:
    with pytest.raises(WorldError, match="HVD_XAI_DEADLINE must be a number of seconds"):
        read_deadline({"HVD_XAI_DEADLINE": text})


def test_without_a_deadline_of_the_users_half_an_hour_is_waited() -> None:
    assert read_deadline({}) == 1800
    assert read_deadline({"HVD_XAI_DEADLINE": "0.5"}) == 0.5
