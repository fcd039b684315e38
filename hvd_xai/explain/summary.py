"""Summarises one explanation of the probe for callbacks and benchmarks."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Summary:
    """Holds the convergence deltas and the times of one explanation of the probe.

    Attributes:
        convergence_delta: mean magnitude of the convergence delta over the probe, by the name that
            a method is committed under. Methods without a convergence delta are left out. The same
            on every rank.
        seconds: seconds that this rank spent in each stage: attributing, merging, writing.

    Example:
        >>> summary = Summary()
        >>> with summary.timed("merging"):
        ...     pass
        >>> summary.seconds["merging"] < 1
        True
    """

    convergence_delta: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(
        default_factory=lambda: {"attributing": 0.0, "merging": 0.0, "writing": 0.0}
    )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds that a block takes to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started
