"""Holds the callbacks that every training has: they save the model and show progress."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from hvd_xai.errors import is_agreed
from hvd_xai.explain.callback import Explain
from hvd_xai.keras.model_files import (
    Trained,
    publish_model,
    remove_models,
    seed_states,
    stage_model,
)
from hvd_xai.protocols import Progress
from hvd_xai.ranks.world import World

log = logging.getLogger(__name__)


class SaveModel(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Saves the model after each epoch, and publishes it once its explanations are committed.

    So a model that is there has its explanations, and a run can go on from the pair. Where the
    explanations may be lost without an end to training, so may a model: training goes on, and the
    last model must be saved at its end.

    Args:
        folder: folder of the run's models; only the root writes to it.
        world: ranks that train.
        learning_rate: learning rate of one rank, None if it is a schedule.
        explains: callbacks whose explanations a model waits for.
        anew: whether to remove the models of an earlier run when training begins.
    """

    def __init__(
        self,
        folder: Path,
        world: World,
        learning_rate: float | None,
        explains: Sequence[Explain],
        *,
        anew: bool,
    ) -> None:
        super().__init__()
        self._folder = folder
        self._world = world
        self._learning_rate = learning_rate
        self._explains = explains
        self._anew = anew
        self._staged: int | None = None
        self._unsaved: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Removes the models of another run, from which this one must not be resumed.

        Collective: every rank must call this.
        """
        with self._world.together("removing old models"):
            if self._world.is_root and self._anew:
                remove_models(self._folder)
        # Work under way is finished in the order of this list: the explanations stand in it first.
        self._world.under_way.append(self._finish)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Publishes the last epoch's model as soon as its explanations are committed.

        An error here is one of the root alone, which the watchdog turns into the end of the job.
        """
        self._publish()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves the model and its optimizer. Collective: every rank must call this."""
        self._unsaved = None
        try:
            self._save(epoch)
        except Exception as error:
            # An error that the ranks agreed on leaves them together, to go on together.
            spares = any(explain.on_error == "warn" for explain in self._explains)
            if not (spares and is_agreed(error)):
                raise
            self._unsaved = epoch
            if self._world.is_root:
                log.warning(
                    "the model of epoch %d is not saved, and training goes on without it: %s",
                    epoch,
                    error,
                )

    def _save(self, epoch: int) -> None:
        """Saves the model of an epoch. Collective: every rank must call this."""
        seeds = self._world.allgather("gathering the seeds", seed_states(self.model))
        with self._world.together("saving the model"):
            if self._world.is_root:
                # There is one place for a model that waits: the one before must have left it.
                self._publish()
                step = int(self.model.optimizer.iterations)
                trained = Trained(epoch, step, self._world.size, self._learning_rate, seeds)
                stage_model(self.model, self._folder, trained)
                self._staged = epoch
                self._publish()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Publishes the last model. Collective: every rank must call this.

        If it could not be saved at the end of its epoch, this tries again, and fails if it must: a
        job that ends well has its model.
        """
        if self._unsaved is not None:
            self._save(self._unsaved)
        with self._world.together("saving the model"):
            self._publish()
        self._world.under_way.remove(self._finish)

    def _finish(self, together: bool) -> None:
        self._publish()

    def _publish(self) -> None:
        if self._staged is not None and all(
            explain.has_settled(self._staged) for explain in self._explains
        ):
            publish_model(self._folder, self._staged)
            self._staged = None


class Report(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Moves a progress bar while an epoch trains, and says in one line what came of it.

    Args:
        progress: where to show it.
        explains: callbacks whose times stand in the line.
    """

    def __init__(self, progress: Progress, explains: Sequence[Explain]) -> None:
        super().__init__()
        self._progress, self._explains = progress, explains
        self._began = self._trained = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins a bar for the epoch."""
        self._progress.start(f"epoch {epoch}  training", self.params["steps"])
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar."""
        self._progress.advance()
        # The time up to the epoch's last batch counts as training: what follows explains and saves.
        self._trained = time.perf_counter() - self._began

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Says the epoch's metrics, and the seconds of each of its stages."""
        seconds = {"train": self._trained}
        for explain in self._explains:
            for stage, spent in (explain.summary.seconds if explain.summary else {}).items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
        values = "  ".join(
            f"{name} {value:.4g}"
            for name, value in (logs or {}).items()
            # Callbacks that change the learning rate add it to the metrics; it is none.
            if isinstance(value, float) and name != "lr"
        )
        times = "  ".join(f"{stage} {spent:.1f} s" for stage, spent in seconds.items())
        self._progress.say(f"epoch {epoch}  {values}  |  {times}")
