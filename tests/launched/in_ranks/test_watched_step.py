"""Training steps are watched while training lasts, and no longer."""

import threading

import keras
import numpy as np
import pytest

from hvd_xai.ranks.world import World
from tests.launched.fitting import first_callbacks, make_model


def _watches() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hvd_xai-watch"]


def test_steps_are_watched_while_training_lasts_and_come_out_the_same(world: World) -> None:
    class Look(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            seen.append(len(set(_watches()) - of_others))
            if fails and batch == 1:
                raise OSError("a callback fails on all ranks")

    of_others = set(_watches())
    random = np.random.default_rng(world.rank)
    x, y = (
        random.normal(size=(8, 5)).astype("float32"),
        random.normal(size=(8, 3)).astype("float32"),
    )
    weights = []
    for callbacks in ([*first_callbacks(), Look()], []):
        model, fails, seen = make_model(), False, list[int]()
        model.jit_compile = False
        model.fit(x, y, batch_size=2, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
        weights.append(model.get_weights())
        assert {n > 0 for n in seen} <= {world.size > 1}
    np.testing.assert_equal(*weights)

    fails, step = True, model.train_function
    with pytest.raises(OSError, match="on all ranks"):
        model.fit(
            x, y, batch_size=2, shuffle=False, verbose=0, callbacks=[*first_callbacks(), Look()]
        )
    fails = False
    model.fit(x, y, batch_size=2, shuffle=False, verbose=0, callbacks=first_callbacks())
    assert model.train_function is step
    for thread in set(_watches()) - of_others:
        thread.join(30)
        assert not thread.is_alive()
