"""Makes the state of all ranks equal before training, and keeps it equal."""

import logging
from collections.abc import Collection
from typing import Any

import keras
import tensorflow as tf

from hvd_xai.keras.callbacks.moving_statistics import average_statistics
from hvd_xai.keras.callbacks.stop_vote import StopVote
from hvd_xai.keras.callbacks.unbuilt_model import build_for, is_whole
from hvd_xai.keras.callbacks.watched_step import stop_watching, trace_anew, watch_steps
from hvd_xai.keras.distribute import (
    distribution_of,
    reduce_before_overflow_check,
    reduces_after_overflow_check,
)
from hvd_xai.keras.equal_steps import agree_steps
from hvd_xai.keras.shared_state import share_state
from hvd_xai.keras.start import init, require_started
from hvd_xai.ranks.world import World

log = logging.getLogger(__name__)

# Floats, and whatever else a model logs.
Logs = dict[str, Any] | None


class BroadcastGlobalVariablesCallback(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Makes the state of all ranks equal, and keeps statistics equal that gradients do not train.

    Collective: every rank must pass it to `fit`, as its first callback.

    Before training it checks that the ranks hold the same model and take the same number of steps
    and epochs, then gives every rank the root's weights and optimizer state. A model without
    weights is built for its first batch, and gets the root's before it trains on that. Vocabularies
    and bins that layers have adapted, and TensorFlow's variables in layers, are the root's too, and
    a layer that computes with something made of its weights, as Normalization, makes it anew.

    Before each validation and at the end of each epoch it averages the moving statistics of
    normalisation layers, which each rank gathers from its own data; otherwise validation,
    explanations and saved models would depend on the rank.

    A stop is a vote. Where a callback of any rank sets `model.stop_training`, all ranks leave `fit`
    at the same place: at the end of the epoch if it was set there, and otherwise, as by
    TerminateOnNaN, at most 33 batches later. After every epoch it checks that the ranks train with
    one learning rate.

    A step that takes longer than `HVD_XAI_DEADLINE` seconds (1800 unless it is set) ends the job
    with the names of the ranks that the others wait for. Time between steps, as for explanations,
    does not count.

    Each rank keeps the states of its seed generators: with equal states every rank would drop out
    the same units. It also turns `jit_compile` off, with a warning, since XLA cannot compile
    Horovod's allreduce.

    Args:
        root_rank: rank whose state every rank gets.
        device: device where TensorFlow places what is broadcast; TensorFlow chooses if it is empty.
        local_variables: variable, or variables, that each rank keeps for itself: they are neither
            broadcast nor averaged.

    Raises:
        TypeError: if one of `local_variables` is no variable.
        WorldError: if `init()` was not called before.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
        >>> first = hvd.callbacks.BroadcastGlobalVariablesCallback()
        >>> history = model.fit(np.ones((8, 2)), np.ones(8), callbacks=[first], verbose=0)
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
        if local_variables is None:
            local_variables = []
        several = isinstance(local_variables, Collection)
        for variable in local_variables if several else [local_variables]:
            self.register_local_var(variable)
        self._begun = False
        self._shared: tuple[int, int] | None = None  # how many variables, until the first batch
        self._vote: StopVote | None = None

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
        """Prepares the model: mends settings that would hang, and turns off XLA.

        Collective: every rank must call this. Keras calls it before it builds the training step.
        """
        super().set_model(model)
        with self._world.together("looking at the model"):
            if not hasattr(model, "optimizer") or model.optimizer is None:
                return
            distribution = distribution_of(model.optimizer)
            if distribution is not None and distribution.reduction.leaves_out_this_rank:
                raise ValueError(
                    "the optimizer reduces over the process set of ranks"
                    f" {distribution.reduction.process_set.ranks}, and rank {self._world.rank} is"
                    " not in it: it would train alone. Give each rank's optimizer a process set"
                    " that the rank is in."
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
        # A fit that was broken off has never ended its watch.
        stop_watching(self.model)
        self._shared = None
        # The root may have loaded a model that the others have yet to build.
        built = all(self._world.allgather("looking at the model", is_whole(self.model)))
        if built:
            self._share()
        else:
            self._require_batches()
        self._begun = True
        self._vote = StopVote(self._world, self.model)
        watch_steps(self.model, self._world, None if built else self._build_and_share)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Broadcasts again, once, if the first batch has made weights that were not there before.

        Collective: every rank must call this.
        """
        if self._shared is None:
            return
        before, self._shared = self._shared, None
        now = self._count()
        counts = self._world.allgather("counting the variables", (before, now))
        if all(had == has for had, has in counts):
            return
        if any(had[0] != has[0] for had, has in counts):
            log.warning(
                "model '%s' made weights in its first training step, which began with other values"
                " on each rank; after it all ranks get those of rank %d. Let the model make them"
                " before fit, as by model(x[:1]), and all ranks begin with the same.",
                self.model.name,
                self.root_rank,
            )
        self._share()
        self._shared = None

    def on_train_end(self, logs: Logs = None) -> None:
        """Stops watching the training steps."""
        stop_watching(self.model)

    def _require_batches(self) -> None:
        """Raises on every rank unless `fit` is about to show batches to the model.

        Collective: every rank must call this.
        """
        with self._world.together("looking for the model's weights"):
            if self.model.train_function is None:
                raise ValueError(
                    f"model '{self.model.name}' has no weights yet, or not all of them; call it on"
                    " one batch, as model(x[:1]), so that all ranks begin with the same"
                )

    def _build_and_share(self, batches: Any) -> None:
        """Builds the model for the batches to come, then gives every rank the root's state.

        Collective: every rank must call this.
        """
        build_for(self.model, batches.element_spec)
        self._share()

    def _share(self) -> None:
        """Gives every rank the root's state. Collective: every rank must call this."""
        optimizer = self.model.optimizer
        # A rank that has loaded its model has a built optimizer, and broadcasts its variables; the
        # others must have them too. But an optimizer that is built for some weights refuses the
        # others: if there may be more to come, it is left to the first step.
        built = any(self._world.allgather("looking at the optimizer", bool(optimizer.built)))
        has_all = bool(self.model.trainable_variables) and (built or is_whole(self.model))
        if has_all and not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        if share_state(
            self.model,
            optimizer,
            root_rank=self.root_rank,
            local=self._local,
            device=self.device,
        ):
            trace_anew(self.model)
        self._shared = self._count()

    def _count(self) -> tuple[int, int]:
        """Returns the number of the model's weights, and that of them and the optimizer's."""
        n_weights = len(self.model.weights)
        return n_weights, n_weights + len(self.model.optimizer.variables)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Checks that all ranks begin at the same epoch, which BackupAndRestore may break.

        Collective: every rank must call this.
        """
        if self._begun:
            self._begun = False
            _agree_on(self._world, "comparing the first epochs", "epochs that are done", epoch)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Votes now and then on whether to leave the epoch.

        Collective: every rank must call this.
        """
        if self._vote is not None:
            self._vote.count_batch()

    def on_test_begin(self, logs: Logs = None) -> None:
        """Averages the moving statistics. Collective: every rank must call this."""
        average_statistics(self.model, local_variables=self._local)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Averages the moving statistics. Collective: every rank must call this."""
        average_statistics(self.model, local_variables=self._local)


def _agree_on(world: World, phase: str, what: str, count: int | None) -> None:
    """Raises on every rank unless all have the same count.

    Collective: every rank must call this.
    """
    world.same(
        phase,
        # The count may be NumPy's, which JSON does not know.
        None if count is None else int(count),
        f"the ranks have different numbers of {what}, so that some would wait for others that have"
        " left",
    )
