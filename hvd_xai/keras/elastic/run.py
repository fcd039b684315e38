"""Calls a training function again whenever the ranks of an elastic job have changed."""

import functools
import logging
import os
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import tensorflow as tf
from horovod.common.elastic import notification_manager
from horovod.common.exceptions import HorovodInternalError, HostsUpdatedInterrupt

from hvd_xai.keras.elastic.state import KerasState
from hvd_xai.keras.start import init, require_started
from hvd_xai.ranks.launcher import is_elastic

log = logging.getLogger(__name__)

Args = ParamSpec("Args")
Result = TypeVar("Result")


def run(
    function: "Callable[Concatenate[KerasState, Args], Result]",
) -> "Callable[Concatenate[KerasState, Args], Result]":
    """Makes a training function go on when ranks come and go.

    Collective: every rank must call the function that this returns. It gives all ranks the root's
    state first, and again after each reset, and then calls the function anew. In a job that is not
    elastic, the function is called once, and its errors are raised as they are.

    Args:
        function: function that takes the state first. It trains from what the state says, and
            contains all of the job's collectives.

    Returns:
        The function, to be called in the same way. It returns what the function returns, and raises
        what the function raises, unless that is a collective that failed for a lost rank.

    Example:
        >>> import keras
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
        >>> train = hvd.elastic.run(lambda state, n_epochs: n_epochs - state.epoch)
        >>> train(hvd.elastic.KerasState(model, epoch=2), 5)
        3
    """

    @functools.wraps(function)
    def elastic(state: KerasState, /, *args: Args.args, **kwargs: Args.kwargs) -> Result:
        require_started("hvd_xai.keras.elastic.run")
        notification_manager.init()
        notification_manager.register_listener(state)
        try:
            return _until_it_returns(state, functools.partial(function, state, *args, **kwargs))
        except SystemExit as left:
            # Horovod would take it for the successful end of the job.
            if is_elastic(os.environ):
                init().abort(f"it exited while it trained, with {left.code!r}", 1)
            raise
        finally:
            notification_manager.remove_listener(state)

    return elastic


def _until_it_returns(state: KerasState, function: "Callable[[], Result]") -> Result:
    """Calls a function again after each reset, until it returns or fails for a reason of its own.

    Collective: every rank must call this.
    """
    reset, synchronised = False, False
    while True:
        try:
            # Within the try: another host can be lost while the ranks meet.
            if reset:
                init().reconnect()
                state.on_reset()
                log.info("training goes on with %d ranks", init().size)
                reset = False
            if not synchronised:
                state.sync()
            return function()
        except HostsUpdatedInterrupt as update:
            # It comes from a commit. Where hosts only left, the ranks hold the same state.
            synchronised = update.skip_sync
        except (HorovodInternalError, tf.errors.UnknownError, tf.errors.AbortedError) as error:
            if not is_elastic(os.environ) or not _lost_a_rank(error):
                raise
            log.warning("a rank was lost; going back to the last commit")
            log.debug("what failed", exc_info=error)
            state.restore()
            synchronised = False
        reset = True


def _lost_a_rank(error: Exception) -> bool:
    """Returns whether a collective failed because a rank was lost."""
    # TensorFlow wraps the error of a collective in a graph: only the message tells.
    return isinstance(error, HorovodInternalError) or "Horovod" in str(error)
