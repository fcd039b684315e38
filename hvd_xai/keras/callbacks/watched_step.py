"""Watches training steps, in which a rank waits for the gradients of the others."""

from collections.abc import Callable
from typing import Any

import keras

from hvd_xai.ranks.watchdog import Watch
from hvd_xai.ranks.world import World


class _WatchedStep:
    def __init__(self, step: "Callable[..., Any]", watch: Watch) -> None:
        self.step, self.watch = step, watch

    def __call__(self, *args: Any) -> Any:
        with self.watch:
            return self.step(*args)


def watch_steps(model: "keras.Model", world: World) -> None:
    """Guards every training step of the model by the deadline, until `stop_watching`.

    Collective: every rank must call this.
    """
    # `fit` has made it when it calls on_train_begin; a loop of the user's own has none.
    if model.train_function is not None:
        model.train_function = _WatchedStep(model.train_function, world.watch("a training step"))


def stop_watching(model: "keras.Model") -> None:
    """Gives the model its own training step back."""
    step = model.train_function
    if isinstance(step, _WatchedStep):
        step.watch.stop()
        model.train_function = step.step
