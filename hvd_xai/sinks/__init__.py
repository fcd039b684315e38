"""Holds the sinks: the places that an explanation goes to once it is committed.

One module is one sink: one class, named as the module in CamelCase.

A sink is called on the root alone, after the commit, with the run and the committed explanation: it
writes beside the run, and reads the explanation in bounded blocks, never whole. The thread that
calls it writes files while another one trains: a sink touches files only, no ranks and no model.
`Sink` is the contract.

Every rank makes the sinks, so making one touches no file. It may require a `path`, and nothing
else. `run.path` is the run's folder, `explanation.manifest` knows method and epoch,
`explanation.blocks(BLOCK_BYTES)` yields attributions, `explanation.column("score")` one number a
sample. `BLOCK_BYTES` is a constant of the module of a sink that reads attributions: how much of
them it reads at a time.
"""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from hvd_xai.checkpoint.reader import Explanation
    from hvd_xai.checkpoint.run_directory import RunDirectory


@runtime_checkable
class Sink(Protocol):
    """Where a committed explanation goes."""

    def __call__(self, run: "RunDirectory", explanation: "Explanation", /) -> None:
        """Takes a committed explanation of a run; of a resumed run, one of an epoch perhaps again.

        Everything that is made of it is on disk when this returns.
        """

    def close(self) -> None:
        """Ends the sink; safe to call twice. It is not called with an explanation after that."""
