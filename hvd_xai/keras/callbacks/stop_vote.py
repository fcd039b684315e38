"""Lets all ranks leave `fit` at the same batch, where a callback of any rank stops training."""

from functools import partial
from typing import Any

import keras

from hvd_xai.ranks.world import World

# Floats, and whatever else a model logs.
Logs = dict[str, Any] | None

# Number of batches between two votes; a vote costs a millisecond at most, and some steps take no
# longer.
VOTE_EVERY = 32

# Name of the attribute that marks a model.
_AGREED = "_hvd_xai_ends_epoch"


class StopVote:
    """Turns the stop of one rank into a stop of all ranks, for one `fit`.

    A rank that left `fit` by itself would leave the others waiting for its gradients. So within an
    epoch a rank's wish to stop is held back until the next vote; at the epoch's end there is always
    a vote.

    Args:
        world: ranks that train together.
        model: model that is trained; its `stop_training` is what callbacks set.
    """

    def __init__(self, world: World, model: "keras.Model") -> None:
        self._world = world
        self._model = model
        self._n_batches = 0
        self._wants_stop = self._stops = False
        # Every callback may set the flag, so that we must look at it after the last of them. Keras
        # puts History behind all callbacks of the user.
        history = getattr(model, "history", None)
        if isinstance(history, keras.callbacks.History):
            history.on_train_batch_end = self._hold_back
            history.on_epoch_end = partial(self._stop_together, history)

    def count_batch(self) -> None:
        """Votes at every 32nd batch on whether to leave the epoch.

        Collective: every rank must call this.
        """
        self._n_batches += 1
        if self._n_batches % VOTE_EVERY == 0 and not self._stops:
            self._stops = any(self._world.allgather("voting on a stop", self._wants_stop))
            if self._stops:
                # Keras looks at this attribute after the batch.
                self._model.stop_training = True

    def _hold_back(self, batch: int, logs: Logs = None) -> None:
        """Notes that this rank wants to stop, and keeps it from leaving the epoch alone."""
        agreed = self._stops or getattr(self._model, _AGREED, False)
        if self._model.stop_training and not agreed:
            self._wants_stop = True
            self._model.stop_training = False

    def _stop_together(
        self, history: "keras.callbacks.History", epoch: int, logs: Logs = None
    ) -> None:
        """Ends the training of all ranks if any wants to. Collective: every rank must call this."""
        type(history).on_epoch_end(history, epoch, logs)
        setattr(self._model, _AGREED, False)
        wants = bool(self._model.stop_training) or self._wants_stop
        # One message for two questions: a vote at each epoch is paid for anyway.
        answers = self._world.allgather(
            "voting on a stop", (wants, float(self._model.optimizer.learning_rate))
        )
        votes, rates = zip(*answers, strict=True)
        self._model.stop_training = any(votes)
        odd = next((rank for rank, rate in enumerate(rates) if str(rate) != str(rates[0])), None)
        error = None
        if odd is not None:
            error = ValueError(
                f"the ranks train with different learning rates: rank 0 with {rates[0]:g}, rank"
                f" {odd} with {rates[odd]:g}. Give every rank the callbacks that change it, behind"
                " MetricAverageCallback."
            )
        self._world.agree("comparing the learning rates", error)


def end_epoch(model: "keras.Model") -> None:
    """Ends the epoch after this batch, without a vote.

    Every rank must call this at the same batch, from `on_train_batch_end`. It sets
    `model.stop_training`; clear that at the epoch's end if training is to go on.
    """
    setattr(model, _AGREED, True)
    model.stop_training = True
