"""Holds the sinks: the places that an explanation goes to once it is committed.

One module is one sink: one class, named as the module in CamelCase.

A sink is called on the root alone, after the commit, with the run and the committed explanation: it
writes beside the run, and reads the explanation in bounded blocks, never whole. The thread that
calls it writes files while another one trains: a sink touches files only, no ranks and no model.
`Sink` is the contract.

Every rank makes the sinks, so making one touches no file. It may require a `path`, and nothing
else. `run.path` is the run's folder, `explanation.manifest` knows method and epoch,
`explanation.blocks(BLOCK_BYTES)` yields attributions, `explanation.column("score")` one number a
sample. `BLOCK_BYTES` is a constant of each module whose sink reads attributions: how much it reads
at a time. A sink that keeps something open has a `close()`, which may come twice.

In a script any function of `(run, explanation)` is a sink.
"""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from hvd_xai.checkpoint.explanation import Explanation
    from hvd_xai.checkpoint.run_directory import RunDirectory


@runtime_checkable
class Sink(Protocol):
    """Where a committed explanation goes: a function, or an object that is called like one.

    An object that keeps something open may have a method `close()`, which is called at the end; it
    is safe to call twice, and no explanation comes after it.

    Example:
        >>> from hvd_xai.checkpoint.run_directory import RunDirectory
        >>> def log_score(run, explanation):
        ...     print(explanation.manifest.method, explanation.column("score").shape)
        >>> run = RunDirectory("runs/example")
        >>> log_score(run, run.explanations().explanation(2, "grad_cam"))
        grad_cam (4,)
    """

    def __call__(self, run: "RunDirectory", explanation: "Explanation", /) -> None:
        """Takes a committed explanation of a run; of a resumed run, one of an epoch perhaps again.

        Everything that is made of it is on disk when this returns.
        """
