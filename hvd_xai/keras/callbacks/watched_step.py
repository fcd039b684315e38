"""Watches training steps, in which a rank waits for the gradients of the others."""

from collections.abc import Callable
from typing import Any

import keras

from hvd_xai.ranks.watchdog import Watch
from hvd_xai.ranks.world import World


class _WatchedStep:
    def __init__(
        self, step: "Callable[..., Any]", watch: Watch, prepare: "Callable[[Any], None] | None"
    ) -> None:
        self.step, self.watch, self.prepare = step, watch, prepare

    def __call__(self, batches: Any) -> Any:
        if self.prepare is not None:
            prepare, self.prepare = self.prepare, None
            prepare(batches)
        with self.watch:
            return self.step(batches)


def watch_steps(
    model: "keras.Model", world: World, prepare: "Callable[[Any], None] | None" = None
) -> None:
    """Guards every training step of the model by the deadline, until `stop_watching`.

    Collective: every rank must call this.

    Args:
        model: model that `fit` trains.
        world: ranks that train together.
        prepare: function to call once before the first step, with the iterator over the batches.
    """
    # `fit` has made it when it calls on_train_begin; a loop of the user's own has none.
    if model.train_function is not None:
        watch = world.watch("a training step")
        model.train_function = _WatchedStep(model.train_function, watch, prepare)


def trace_anew(model: "keras.Model") -> None:
    """Makes the model trace all of its steps again, which hold what its layers computed with then.

    The guard of the training step stays.
    """
    model.test_function = model.predict_function = None
    step = model.train_function
    if step is None:
        return
    model.make_train_function(force=True)
    if isinstance(step, _WatchedStep):
        step.step, model.train_function = model.train_function, step


def stop_watching(model: "keras.Model") -> None:
    """Gives the model its own training step back."""
    step = model.train_function
    if isinstance(step, _WatchedStep):
        step.watch.stop()
        model.train_function = step.step
