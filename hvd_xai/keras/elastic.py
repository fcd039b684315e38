"""Elastic training: hosts are lost and join while a job runs, and training goes on from the last
commit.

`horovodrun --gloo -np 2 --min-np 1 --max-np 4 --host-discovery-script ./hosts.sh python train.py`
starts it; the script prints one `host:slots` a line, whenever it is asked. It wants two host names
at least, or `--network-interfaces`. In `train.py`:

    world = hvd.init()
    model = build()  # compiled with a DistributedOptimizer, the same on every rank
    state = hvd.elastic.KerasState(model, epoch=0, batch=0)
    explain = Explain(probe, ["integrated_gradients"], world=world, run="runs/elastic")

    @hvd.elastic.run
    def train(state):
        x, y = hvd.shard(x_train, y_train, world=world)  # cut for the ranks of now
        callbacks = [
            hvd.callbacks.BroadcastGlobalVariablesCallback(),
            hvd.elastic.UpdateBatchStateCallback(state),
            explain,
            hvd.elastic.UpdateEpochStateCallback(state),
            hvd.elastic.CommitStateCallback(state, batches_per_commit=10),
        ]
        model.fit(x, y, initial_epoch=state.epoch, epochs=20, callbacks=callbacks)

    train(state)

When a host is lost, the collective that the others are in fails; they go back to the last commit,
meet anew, take the root's state, and call the function again. When the discovery script lists other
hosts, all ranks hear of it at their next commit, and nothing is lost. `world` is the same object
throughout and has the ranks of now: what is cut by rank is cut inside the function, and callbacks
that look at the number of ranks are made there. `state.register_reset_callbacks` takes functions to
call after each change, as one that scales the learning rate.

A rank that ends with an error of its own is no lost host: it ends the job with its error, as
everywhere in hvd_xai. (Horovod's own wrapper goes on without it; and where the gradients are
reduced in one group, it takes a lost host for the end of training.)

`Explain` shares the probe anew among the ranks of now whenever training begins, and goes on in the
run directory that the job began; an epoch that is trained again takes the place of what it had
left. Give `fit` the epoch as above, `initial_epoch=state.epoch` and `epochs` in all, so that
explanations are filed under the right one, and commit last, after `Explain`: an epoch is done when
it is explained.

What is Horovod's to decide: a host whose rank died is not used again, unless
`--blacklist-cooldown-range` says so. Of three ranks or more, those that were not just then talking
to the one that died notice when Gloo gives up, after `HOROVOD_GLOO_TIMEOUT_SECONDS` (30). A rank
that is stuck, neither dead nor going on, is no lost host: it ends the job when it has been waited
for as long as `HVD_XAI_DEADLINE` says.
"""

import copy
import functools
import logging
import os
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import horovod.tensorflow as horovod
import keras
import numpy as np
import tensorflow as tf
from horovod.common.elastic import ObjectState, notification_manager
from horovod.common.exceptions import HorovodInternalError, HostsUpdatedInterrupt

from hvd_xai.keras.callbacks.state import end_epoch
from hvd_xai.keras.collectives import broadcast, init, require_started
from hvd_xai.ranks.launcher import is_elastic
from hvd_xai.ranks.transport import ROOT

__all__ = [
    "CommitStateCallback",
    "KerasState",
    "UpdateBatchStateCallback",
    "UpdateEpochStateCallback",
    "run",
]

log = logging.getLogger(__name__)

Args = ParamSpec("Args")
Result = TypeVar("Result")
Logs = dict[str, Any] | None  # as Keras hands them to callbacks


class KerasState(ObjectState):  # type: ignore[misc]  # horovod ships no types
    """What training goes on from: model, optimizer, and whatever is named besides, committed to
    memory.

    A commit copies all variables of the model and the optimizer, and the named attributes, which
    can be anything that pickles. Seeds of dropout and augmentation are committed and restored, but
    each rank keeps its own: if they were equal, every rank would drop out the same units.

    The optimizer is built if it is not yet: a rank that joins must have the variables that the
    others send it.

    Args:
        model: a built Keras model; the same on every rank.
        optimizer: the model's own if left out.
        kwargs: names and first values of further attributes, such as `epoch=0` and `batch=0`.

    Raises:
        ValueError: if the model is not built, has no optimizer while none is given, or a name is
            one that the state has already.
        WorldError: if the ranks are not connected.
    """

    def __init__(
        self,
        model: "keras.Model",
        optimizer: "keras.optimizers.Optimizer | None" = None,
        **kwargs: object,
    ) -> None:
        require_started("KerasState")
        optimizer = optimizer if optimizer is not None else getattr(model, "optimizer", None)
        if not model.built:
            raise ValueError(
                "KerasState copies the model's variables, and this model has none yet: call"
                " model.build(input_shape) first."
            )
        if optimizer is None:
            raise ValueError(
                "KerasState needs an optimizer: compile the model first, or pass optimizer=."
            )
        taken = sorted(
            name for name in kwargs if hasattr(type(self), name) or name in ("model", "optimizer")
        )
        if taken:
            raise ValueError(
                f"KerasState has an attribute of its own named {', '.join(map(repr, taken))};"
                " choose another name."
            )
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        self.model, self.optimizer = model, optimizer
        self._saved_state: dict[str, object] = {}
        self._committed: list[np.ndarray] = []
        super().__init__(bcast_object=_broadcast_object, get_rank=horovod.rank, **kwargs)
        self.save()

    def __getattr__(self, name: str) -> Any:
        """Says which attributes there are."""
        saved = self.__dict__.get("_saved_state", {})
        raise AttributeError(
            f"KerasState has no attribute '{name}'; it was made with: {', '.join(saved) or 'none'}"
        )

    def save(self) -> None:
        """Copies everything to memory, without looking for new hosts, as `commit` does."""
        self._committed = [np.array(variable.value.numpy()) for variable in self._variables()]
        self._saved_state = {name: copy.deepcopy(getattr(self, name)) for name in self._saved_state}

    def restore(self) -> None:
        """Takes everything back to the last commit."""
        for variable, value in zip(self._variables(), self._committed, strict=True):
            variable.assign(value)
        self._set_attrs()

    def sync(self) -> None:
        """Gives every rank the root's variables and its committed attributes, and commits.

        Collective: every rank must call this.

        Raises:
            ValueError: on every rank, if the ranks' models or optimizers differ.
        """
        shared = [
            variable
            for variable in self._variables()
            if "seed_generator_state" not in variable.path
        ]
        self._agree_on(shared)
        broadcast(shared, ROOT)
        self._saved_state = _broadcast_object(self._saved_state)
        self._set_attrs()
        self.save()

    def _set_attrs(self) -> None:
        # copies: a committed list must not grow with the one in use
        for name, value in self._saved_state.items():
            setattr(self, name, copy.deepcopy(value))

    def _variables(self) -> "list[keras.Variable]":
        # a layer that is shared, or a wrapped optimizer, names some twice
        return list(
            {
                id(variable): variable
                for variable in [*self.model.variables, *self.optimizer.variables]
            }.values()
        )

    def _agree_on(self, shared: "list[keras.Variable]") -> None:
        """Raises on every rank unless all have the same variables; of one that others do not have,
        Horovod waits for ever.
        """
        world = init()
        mine = ", ".join(f"{tuple(variable.shape)} {variable.dtype}" for variable in shared)
        theirs = world.allgather("comparing the states", mine)
        odd = next((rank for rank, one in enumerate(theirs) if one != theirs[ROOT]), None)
        error = (
            None
            if odd is None
            else ValueError(
                f"rank {odd} builds another model or optimizer than rank 0: {theirs[odd]};"
                f" {theirs[0]}"
            )
        )
        world.agree("comparing the states", error)


def run(
    function: "Callable[Concatenate[KerasState, Args], Result]",
) -> "Callable[Concatenate[KerasState, Args], Result]":
    """Makes a function of a state go on when ranks come and go: synchronised first, and called
    again after each reset.

    Where the job is not elastic, the function is called once, after the ranks are synchronised, and
    every error is its caller's.

    Args:
        function: takes the state first; it trains from what the state says, and contains all of the
            job's collectives.

    Returns:
        The function, to be called in the same way. It returns when the function does, and raises
        what the function raises, unless that was a collective that failed because another rank was
        lost.
    """

    @functools.wraps(function)
    def elastic(state: KerasState, /, *args: Args.args, **kwargs: Args.kwargs) -> Result:
        require_started("hvd_xai.keras.elastic.run")
        notification_manager.init()
        notification_manager.register_listener(state)
        reset, synchronised = False, False
        try:
            while True:
                try:
                    if reset:
                        init().reconnect()
                        state.on_reset()
                        log.info("training goes on with %d ranks", init().size)
                        reset = False
                    if not synchronised:
                        state.sync()
                    return function(state, *args, **kwargs)
                except HostsUpdatedInterrupt as update:
                    synchronised = update.skip_sync
                except (
                    HorovodInternalError,
                    tf.errors.UnknownError,
                    tf.errors.AbortedError,
                ) as error:
                    if not is_elastic(os.environ) or not _lost_a_rank(error):
                        raise
                    log.warning("a rank was lost; going back to the last commit")
                    log.debug("what failed", exc_info=error)
                    state.restore()
                    synchronised = False
                reset = True
        except SystemExit as left:
            # Horovod would take it for the end of the job, and well done
            if is_elastic(os.environ):
                init().abort(f"it exited while it trained, with {left.code!r}", 1)
            raise
        finally:
            notification_manager.remove_listener(state)

    return elastic


class CommitStateCallback(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Commits the state after batches and at each epoch's end.

    Put it last: what comes after it in an epoch is not done again.

    Args:
        state: what is committed.
        batches_per_commit: batches from one commit to the next. A commit copies all variables, and
            asks the root whether hosts came or went, a round trip: commit every batch only where
            batches are long.

    Raises:
        ValueError: if `batches_per_commit` is less than 1.
    """

    def __init__(self, state: KerasState, batches_per_commit: int = 1) -> None:
        super().__init__()
        if batches_per_commit < 1:
            raise ValueError(f"batches_per_commit must be 1 or more; got {batches_per_commit}")
        self.state = state
        self.batches_per_commit = batches_per_commit
        self.batches_remaining = batches_per_commit

    def on_train_begin(self, logs: Logs = None) -> None:
        """Counts anew, so that ranks that have just met commit together."""
        self.batches_remaining = self.batches_per_commit

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Commits when it is time. Collective: every rank must call this."""
        self.batches_remaining -= 1
        if self.batches_remaining == 0:
            self.commit()
            self.batches_remaining = self.batches_per_commit

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Commits. Collective: every rank must call this."""
        self.commit()

    def commit(self) -> None:
        """Commits the state. Collective: every rank must call this."""
        self.state.commit()


class UpdateBatchStateCallback(keras.callbacks.Callback):  # type: ignore[misc]  # as above
    """Keeps `state.batch`, the number of batches done of the epoch, and makes an epoch that was
    begun before a reset the shorter for it.

    It counts what was done, one more than Horovod's own, which names the last batch and trains on
    it again. An epoch has at least one batch left. Batches are those of the world at the time:
    where the number of ranks has changed since, as many are left out, not as many rows. Put it
    before callbacks that stop training: it ends the shorter epoch by the flag that they set.

    Args:
        state: has an attribute `batch`.
    """

    def __init__(self, state: KerasState) -> None:
        super().__init__()
        self.state = state
        self._before = 0
        self._ends = False

    def on_train_begin(self, logs: Logs = None) -> None:
        """Takes the first epoch up where the state has it."""
        self._before = self.state.batch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Counts, and ends an epoch that was begun before."""
        self.state.batch = self._before + batch + 1
        n_steps = self.params.get("steps")
        if (
            self._before > 0
            and n_steps
            and self.state.batch >= n_steps
            and not self.model.stop_training
        ):
            self._ends = True
            end_epoch(self.model)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Begins the next epoch at its first batch."""
        if self._ends:
            self._ends = self.model.stop_training = False
        self._before = self.state.batch = 0


class UpdateEpochStateCallback(keras.callbacks.Callback):  # type: ignore[misc]  # as above
    """Keeps `state.epoch`, the number of epochs done since the job began.

    The first epoch of a `fit` is the one that the state has, whether `fit` was given
    `initial_epoch=state.epoch` or, as Horovod's examples do it, `epochs=n_epochs - state.epoch`.

    Args:
        state: has an attribute `epoch`.
    """

    def __init__(self, state: KerasState) -> None:
        super().__init__()
        self.state = state
        self._offset: int | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """Waits for the first epoch."""
        self._offset = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Notes how far Keras's count is behind the job's."""
        if self._offset is None:
            self._offset = self.state.epoch - epoch

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Counts."""
        self.state.epoch = (self._offset or 0) + epoch + 1


def _broadcast_object(value: object) -> Any:
    """Returns the root's object. Collective: every rank must call this."""
    with init().waiting("synchronising the state"):
        return horovod.broadcast_object(value, ROOT, name="hvd_xai.elastic")


def _lost_a_rank(error: Exception) -> bool:
    """Returns whether a collective failed for want of a rank.

    What TensorFlow wraps says so only in its message.
    """
    return isinstance(error, HorovodInternalError) or "Horovod" in str(error)
