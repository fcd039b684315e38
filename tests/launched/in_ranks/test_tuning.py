"""What Horovod tunes and records while it reduces changes nothing that it reduces.

Two ranks run this as Horovod comes; those of `horovodrun --gloo` with HOROVOD_AUTOTUNE and
HOROVOD_TIMELINE set, and `test_in_ranks.py` looks at what they wrote.
"""

import keras
import numpy as np
import tensorflow as tf

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World

N_STEPS = 60  # more than autotuning takes as it is set


def test_training_is_that_of_one_process(world: World) -> None:
    random = np.random.default_rng(0)
    start = random.normal(size=(40, 30)).astype("float32")
    gradients = random.normal(size=(N_STEPS, world.size, *start.shape)).astype("float32")
    alone, together = keras.Variable(start), keras.Variable(start)
    plain = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(0.1, momentum=0.9), name="tuned")
    step = tf.function(lambda gradient: optimizer.apply([gradient], [together]), autograph=False)
    for of_ranks in gradients:
        plain.apply([tf.constant(of_ranks.mean(axis=0))], [alone])
        step(tf.constant(of_ranks[world.rank]))
    np.testing.assert_allclose(together.numpy(), alone.numpy(), atol=1e-5)
    assert (
        len({str(entry) for entry in world.allgather("testing", together.numpy().tobytes().hex())})
        == 1
    )
