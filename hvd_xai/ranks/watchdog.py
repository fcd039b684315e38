"""Looks, from a thread, at how long this rank waits for the others where it cannot look itself."""

import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType


class Watch:
    """Guards waits for other ranks, one after the other.

    `with watch:` around each. It costs one reading of the clock.

    Args:
        deadline: seconds that a wait may take; infinite where there is nobody to wait for.
        numbers: gives each wait its number, by which the ranks speak of it: it is the same on all
            of them.
        tell: called with the number of a wait of which half the time is over, to tell the others
            that this rank is in it.
        end: called with the number of one whose time is over, to end the job.
    """

    def __init__(
        self,
        deadline: float,
        numbers: Iterator[int],
        tell: Callable[[int], None],
        end: Callable[[int], None],
    ) -> None:
        self._deadline, self._numbers, self._tell, self._end = deadline, numbers, tell, end
        self._wait: tuple[int, float] | None = None  # its number, and when it began
        self._told = 0
        self._stopped = threading.Event()
        weakref.finalize(self, self._stopped.set)  # whoever was to stop it may have met an error
        if math.isfinite(deadline):
            look = partial(_look, weakref.ref(self), self._stopped, min(1.0, deadline / 16))
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
        """Ends it."""
        self._wait = None

    @contextmanager
    def once(self) -> Iterator[None]:
        """Guards one wait, and looks no longer after it."""
        try:
            with self:
                yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Looks no longer."""
        self._stopped.set()

    def look(self) -> None:
        """Tells and ends what is due."""
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


def _look(of: "weakref.ref[Watch]", stopped: threading.Event, pause: float) -> None:
    while not stopped.wait(pause):
        watch = of()
        if watch is not None:
            watch.look()
        del watch
