"""The state that all ranks share: broadcast before training, kept equal while it goes on, and left
by all ranks at once.
"""

import json
import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import xxhash

from hvd_xai.keras.collectives import Average, broadcast, init, reduce_values, require_started
from hvd_xai.keras.data import agree_steps
from hvd_xai.keras.optimizer import (
    reduce_before_overflow_check,
    reduces_after_overflow_check,
    reduction_of,
)
from hvd_xai.keras.variables import is_seed, unique
from hvd_xai.ranks.watchdog import Watch
from hvd_xai.ranks.world import World

log = logging.getLogger(__name__)

# what Keras hands to callbacks: floats, and whatever else a model logs
Logs = dict[str, Any] | None

VOTE_EVERY = 32  # batches: a vote costs a millisecond at most, and some steps take no longer


_AGREED = "_hvd_xai_ends_epoch"  # on the model


class BroadcastGlobalVariablesCallback(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Makes the state of all ranks equal, and keeps equal what gradients do not.

    Before training it checks that the ranks hold the same model and take the same number of steps
    and epochs, then gives every rank the root's weights and optimizer state. Before each
    validation, and at each epoch's end, it averages the moving statistics of normalisation layers,
    which each rank gathers from its own data: without that, validation, explanations and saved
    models depend on the rank.

    A stop is a vote: where any rank's callback sets `model.stop_training`, all ranks leave `fit` at
    the same place, which is the end of the epoch for what is decided there, and within an epoch, as
    by TerminateOnNaN, at most 33 batches later. After every epoch it checks that the ranks train
    with one learning rate.

    A step that takes longer than `HVD_XAI_DEADLINE` seconds, 1800 if that is not set, ends the job,
    and the ranks that the others wait for are named. What is done between steps, as explaining,
    does not count.

    The states of seed generators are left alone: if they were equal, every rank would drop out the
    same units.

    Put it first. It also turns `jit_compile` off and says so: XLA cannot compile the allreduce.

    Args:
        root_rank: the rank whose state everyone gets.
        device: where TensorFlow places what is broadcast; its own choice if empty.
        local_variables: variables, or one, that each rank keeps for itself: neither broadcast nor
            averaged.

    Raises:
        TypeError: if one of `local_variables` is no variable.
    """

    def __init__(
        self, root_rank: int = 0, device: str = "", local_variables: "Collection[Any] | Any" = None
    ) -> None:
        super().__init__()
        require_started("BroadcastGlobalVariablesCallback")
        self.root_rank = root_rank
        self.device = device
        self._world = init()
        self._local: list[Any] = []
        variables = (
            []
            if local_variables is None
            else local_variables
            if isinstance(local_variables, Collection)
            else [local_variables]
        )
        for variable in variables:
            self.register_local_var(variable)
        self._begun = False
        self._n_batches = 0
        self._wants_stop = self._stops = False

    def register_local_var(self, variable: Any) -> None:
        """Leaves a variable to each rank: it is neither broadcast nor averaged.

        Raises:
            TypeError: if it is no variable.
        """
        if not isinstance(variable, keras.Variable | tf.Variable):
            raise TypeError(
                "local_variables must be variables of Keras or TensorFlow; got"
                f" {type(variable).__name__}"
            )
        self._local.append(variable)

    def set_model(self, model: "keras.Model") -> None:
        """Puts right what would hang, and turns off what cannot be compiled, before Keras builds
        the training step.
        """
        super().set_model(model)
        with self._world.together("looking at the model"):
            if not hasattr(model, "optimizer") or model.optimizer is None:
                return
            reduction = reduction_of(model.optimizer)
            if reduction is not None and reduction.leaves_out_this_rank:
                raise ValueError(
                    "the optimizer reduces over the process set of ranks"
                    f" {reduction.process_set.ranks}, and rank {self._world.rank} is not in it: it"
                    " would train alone. Give each rank's optimizer a process set that the rank"
                    " is in."
                )
            if reduces_after_overflow_check(model.optimizer):
                log.info(
                    "Keras has put a LossScaleOptimizer around the distributed optimizer; the ranks"
                    " now look for overflows together"
                )
                reduce_before_overflow_check(model.optimizer)
            if model.jit_compile:
                log.warning("jit_compile is turned off: XLA cannot compile Horovod's allreduce")
                model.jit_compile = False

    def on_train_begin(self, logs: Logs = None) -> None:
        """Compares models, steps and epochs, then broadcasts.

        Collective: every rank must call this.
        """
        agree_steps(self._world, self.params.get("steps"))
        _agree_on(self._world, "comparing the epochs", "epochs to train", self.params.get("epochs"))
        optimizer = self.model.optimizer
        with self._world.together("looking for the model's weights"):
            if not self.model.variables:
                raise ValueError(
                    f"model '{self.model.name}' has no weights yet, though it calls itself built;"
                    " call it on one batch, as model(x[:1]), before fit, so that all ranks begin"
                    " with the same"
                )
        if not optimizer.built:  # that of a rank that has loaded its model is
            optimizer.build(self.model.trainable_variables)
        variables = _shared([*self.model.variables, *optimizer.variables], self._local)
        _agree_on_variables(self._world, variables)
        with tf.device(self.device):
            broadcast(variables, self.root_rank)
        self._begun = True
        self._n_batches = 0
        self._wants_stop = self._stops = False
        self._come_last()
        self._stop_watching()  # for a fit that was broken off
        if self.model.train_function is not None:  # it is, where `fit` calls
            self.model.train_function = _Watched(
                self.model.train_function, self._world.watch("a training step")
            )

    def on_train_end(self, logs: Logs = None) -> None:
        """Watches no longer."""
        self._stop_watching()

    def _stop_watching(self) -> None:
        step = self.model.train_function
        if isinstance(step, _Watched):
            step.watch.stop()
            self.model.train_function = step.step

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Checks that the ranks begin at one epoch, as after BackupAndRestore.

        Collective: every rank must call this.
        """
        if self._begun:
            self._begun = False
            _agree_on(self._world, "comparing the first epochs", "epochs that are done", epoch)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Votes now and then on whether to leave the epoch.

        Collective: every rank must call this.
        """
        self._n_batches += 1
        if self._n_batches % VOTE_EVERY == 0 and not self._stops:
            self._stops = any(self._world.allgather("voting on a stop", self._wants_stop))
            if self._stops:
                self.model.stop_training = True  # Keras looks at it after this batch

    def on_test_begin(self, logs: Logs = None) -> None:
        """Averages the moving statistics. Collective: every rank must call this."""
        average_statistics(self.model, local_variables=self._local)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Averages the moving statistics. Collective: every rank must call this."""
        average_statistics(self.model, local_variables=self._local)

    def _come_last(self) -> None:
        """Has the stop seen to after all other callbacks: in History, which Keras puts behind
        them.
        """
        history = getattr(self.model, "history", None)
        if isinstance(history, keras.callbacks.History):
            history.on_train_batch_end = self._hold_back
            history.on_epoch_end = partial(self._stop_together, history)

    def _hold_back(self, batch: int, logs: Logs = None) -> None:
        """Keeps in mind that this rank wants to stop, and keeps it from leaving the epoch alone."""
        if self.model.stop_training and not self._stops and not getattr(self.model, _AGREED, False):
            self._wants_stop = True
            self.model.stop_training = False

    def _stop_together(
        self, history: "keras.callbacks.History", epoch: int, logs: Logs = None
    ) -> None:
        """Ends the training of all ranks if any wants to. Collective: every rank must call this."""
        type(history).on_epoch_end(history, epoch, logs)
        setattr(self.model, _AGREED, False)
        wants = bool(self.model.stop_training) or self._wants_stop
        answers = self._world.allgather(
            "voting on a stop", [wants, float(self.model.optimizer.learning_rate)]
        )
        votes, rates = zip(*[answer for answer in answers if isinstance(answer, list)], strict=True)
        self.model.stop_training = any(votes)
        odd = next((rank for rank, rate in enumerate(rates) if str(rate) != str(rates[0])), None)
        error = None
        if odd is not None:
            error = ValueError(
                f"the ranks train with different learning rates: rank 0 with {rates[0]:g}, rank"
                f" {odd} with {rates[odd]:g}. Give every rank the callbacks that change it, behind"
                " MetricAverageCallback."
            )
        self._world.agree("comparing the learning rates", error)


class _Watched:
    """A training step, in which this rank waits for the gradients of the others."""

    def __init__(self, step: "Callable[..., Any]", watch: Watch) -> None:
        self.step, self.watch = step, watch

    def __call__(self, *args: Any) -> Any:
        with self.watch:
            return self.step(*args)


def end_epoch(model: "keras.Model") -> None:
    """Ends the epoch after this batch, without a vote.

    Every rank must call this at the same batch, from `on_train_batch_end`.

    It sets `model.stop_training`: clear that at the epoch's end, if training is to go on.
    """
    setattr(model, _AGREED, True)
    model.stop_training = True


def average_statistics(model: "keras.Model", *, local_variables: Sequence[Any] = ()) -> None:
    """Averages over the ranks what layers gather from data, as moving means and variances.

    Collective: every rank must call this.

    The averaged moving variance leaves out how the ranks' means differ; over shuffled shards that
    is small. `SyncBatchNormalization` gathers from all ranks to begin with.

    Args:
        model: of this rank.
        local_variables: that each rank keeps for itself.
    """
    gathered = [
        variable
        for variable in _shared(model.non_trainable_variables, local_variables)
        if "float" in keras.backend.standardize_dtype(variable.dtype)
    ]
    averages = reduce_values(
        [np.asarray(variable.value.numpy()) for variable in gathered],
        op=Average,
        name="hvd_xai.statistics",
    )
    for variable, average in zip(gathered, averages, strict=True):
        variable.assign(average.astype(np.float32))


def _shared(variables: "Sequence[keras.Variable]", local: Sequence[Any]) -> "list[keras.Variable]":
    """Leaves out the states of seed generators, and what each rank keeps for itself."""
    kept = {id(variable) for variable in local}
    return [
        variable
        for variable in unique(variables)
        if not (
            is_seed(variable)
            or id(variable) in kept
            or id(getattr(variable, "value", None)) in kept
        )
    ]


def _agree_on(world: World, phase: str, what: str, count: int | None) -> None:
    """Raises on every rank unless all have the same count.

    Collective: every rank must call this.
    """
    counts = world.allgather(phase, count)
    error = None
    if len(set(map(str, counts))) > 1:
        said = ", ".join(f"rank {rank}: {theirs}" for rank, theirs in enumerate(counts))
        error = ValueError(
            f"the ranks have different numbers of {what} ({said}), so that some would wait for"
            " others that have left"
        )
    world.agree(phase, error)


def _agree_on_variables(world: World, variables: "Sequence[keras.Variable]") -> None:
    """Raises on every rank unless all ranks' variables match.

    Collective: every rank must call this.
    """
    # names are left out: Keras counts the layers of a process, and a rank may have built others
    # before
    mine = [f"{tuple(variable.shape)} {variable.dtype}" for variable in variables]
    phase = "comparing the models"
    if (
        len(
            set(
                map(
                    str, world.allgather(phase, xxhash.xxh3_128_hexdigest("\n".join(mine).encode()))
                )
            )
        )
        == 1
    ):
        return
    named = [f"'{variable.path}' {of}" for variable, of in zip(variables, mine, strict=True)]
    models = [json.loads(str(entry)) for entry in world.allgather(phase, json.dumps([mine, named]))]
    rank = next(rank for rank, (theirs, _) in enumerate(models) if theirs != models[0][0])
    both = zip_longest(models[0][0], models[rank][0])
    index = next(index for index, (ours, theirs) in enumerate(both) if ours != theirs)
    here, there = (
        (model[1][index] if index < len(model[1]) else "nothing")
        for model in (models[0], models[rank])
    )
    world.agree(
        phase,
        ValueError(
            f"the ranks hold different models: rank 0 has {here} where rank {rank} has {there}."
            " Build one model."
        ),
    )
