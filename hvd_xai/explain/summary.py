"""What one explanation of the probe came to, for callbacks and benchmarks."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Summary:
    """What one explanation of the probe came to.

    Attributes:
        convergence_delta: mean magnitude of the convergence delta over the probe, by the name that
            a method is committed under; only of methods that have one. The same on every rank.
        seconds: this rank's seconds by stage: attributing, merging, writing.

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
