"""Explains the probe after every epoch with integrated gradients and, for images, Grad-CAM.

hvd-xai train digits_cnn --callback explain_every_epoch --set n_steps=100 --set every=2
hvd-xai train digits_cnn --method grad_cam --method integrated_gradients
"""

from functools import partial
from typing import Literal

import keras

from hvd_xai import Explain, Training
from hvd_xai.attributions.grad_cam import grad_cam
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.sinks.tensorboard import TensorBoard


def build(
    training: Training,
    *,
    methods: tuple[str, ...] = (),
    n_steps: int = 50,
    layer: str | None = None,
    every: int = 1,
    precision: Literal["bfloat16"] | None = None,
) -> list[keras.callbacks.Callback]:
    """Returns the callback that explains.

    Args:
        training: the ranks, the probe and the run directory.
        methods: names of other methods to explain with.
        n_steps: number of points on the path of integrated gradients.
        layer: name of the layer that Grad-CAM looks at; the last one with a spatial output if None.
        every: number of epochs from one explanation to the next.
        precision: `bfloat16` computes attributions in that type, which is faster on hardware that
            has it; training stays as it is.

    Example:
        >>> from hvd_xai import RunDirectory, Training
        >>> from hvd_xai.protocols import Silent
        >>> training = Training(world, probe, RunDirectory("runs/new"), epochs=5, progress=Silent())
        >>> [explain] = build(training, n_steps=100, every=2)
        >>> explain.every
        2
    """
    with_options = {
        "integrated_gradients": partial(integrated_gradients, n_steps=n_steps),
        "grad_cam": partial(grad_cam, layer=layer),
    }
    # Images have the axes examples, height, width, channels.
    is_image = training.probe.inputs.ndim == 4
    names = methods or (
        ("integrated_gradients", "grad_cam") if is_image else ("integrated_gradients",)
    )
    return [
        Explain(
            training.probe,
            [with_options.get(name, name) for name in names],
            world=training.world,
            run=training.run,
            sinks=[TensorBoard()],
            every=every,
            progress=training.progress,
            precision=precision,
        )
    ]
