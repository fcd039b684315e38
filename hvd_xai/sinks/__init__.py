"""Places an explanation goes once it is committed: one module is one sink, and holds one class
named as the module in CamelCase.

A sink's first argument is the run directory, every other has a default. It is called on the root
alone, after the commit, and is given the committed explanation: it reads that in bounded blocks,
and never holds it whole. The thread that calls it writes files while another one trains: a sink
touches files only, no ranks and no model.
"""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from hvd_xai.checkpoint.reader import Explanation


@runtime_checkable
class Sink(Protocol):
    """Where a committed explanation goes."""

    def __call__(self, explanation: "Explanation", /) -> None:
        """Takes a committed explanation; what is made of it is written when this returns."""

    def close(self) -> None:
        """Ends the sink; safe to call twice. It is not called with an explanation after that."""
