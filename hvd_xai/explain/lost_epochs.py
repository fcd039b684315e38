"""Explains again, when training goes on, what was due in the job before and never committed.

A job commits an epoch's explanation while the next epoch trains. If it is killed in between, and
training goes on from a backup, the weights of that epoch may be at hand: they are what training
begins with.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from hvd_xai import provenance
from hvd_xai.checkpoint.gaps import find_gaps
from hvd_xai.checkpoint.reader import Explanations
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.explain.runner import Runner
from hvd_xai.ranks.world import World

log = logging.getLogger(__name__)

_PHASE = "looking for explanations that were lost"


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where training begins, or goes on.

    Args:
        epoch: epoch that is about to train.
        step: number of optimizer updates so far.
        n_steps: number of optimizer updates in an epoch; None if it is not known.
    """

    epoch: int
    step: int
    n_steps: int | None


def explain_lost(
    runner: Runner, run: RunDirectory, beginning: Beginning, *, every: int, world: World
) -> None:
    """Explains the last epoch again if it was lost; notes the lost epochs whose weights are gone.

    Collective: every rank must call this, before the first batch of `fit`.

    Args:
        runner: runner that explains.
        run: run that training goes on with; only the root looks at it.
        beginning: where training begins.
        every: number of epochs from one explanation to the next.
        world: ranks that train.

    Raises:
        PeerError: on all ranks, if the run cannot be looked at, or an explanation fails.
    """
    gaps: dict[str, list[int]] = {}
    is_at_hand = False
    with world.together(_PHASE):
        if world.is_root and run.mode == "resume" and beginning.epoch > 0:
            explanations = run.explanations()
            gaps = _find_all(explanations, runner, beginning.epoch, every)
            is_at_hand = bool(gaps) and _is_last_epochs_end(explanations, beginning)
    last = beginning.epoch - 1
    again = [method for method, epochs in gaps.items() if last in epochs] if is_at_hand else []
    again = world.from_root(_PHASE, again)
    if again and not _have_same_weights(runner, world):
        again = []
    gone = {
        method: [epoch for epoch in epochs if epoch != last or method not in again]
        for method, epochs in gaps.items()
    }
    with world.together(_PHASE):
        if world.is_root and any(gone.values()):
            _note(run, gone)
    if not again:
        return
    if world.is_root:
        log.info(
            "the explanation of epoch %d by %s was lost with the job before, and is made again from"
            " the weights that training goes on with",
            last,
            ", ".join(again),
        )
    runner.run(last, beginning.step, methods=again)


def _find_all(
    explanations: Explanations, runner: Runner, epoch: int, every: int
) -> dict[str, list[int]]:
    """Returns the epochs, by method, that the job before must have explained and lost."""
    before = explanations.config.get("methods")
    found = {
        method: find_gaps(explanations.path, method, before=epoch, every=every)
        for method in runner.compiled.computes
        # A method that the job before did not have has lost nothing.
        if isinstance(before, Mapping) and method in before
    }
    return {method: epochs for method, epochs in found.items() if epochs}


def _is_last_epochs_end(explanations: Explanations, beginning: Beginning) -> bool:
    """Returns whether the weights at hand are those at the end of the epoch before.

    A backup may also have been made in the midst of an epoch, and weights may come from anywhere.
    What tells is the number of updates: whole epochs must lie between the newest committed epoch
    and now.
    """
    epochs = [epoch for epoch in explanations.epochs if epoch < beginning.epoch]
    since, step = -1, 0
    if epochs:
        since = epochs[-1]
        step = explanations.explanation(since, explanations.methods(since)[0]).manifest.step
    # The number of ranks, and with it that of updates in an epoch, may have changed in between.
    lengths: set[float] = set() if beginning.n_steps is None else {beginning.n_steps}
    if epochs:
        lengths |= {step / (since + 1)}
    elif beginning.n_steps is None:
        lengths |= {beginning.step // beginning.epoch}
    return any(
        beginning.step == step + (beginning.epoch - 1 - since) * length for length in lengths
    )


def _have_same_weights(runner: Runner, world: World) -> bool:
    """Returns whether all ranks hold the same weights; a broadcast may be still to come.

    Collective: every rank must call this.
    """
    weights = ""
    with world.together(_PHASE):
        weights = provenance.weights_digest(runner.compiled.model)
    return len(set(world.allgather(_PHASE, weights))) == 1


def _note(run: RunDirectory, gone: Mapping[str, list[int]]) -> None:
    """Warns of lost epochs, and notes them in the run."""
    for method, epochs in gone.items():
        if epochs:
            log.warning(
                "%s has no explanation of epoch%s %s by %s: the job before ended before it was"
                " committed, and the weights of then are not at hand. `hvd-xai verify` and"
                " `hvd-xai show` name this gap.",
                run.path,
                "s" if len(epochs) > 1 else "",
                ", ".join(map(str, epochs)),
                method,
            )
    run.add_gaps({method: epochs for method, epochs in gone.items() if epochs})
