"""Watches, from a thread, how long this rank waits for others where it cannot look itself."""

import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import TracebackType

from hvd_xai.errors import WorldError

DEADLINE_SECONDS = 1800.0


def read_deadline(environment: Mapping[str, str]) -> float:
    """Returns the seconds that a wait for other ranks may take, from `HVD_XAI_DEADLINE`.

    Raises:
        WorldError: if the variable holds no such number.

    Example:
        >>> read_deadline({}), read_deadline({"HVD_XAI_DEADLINE": "60"})
        (1800.0, 60.0)
    """
    text = environment.get("HVD_XAI_DEADLINE", str(DEADLINE_SECONDS))
    try:
        deadline = float(text)
    except ValueError:
        deadline = 0.0
    # NaN fails both comparisons; threads cannot wait for longer than the maximum
    if not 0 < deadline < threading.TIMEOUT_MAX:
        raise WorldError(
            "HVD_XAI_DEADLINE must be a number of seconds above 0, at most some years; got"
            f" '{text}'"
        )
    return deadline


class Watch:
    """Guards waits for other ranks, one after another; each guard costs one reading of the clock.

    Args:
        deadline: seconds that a wait may take; infinite where there is nobody to wait for.
        numbers: source of the number of each wait, by which the ranks speak of it; the same wait
            must get the same number on all ranks.
        tell: function that tells the other ranks that this rank is in the wait of a number; called
            when half of the deadline is over.
        end: function that ends the job, given the number of the wait that outlasted the deadline.

    Example:
        >>> import itertools
        >>> watch = Watch(60.0, itertools.count(), tell=print, end=print)
        >>> with watch:
        ...     pass  # wait for the other ranks here
        >>> watch.stop()
    """

    def __init__(
        self,
        deadline: float,
        numbers: Iterator[int],
        tell: Callable[[int], None],
        end: Callable[[int], None],
    ) -> None:
        self._deadline, self._numbers, self._tell, self._end = deadline, numbers, tell, end
        # Number of the wait, and when it began.
        self._wait: tuple[int, float] | None = None
        self._told = 0
        self._stopped = threading.Event()
        # an error may keep the owner from calling `stop`; the thread must end then too, and so it
        # holds no more than a weak reference to this object
        weakref.finalize(self, self._stopped.set)
        if math.isfinite(deadline):
            look = partial(_look_often, weakref.ref(self), self._stopped, min(1.0, deadline / 16))
            threading.Thread(target=look, name="hvd_xai-watch", daemon=True).start()

    def __enter__(self) -> None:
        """Begins a wait."""
        self._wait = (next(self._numbers), time.monotonic())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the wait."""
        self._wait = None

    @contextmanager
    def once(self) -> Iterator[None]:
        """Guards a single wait, then stops the watch."""
        try:
            with self:
                yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Ends the thread that looks; safe to call twice."""
        self._stopped.set()

    def look(self) -> None:
        """Tells the others of a wait that takes long, or ends the job if it takes too long."""
        # read once: the other thread may end the wait, or begin the next, at any time
        wait = self._wait
        if wait is None:
            return
        number, began = wait
        waited = time.monotonic() - began
        if waited > self._deadline / 2 and number != self._told:
            self._tell(number)
            self._told = number
        if waited > self._deadline:
            self._end(number)
            self.stop()


def _look_often(
    reference: "weakref.ref[Watch]", stopped: threading.Event, pause_seconds: float
) -> None:
    while not stopped.wait(pause_seconds):
        watch = reference()
        if watch is not None:
            watch.look()
        # this name would keep the watch alive through the next pause
        del watch
