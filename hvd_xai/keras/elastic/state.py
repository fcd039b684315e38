"""Keeps the state that an elastic job goes back to when it loses a host."""

import copy
from typing import Any

import horovod.tensorflow as horovod
import keras
import numpy as np
from horovod.common.elastic import ObjectState

from hvd_xai.keras.callbacks.watched_step import trace_anew
from hvd_xai.keras.shared_state import share_state
from hvd_xai.keras.shared_variables import unique
from hvd_xai.keras.start import init, require_started
from hvd_xai.ranks.transport import ROOT


class KerasState(ObjectState):  # type: ignore[misc]  # horovod ships no types
    """Holds what training goes on from: model, optimizer and named values, committed to memory.

    A commit copies all variables of the model and the optimizer, and the named attributes, whose
    values can be anything that pickles. Each rank commits and restores the seeds of dropout and
    augmentation for itself: with equal seeds every rank would drop out the same units.

    An optimizer that is not built is built here: a rank that joins must have the variables that the
    others send it.

    Args:
        model: built Keras model, the same on every rank.
        optimizer: optimizer to commit; the model's own if None.
        kwargs: names and first values of further attributes, such as `epoch=0` and `batch=0`.

    Raises:
        ValueError: if the model is not built, has no optimizer while none is given, or the state
            has an attribute of a given name already.
        WorldError: if `init()` was not called before.

    Example:
        >>> import keras
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
        >>> state = hvd.elastic.KerasState(model, epoch=0, batch=0)
        >>> state.epoch = 7
        >>> state.restore()
        >>> state.epoch
        0
    """

    def __init__(
        self,
        model: "keras.Model",
        optimizer: "keras.optimizers.Optimizer | None" = None,
        **kwargs: object,
    ) -> None:
        require_started("KerasState")
        optimizer = optimizer if optimizer is not None else getattr(model, "optimizer", None)
        # Dropout has the state of its seed before any layer has weights.
        if not model.built or (model.variables and not model.weights):
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
        """Raises an error that names the attributes that there are."""
        saved = self.__dict__.get("_saved_state", {})
        raise AttributeError(
            f"KerasState has no attribute '{name}'; it was made with: {', '.join(saved) or 'none'}"
        )

    def save(self) -> None:
        """Copies everything to memory; does not look for new hosts, unlike `commit`."""
        self._committed = [np.array(variable.value.numpy()) for variable in self._variables()]
        self._saved_state = {name: copy.deepcopy(getattr(self, name)) for name in self._saved_state}

    def restore(self) -> None:
        """Takes everything back to the last commit."""
        for variable, value in zip(self._variables(), self._committed, strict=True):
            variable.assign(value)
        self._set_attrs()

    def sync(self) -> None:
        """Gives every rank the root's state and its committed attributes, and commits.

        Collective: every rank must call this.

        Raises:
            ValueError: on every rank, if the ranks' models or optimizers differ.
        """
        if share_state(self.model, self.optimizer):
            trace_anew(self.model)
        self._saved_state = _broadcast_object(self._saved_state)
        self._set_attrs()
        self.save()

    def _set_attrs(self) -> None:
        # Copies: a committed list must not grow with the list in use.
        for name, value in self._saved_state.items():
            setattr(self, name, copy.deepcopy(value))

    def _variables(self) -> "list[keras.Variable]":
        # With the states of seed generators, which each rank commits for itself.
        return list(unique([*self.model.variables, *self.optimizer.variables]))


def _broadcast_object(value: object) -> Any:
    """Returns the root's object. Collective: every rank must call this."""
    with init().waiting("synchronising the state"):
        return horovod.broadcast_object(value, ROOT, name="hvd_xai.elastic")
